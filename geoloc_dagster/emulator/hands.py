"""A city whose pictures are drawn by several processes, one per core: each always draws the same parts of the city.

`python -m geoloc_dagster.emulator.hands LAT,LNG SEED` is one of them: it reads a line of JSON per picture from its standard
input, writes the pixels to its standard output, and ends when the input does, however the process at its other end has ended.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, TypeVar

import numpy as np

from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.renderer import Camera, View

_PART_M = 100.0
T = TypeVar("T")


class ManyHandedCity(City):
    """The same city, bytes and all, with more hands.

    Args:
        origin: as of `City`.
        seed: likewise.
        hands: processes that draw. This one does not where there are several: its threads would take the interpreter from each
            other, and from whoever answers requests, which made a picture three times as dear.
    """

    def __init__(self, origin: tuple[float, float], seed: int = 0, hands: int = 1) -> None:
        super().__init__(origin, seed)
        place = f"{origin[0]!r},{origin[1]!r}"
        self._hands = [Hand("geoloc_dagster.emulator.hands", place, str(seed)) for _ in range(hands if hands > 1 else 0)]

    def draw(self, camera: Camera, date: dt.date) -> View:
        """As `City.draw`; a part of the city whose process has died is drawn here."""
        if self._hands:
            number = (math.floor(camera.x_m / _PART_M) + math.floor(camera.y_m / _PART_M)) % len(self._hands)
            with contextlib.suppress(OSError, EOFError):
                question = json.dumps([asdict(camera), date.isoformat()]).encode()
                return self._hands[number].ask(question, lambda answer: _view(answer, camera.width, camera.height))
        return super().draw(camera, date)

    def close(self) -> None:
        """End the other processes."""
        for hand in self._hands:
            hand.close()


class Hand:
    """Another process that draws, started with its first picture.

    Args:
        module: run as `python -m MODULE ARGUMENTS`; answers every line of its standard input with bytes.
        arguments: of it.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, question: bytes, read: Callable[[IO[bytes]], T]) -> T:
        """What `read` makes of the answer to a line; raises OSError or EOFError where the process is gone."""
        with self._lock:
            if self._closed:
                raise EOFError
            if self._child is None:
                # A session of its own: Ctrl+C ends the server, and the end of the server's pipe ends this.
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            child = self._child
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(question + b"\n")
            child.stdin.flush()
            return read(child.stdout)

    def close(self) -> None:
        """End the process and wait for it; whoever waits for a picture of it draws that himself."""
        self._closed = True
        child = self._child
        if child is None:
            return
        child.kill()  # it has nothing to put away, and may have been started where a gentler signal is ignored
        child.wait()
        with self._lock:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def exactly(stream: IO[bytes], length: int) -> bytes:
    """The next bytes of an answer; raises EOFError where there are fewer."""
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _view(answer: IO[bytes], width: int, height: int) -> View:
    return View(
        np.frombuffer(exactly(answer, width * height * 3), np.uint8).reshape(height, width, 3),
        np.frombuffer(exactly(answer, width * height), np.uint8).reshape(height, width),
    )


def main(arguments: list[str]) -> None:
    """Draw what the standard input asks for, until it ends."""
    lat_deg, lng_deg = (float(part) for part in arguments[0].split(","))
    city = City((lat_deg, lng_deg), int(arguments[1]))
    pictures = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        camera, date = json.loads(line)
        seen = city.draw(Camera(**camera), dt.date.fromisoformat(date))
        pictures.write(seen.rgb.tobytes())
        pictures.write(seen.classes.tobytes())
        pictures.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
