"""Lookups of cells: in rounds, until each is full or used up; the same sample however the nights are cut."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from shapely.geometry import box

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.geo.cell_sampling import cell_points
from geoloc_dagster.geo.grid import write_grid
from geoloc_dagster.geo.grid_cells import cell_of, describe_cells, grid_cells, read_grid_cells, write_grid_cells
from geoloc_dagster.imagery.cell_lookups import CellTask, cell_points_due
from geoloc_dagster.imagery.lookups import LookupRun, look_up_region
from geoloc_dagster.imagery.provider import RequestFailedError
from geoloc_dagster.tables import open_table

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CELLS = 6


@dataclass(frozen=True)
class Found:
    status: str = "OK"
    pano_id: str | None = None
    lat_deg: float | None = None
    lng_deg: float | None = None
    captured_on: dt.date | None = dt.date(2020, 5, 1)
    copyright: str | None = None


class Country:
    """Six cells, and a service with a street view right at every point that `covered` says has one."""

    def __init__(self, folder: Path, **rules: int) -> None:
        self.folder, self.asked = folder, list[tuple[float, float]]()
        self.covered: Callable[[float, float], bool] = lambda lat, lng: round(lat * 1e6) % 3 == 0
        self.broken: Callable[[float, float], bool] = lambda lat, lng: False
        self.rules = {"step_deg": 1, "samples_per_cell": 4, "attempts_per_cell": 60, "series": "isle1", **rules}
        self.layout = Layout(folder)
        cells = describe_cells(grid_cells(box(0, 40, 3, 42), 1.0, merge_below=0.1))
        write_grid_cells(self.layout.grid_cells, cells)
        points = cell_points(cells, self.rules["attempts_per_cell"], seed=0, max_points=10_000)
        write_grid(self.layout.grid_points, points)

    def session(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def lookup(self, lat_deg: float, lng_deg: float) -> Found:
        self.asked.append((lat_deg, lng_deg))
        await asyncio.sleep(0)
        if self.broken(lat_deg, lng_deg):
            raise RequestFailedError("timeout", "too slow", retryable=True)
        if not self.covered(lat_deg, lng_deg):
            return Found("ZERO_RESULTS")
        return Found("OK", f"{lat_deg:.6f}", lat_deg, lng_deg)

    def settings(self, budget: int) -> Settings:
        return Settings.model_validate(
            {
                "region": {"name": "isle", "boundary": "x.geojson", "start_point": (41, 1)},
                "grid_cells": self.rules,
                "coverage": {"provider": "emulator", "lookups_per_run": budget},
            }
        )

    def run(self, budget: int = 10_000, now: dt.datetime = NOW) -> LookupRun:
        return asyncio.run(look_up_region(self.settings(budget), self.layout, self, now=now))

    def cells_asked(self) -> Counter[int]:
        lat, lng = zip(*self.asked, strict=True)
        return Counter(cell_of(read_grid_cells(self.layout.grid_cells), lat, lng).tolist())

    def sample(self) -> list[str]:
        return CellTask.load(self.settings(1), self.layout).survey().taken["pano_id"].tolist()


def test_cells_are_asked_in_turn_and_no_more_once_they_are_full(tmp_path: Path):
    country = Country(tmp_path)
    first = country.run(budget=15)
    assert (first.asked, first.left > 0) == (15, True)
    assert set(country.cells_asked().values()) == {2, 3}  # first points of all cells, then second ones, then the third of three
    last = country.run()
    assert last.left == 0
    assert len(country.sample()) == CELLS * 4
    survey = CellTask.load(country.settings(1), country.layout).survey()
    points = survey.points[survey.points["answered"]]
    last_asked = points.drop_duplicates("grid_cell", keep="last")
    assert last_asked["lookup_id"].isin(survey.taken["lookup_id"]).all()  # each cell ended with the find that made it full
    assert country.run().asked == 0
    assert len(set(country.asked)) == len(country.asked)


def test_the_sample_is_the_same_however_the_nights_are_cut(tmp_path: Path):
    at_once, nightly = Country(tmp_path / "a"), Country(tmp_path / "b")
    at_once.run()
    while nightly.run(budget=7).left:
        pass
    assert nightly.sample() == at_once.sample()
    assert sorted(nightly.asked) == sorted(at_once.asked)


def test_a_cell_without_street_views_is_used_up_and_asked_again_when_its_answers_expire(tmp_path: Path):
    country = Country(tmp_path, attempts_per_cell=9)
    country.covered = lambda lat, lng: lng > 1  # nothing in the two western cells
    run = country.run()
    assert run.left == 0  # complete: they are as done as they will be
    counts = country.cells_asked()
    assert [counts[cell] for cell in range(CELLS)] == [9, 9, 4, 4, 4, 4]
    task = CellTask.load(country.settings(1), country.layout)
    assert task.survey().missing.to_dict() == {0: 4, 1: 4, 2: 0, 3: 0, 4: 0, 5: 0}
    assert cell_points_due(country.settings(1), country.layout, now=NOW + dt.timedelta(days=179)) == 0

    later = NOW + dt.timedelta(days=200)
    assert cell_points_due(country.settings(1), country.layout, now=later) == 18
    country.covered = lambda lat, lng: True
    assert country.run(now=later).asked == 8  # four more in each of the two, and in no other
    assert task.survey().missing.sum() == 0


def test_a_point_that_fails_is_asked_again_by_the_next_run_and_not_by_the_same(tmp_path: Path):
    country = Country(tmp_path, attempts_per_cell=8)
    country.covered = lambda lat, lng: True
    country.broken = lambda lat, lng: lat > 41
    first = country.run()
    assert (first.asked, first.failures_by_kind) == (12, {"timeout": 24})
    assert first.left == 24
    country.broken = lambda lat, lng: False
    again = country.run()
    assert (again.asked, again.left) == (12, 0)


def test_raising_the_number_wanted_goes_on_with_the_same_points(tmp_path: Path):
    country = Country(tmp_path)
    country.run()
    before = country.sample()
    country.rules["samples_per_cell"] = 6
    assert country.run().left == 0
    assert set(before) < set(country.sample())
    assert len(set(country.asked)) == len(country.asked)
    assert open_table(country.layout.street_view_metadata).count_rows() == len(country.asked)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"grid_cells": {"attempts_per_cell": 5}}, "attempts_per_cell must be at least samples_per_cell"),
        ({"grid_cells": {"series": "photos"}}, "photos"),
        ({"grid_cells": {"series": "100m"}}, "pattern"),
        ({"coverage": {"provider": "csv"}, "capture": {"provider": "google"}}, "set coverage.provider to a service"),
        ({"capture": {"provider": "photo_list"}}, "a photo list has its own places"),
        ({"buffers": {"files": ["a.csv"]}}, "leave out buffers.files"),
        ({"coverage": {"provider": "emulator", "radius_m": 1_001}}, "at most 1,000 m"),
    ],
)
def test_settings_that_contradict_each_other_say_what_to_do(sections: dict, said: str):
    place = {"name": "isle", "boundary": "x.geojson", "start_point": (41, 1)}
    whole = {"region": place, "grid_cells": {}, "coverage": {"provider": "emulator"}, **sections}
    with pytest.raises(ValueError, match=said):
        Settings.model_validate(whole)
