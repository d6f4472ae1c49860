"""A small country: cells, lookups until each is full or used up, batches of a sample, three views each; nothing twice."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.pending import pending_batches
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.geo.grid_cells import cell_of, read_grid_cells
from geoloc_dagster.geo.spacing import close_pairs
from geoloc_dagster.storage import read_geoparquet
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.end_to_end.nights import ORIGIN, Nights, rectangle, write_region

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TODAY = dt.date(2025, 6, 10)
LAND = ("region_boundary", "grid_cells", "grid_points")
COUNTRY = rectangle((ORIGIN[0] - 0.01, ORIGIN[1] - 0.01), (ORIGIN[0] + 0.01, ORIGIN[1] + 0.02))  # six cells of 0.01°
RULES = {"step_deg": 0.01, "samples_per_cell": 3, "attempts_per_cell": 40, "series": "isle1", "seed": 7}


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=3, today=TODAY) as process:
        yield process


def write_country(folder: Path, **sections: Any) -> Path:
    return write_region(
        folder,
        boundary=COUNTRY,
        grid_cells={**RULES, **sections.pop("grid_cells", {})},
        coverage={"radius_m": 20, "lookups_per_run": 15, **sections.pop("coverage", {})},
        buffers={"batch_size": 10},
        capture={"headings_deg": [0, 90, 180], "history": "newest", "size": [96, 64]},
        **sections,
    )


def hits(emulator: EmulatorProcess, endpoint: str) -> int:
    return sum(hit["endpoint"] == endpoint for hit in emulator.hits()["requests"])


def locations_of(layout: Layout) -> pd.DataFrame:
    return pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry"))


def test_a_country_is_sampled_in_two_nights_and_one_batch_is_collected(
    tmp_path: Path, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", emulator.url)
    emulator.clear_hits()
    with dg.DagsterInstance.ephemeral() as instance:
        country = Nights(write_country(tmp_path, automation={"batches_per_night": 1}), emulator, instance)
        country.make(*LAND)
        assert country.live_through(TODAY) == {"nightly_lookups": 1}  # cells are not full: nothing is registered
        assert country.facts("street_view_metadata")["rows_new"] == 15
        assert not country.layout.locations.is_file()

        nights = 1
        while not country.layout.locations.is_file():
            country.live_through(TODAY + dt.timedelta(days=nights))
            nights += 1
        assert nights <= 6
        locations = locations_of(country.layout)
        assert Counter(locations["grid_cell"]) == dict.fromkeys(range(6), 3)
        assert Counter(locations["batch"]) == {"isle1-0000": 10, "isle1-0001": 8}
        cells = read_grid_cells(country.layout.grid_cells)
        lat, lng = locations["lat_deg"].to_numpy(), locations["lng_deg"].to_numpy()
        assert (cell_of(cells, lat, lng) == locations["grid_cell"]).all()
        assert close_pairs(lat, lng, 100.0).empty
        assert locations["pano_id"].is_unique
        assert locations["location_id"].tolist() == [str(number) for number in range(18)]

        lookups = open_table(country.layout.street_view_metadata).to_table(columns=["lookup_id"])["lookup_id"].to_pylist()
        assert len(set(lookups)) == len(lookups) < 6 * 40  # no point twice, and no more than the cells needed
        facts = country.facts("buffer_csvs")
        assert (facts["cells"], facts["cells_short"], facts["samples_missing"]) == (6, 0, 0)

        # The night went on to collect the first batch: three views of each place.
        assert ("nightly_collection", "isle1-0000") in country.runs
        rows = open_table(country.layout.panoramas).to_table(columns=["location_id", "heading_deg", "status"]).to_pylist()
        assert len(rows) == 30
        assert {row["heading_deg"] for row in rows} == {0.0, 90.0, 180.0}
        assert pending_batches(country.layout) == {"isle1-0001": 8}

        # The night after, nothing is looked up or registered; the second batch is collected.
        asked = hits(emulator, "metadata")
        later = country.live_through(TODAY + dt.timedelta(days=nights))
        assert later == {"nightly_collection": 1}
        country.make("buffer_csvs")
        assert locations_of(country.layout).equals(locations)
        assert hits(emulator, "metadata") == asked + 8  # the places of the batch, and no grid point


def test_cells_whose_points_are_used_up_are_registered_short_and_said_so(
    tmp_path: Path, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", emulator.url)
    rules = {"attempts_per_cell": 4, "samples_per_cell": 4}
    with dg.DagsterInstance.ephemeral() as instance:
        config = write_country(tmp_path, grid_cells=rules, coverage={"radius_m": 10, "lookups_per_run": 1_000})
        country = Nights(config, emulator, instance)
        country.make(*LAND, "street_view_metadata", "buffer_csvs")
        first = locations_of(country.layout)
        facts = country.facts("buffer_csvs")
        assert facts["samples_missing"] == 24 - len(first) > 0
        check = dg.AssetCheckKey(country.region.key("buffer_csvs"), "cells")
        summary = instance.event_log_storage.get_asset_check_summary_records([check])[check]
        evaluation = summary.last_check_execution_record.event.asset_check_evaluation
        assert not evaluation.passed
        assert evaluation.severity == dg.AssetCheckSeverity.WARN

        # More attempts go on with the same points: what is registered stays, and only what is missing is added.
        config.write_text(config.read_text().replace("attempts_per_cell: 4", "attempts_per_cell: 60"))
        country = Nights(config, emulator, instance)
        country.make("grid_points", "street_view_metadata", "buffer_csvs")
        second = locations_of(country.layout)
        assert second.head(len(first)).equals(first)
        assert Counter(second["grid_cell"]) == dict.fromkeys(range(6), 4)
        assert second["batch"].nunique() > first["batch"].nunique()  # a registered batch is never filled up


def test_other_cells_than_those_of_the_registered_locations_are_refused(
    tmp_path: Path, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", emulator.url)
    with dg.DagsterInstance.ephemeral() as instance:
        config = write_country(tmp_path, coverage={"lookups_per_run": 1_000})
        country = Nights(config, emulator, instance)
        country.make(*LAND, "street_view_metadata", "buffer_csvs")
        first = locations_of(country.layout)
        config.write_text(config.read_text().replace("step_deg: 0.01", "step_deg: 0.02"))
        country = Nights(config, emulator, instance)
        country.make(*LAND)
        with pytest.raises(dg.Failure, match=r"isle1 lie in other cells .* grid_cells\.series"):
            country.make("street_view_metadata")
        config.write_text(config.read_text().replace("series: isle1", "series: isle2"))
        country = Nights(config, emulator, instance)
        country.make("street_view_metadata", "buffer_csvs")
        second = locations_of(country.layout)
        assert second.head(len(first)).equals(first)
        own = second[second["series"] == "isle2"]
        assert Counter(own["batch"]) == {"isle2-0000": 10, "isle2-0001": 2}
        assert Counter(own["grid_cell"]) == dict.fromkeys(range(4), 3)
        assert close_pairs(second["lat_deg"].to_numpy(), second["lng_deg"].to_numpy(), 100.0).empty


_CHILD = """
import asyncio, datetime as dt, sys
from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.registration import register_locations
from geoloc_dagster.imagery.factory import build_service
from geoloc_dagster.imagery.lookups import look_up_region
settings, now = load_settings(None, environ={}), dt.datetime(2025, 6, 10, tzinfo=dt.UTC)
layout = Layout(settings.data_root)
service = build_service(settings, "emulator", emulator_url=lambda: sys.argv[1], now=lambda: now)
asyncio.run(look_up_region(settings, layout, service, now=now))
register_locations(settings, layout)
"""


def test_a_country_goes_on_after_every_kill_and_registers_nothing_twice(
    tmp_path: Path, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", emulator.url)
    with dg.DagsterInstance.ephemeral() as instance:
        country = Nights(write_country(tmp_path, coverage={"lookups_per_run": 1_000}), emulator, instance)
        country.make(*LAND)

    def run(point: str | None = None) -> int:
        environment = {**os.environ, **({"GEOLOC_FAILPOINT": f"{point}:1"} if point else {})}
        command = [sys.executable, "-c", _CHILD, emulator.url]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode

    for point in ("lookups.before_commit", "lookups.committed", "locations.before_write", "locations.written"):
        assert run(point) == -signal.SIGKILL, point
    first = locations_of(country.layout)
    assert run() == 0
    locations = locations_of(country.layout)
    assert locations.equals(first)
    assert Counter(locations["grid_cell"]) == dict.fromkeys(range(6), 3)
    assert sorted(locations["rank"]) == list(range(18))
    lookups = open_table(country.layout.street_view_metadata).to_table(columns=["lookup_id"])["lookup_id"].to_pylist()
    assert len(set(lookups)) == len(lookups)
