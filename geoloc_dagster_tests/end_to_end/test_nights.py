"""Three nights in fast-forward, and a month later: what the schedules ask for, and what the city was asked."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from geoloc_dagster.dataset.pending import pending_batches, registered_batches
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.end_to_end.nights import ORIGIN, Nights, write_region

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FIRST = dt.date(2025, 6, 10)
Start = Callable[..., Nights]


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=3, today=FIRST) as process:
        yield process


@pytest.fixture
def start(tmp_path: Path, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", emulator.url)
    emulator.set_today(FIRST)
    emulator.set_faults({})
    emulator.clear_hits()
    with dg.DagsterInstance.ephemeral() as instance:

        def make(**sections: object) -> Nights:
            nights = Nights(write_region(tmp_path, **sections), emulator, instance)
            nights.make("region_boundary", "grid_points")
            return nights

        yield make


def answered(emulator: EmulatorProcess, endpoint: str) -> Counter[str]:
    """What was answered well at an endpoint, and how often."""
    requests = emulator.hits()["requests"]
    return Counter(hit["what"] for hit in requests if hit["endpoint"] == endpoint and hit["outcome"] == "OK")


def test_three_nights_and_a_month_later(start: Start, emulator: EmulatorProcess) -> None:
    # About 100 grid points and 60 per night: two nights of lookups. 40 pictures a day: no batch is done in one night.
    nights = start(coverage={"lookups_per_run": 60}, automation={"batches_per_night": 2}, service={"images_per_day": 40})
    assert nights.live_through(FIRST) == {"nightly_lookups": 1}
    seen = nights.facts("street_view_metadata")
    assert (seen["rows_new"], seen["not_looked_up"] > 0) == (60, True)
    assert not nights.layout.locations.is_file()

    # The second night completes the coverage; buffers appear by themselves, and the first batches are asked for, and no more.
    second = nights.live_through(FIRST + dt.timedelta(days=1))
    assert nights.facts("street_view_metadata")["not_looked_up"] == 0
    batches = registered_batches(nights.layout)
    assert len(batches) > 3
    assert second == {"nightly_lookups": 1, "buffer_csvs": 1, "nightly_collection": 2}
    assert [key for name, key in nights.runs if name == "nightly_collection"] == batches[:2]
    rows = open_table(nights.layout.panoramas).count_rows()
    assert rows == 40
    assert nights.facts("panoramas", batches[0])["stopped"].startswith("budget") or (
        nights.facts("panoramas", batches[1])["stopped"].startswith("budget")
    )

    # The third night goes on in the batch that the budget stopped, looks nothing up, and asks for no picture twice.
    waiting = next(iter(pending_batches(nights.layout)))
    third = nights.live_through(FIRST + dt.timedelta(days=2))
    assert third["nightly_lookups"] == third["buffer_csvs"] == 0
    assert [key for name, key in nights.runs if name == "nightly_collection"][2] == waiting
    assert open_table(nights.layout.panoramas).count_rows() == 80
    images = answered(emulator, "image")
    assert (len(images), set(images.values())) == (80, {1})
    assert set(answered(emulator, "metadata").values()) <= {1, 2, 3, 4}


def test_a_rescan_adds_only_new_dates_although_panorama_ids_have_changed(start: Start, emulator: EmulatorProcess) -> None:
    nights = start(automation={"batches_per_night": 100})
    nights.live_through(FIRST)
    assert pending_batches(nights.layout) == {}
    table = nights.layout.panoramas
    before = {
        row["capture_id"]: row["pano_id"] for row in open_table(table).to_table(columns=["capture_id", "pano_id"]).to_pylist()
    }
    asked = answered(emulator, "image")

    # The next nights nothing is due.
    for days in (1, 2, 29):
        assert nights.live_through(FIRST + dt.timedelta(days=days)) == {}
    # Two years later every place is due; many have a new date, and most ids are others by now.
    later = FIRST + dt.timedelta(days=730)
    nights.live_through(later)
    rows = open_table(table).to_table(columns=["capture_id", "captured_on", "fetched_at"]).to_pylist()
    new = [row for row in rows if row["capture_id"] not in before]
    assert new
    assert {row["fetched_at"].date() for row in new} == {later}
    assert all(row["captured_on"] > dt.date(2025, 4, 1) for row in new)
    images = answered(emulator, "image")
    assert set(images.values()) == {1}
    assert len(images) - len(asked) == len(new)
    assert len({row["capture_id"] for row in rows}) == len(rows)
    registered, newest = _registered(nights), _newest_ids(emulator, nights)
    assert sum(newest.get(location) != pano_id for location, pano_id in registered.items()) > len(registered) / 2


def _registered(nights: Nights) -> dict[str, str]:
    from geoloc_dagster.storage import read_parquet

    rows = read_parquet(nights.layout.locations, columns=["location_id", "pano_id"]).to_pylist()
    return {row["location_id"]: row["pano_id"] for row in rows}


def _newest_ids(emulator: EmulatorProcess, nights: Nights) -> dict[str, str]:
    """The id that the city gives each registered place today."""
    import json
    import urllib.request

    from geoloc_dagster.storage import read_parquet

    found: dict[str, str] = {}
    for row in read_parquet(nights.layout.locations, columns=["location_id", "lat_deg", "lng_deg"]).to_pylist():
        query = f"/maps/api/streetview/metadata?location={row['lat_deg']:.7f},{row['lng_deg']:.7f}&radius=15"
        with urllib.request.urlopen(emulator.url + query, timeout=30) as answer:
            found[row["location_id"]] = json.load(answer).get("pano_id")
    return found
