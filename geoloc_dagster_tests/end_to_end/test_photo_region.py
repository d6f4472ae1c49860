"""A region whose pictures are a list of photos: registered in batches, collected by several processes, cropped and catalogued."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.build import build_definitions
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.doctor import check_sources
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.errors import ConfigError, StepFailedError
from geoloc_dagster.imagery.nightly import Night, batches_of_the_night
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region

LAT, LNG = ORIGIN


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=7, today=TODAY) as emulator:
        yield emulator


@pytest.fixture
def service(shared: EmulatorProcess) -> EmulatorProcess:
    shared.clear_hits()
    return shared


def region(
    folder: Path, service: EmulatorProcess, lists: tuple[str, ...] = ("list.csv",), east_deg: float = 0.002, **capture: Any
) -> Path:
    for name in lists:
        (folder / name).write_bytes(httpx2.get(f"{service.url}/photos/{name}").content)
    config = write_region(
        folder,
        boundary=rectangle((LAT - 0.005, LNG - 0.005), (LAT + 0.005, LNG + east_deg)),
        region={"start_point": [LAT, LNG]},
        coverage={"provider": "csv"},
        buffers={"spacings_m": [60], "batch_size": 150},
        capture={
            "provider": "photo_list",
            "photos": {"files": list(lists), "processes": 2, **capture},
            "licence": "CC-BY-4.0",
            "attribution": "the photographers",
            "commit_rows": 16,
        },
        service={"requests_per_second": 2_000, "attempts": 2},
    )
    said = yaml.safe_load(config.read_text())
    del said["capture"]["size"]
    said["coverage"] = {"provider": "csv"}
    config.write_text(yaml.safe_dump(said))
    return config


def collect(config: Path, select: str = "region_boundary,grid_points,street_view_metadata,buffer_csvs,photos") -> Layout:
    settings = load_settings(config, environ={})
    run_headless(settings, select=select, report=lambda event: None)
    return Layout(settings.data_root)


def rows_of(layout: Layout, *columns: str) -> list[dict[str, Any]]:
    table = open_table(layout.panoramas)
    assert table is not None
    return table.to_table(columns=list(columns)).to_pylist()


def photo_hits(service: EmulatorProcess) -> Counter[str]:
    return Counter(hit["what"] for hit in service.hits()["requests"] if hit["endpoint"] == "photo")


def test_exactly_one_of_panoramas_and_photos_is_there_and_everything_below_follows_it(tmp_path: Path, service: EmulatorProcess):
    config = region(tmp_path, service)
    graph = build_definitions(settings=load_settings(config, environ={})).resolve_asset_graph()
    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    assert "photos" in names
    assert "panoramas" not in names
    (crops,) = [key for key in graph.get_all_asset_keys() if key.path[-1] == "crops"]
    assert {key.path[-1] for key in graph.get(crops).parent_keys} == {"photos"}


def test_rates_of_a_list_are_for_lists_alone(tmp_path: Path, service: EmulatorProcess):
    config = region(tmp_path, service)
    said = yaml.safe_load(config.read_text())
    said["capture"]["provider"] = "folder"
    config.write_text(yaml.safe_dump(said))
    with pytest.raises(ConfigError, match="500"):
        load_settings(config, environ={})


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_list_is_registered_collected_cropped_and_asked_for_once(tmp_path: Path, service: EmulatorProcess):
    config = region(tmp_path, service, ("list.csv",), min_side_px=100, resize="shorter", size_px=120)
    layout = collect(config, "region_boundary,grid_points,street_view_metadata,buffer_csvs,photos,crops,catalog")
    photos = read_parquet(layout.photos).to_pylist()
    listed = list(csv.DictReader((tmp_path / "list.csv").open()))
    inside = [row for row in listed if float(row["lng"]) <= LNG + 0.002]
    assert [row["location_id"] for row in photos] == [row["id"] for row in inside]
    assert {row["batch"] for row in photos} == {"photos-0000", "photos-0001"}
    rows = rows_of(
        layout, "location_id", "licence", "attribution", "heading_deg", "rotation", "status", "width", "height", "creator"
    )
    assert sorted(row["location_id"] for row in rows) == sorted(row["id"] for row in inside)
    said = {row["id"]: row for row in inside}
    for row in rows:
        of_list = said[row["location_id"]]
        assert (row["status"], row["width"], row["height"]) == ("ok", 160, 120)
        assert row["attribution"] == (of_list["attribution"] or "the photographers")
        assert row["licence"] == {"": "CC-BY-4.0"}.get(of_list["licence"], row["licence"])
        assert row["creator"] == of_list["author"]
        assert (row["heading_deg"] is None) == (of_list["heading"] == "") == (row["rotation"] == 0)
    assert {row["licence"] for row in rows} == {"CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-2.0"}
    crops = open_table(layout.crops)
    assert crops is not None
    assert crops.count_rows() == len(rows)
    asked = photo_hits(service)
    assert max(asked.values()) == 1
    settings = load_settings(config, environ={})
    assert check_sources(settings).status == "ok"
    later = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    complete = Night(nothing="every registered batch is complete")
    assert batches_of_the_night(settings, layout, later) == complete  # photos do not change
    collect(config, "buffer_csvs,photos")
    assert photo_hits(service) == asked
    assert len(rows_of(layout, "capture_id")) == len(rows)
    verify_table(layout.panoramas)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_odd_photos_become_rows_with_their_kind_and_a_page_leaves_the_rest_for_the_next_run(
    tmp_path: Path, service: EmulatorProcess
):
    config = region(tmp_path, service, ("odd.csv",), east_deg=0.005, min_side_px=100)
    said = yaml.safe_load(config.read_text())
    said["service"]["concurrency"] = 1  # nothing else is in flight when a page comes
    config.write_text(yaml.safe_dump(said))
    layout = collect(config)
    first = {row["location_id"] for row in rows_of(layout, "location_id")}
    listed = {row["id"] for row in csv.DictReader((tmp_path / "odd.csv").open())}
    asked_again_each_night = {"odd_proof", "odd_truncated", "odd_wrong_length", "odd_empty"}
    assert listed - first > asked_again_each_night
    for _ in range(3):  # a host that asks for proof, or shows a page, is asked again by the next run
        if len(rows_of(layout, "location_id")) == len(listed - asked_again_each_night):
            break
        with contextlib.suppress(StepFailedError):  # it says so where nothing came but such pages
            collect(config, "photos")
    rows = rows_of(layout, "location_id", "failure")
    kinds = {row["location_id"]: row["failure"] for row in rows}
    assert len(kinds) == len(rows)
    assert set(kinds) == listed - asked_again_each_night > first
    expected = {"odd_missing": "gone", "odd_noai": "opted_out", "odd_private": "disallowed", "odd_small": "too_small"}
    expected |= {"odd_cmyk": None, "odd_bomb": "too_large"}
    assert {name: kinds[name] for name in expected} == expected
    assert len(list(layout.evidence.iterdir())) >= 1


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_collection_killed_at_random_instants_ends_with_the_same_rows(tmp_path: Path, service: EmulatorProcess):
    config = region(tmp_path, service)
    layout = collect(config, "region_boundary,grid_points,street_view_metadata,buffer_csvs")
    total = read_parquet(layout.photos).num_rows
    for wanted in (30, 60):
        settled = {row["location_id"] for row in rows_of(layout, "location_id")} if open_table(layout.panoramas) else set()
        before = photo_hits(service)
        child = subprocess.Popen(
            [sys.executable, "-m", "geoloc_dagster", "run", "--config", str(config), "--select", "photos"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while photo_hits(service).total() < before.total() + wanted and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)  # the interval of the watch
        child.send_signal(signal.SIGKILL)
        child.wait()
        asked = photo_hits(service) - before
        assert {what for what in asked if f"{int(Path(what).stem):03d}" in settled} == set()
    collect(config, "photos")
    rows = [row["location_id"] for row in rows_of(layout, "location_id")]
    assert len(rows) == len(set(rows)) == total
    verify_table(layout.panoramas)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["bulk.fetched:40", "bulk.row:3", "bulk.written:2", "bulk.committed:1", "bulk.committed:2"])
def test_a_collection_killed_at_a_named_point_asks_again_for_nothing_that_it_kept(
    tmp_path: Path, service: EmulatorProcess, point: str
):
    """The first three kill one of the processes that fetch, the others the one that hands out."""
    config = region(tmp_path, service)
    layout = collect(config, "region_boundary,grid_points,street_view_metadata,buffer_csvs")
    killed = subprocess.run(
        [sys.executable, "-m", "geoloc_dagster", "run", "--config", str(config), "--select", "photos"],
        env={**os.environ, "GEOLOC_FAILPOINT": point},
        capture_output=True,
        check=False,
    )
    assert killed.returncode != 0, "the point was never reached"
    kept = {row["location_id"] for row in rows_of(layout, "location_id")} if open_table(layout.panoramas) else set()
    before = photo_hits(service)
    collect(config, "photos")
    asked = {f"{int(Path(what).stem):03d}" for what in photo_hits(service) - before}
    assert asked & kept == set()
    rows = [row["location_id"] for row in rows_of(layout, "location_id")]
    assert len(rows) == len(set(rows)) == read_parquet(layout.photos).num_rows
    verify_table(layout.panoramas)
