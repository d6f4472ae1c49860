"""The warning of drift: raised where the new queries are shown to be worse, silent for few, for equal, and for better ones."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.operation import DriftSettings
from geoloc_dagster.dataset.schema import CAPTURES, CATALOG
from geoloc_dagster.defs.checks import drift_check
from geoloc_dagster.defs.region import Region
from geoloc_dagster.evaluation.cluster_mean import cluster_mean
from geoloc_dagster.prediction.drift import Drift, measure_drift
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.tables import append_rows
from geoloc_dagster_tests.prediction.world import FIRST, NOW, write_evaluation, write_model

N, NEW = 400, 120
"""Queries, four per place; the last 120 are of this year and were fetched after the training of the first of November."""


def region(root: Path, share_new: float, share_before: float = 0.7, *, new: int = NEW, fetched: dt.datetime = NOW) -> Layout:
    layout, rng = Layout(root), np.random.default_rng(0)
    found = [bool(rng.random() < (share_new if i >= N - new else share_before)) for i in range(N)]
    write_model(layout, FIRST)
    write_evaluation(layout, FIRST, found)
    promote_best(layout, ["retrieval"], now=NOW)
    days = [dt.date(2026, 9, 1) if i >= N - new else dt.date(2022, 6, 1) for i in range(N)]
    common = {
        "batch": "100m-0000", "source": "x", "lat_deg": 59.0, "lng_deg": 18.0, "licence": "CC0-1.0", "attribution": "nobody",
    }  # fmt: skip
    catalog = {"series": "100m", "district": "d", "view": "r0", "flags": [], "split": "test", "usable": True, "is_query": True}
    capture = {"provider": "x", "capture_precision": "day", "run_id": "1", "status": "ok"}
    rows = [{**common, "capture_id": f"q{i}", "location_id": str(i // 4), "captured_on": day} for i, day in enumerate(days)]
    storage.write_parquet(layout.catalog, pa.Table.from_pylist([row | catalog for row in rows], schema=CATALOG))
    before = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
    captured = [row | capture | {"fetched_at": fetched if i >= N - new else before} for i, row in enumerate(rows)]
    append_rows(layout.panoramas, pa.Table.from_pylist(captured, schema=CAPTURES))
    return layout


def drifts(layout: Layout, **settings: float) -> tuple[Drift, Drift]:
    late, since = measure_drift(layout, DriftSettings(**settings))
    return late, since


def test_new_pictures_that_are_not_found_raise_the_warning_with_figures(tmp_path: Path) -> None:
    late, since = drifts(region(tmp_path, 0.3))
    assert late.worse
    assert since.worse
    assert late.said.startswith("worse: ")
    assert "of 120 queries captured lately (30 places) against " in late.said
    assert "of 120 queries collected since the training" in since.said
    assert late.at_best < -0.02


@pytest.mark.parametrize("share_new", [0.7, 0.95])
def test_equal_and_better_ones_do_not(tmp_path: Path, share_new: float) -> None:
    late, since = drifts(region(tmp_path, share_new))
    assert not late.worse
    assert not since.worse
    assert late.said.startswith("within what it did before: ")


def test_few_new_queries_say_nothing_and_are_counted(tmp_path: Path) -> None:
    late, _ = drifts(region(tmp_path, 0.0, new=24))
    assert not late.worse
    assert late.said == "24 queries captured lately at 6 places say nothing: 30 at 10 places are needed"
    assert drifts(region(tmp_path / "b", 0.0, new=24), min_queries=20, min_places=5)[0].worse


def test_a_wider_margin_lets_a_loss_pass(tmp_path: Path) -> None:
    layout = region(tmp_path, 0.5)
    assert drifts(layout)[0].worse
    assert not drifts(layout, margin=0.3)[0].worse


def test_what_was_fetched_before_the_training_is_not_new(tmp_path: Path) -> None:
    late, since = drifts(region(tmp_path, 0.3, fetched=dt.datetime(2026, 10, 2, tzinfo=dt.UTC)))
    assert late.worse
    assert (since.worse, since.new) == (False, None)
    assert since.said.startswith("0 queries collected since the training")


def test_false_alarms_are_rare_although_queries_of_one_place_stand_and_fall_together(tmp_path: Path) -> None:
    from geoloc_dagster.prediction.drift import compare_new

    rng, alarms = np.random.default_rng(7), 0
    places, new = np.repeat(np.arange(60), 4).astype(str), np.arange(240) >= 160
    for _ in range(300):
        share = np.repeat(np.clip(rng.normal(0.6, 0.3, 60), 0, 1), 4)
        merit = (rng.random(240) < share).astype(float)
        alarms += compare_new("captured lately", merit, places, new, DriftSettings(margin=0)).worse
    assert alarms <= 0.05 * 300


def test_the_check_is_a_warning_that_names_the_model_kind(tmp_path: Path) -> None:
    layout = region(tmp_path, 0.3)
    place = {"name": "aland", "boundary": "region.geojson", "start_point": (60.1, 19.9)}
    result = drift_check(Region(Settings(region=place, data_root=layout.root)))
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert "retrieval: worse: " in (result.description or "")
    assert result.metadata["retrieval_captured_queries"].value == NEW


def test_a_mean_over_places_is_as_wide_as_its_places_allow() -> None:
    values, places = np.array([1.0, 1, 1, 1, 0, 0, 0, 0]), np.array(["a"] * 4 + ["b"] * 4)
    by_place, by_query = cluster_mean(values, places), cluster_mean(values, np.arange(8).astype(str))
    assert by_place.mean == by_query.mean == 0.5
    assert by_place.error > 2 * by_query.error
    assert cluster_mean(values[:4], places[:4]).error == float("inf")
    with pytest.raises(ValueError, match="at least one query"):
        cluster_mean(values[:0], places[:0])
