"""kill -9 during lookups and during collection: the next run goes on, every row once, nothing committed is asked for again."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.pending import pending_batches
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.end_to_end.nights import ORIGIN, write_region

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LOOKUPS = "region_boundary,grid_points,street_view_metadata"
COLLECTION = "buffer_csvs,panoramas"


@pytest.fixture
def emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=3, today=dt.date(2025, 6, 10), latency_ms=20) as process:
        yield process


@pytest.fixture
def region(tmp_path: Path) -> Path:
    write_region(tmp_path, grid={"spacing_m": 10}, service={"concurrency": 4})
    return tmp_path


def start(region: Path, emulator: EmulatorProcess, select: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "GEOLOC_EMULATOR_URL": emulator.url, "XDG_STATE_HOME": str(region / "state")}
    command = [sys.executable, "-m", "geoloc_dagster", "run", "--select", select]
    return subprocess.Popen(command, cwd=region, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(region: Path, emulator: EmulatorProcess, select: str) -> None:
    child = start(region, emulator, select)
    assert child.wait(300) == 0


def kill_when(child: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Kill a run without a word once the condition holds; False where it ended before."""
    while child.poll() is None:
        if condition():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            child.wait()
            return True
        time.sleep(0.005)
    return False


def forget_hits(emulator: EmulatorProcess) -> None:
    """Begin a new log once the requests that a killed run left in flight have been answered."""
    seen = -1
    while (now := emulator.hits(last=1)["totals"]["requests"]) != seen:
        seen = now
        time.sleep(1)
    emulator.clear_hits()


def rows(table: Path) -> int:
    dataset = open_table(table)
    return 0 if dataset is None else int(dataset.count_rows())


def well_answered(emulator: EmulatorProcess, endpoint: str) -> int:
    return sum(hit["endpoint"] == endpoint and hit["status"] == 200 for hit in emulator.hits()["requests"])


def test_lookups_go_on_after_a_kill_and_ask_only_what_is_missing(region: Path, emulator: EmulatorProcess) -> None:
    table = Layout(region / "data").street_view_metadata
    for target in (1, 201):  # in the first commit's rows, and in the second's
        child = start(region, emulator, LOOKUPS)
        assert kill_when(child, lambda target=target: rows(table) >= target)
        committed = rows(table)
        forget_hits(emulator)
    finish(region, emulator, LOOKUPS)
    total = rows(table)
    assert total > committed
    assert well_answered(emulator, "metadata") == total - committed
    lookups = open_table(table).to_table(columns=["lookup_id"])["lookup_id"].to_pylist()
    assert len(set(lookups)) == total
    verify_table(table)


def test_collection_goes_on_after_a_kill_and_asks_for_no_committed_picture_again(region: Path, emulator: EmulatorProcess) -> None:
    layout = Layout(region / "data")
    finish(region, emulator, LOOKUPS)
    for target in (9, 41):
        child = start(region, emulator, COLLECTION)
        assert kill_when(child, lambda target=target: rows(layout.panoramas) >= target)
        committed = rows(layout.panoramas)
        forget_hits(emulator)
    finish(region, emulator, COLLECTION)
    total = rows(layout.panoramas)
    assert total > committed
    assert well_answered(emulator, "image") == total - committed
    table = open_table(layout.panoramas).to_table(columns=["capture_id", "status"]).to_pylist()
    assert len({row["capture_id"] for row in table}) == total
    assert {row["status"] for row in table} == {"ok"}
    assert pending_batches(layout) == {}
    verify_table(layout.panoramas)
    emulator.clear_hits()
    finish(region, emulator, COLLECTION)  # nothing is due: nothing at all is asked
    assert emulator.hits()["requests"] == []
