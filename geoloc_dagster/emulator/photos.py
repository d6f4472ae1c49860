"""A host of photos below `/photos/`: a list of them as CSV, pictures of the usual kind, and every way in which one can be odd."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, jpeg_answer, text_answer
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint, FaultRule
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.photo_oddities import ODD, ordinary, unavailable

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City

PHOTOS = 240
COLUMNS = ("id", "url", "lat", "lng", "date", "author", "licence", "attribution", "heading")
_SPREAD_DEG = 0.004
_LICENCES = ("CC-BY-4.0", "CC-BY-SA-4.0", "http://creativecommons.org/licenses/by-nc/2.0/", "")
_FIRST_DAY = dt.date(2008, 1, 1)
_MOVED = {
    "moved": "/photos/good/7.jpg",
    "moved_twice": "/photos/odd/moved.jpg",
    "circle": "/photos/odd/circle.jpg",
    "moved_to_router": "http://192.168.0.1/photos/good/7.jpg",
    "moved_to_metadata": "http://169.254.169.254/latest/meta-data/",
    "moved_to_file": "file:///etc/passwd",
    "moved_to_private": "/photos/private/7.jpg",
    "unavailable": "/photos/photo_unavailable.png",
}
ODDITIES = (*ODD, *_MOVED, "private", "unknown")


def photos(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application below `/photos/`."""
    return _Photos(options, desk)


class _Photos:
    def __init__(self, options: EmulatorOptions, desk: Desk) -> None:
        self._options = options
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        what = scope["path"].removeprefix("/photos/")
        root = f"http://{dict(scope['headers']).get(b'host', b'127.0.0.1').decode()}"
        folder, _, name = what.rpartition("/")
        stem = name.partition(".")[0]
        always = FaultRule(fault="wrong_length") if stem == "wrong_length" else None

        async def answer() -> Answer:
            return await self._desk.drawn(lambda: self._answer(what, folder, stem, root))

        await self._desk.serve(wire, _endpoint(what), what, answer, (320, 240), always)

    def _answer(self, what: str, folder: str, stem: str, root: str) -> Answer:
        if what == "list.csv":
            return self._list(root, {"kind": "good"})
        if what == "odd.csv":
            return self._list(root, {"kind": "odd"})
        if what == "photo_unavailable.png":
            return Answer("OK", 200, "image/png", unavailable())
        if folder == "odd" and stem in _MOVED:
            where = _MOVED[stem] if "://" in _MOVED[stem] or _MOVED[stem].startswith("file:") else root + _MOVED[stem]
            return Answer("MOVED", 302, "text/html", b"<html>moved</html>", (("location", where),))
        if folder == "odd" and stem in ODD:
            return ODD[stem](self._options.seed)
        if folder in ("good", "private") and stem.isdecimal() and int(stem) < PHOTOS:
            return jpeg_answer(ordinary(self._options.seed + int(stem)))
        return text_answer(404, "there is no such photo", "NOT_FOUND")

    def _list(self, root: str, query: Mapping[str, str]) -> Answer:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        names = [str(number) for number in range(PHOTOS)] if query["kind"] == "good" else list(ODDITIES)
        for number, name in enumerate(names):
            writer.writerow(self._row(number, name, query["kind"], root))
        return Answer("OK", 200, "text/csv; charset=utf-8", text.getvalue().encode())

    def _row(self, number: int, name: str, kind: str, root: str) -> list[str]:
        dice = Dice(self._options.seed, 71, number)
        lat_deg, lng_deg = self._options.origin
        path = "private/7" if name == "private" else f"{kind}/{name}"
        author = f"photographer_{dice.integer(1, 20)}"
        return [
            f"{number:03d}" if kind == "good" else f"odd_{name}",
            f"{root}/photos/{path}.jpg",
            f"{lat_deg + dice.between(-_SPREAD_DEG, _SPREAD_DEG):.6f}",
            f"{lng_deg + dice.between(-_SPREAD_DEG, _SPREAD_DEG):.6f}",
            (_FIRST_DAY + dt.timedelta(days=dice.integer(0, 6000))).isoformat() if dice.chance(0.9) else "",
            author,
            dice.pick(_LICENCES, (40, 30, 20, 10)),
            f"Photo by {author}" if dice.chance(0.7) else "",
            f"{dice.between(0, 360):.1f}" if dice.chance(0.5) else "",
        ]


def _endpoint(what: str) -> Endpoint:
    return "photo_list" if what.endswith(".csv") else "photo"
