"""Pending work is found in the tables: what was never visited to the end, and what was visited too long ago."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import geopandas as gpd
import pyarrow as pa
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.pending import complete_locations, dates_per_location, pending_batches, stale_batches, within_budget
from geoloc_dagster.dataset.schema import VISITS
from geoloc_dagster.storage import write_geoparquet
from geoloc_dagster.tables import append_rows

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
BATCHES = {"100m-0000": ["0", "1"], "100m-0001": ["2"], "35m-0000": ["3", "4"]}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    rows = [(location, batch, batch.split("-")[0]) for batch, ids in BATCHES.items() for location in ids]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("location_id", "batch", "series"))}
    layout = Layout(tmp_path)
    points = gpd.points_from_xy([18.0] * 5, [59.0] * 5, crs="EPSG:4326")
    write_geoparquet(layout.locations, gpd.GeoDataFrame(columns, geometry=points))
    return layout


def visit(layout: Layout, *ids: str, days_ago: int = 0, pending: int = 0, dates: int = 3) -> None:
    facts = {"batch": "100m-0000", "provider": "emulator", "visited_at": NOW - dt.timedelta(days=days_ago), "run_id": "1"}
    rows = [{"location_id": i, **facts, "dates": dates, "views_new": 4, "pending": pending} for i in ids]
    append_rows(layout.visits, pa.Table.from_pylist(rows, schema=VISITS))


def test_before_anything_every_batch_is_pending_in_rank_order(layout: Layout):
    assert pending_batches(layout) == {"100m-0000": 2, "100m-0001": 1, "35m-0000": 2}
    assert list(pending_batches(layout)) == list(BATCHES)
    assert stale_batches(layout, NOW) == {}


def test_a_batch_is_done_when_each_of_its_places_was_visited_to_the_end(layout: Layout):
    visit(layout, "0", "2")
    visit(layout, "1", pending=2)
    assert pending_batches(layout) == {"100m-0000": 1, "35m-0000": 2}
    visit(layout, "1")
    assert pending_batches(layout) == {"35m-0000": 2}


def test_a_place_without_anything_is_done_too(layout: Layout):
    visit(layout, "2", dates=0)
    assert "100m-0001" not in pending_batches(layout)


def test_only_complete_batches_that_were_visited_long_ago_are_stale(layout: Layout):
    visit(layout, "0", "1", "2", "3", days_ago=40)
    visit(layout, "0", days_ago=3)
    before = NOW - dt.timedelta(days=30)
    assert stale_batches(layout, before) == {"100m-0000": 1, "100m-0001": 1}  # the last batch is not complete yet
    assert complete_locations(layout.visits, since=before) == {"0"}


def test_a_later_visit_that_was_cut_short_does_not_renew_an_old_one(layout: Layout):
    visit(layout, "2", days_ago=40)
    visit(layout, "2", days_ago=1, pending=1)
    assert stale_batches(layout, NOW - dt.timedelta(days=30)) == {"100m-0001": 1}


def test_a_budget_pays_for_the_first_batches_and_a_spent_one_for_none(layout: Layout):
    batches = {"a": 10, "b": 10, "c": 10}
    assert within_budget(batches, None, 8) == ["a", "b", "c"]
    assert within_budget(batches, 100, 8) == ["a", "b"]
    assert within_budget(batches, 1, 8) == ["a"]  # it goes on there the next night
    assert within_budget(batches, 0, 8) == []


def test_dates_are_learned_from_visits(layout: Layout):
    assert dates_per_location(layout.visits) == 1
    visit(layout, "0", dates=5)
    visit(layout, "1", dates=2)
    assert dates_per_location(layout.visits) == 3.5
