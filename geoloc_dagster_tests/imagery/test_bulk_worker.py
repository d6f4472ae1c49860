"""A process that fetches ends with the one that hands out, whenever that is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from geoloc_dagster.imagery.bulk_worker import Crew
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Location


class Nobody:
    """Whoever handed out is gone, which the first answer tells; others are on their way by then. A provider and a sink in one."""

    def __init__(self) -> None:
        self.fetched = 0
        self.told = False

    def hold(self, photos: dict[str, Photo]) -> None: ...
    def release(self, photo_id: str) -> None: ...

    def panorama(self, location: Location, photo: Photo) -> SimpleNamespace:
        return SimpleNamespace(views=[photo])

    async def fetch(self, panorama: SimpleNamespace, view: Photo) -> SimpleNamespace:
        self.fetched += 1
        if self.fetched > 1:
            await asyncio.sleep(0.05)
        return SimpleNamespace(asked=True)

    async def add(self, answer: SimpleNamespace) -> None:
        if not self.told:
            self.told = True
            self.say({})

    def say(self, message: dict[str, Any]) -> None:
        raise BrokenPipeError


def test_a_fetching_process_to_which_nobody_listens_comes_to_an_end():
    """It began what was in its queues again and again, for good, at the price of a core."""

    async def abandoned() -> Crew:
        crew = Crew(nobody, nobody, 4, nobody.say)
        crew.add([Photo(str(n), f"http://127.0.0.{n % 9}/{n}.jpg") for n in range(400)])
        await asyncio.wait_for(crew.end(), 20)
        return crew

    nobody = Nobody()
    crew = asyncio.run(abandoned())
    assert isinstance(crew.problem, BrokenPipeError)
    assert 0 < nobody.fetched <= 9 * 4


def test_a_process_ends_at_once_when_it_speaks_and_nobody_listens():
    lines = ["import socket, sys", "from geoloc_dagster.imagery.bulk_worker import _Mouth", "one, other = socket.socketpair()"]
    lines += ["_Mouth(one.fileno()).say({})", "other.close()", "_Mouth(one.fileno()).say({})", "print('still there')"]
    said = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (3, "")
