"""The order by gain does what a person would do who knows where the model is weak and where nothing is collected."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.expected_gain import Pictures, Points, order_by_gain
from geoloc_dagster.dataset.gain_order import order_pending
from geoloc_dagster.dataset.reach import Reach, assumed_reach, learn_reach
from geoloc_dagster.dataset.schema import CAPTURES, VISITS
from geoloc_dagster.imagery.nightly import batches_of_the_night
from geoloc_dagster.storage import write_geoparquet, write_json, write_parquet
from geoloc_dagster.tables import append_rows, open_table
from geoloc_dagster_tests.dataset.exported import NOW, fill

STREET_M = np.stack([np.arange(0, 2_000, 10.0), np.zeros(200)], axis=1)


def at(*metres: float, age: float = 0.0) -> Pictures:
    return Pictures(np.array([[x, 0.0] for x in metres]).reshape(-1, 2), np.full(len(metres), age))


def street(reach: Reach | None = None, weight: np.ndarray | None = None) -> Points:
    return Points(STREET_M, np.ones(200) if weight is None else weight, reach or assumed_reach(200))


def keys(points: Points, held: Pictures, batches: dict[str, Pictures]) -> list[str]:
    return [gain.key for gain in order_by_gain(points, held, batches)]


def test_what_is_not_covered_comes_before_what_is() -> None:
    assert keys(street(), at(100, 200, 300), {"near": at(150, 250), "far": at(900, 1_000)}) == ["far", "near"]


def test_equal_batches_stay_in_rank_order() -> None:
    assert keys(street(), at(), {"b": at(400.0), "a": at(1_400.0)}) == ["b", "a"]
    assert keys(street(), at(), {"a": at(1_400.0), "b": at(400.0)}) == ["a", "b"]


def test_two_batches_of_one_street_do_not_count_it_twice() -> None:
    batches = {"first": at(500, 600), "beside it": at(505, 605), "elsewhere": at(1_500, 1_800)}
    assert keys(street(), at(), batches)[-1] != "elsewhere"


def test_gain_is_counted_per_location() -> None:
    assert keys(street(), at(), {"many": at(*np.arange(400, 500, 5)), "few": at(1_500.0)}) == ["few", "many"]


def test_old_pictures_are_worth_replacing_and_new_ones_are_not() -> None:
    held = Pictures(np.array([[500.0, 0], [1_500.0, 0]]), np.array([1.0, 14.0]))
    assert keys(street(), held, {"new": at(500.0), "old": at(1_500.0)}) == ["old", "new"]


def test_points_with_vague_answers_weigh_more() -> None:
    weight = np.where(STREET_M[:, 0] > 1_000, 1.5, 1.0)
    assert keys(street(weight=weight), at(), {"sharp": at(500.0), "vague": at(1_500.0)}) == ["vague", "sharp"]


def test_the_greedy_order_is_that_of_trying_every_batch_each_time() -> None:
    rng = np.random.default_rng(3)
    batches = {f"b{i}": at(*rng.uniform(0, 2_000, 4), age=float(rng.uniform(0, 10))) for i in range(12)}
    points, held = street(weight=rng.uniform(0.5, 2, 200)), at(*rng.uniform(0, 2_000, 3))
    slow: list[str] = []
    while len(slow) < len(batches):
        taken = [held, *(batches[key] for key in slow)]
        so_far = Pictures(np.concatenate([one.xyz_m for one in taken]), np.concatenate([one.age_years for one in taken]))
        slow.append(order_by_gain(points, so_far, {key: one for key, one in batches.items() if key not in slow}, most=1)[0].key)
    assert keys(points, held, batches) == slow


def asked(short_m: float, long_m: float, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries along the street, whose western half has the short reach: positions, nearest picture, found or not, places."""
    rng = np.random.default_rng(0)
    x, nearest = rng.uniform(0, 2_000, n), rng.uniform(0, 120, n)
    reach = np.where(x < 1_000, short_m, long_m)
    found = rng.random(n) < 0.9 * np.exp(-0.5 * (nearest / reach) ** 2)
    return np.stack([x, np.zeros(n)], axis=1), nearest, found, np.array([str(i) for i in range(n)])


