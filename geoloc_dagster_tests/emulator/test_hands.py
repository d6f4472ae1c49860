"""A city drawn by several processes: the same bytes, whatever becomes of the others."""

from __future__ import annotations

import datetime as dt
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.emulator.city import City, View
from geoloc_dagster.emulator.hands import ManyHandedCity
from geoloc_dagster.emulator.options import EmulatorOptions

ORIGIN, SEED = (59.33, 18.06), 5
POSITIONS = [(ORIGIN[0] + 0.0009 * step, ORIGIN[1]) for step in range(4)]  # neighbouring parts, drawn by turns
PARENT = """
import datetime as dt, sys
from geoloc_dagster.emulator.hands import ManyHandedCity
city = ManyHandedCity((59.33, 18.06), 5, hands=3)
for step in range(3):
    city.render(59.33 + 0.0009 * step, 18.06, heading_deg=0, width=32, height=32, date=dt.date(2020, 6, 1))
print(*[hand._child.pid for hand in city._hands], flush=True)
sys.stdin.read()
"""


def look(city: City, position: tuple[float, float]) -> View:
    return city.render(*position, heading_deg=30, width=64, height=48, date=dt.date(2020, 6, 1))


@pytest.fixture
def city() -> Iterator[ManyHandedCity]:
    city = ManyHandedCity(ORIGIN, SEED, hands=2)
    yield city
    city.close()


def drawing(city: ManyHandedCity) -> list[int]:
    return [hand._child.pid for hand in city._hands if hand._child is not None]


def test_every_hand_draws_the_same_city(city: ManyHandedCity) -> None:
    alone = City(ORIGIN, SEED)
    for position in POSITIONS:
        mine, theirs = look(city, position), look(alone, position)
        assert np.array_equal(mine.rgb, theirs.rgb)
        assert np.array_equal(mine.classes, theirs.classes)
    assert len(drawing(city)) == 2


def test_a_part_whose_process_was_killed_is_drawn_all_the_same(city: ManyHandedCity) -> None:
    before = [look(city, position).rgb for position in POSITIONS]
    os.kill(drawing(city)[0], signal.SIGKILL)
    assert all(np.array_equal(look(city, position).rgb, rgb) for position, rgb in zip(POSITIONS, before, strict=True))


def test_a_closed_city_leaves_no_process(city: ManyHandedCity) -> None:
    look(city, POSITIONS[0])
    look(city, POSITIONS[1])
    pids = drawing(city)
    city.close()
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_hands_end_with_a_process_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    watched = [os.pidfd_open(pid) for pid in pids]
    parent.kill()
    parent.communicate()
    for handle in watched:
        ready, _, _ = select.select([handle], [], [], 10)
        os.close(handle)
        assert ready


def test_the_number_of_hands_reaches_a_process_of_its_own() -> None:
    assert "--hands=3" in EmulatorOptions(ORIGIN, hands=3).arguments()
