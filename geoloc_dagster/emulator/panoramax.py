"""The emulated city as a Panoramax instance: STAC search without pages, items with related ones, whole and flat pictures."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, encode_jpeg, jpeg_answer, json_answer
from geoloc_dagster.emulator.bands import band, flat
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.mishaps import Wire
from geoloc_dagster.emulator.options import EmulatorOptions

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City, Place, Snapshot

_LICENCES = ("etalab-2.0", "CC-BY-SA-4.0", "proprietary")
_SIZES_PX = {"hd": 2560, "sd": 2048, "thumb": 500}
_FLAT_FOV_DEG = 70.0
_EXTENSIONS = ("view/v1.0.0", "perspective-imagery/v1.0.0")


@dataclass(frozen=True, slots=True)
class _Picture:
    """One picture: who took it, how, and under which licence, all decided by the seed."""

    item_id: str
    place: Place
    snapshot: Snapshot
    taken_at: dt.datetime
    heading_deg: float
    is_360: bool
    has_compass: bool
    licence: str
    producer: str

    @property
    def name(self) -> str:
        return f"{self.snapshot.lat_deg:.7f},{self.snapshot.lng_deg:.7f}/{self.snapshot.captured_on:%Y-%m}"


class _Refused(Exception):
    """The request is malformed; the message says how."""


def panoramax(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application below `/api/`."""
    return _Instance(city, options.seed, desk)


