"""The rate and the pauses hold for all processes of a host together, as the server's own log shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.imagery.buckets import HostBuckets, MemoryBuckets
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY

PROCESSES, EACH, RATE, BURST = 4, 50, 40.0, 5
LATE_S = 0.25
"""How much later than it left a request may reach the log on a busy machine; it adds RATE * LATE_S to the burst that is seen."""


@pytest.fixture
def emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=7, today=TODAY) as process:
        yield process


def ask_together(emulator: EmulatorProcess, state: Path) -> list[int]:
    arguments = [emulator.url, str(state), str(RATE), str(BURST), str(EACH)]
    children = [
        subprocess.Popen([sys.executable, "-m", "geoloc_dagster_tests.imagery.askers", *arguments], stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    answers = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES
    return [int(answer) for answer in answers]


def fullest_window(times: list[float]) -> float:
    """The greatest number of requests, beyond what the rate allows, in any window that begins and ends with one."""
    excess = 0.0
    for first in range(len(times)):
        for last in range(first, len(times)):
            excess = max(excess, last - first + 1 - RATE * (times[last] - times[first]))
    return excess


@pytest.mark.slow
def test_four_processes_together_keep_the_rate_of_one(emulator: EmulatorProcess, tmp_path: Path):
    assert sum(ask_together(emulator, tmp_path / "buckets.sqlite")) == PROCESSES * EACH
    times = [hit["t"] for hit in emulator.hits()["requests"]]
    assert len(times) == PROCESSES * EACH
    assert fullest_window(times) <= BURST + RATE * LATE_S
    assert times[-1] - times[0] < 4 * len(times) / RATE  # and it is not merely slow


@pytest.mark.slow
def test_a_storm_of_retry_after_ends_with_everything_and_no_request_inside_a_pause(emulator: EmulatorProcess, tmp_path: Path):
    emulator.set_faults({"seed": 3, "rules": [{"fault": "retry_after", "probability": 0.05, "seconds": 1}]})
    assert sum(ask_together(emulator, tmp_path / "buckets.sqlite")) == PROCESSES * EACH
    hits: list[dict[str, Any]] = emulator.hits()["requests"]
    storms = [hit["t"] for hit in hits if hit["outcome"] == "retry_after"]
    assert len(storms) >= 3
    inside = [hit["t"] for hit in hits if any(storm + LATE_S < hit["t"] < storm + 1 for storm in storms)]
    assert inside == []


def test_a_clock_that_was_set_back_holds_nothing_up(tmp_path: Path):
    buckets = HostBuckets(tmp_path / "buckets.sqlite")
    assert buckets.claim("maps", 1_000_000.0, 0.1, 0.4) == 0
    assert buckets.claim("maps", 1_000.0, 0.1, 0.4) == 0
    assert buckets.claim("maps", 1_000.0, 0.1, 0.4) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["memory", "host"])
def test_a_bucket_lets_the_burst_go_and_then_one_per_interval(kind: str, tmp_path: Path):
    buckets = MemoryBuckets() if kind == "memory" else HostBuckets(tmp_path / "buckets.sqlite")
    waits = [buckets.claim("maps", 50.0, 0.5, 1.0) for _ in range(5)]
    assert waits[:3] == [0, 0, 0]
    assert waits[3] == pytest.approx(0.5)
    assert waits[4] == pytest.approx(0.5)
    buckets.pause("maps", 60.0)
    buckets.pause("maps", 55.0)
    assert buckets.claim("maps", 52.0, 0.5, 1.0) == pytest.approx(8.0)
    assert buckets.claim("maps", 60.0, 0.5, 1.0) == 0
    assert buckets.paused_until("maps") == 60.0
    assert buckets.claim("another", 52.0, 0.5, 1.0) == 0
