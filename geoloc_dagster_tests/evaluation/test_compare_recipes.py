from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from shapely.geometry import box

from geoloc_dagster import storage
from geoloc_dagster.config import Layout
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NoReleaseError, NotEnoughDataError
from geoloc_dagster.evaluation.compare_recipes import compare_queries, compare_recipes, comparison_table, summarise_comparison
from geoloc_dagster.evaluation.geolocation import city_scale
from geoloc_dagster.geo.boundary import Boundary, write_boundary

N = 60
SCALE = city_scale(10_000.0)


def retrieval(found: np.ndarray, metres: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "capture_id": [f"q{i:02d}" for i in range(N)],
            "location_id": [f"p{i // 2}" for i in range(N)],
            "first_hit_rank": pa.array(np.where(found, 1, 3), pa.int32()),
            "distances_m": pa.array([[m, 9e9] for m in metres], pa.list_(pa.float32())),
        }
    )


def cells(metres: np.ndarray) -> pa.Table:
    ids = [f"q{i:02d}" for i in range(N)]
    return pa.table({"capture_id": ids, "location_id": [f"p{i // 2}" for i in range(N)], "hierarchy_error_m": metres})


GOOD = retrieval(np.arange(N) % 10 != 0, np.where(np.arange(N) % 10 != 0, 5.0, 2000.0))
POOR = retrieval(np.arange(N) % 2 == 0, np.where(np.arange(N) % 2 == 0, 5.0, 2000.0))
WHERE = pa.table(
    {
        "capture_id": [f"q{i:02d}" for i in range(N)],
        "year": pa.array([2020 + (i >= 40) if i else None for i in range(N)], pa.int16()),
        "district": ["North" if i < 6 else "South" for i in range(N)],
    }
)


def gains(result):
    return {(gain.part, gain.measure): gain for gain in result.gains}


def test_the_better_recipe_is_called_better_and_the_other_way_round_worse():
    one = gains(compare_queries(GOOD, POOR, WHERE, SCALE, bootstrap=500))
    overall = one["all", "R@1"]
    assert (overall.a, overall.b) == (pytest.approx(0.9), pytest.approx(0.5))
    assert overall.difference.difference == pytest.approx(0.4)
    assert overall.difference.low < 0.4 < overall.difference.high
    assert overall.verdict == "better"
    assert one["all", "GeoScore"].verdict == one["all", "within 25 m"].verdict == "better"
    other = gains(compare_queries(POOR, GOOD, WHERE, SCALE, bootstrap=500))
    assert other["all", "R@1"].verdict == "worse"
    assert other["all", "R@1"].difference.difference == pytest.approx(-0.4)


def test_parts_are_years_and_districts_and_three_places_give_no_verdict():
    one = gains(compare_queries(GOOD, POOR, WHERE, SCALE, bootstrap=500))
    assert {part for part, _ in one} == {"all", "year 2020", "year 2021", "year unknown", "district North", "district South"}
    assert (one["year 2021", "R@1"].difference.n_queries, one["year 2020", "R@1"].difference.n_queries) == (20, 39)
    assert one["district North", "R@1"].difference.n_places == 3
    assert one["district North", "R@1"].verdict == "neither"


def test_queries_are_matched_by_name_and_those_of_one_only_are_left_out():
    shuffled = POOR.take(pa.array(np.random.default_rng(0).permutation(N)))
    whole = compare_queries(GOOD, POOR, WHERE, SCALE, bootstrap=50)
    assert compare_queries(GOOD, shuffled, WHERE, SCALE, bootstrap=50) == whole
    part = compare_queries(GOOD, POOR.slice(0, 50), WHERE, SCALE, bootstrap=50)
    assert (part.n_common, part.n_a, part.n_b) == (50, 60, 50)
    with pytest.raises(ModelMismatchError, match="no query in common"):
        compare_queries(GOOD, POOR.slice(0, 0), WHERE, SCALE)


def test_a_recipe_against_itself_is_neither():
    for gain in compare_queries(GOOD, GOOD, WHERE, SCALE, bootstrap=50).gains:
        assert (gain.difference.difference, gain.verdict) == (0.0, "neither")


def test_retrieval_against_cells_is_compared_by_distance_alone():
    result = compare_queries(GOOD, cells(np.full(N, 300.0)), WHERE, SCALE, bootstrap=200)
    measures = {gain.measure for gain in result.gains}
    assert "R@1" not in measures
    assert {"within 250 m", "within 1 km", "GeoScore"} <= measures
    assert gains(result)["all", "within 1 km"].b == 1.0
    with pytest.raises(ModelMismatchError, match="no positions"):
        compare_queries(GOOD, pa.table({"capture_id": ["q00"], "location_id": ["p0"]}), WHERE, SCALE)


def test_the_table_shows_everything_overall_and_the_chief_measures_by_part():
    result = compare_queries(GOOD, POOR, WHERE, SCALE, names=("new", "old"), split="test", bootstrap=200)
    table = comparison_table(result)
    assert "new against old on test: 60 queries" in table.title
    assert [row[1] for row in table.rows if row[0] == "district South"] == ["R@1", "GeoScore"]
    assert len([row for row in table.rows if row[0] == "all"]) == 2 + len(SCALE.radii_m)
    assert summarise_comparison(result)["gains"][0]["verdict"] == "better"


@pytest.fixture
def region(tmp_path) -> Layout:
    layout = Layout(tmp_path / "data")
    write_boundary(layout.boundary, Boundary("made", box(18.0, 59.3, 18.1, 59.35), "EPSG:3006", 31.7))
    storage.write_parquet(layout.catalog, WHERE)
    for recipe, table, splits in (("new", GOOD, ("dev", "test")), ("old", POOR, ("test",)), ("lone", GOOD, ("dev",))):
        model = layout.checkpoints / recipe / f"{recipe}-1"
        facts = {"model_version": f"{recipe}-1", "trained_on_rows": 1, "finished_at": "2026-01-01T00:00:00+00:00"}
        storage.write_json(model / "training.json", facts)
        storage.write_manifest(model)
        for i, split in enumerate(splits):
            folder = layout.evaluations / recipe / (f"{recipe}-1" if i == 0 else f"{recipe}-1-{split}")
            storage.write_json(folder / "report.json", {"split": split})
            storage.write_parquet(folder / "queries.parquet", table)
            storage.write_manifest(folder)
    return layout


def test_the_newest_models_of_two_recipes_are_compared_on_the_split_of_both(region):
    result = compare_recipes(region, "new", "old", bootstrap=100)
    assert (result.name_a, result.name_b, result.split) == ("new", "old", "test")
    assert gains(result)["all", "R@1"].verdict == "better"
    assert compare_recipes(region, "new", "lone", bootstrap=100).split == "dev"


def test_what_cannot_be_compared_is_one_clear_error(region):
    with pytest.raises(NotEnoughDataError, match=r"old: test; lone: dev"):
        compare_recipes(region, "old", "lone")
    with pytest.raises(NotEnoughDataError, match="not both evaluated on dev"):
        compare_recipes(region, "new", "old", split="dev")
    with pytest.raises(NoReleaseError, match="nothing"):
        compare_recipes(region, "new", "nothing")
    (region.evaluations / "old" / "old-1" / "queries.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="has changed"):
        compare_recipes(region, "new", "old")
