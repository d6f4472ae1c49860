"""The emulated planet below `/planet/`: the list of its photos, the photos, and their class maps."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import IO, TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, jpeg_answer, text_answer
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.hands import Hand, exactly
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.planet_list import MOST_PHOTOS, list_csv, number_of

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City
    from geoloc_dagster.emulator.planet import Planet

PHOTOS = 20_000
"""In a list that does not say how many."""

_LENGTH_BYTES = 4


def planet(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application below `/planet/`; the planet has the emulator's seed."""
    site = _PlanetSite(options, desk)
    desk.closing.append(site.close)
    return site


class _PlanetSite:
    def __init__(self, options: EmulatorOptions, desk: Desk) -> None:
        self._seed, self._desk = options.seed, desk
        module = "geoloc_dagster.emulator.planet_site"
        self._hands = [Hand(module, str(options.seed)) for _ in range(options.hands if options.hands > 1 else 0)]
        self._planet: Planet | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        for hand in self._hands:
            hand.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        what = scope["path"].removeprefix("/planet/")
        root = f"http://{dict(scope['headers']).get(b'host', b'127.0.0.1').decode()}"
        query = parse_qs(scope["query_string"].decode("latin-1"))

        async def answer() -> Answer:
            return await self._desk.drawn(lambda: self._answer(what, query.get("photos", [str(PHOTOS)])[0], root))

        await self._desk.serve(wire, "photo_list" if what == "list.csv" else "photo", f"planet/{what}", answer, (128, 96))

    def _answer(self, what: str, photos: str, root: str) -> Answer:
        folder, _, name = what.partition("/")
        if what == "list.csv":
            if not (photos.isascii() and photos.isdecimal() and len(photos) < 10 and 1 <= int(photos) <= MOST_PHOTOS):
                return text_answer(400, f"photos must be a number from 1 to {MOST_PHOTOS}", "INVALID_REQUEST")
            return Answer("OK", 200, "text/csv; charset=utf-8", "".join(list_csv(self._own().book, root, int(photos))).encode())
        if folder == "photos" and (number := number_of(self._seed, name)) is not None:
            return jpeg_answer(self._photo(number))
        if folder == "maps" and name.endswith(".png"):
            number = number_of(self._seed, name.removesuffix("png") + "jpg")
            if number is not None:
                return Answer("OK", 200, "image/png", self._own().picture(number).class_map())
        return text_answer(404, "there is no such photo", "NOT_FOUND")

    def _photo(self, number: int) -> bytes:
        """The file of a photo, by turns from each of the hands; of one that has died, from here."""
        if self._hands:
            with contextlib.suppress(OSError, EOFError):
                return self._hands[number % len(self._hands)].ask(str(number).encode(), _read)
        return self._own().picture(number).jpeg()

    def _own(self) -> Planet:
        with self._lock:
            if self._planet is None:
                from geoloc_dagster.emulator.planet import Planet

                self._planet = Planet(self._seed)
        return self._planet


def _read(answer: IO[bytes]) -> bytes:
    return exactly(answer, int.from_bytes(exactly(answer, _LENGTH_BYTES), "big"))


def main(arguments: list[str]) -> None:
    """Answer each number of the standard input with the length and the bytes of that photo, until the input ends."""
    from geoloc_dagster.emulator.planet import Planet

    drawn = Planet(int(arguments[0]))
    for line in sys.stdin.buffer:
        photo = drawn.picture(int(line)).jpeg()
        sys.stdout.buffer.write(len(photo).to_bytes(_LENGTH_BYTES, "big") + photo)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
