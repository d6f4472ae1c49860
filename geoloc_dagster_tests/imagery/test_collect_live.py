"""Collecting from a live service: visits, budgets, revisits, several places at once. The service here is a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from geoloc_dagster.errors import ServiceUnavailableError
from geoloc_dagster.imagery.collect import CollectionResult, collect_batch
from geoloc_dagster.imagery.provider import (
    Capture,
    CollectionStopped,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.imagery.pictures import jpeg, places
from geoloc_dagster_tests.imagery.processes import NOW

VIEWS = [View(float(heading), None, 0.0, 90.0) for heading in (0, 90, 180, 270)]
PICTURE = jpeg(1)


class Street:
    """Places with panoramas of the given years; counts what it was asked for, and fails where it is told to."""

    name = "street"
    terms = Terms("CC0-1.0", "street")

    def __init__(self, years: Sequence[int] = (2015, 2020), budget: int | None = None) -> None:
        self.years, self.budget = list(years), budget
        self.night = 0  # panorama ids change with it
        self.problems: dict[tuple[str, int], Exception | str] = {}  # (place, heading) -> what happens
        self.images: Counter[tuple[str, int, float]] = Counter()
        self.finds: Counter[str] = Counter()
        self.most_at_once = self.at_once = 0

    def session(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        for location in locations:
            self.finds[location.location_id] += 1
            problem = self.problems.get((location.location_id, -1))
            if problem == "nothing":
                yield Negative(location, "nothing here")
            elif isinstance(problem, RequestFailedError):
                yield problem
            else:
                yield self.panorama(location, max(self.years))

    def panorama(self, location: Location, year: int) -> Panorama:
        pano_id = f"{location.location_id}-{year}-{self.night}"
        return Panorama(
            location, self.name, dt.date(year, 5, 1), "month", "64x64", pano_id, lat_deg=location.lat_deg + 1e-5, lng_deg=18.0
        )

    async def history(self, panorama: Panorama) -> list[Panorama]:
        return [self.panorama(panorama.location, year) for year in sorted(self.years, reverse=True)]

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for view in views:
                await asyncio.sleep(0)
                yield self.answer(panorama, view)
        finally:
            self.at_once -= 1

    def answer(self, panorama: Panorama, view: View) -> Capture | Failure:
        assert panorama.captured_on is not None
        if self.budget is not None:
            if self.budget == 0:
                raise CollectionStopped("budget", "spent")
            self.budget -= 1
        self.images[panorama.location.location_id, panorama.captured_on.year, view.heading_deg or 0] += 1
        problem = self.problems.get((panorama.location.location_id, int(view.heading_deg or 0)))
        if isinstance(problem, Exception):
            raise problem
        if problem is not None:
            return Failure(problem, "scripted", panorama, view, retryable=problem == "timeout")  # type: ignore[arg-type]
        return Capture(panorama, view, PICTURE)


def collect(street: Street, folder: Path, *, count: int = 6, **options) -> CollectionResult:
    settings = {"run_id": "one", "now": NOW, "commit_rows": 10, "views": VIEWS, "concurrency": 3, "complete_since": NOW} | options
    table = folder / "panoramas.lance"
    return asyncio.run(collect_batch(street, places(count), "100m-0000", table, visits_path=folder / "visits.lance", **settings))


def rows_of(folder: Path) -> list[dict]:
    return open_table(folder / "panoramas.lance").to_table().to_pylist()


def test_every_date_and_heading_once_at_several_places_at_once(tmp_path: Path):
    street = Street()
    result = collect(street, tmp_path)
    assert (result.rows_new, result.pending, result.visited, result.stopped) == (6 * 2 * 4, 0, 6, None)
    assert set(street.images.values()) == {1}
    assert 1 < street.most_at_once <= 3
    rows = rows_of(tmp_path)
    assert len({row["capture_id"] for row in rows}) == 48
    row = next(row for row in rows if row["location_id"] == "0" and row["captured_on"].year == 2020)
    assert (row["lat_deg"], row["lng_deg"]) == (places(1)[0].lat_deg + 1e-5, 18.0)  # where the camera stood
    assert (row["requested_lat_deg"], row["requested_lng_deg"]) == (places(1)[0].lat_deg, places(1)[0].lng_deg)
    assert row["capture_precision"] == "month"


def test_a_complete_place_is_left_alone_until_its_visit_is_old(tmp_path: Path):
    street = Street()
    collect(street, tmp_path)
    again = collect(street, tmp_path)
    assert (again.rows_new, again.visited, again.rows_total) == (0, 0, 48)
    assert set(street.finds.values()) == {1}


def test_a_revisit_adds_new_dates_only_although_every_panorama_id_has_changed(tmp_path: Path):
    street = Street()
    collect(street, tmp_path)
    street.night, street.years = 31, [2015, 2020, 2026]
    later = NOW + dt.timedelta(days=31)
    again = collect(street, tmp_path, now=later, complete_since=later - dt.timedelta(days=30))
    assert (again.rows_new, again.rows_total) == (6 * 4, 72)
    assert {row["captured_on"].year for row in rows_of(tmp_path) if row["fetched_at"] == later} == {2026}
    assert set(street.images.values()) == {1}


def test_a_spent_budget_ends_the_run_well_and_the_next_one_goes_on(tmp_path: Path):
    street = Street(budget=21)
    first = collect(street, tmp_path)
    assert (first.rows_new, first.stopped) == (21, "budget: spent")
    assert first.pending >= 3
    street.budget = None
    second = collect(street, tmp_path, now=NOW + dt.timedelta(days=1))
    assert (second.rows_new, second.pending, second.rows_total) == (27, 0, 48)
    assert set(street.images.values()) == {1}


def test_views_that_failed_for_now_are_asked_again_and_hopeless_ones_are_rows(tmp_path: Path):
    street = Street()
    street.problems = {("1", 90): "timeout", ("2", 0): "no_imagery"}
    first = collect(street, tmp_path)
    assert first.failures_by_kind == {"timeout": 2, "no_imagery": 2}
    assert (first.rows_new, first.pending) == (46, 1)
    failed = [row for row in rows_of(tmp_path) if row["status"] == "failed"]
    assert {(row["location_id"], row["failure"], row["image"]) for row in failed} == {("2", "no_imagery", None)}
    street.problems = {}
    second = collect(street, tmp_path)
    assert (second.rows_new, second.pending, second.visited) == (2, 0, 1)
    assert {key: n for key, n in street.images.items() if n > 1} == {("1", 2015, 90.0): 2, ("1", 2020, 90.0): 2}


def test_a_place_that_could_not_be_asked_about_stays_pending_and_one_without_anything_does_not(tmp_path: Path):
    street = Street()
    street.problems = {("3", -1): RequestFailedError("network", "cut", retryable=True), ("4", -1): "nothing"}
    result = collect(street, tmp_path)
    assert (result.pending, result.negatives, result.failures_by_kind) == (1, 1, {"network": 1})
    street.problems = {}
    assert collect(street, tmp_path).visited == 1


def test_a_service_that_will_not_go_on_is_one_error_and_what_came_before_is_kept(tmp_path: Path):
    street = Street()
    street.problems = {("4", 180): ServiceUnavailableError("ten failures in a row")}
    with pytest.raises(ServiceUnavailableError, match="ten failures"):
        collect(street, tmp_path)
    kept = len(rows_of(tmp_path))
    assert kept > 20
    street.problems = {}
    result = collect(street, tmp_path)
    assert (result.rows_total, result.rows_new, result.pending) == (48, 48 - kept, 0)
    assert Counter(street.images.values())[1] >= 47  # only the view that failed was asked for again


def test_the_size_is_part_of_what_a_capture_is(tmp_path: Path):
    street = Street(years=[2020])
    collect(street, tmp_path, count=1)
    wide = [replace(view, fov_deg=60.0) for view in VIEWS]
    again = collect(street, tmp_path, count=1, views=wide, complete_since=NOW + dt.timedelta(days=1))
    assert again.rows_total == 8