def test_the_reach_is_learned_where_it_differs() -> None:
    reach = learn_reach(STREET_M, *asked(20.0, 80.0))
    typical = reach.typical_m()
    assert typical[20] == pytest.approx(20, rel=0.4)
    assert typical[180] == pytest.approx(80, rel=0.4)
    assert reach.ceiling == pytest.approx(0.9, abs=0.15)
    assert reach.places == 400


def test_far_from_any_query_the_reach_is_that_of_the_region() -> None:
    points = np.concatenate([STREET_M, [[50_000.0, 0.0]]])
    reach = learn_reach(points, *asked(40.0, 40.0))
    assert reach.typical_m()[-1] == pytest.approx(40, rel=0.25)


def test_where_a_picture_reaches_far_another_one_beside_it_adds_less() -> None:
    reach = learn_reach(STREET_M, *asked(20.0, 80.0))
    held = at(*np.arange(0, 2_000, 100.0))
    assert keys(street(reach), held, {"east": at(1_450, 1_650), "west": at(350, 550)})[0] == "west"


def test_a_place_weighs_as_much_however_many_queries_ask_about_it() -> None:
    where, nearest, found, places = asked(20.0, 80.0, n=100)
    once = learn_reach(STREET_M, where, nearest, found, places)
    thrice = learn_reach(STREET_M, *(np.concatenate([one] * 3) for one in (where, nearest, found, places)))
    np.testing.assert_allclose(once.weights, thrice.weights, atol=1e-9)