class _Instance:
    def __init__(self, city: City, seed: int, desk: Desk) -> None:
        self._city = city
        self._seed = seed
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        parts = scope["path"].removeprefix("/api/").split("/")
        root = f"http://{dict(scope['headers']).get(b'host', b'127.0.0.1').decode()}"
        query: Mapping[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if parts == ["search"]:
            await self._search(scope, wire, query, root)
        elif len(parts) == 4 and parts[0] == "collections" and parts[2] == "items":
            await self._one(wire, "panoramax_search", parts[3], root)
        elif len(parts) == 3 and parts[0] == "pictures" and parts[2].removesuffix(".jpg") in _SIZES_PX:
            await self._one(wire, "panoramax_picture", parts[1], root, parts[2].removesuffix(".jpg"))
        else:
            await wire.deliver(_message(404, "there is no such page"), None)

    async def _search(self, scope: Scope, wire: Wire, query: Mapping[str, str], root: str) -> None:
        if scope["method"] == "POST":
            try:
                query = _posted(dict(scope["headers"]), await _body(wire))
            except _Refused as error:
                await wire.deliver(_message(400, str(error)), None)
                return

        async def answer() -> Answer:
            try:
                return json_answer(self._found(query, root))
            except _Refused as error:
                return _message(400, str(error))

        what = query.get("bbox") or query.get("ids") or "everything"
        await self._desk.serve(wire, "panoramax_search", what, answer, (0, 0))

    def _found(self, query: Mapping[str, str], root: str) -> dict[str, Any]:
        limit = _integer(query.get("limit", "10"), 1, 10_000)
        if "ids" in query:
            pictures = [picture for one in query["ids"].split(",") if (picture := self._by_id(one)) is not None]
        else:
            west, south, east, north = _bbox(query.get("bbox", ""))
            middle = ((south + north) / 2, (west + east) / 2)
            places = self._city.within(west - 1e-4, south - 1e-4, east + 1e-4, north + 1e-4)
            inside = [picture for place in places for picture in self._pictures(place)]
            inside = [p for p in inside if south <= p.snapshot.lat_deg <= north and west <= p.snapshot.lng_deg <= east]
            pictures = sorted(inside, key=lambda p: (_gap(p, middle), p.item_id))
        features = [self._describe(picture, root) for picture in pictures[:limit]]
        return {"type": "FeatureCollection", "features": features, "links": [{"rel": "root", "href": f"{root}/api/"}]}

    async def _one(self, wire: Wire, endpoint: Endpoint, item_id: str, root: str, size: str | None = None) -> None:
        picture = self._by_id(item_id)

        async def answer() -> Answer:
            if picture is None:
                return _message(404, "there is no such picture")
            if size is None:
                return json_answer(self._describe(picture, root))
            return await self._desk.drawn(partial(self._jpeg, picture, _SIZES_PX[size]))

        what = "unknown" if picture is None else picture.name
        await self._desk.serve(wire, endpoint, what if size is None else f"{what}/{size}", answer, (640, 640))

    def _pictures(self, place: Place) -> list[_Picture]:
        """The pictures of a place that exist today."""
        today = self._desk.controls.clock.today()
        past = [s for s in place.snapshots if (s.captured_on.year, s.captured_on.month) < (today.year, today.month)]
        return [picture for s in past if (picture := self._picture(place, s)) is not None]

    def _picture(self, place: Place, snapshot: Snapshot) -> _Picture | None:
        dice = Dice(self._seed, 61, place.place_id, snapshot.number)
        if dice.chance(0.05):  # nobody was here that time
            return None
        day = snapshot.captured_on + dt.timedelta(days=dice.integer(0, 27))
        return _Picture(
            self._id(place.place_id, snapshot.number),
            place,
            snapshot,
            dt.datetime(day.year, day.month, day.day, dice.integer(8, 17), dice.integer(0, 59), tzinfo=dt.UTC),
            round(dice.between(0, 360), 1) % 360,
            dice.chance(0.7),
            dice.chance(0.97),
            dice.pick(_LICENCES, (60, 35, 5)),
            f"walker_{dice.integer(1, 30)}",
        )

    def _id(self, place_id: int, number: int) -> str:
        plain = place_id.to_bytes(7, "big") + number.to_bytes(1, "big")
        return str(uuid.UUID(bytes=plain + hashlib.blake2b(plain, key=str(self._seed).encode(), digest_size=8).digest()))

    def _by_id(self, item_id: str) -> _Picture | None:
        try:
            plain = uuid.UUID(item_id).bytes[:8]
        except ValueError:
            return None
        place_id, number = int.from_bytes(plain[:7], "big"), plain[7]
        place = self._city.place(place_id) if item_id == self._id(place_id, number) else None
        pictures = [] if place is None else self._pictures(place)
        return next((picture for picture in pictures if picture.item_id == item_id), None)

    def _describe(self, picture: _Picture, root: str) -> dict[str, Any]:
        lat, lng = picture.snapshot.lat_deg, picture.snapshot.lng_deg
        others = [other for other in self._pictures(picture.place) if other.item_id != picture.item_id]
        properties: dict[str, Any] = {
            "datetime": picture.taken_at.isoformat().replace("+00:00", "Z"),
            "license": picture.licence,
            "geovisio:status": "ready",
            "geovisio:producer": picture.producer,
            "pers:interior_orientation": {"field_of_view": 360 if picture.is_360 else _FLAT_FOV_DEG},
        }
        if picture.has_compass:
            properties["view:azimuth"] = picture.heading_deg
        address = f"{root}/api/pictures/{picture.item_id}"
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in _EXTENSIONS],
            "id": picture.item_id,
            "collection": self._collection(picture),
            "geometry": {"type": "Point", "coordinates": [lng, lat]},
            "bbox": [lng, lat, lng, lat],
            "providers": [{"name": picture.producer, "roles": ["producer"]}],
            "properties": properties,
            "assets": {name: {"href": f"{address}/{name}.jpg", "type": "image/jpeg", "roles": ["data"]} for name in _SIZES_PX},
            "links": [
                {"rel": "related", "href": f"{root}/api/collections/{self._collection(other)}/items/{other.item_id}"}
                for other in others
            ],
        }

    def _collection(self, picture: _Picture) -> str:
        """One per street and drive."""
        plain = f"{self._seed} {picture.place.place_id >> 12} {picture.snapshot.number}".encode()
        return str(uuid.UUID(bytes=hashlib.blake2b(plain, digest_size=16).digest()))

    def _jpeg(self, picture: _Picture, width_px: int) -> Answer:
        return jpeg_answer(self._draw(picture, width_px))

    def _draw(self, picture: _Picture, width_px: int) -> bytes:
        if picture.is_360:
            return encode_jpeg(band(self._city, picture.snapshot, picture.heading_deg, width_px))
        return encode_jpeg(flat(self._city, picture.snapshot, picture.heading_deg, _FLAT_FOV_DEG, 640, 480))


def _gap(picture: _Picture, middle: tuple[float, float]) -> float:
    return (picture.snapshot.lat_deg - middle[0]) ** 2 + (picture.snapshot.lng_deg - middle[1]) ** 2


def _message(status: int, text: str) -> Answer:
    body = json.dumps({"message": text, "status_code": status}).encode()
    return Answer("OK" if status < 400 else "REFUSED", status, "application/json", body)


async def _body(wire: Wire) -> bytes:
    body = b""
    while True:
        message = await wire.receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _posted(headers: Mapping[bytes, bytes], body: bytes) -> dict[str, str]:
    """The query of a search that was posted."""
    if headers.get(b"content-type", b"").split(b";")[0] != b"application/json":
        raise _Refused("a search is posted as application/json")
    try:
        said = json.loads(body)
        return {name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in said.items()}
    except (ValueError, AttributeError):
        raise _Refused("that is no JSON object") from None


def _integer(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise _Refused(f"limit is a number from {low} to {high}")
    return int(text)


def _bbox(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise _Refused("bbox is four numbers: west, south, east, north") from None
    if not (west <= east and south <= north):
        raise _Refused("bbox is west, south, east, north")
    return west, south, east, north
