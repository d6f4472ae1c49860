"""Two models side by side, and the queries that one finds or misses, from the folders that evaluations leave."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import shapely

from geoloc_dagster import storage
from geoloc_dagster.config import Layout
from geoloc_dagster.explorer import quality
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster_tests.prediction.streets import PLACES, write_streets

NEAR_M, FAR_M = 5.0, 4_000.0
GOOD, BAD = "cells-aaaaaaaaaaaa", "more-bbbbbbbbbbbb"


def evaluate(layout: Layout, recipe: str, version: str, error_m: list[float], split: str = "test") -> None:
    """An evaluation of a classifier whose answer to the newest picture of each place is so far off."""
    ids = [f"c{place:03d}-2" for place in range(len(error_m))]
    columns = {"capture_id": ids, "location_id": [str(place) for place in range(len(ids))], "hierarchy_error_m": error_m}
    with storage.atomic_folder(layout.evaluations / recipe / f"{version}-{split}") as folder:
        storage.write_json(folder / "report.json", {"kind": "cells", "split": split, "facts": {"model_version": version}})
        storage.write_parquet(folder / "queries.parquet", pa.table(columns))
        storage.write_manifest(folder)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """One model finds three quarters of the places, another one half of them."""
    made = Layout(tmp_path)
    write_streets(made)
    write_boundary(made.boundary, Boundary("testville", shapely.box(18.04, 59.30, 18.10, 59.34), "EPSG:32633", 15.0))
    evaluate(made, "cells", GOOD, [FAR_M if place % 4 == 0 else NEAR_M for place in range(PLACES)])
    evaluate(made, "more", BAD, [NEAR_M if place % 2 == 0 else FAR_M + place for place in range(PLACES)])
    return made


def test_what_one_model_gains_over_the_other_has_its_sign(layout: Layout):
    said = quality.compare(layout, GOOD, BAD)
    assert (said["a_value"], said["b_value"], said["n_queries"]) == (0.75, 0.5, PLACES)
    assert said["difference"] == pytest.approx(0.25)
    assert said["low"] < 0.25 < said["high"]
    assert said["verdict"] == "better"
    assert {one["name"]: one["n"] for one in said["by_district"]} == {"old town": PLACES // 2, "new town": PLACES // 2}
    turned = quality.compare(layout, BAD, GOOD)
    assert turned["difference"] == pytest.approx(-0.25)
    assert turned["verdict"] == "worse"


def test_hits_and_misses_are_those_of_the_model_and_the_worst_come_first(layout: Layout):
    misses = quality.hits_and_misses(layout, "more", BAD, hit=False, count=3)
    assert [one["distance_m"] for one in misses] == [FAR_M + PLACES - 1, FAR_M + PLACES - 3, FAR_M + PLACES - 5]
    assert misses[0]["url"] == f"views/c{PLACES - 1:03d}-2"
    hits = quality.hits_and_misses(layout, "cells", GOOD, hit=True, count=PLACES)
    assert len(hits) == PLACES * 3 // 4
    assert all(one["hit"] and one["distance_m"] == NEAR_M for one in hits)


def test_models_without_a_split_in_common_are_not_compared(layout: Layout):
    evaluate(layout, "other", "other-cccccccccccc", [NEAR_M] * 10, split="dev")
    with pytest.raises(Problem, match="not evaluated on one split"):
        quality.compare(layout, GOOD, "other-cccccccccccc")
    with pytest.raises(Problem, match="no such model"):
        quality.compare(layout, GOOD, "nobody")
    with pytest.raises(Problem, match="no such model"):
        quality.hits_and_misses(layout, "more", GOOD, hit=True, count=1)


def test_the_test_split_is_shown_where_a_model_was_measured_on_two(layout: Layout):
    evaluate(layout, "cells", GOOD, [FAR_M] * 10, split="dev")
    shown = {one["model_version"]: one["split"] for one in quality.quality(layout)["models"]}
    assert shown == {GOOD: "test", BAD: "test"}