# --- from the tables of a region ----------------------------------------------------------------------------------------
BATCHES = {"100m-0000": 0, "100m-0001": 10, "100m-0002": 20}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three batches of five locations; the first is collected, the second lies beside it, the third far away."""
    layout = Layout(tmp_path)
    rows = [(f"{batch}-{i}", batch, 59.0 + (first + i) * 2e-4) for batch, first in BATCHES.items() for i in range(5)]
    rows = [(name, batch, lat - 9.5e-4 if batch == "100m-0001" else lat) for name, batch, lat in rows]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("location_id", "batch", "lat_deg"))}
    columns |= {"lng_deg": [18.0] * 15, "series": ["100m"] * 15, "captured_on": [dt.date(2024, 6, 1)] * 15}
    points = gpd.points_from_xy(columns["lng_deg"], columns["lat_deg"], crs="EPSG:4326")
    write_geoparquet(layout.locations, gpd.GeoDataFrame(columns, geometry=points))
    collect(layout, "100m-0000")
    return layout


def collect(layout: Layout, batch: str, year: int = 2022) -> None:
    """One capture of each of its five locations."""
    fill(Layout(layout.root / "other"), 5)
    rows = open_table(layout.root / "other" / "tables" / "panoramas.lance").to_table().to_pylist()
    for i, row in enumerate(rows):
        row |= {"location_id": f"{batch}-{i}", "batch": batch, "lat_deg": 59.0 + i * 2e-4, "lng_deg": 18.0}
        row |= {"captured_on": dt.date(year, 6, 1), "capture_id": f"{batch}-{i}"}
    append_rows(layout.panoramas, pa.Table.from_pylist(rows, schema=CAPTURES))


def lacking() -> dict[str, list[str]]:
    return {batch: [f"{batch}-{i}" for i in range(5)] for batch in ("100m-0001", "100m-0002")}


def test_before_any_evaluation_coverage_decides_and_that_is_said(layout: Layout) -> None:
    order = order_pending(layout, lacking(), NOW.date())
    assert [gain.key for gain in order.batches] == ["100m-0002", "100m-0001"]
    assert order.basis == "by coverage and age alone, with a reach of 40 m assumed: no model is evaluated yet"
    assert 0 < order.batches[1].share < order.batches[0].share < 1


def night(layout: Layout, order: str, **automation: object) -> dict[str, str]:
    """The batches of a night with their reasons."""
    place = {"name": "aland", "boundary": "region.geojson", "start_point": (59.0, 18.0)}
    sections = {"capture": {"provider": "emulator"}, "automation": {"order": order, **automation}}
    settings = Settings(region=place, data_root=layout.root, **sections)
    return batches_of_the_night(settings, layout, NOW).batches


def visit(layout: Layout, batch: str, days_ago: int = 0) -> None:
    """Each location of a batch, to the end."""
    facts = {"batch": batch, "provider": "emulator", "visited_at": NOW - dt.timedelta(days=days_ago), "dates": 1}
    facts |= {"views_new": 1, "pending": 0, "run_id": "1"}
    rows = [{"location_id": f"{batch}-{i}", **facts} for i in range(5)]
    append_rows(layout.visits, pa.Table.from_pylist(rows, schema=VISITS))


def test_the_night_takes_the_batches_in_the_order_of_the_configuration_and_says_why(layout: Layout) -> None:
    visit(layout, "100m-0000")
    assert night(layout, "rank") == {
        "100m-0001": "next in rank order, 5 locations to visit",
        "100m-0002": "next in rank order, 5 locations to visit",
    }
    by_gain = night(layout, "gain")
    assert list(by_gain) == ["100m-0002", "100m-0001"]
    assert by_gain["100m-0002"].startswith("number 1 of 2 by gain: 5 locations are expected to let ")
    assert by_gain["100m-0002"].endswith("(by coverage and age alone, with a reach of 40 m assumed: no model is evaluated yet)")
    assert list(night(layout, "gain", batches_per_night=1)) == ["100m-0002"]


def test_revisits_go_by_the_age_of_the_pictures(layout: Layout) -> None:
    for batch in BATCHES:
        visit(layout, batch, days_ago=90)
    collect(layout, "100m-0002", year=2016)
    due = night(layout, "gain")
    assert list(due) == ["100m-0002", "100m-0000", "100m-0001"]
    assert due["100m-0002"] == "5 locations are due for another visit; their newest pictures are 10.5 years old (median)"
    assert due["100m-0001"].endswith("their pictures have no date")


def test_with_an_evaluation_its_version_and_places_are_named(layout: Layout) -> None:
    write_json(layout.champion, {"recipe": "retrieval", "model_version": "retrieval-abc"})
    n = 40
    queries = pa.table(
        {
            "lat_deg": np.linspace(59.0, 59.005, n), "lng_deg": np.full(n, 18.0), "location_id": [str(i // 2) for i in range(n)],
            "unseen_error_m": np.full(n, 10.0), "unseen_nearest_m": np.full(n, 5.0),
        }
    )  # fmt: skip
    write_parquet(layout.evaluations / "retrieval" / "retrieval-abc" / "queries.parquet", queries)
    assert "by the evaluation of retrieval-abc at 20 places" in order_pending(layout, lacking(), NOW.date()).basis
    write_parquet(layout.evaluations / "retrieval" / "retrieval-abc" / "queries.parquet", queries.slice(0, 5))
    assert "evaluated on only 5 queries" in order_pending(layout, lacking(), NOW.date()).basis


def test_a_fusion_with_vague_answers_somewhere_draws_collection_there(layout: Layout) -> None:
    pending = {"100m-0000": ["100m-0000-0"], "100m-0002": ["100m-0002-4"]}
    (layout.panoramas).rename(layout.root / "away")  # nothing is held
    plain = order_pending(layout, pending, NOW.date())
    north = np.linspace(59.0, 59.005, 60)
    vague = np.where(north > 59.0025, 1.0, 0.01)
    table = pa.table({"lat_deg": north, "lng_deg": np.full(60, 18.0), "region_km2": vague})
    write_parquet(layout.fusions / "f1" / "queries.parquet", table)
    write_json(layout.fusions / "LATEST.json", {"fusion": "f1"})
    drawn = order_pending(layout, pending, NOW.date())
    shares = [{gain.key: gain.share for gain in one.batches} for one in (plain, drawn)]
    assert shares[1]["100m-0002"] > 1.2 * shares[0]["100m-0002"]
    assert "vague" in drawn.basis
    assert "vague" not in plain.basis
