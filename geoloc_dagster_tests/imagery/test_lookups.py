"""Lookups: nearest first, every answer a row, negatives expire, nothing asked twice."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from geoloc_dagster.errors import ServiceUnavailableError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.coverage import count_lookups, covered_locations, read_lookups
from geoloc_dagster.imagery.lookups import due_points, look_up, lookup_ids, unanswered
from geoloc_dagster.imagery.provider import CollectionStopped, RequestFailedError
from geoloc_dagster.tables import open_table

START = (59.0, 18.0)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NEVER = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Found:
    status: str = "OK"
    pano_id: str | None = "pano"
    lat_deg: float | None = 59.0
    lng_deg: float | None = 18.0
    captured_on: dt.date | None = dt.date(2020, 5, 1)
    copyright: str | None = "©"


NOTHING = Found("ZERO_RESULTS", None, None, None, None, None)


class Service:
    """Answers by a function of (lat, lng, how often that point was asked); remembers what was asked."""

    def __init__(self, answer: Callable[[float, float, int], Found] = lambda lat, lng, n: Found()) -> None:
        self.answer, self.asked = answer, Counter[tuple[float, float]]()

    def session(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def lookup(self, lat_deg: float, lng_deg: float) -> Found:
        self.asked[lat_deg, lng_deg] += 1
        await asyncio.sleep(0)
        return self.answer(lat_deg, lng_deg, self.asked[lat_deg, lng_deg])


@pytest.fixture
def points() -> pd.DataFrame:
    lat, lng = np.meshgrid(np.linspace(58.99, 59.01, 9), np.linspace(17.99, 18.01, 7))
    return pd.DataFrame({"point_id": np.arange(63), "lat_deg": lat.ravel(), "lng_deg": lng.ravel()})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "lookups.lance"


def run(service: Service, points: pd.DataFrame, table: Path, *, limit: int = 1_000, now: dt.datetime = NOW, **options):
    due = due_points(points, table, START, options.pop("recheck_before", NEVER)).head(limit)
    return asyncio.run(look_up(service, due, table, now=now, concurrency=4, **{"commit_rows": 10, **options}))


def test_lookups_go_outwards_from_the_start_and_on_where_they_stopped(points: pd.DataFrame, table: Path):
    service = Service()
    first = run(service, points, table, limit=25)
    assert (first.asked, unanswered(points, table)) == (25, 38)
    second = run(service, points, table, limit=25)
    third = run(service, points, table, limit=25)
    assert (second.asked, third.asked, unanswered(points, table)) == (25, 13, 0)
    assert run(service, points, table).asked == 0
    assert set(service.asked.values()) == {1}
    rows = open_table(table).to_table().to_pandas()
    metres = geodesic_m(rows["requested_lat_deg"], rows["requested_lng_deg"], *START)
    assert (np.diff(metres) >= 0).all()


def test_negative_answers_are_rows_that_expire_and_found_points_are_not_asked_again(points: pd.DataFrame, table: Path):
    built = {"yet": False}
    east = Service(lambda lat, lng, n: Found() if lng > 18 or built["yet"] else NOTHING)
    first = run(east, points, table)
    assert (first.asked, first.found) == (63, 27)
    later = NOW + dt.timedelta(days=200)
    built["yet"] = True
    again = run(east, points, table, now=later, recheck_before=NOW)
    assert again.asked == 0  # a negative answer from exactly then still holds
    again = run(east, points, table, now=later, recheck_before=later)
    assert (again.asked, again.found) == (36, 36)
    counts = count_lookups(table)
    assert (counts.rows_total, counts.covered) == (63, 63)  # a point counts once, by its newest answer
    assert set(read_lookups(table)["status"].to_pylist()) == {"OK"}
    assert len(covered_locations(table)) == 63


def test_a_finer_grid_asks_only_the_points_that_are_new(points: pd.DataFrame, table: Path):
    service = Service()
    run(service, points, table)
    moved = points.assign(lat_deg=points["lat_deg"] + 0.001, point_id=points["point_id"])
    both = pd.concat([points.assign(point_id=points["point_id"] * 2), moved.assign(point_id=moved["point_id"] * 2 + 1)])
    assert run(service, both, table).asked == 63
    assert set(service.asked.values()) == {1}
    assert lookup_ids(both).is_unique


def test_points_that_fail_are_asked_by_the_next_run_and_refused_ones_are_not(points: pd.DataFrame, table: Path):
    def answer(lat: float, lng: float, times: int) -> Found:
        if lat > 59.005 and times == 1:
            raise RequestFailedError("timeout", "too slow", retryable=True)
        if lat < 58.995:
            raise RequestFailedError("invalid_request", "no", retryable=False)
        return Found()

    service = Service(answer)
    first = run(service, points, table)
    assert first.failures_by_kind == {"timeout": 14}
    assert unanswered(points, table) == 14
    second = run(service, points, table)
    assert (second.asked, second.failures_by_kind, unanswered(points, table)) == (14, {}, 0)
    assert Counter(read_lookups(table)["status"].to_pylist()) == {"OK": 49, "INVALID_REQUEST": 14}


@pytest.mark.parametrize("problem", [CollectionStopped("quota", "spent"), ServiceUnavailableError("down")])
def test_what_was_answered_before_the_end_is_kept(points: pd.DataFrame, table: Path, problem: Exception):
    def answer(lat: float, lng: float, times: int) -> Found:
        if len(service.asked) > 37:
            raise problem
        return Found()

    service = Service(answer)
    if isinstance(problem, CollectionStopped):
        assert run(service, points, table).stopped == "quota: spent"
    else:
        with pytest.raises(ServiceUnavailableError):
            run(service, points, table)
    rows = open_table(table).to_table().to_pandas()
    assert 30 <= len(rows) <= 37
    assert rows["lookup_id"].is_unique
