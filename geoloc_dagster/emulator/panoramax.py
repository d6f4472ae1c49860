"""The emulated city as a Panoramax instance: STAC search without pages, items with related ones, whole and flat pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator import stac_search
from geoloc_dagster.emulator.answers import Answer, encode_jpeg, jpeg_answer, json_answer
from geoloc_dagster.emulator.bands import band, flat
from geoloc_dagster.emulator.contributors import FLAT_FOV_DEG, SIZES_PX, Contributors, Picture
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.mishaps import Wire
from geoloc_dagster.emulator.options import EmulatorOptions

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City


def panoramax(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application below `/api/`."""
    return _Instance(city, options.seed, desk)


class _Instance:
    def __init__(self, city: City, seed: int, desk: Desk) -> None:
        self._city = city
        self._desk = desk
        self._contributors = Contributors(city, seed, desk.controls.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        parts = scope["path"].removeprefix("/api/").split("/")
        root = f"http://{dict(scope['headers']).get(b'host', b'127.0.0.1').decode()}"
        query: Mapping[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if parts == ["search"]:
            await self._search(scope, wire, query, root)
        elif len(parts) == 3 and parts[0] == "collections" and parts[2] == "items":
            page = partial(stac_search.items, self._contributors, parts[1], query, root)
            await self._say(wire, parts[1], page)
        elif len(parts) == 4 and parts[0] == "collections" and parts[2] == "items":
            await self._one(wire, "panoramax_search", parts[3], root)
        elif len(parts) == 3 and parts[0] == "pictures" and parts[2].removesuffix(".jpg") in SIZES_PX:
            await self._one(wire, "panoramax_picture", parts[1], root, parts[2].removesuffix(".jpg"))
        else:
            await wire.deliver(_message(404, "there is no such page"), None)

    async def _search(self, scope: Scope, wire: Wire, query: Mapping[str, str], root: str) -> None:
        if scope["method"] == "POST":
            try:
                query = stac_search.posted(dict(scope["headers"]), await _body(wire))
            except stac_search.RefusedError as error:
                await wire.deliver(_message(400, str(error)), None)
                return
        what = query.get("bbox") or query.get("ids") or "everything"
        await self._say(wire, what, partial(stac_search.search, self._contributors, query, root))

    async def _say(self, wire: Wire, what: str, find: Callable[[], dict[str, Any] | None]) -> None:
        """Answer a search."""

        async def answer() -> Answer:
            try:
                found = find()
            except stac_search.RefusedError as error:
                return _message(400, str(error))
            return _message(404, "there is no such collection") if found is None else json_answer(found)

        await self._desk.serve(wire, "panoramax_search", what, answer, (0, 0))

    async def _one(self, wire: Wire, endpoint: Endpoint, item_id: str, root: str, size: str | None = None) -> None:
        picture = self._contributors.picture(item_id)

        async def answer() -> Answer:
            if picture is None:
                return _message(404, "there is no such picture")
            if size is None:
                return json_answer(self._contributors.describe(picture, root))
            return await self._desk.drawn(partial(self._jpeg, picture, SIZES_PX[size]))

        what = "unknown" if picture is None else picture.name
        await self._desk.serve(wire, endpoint, what if size is None else f"{what}/{size}", answer, (640, 640))

    def _jpeg(self, picture: Picture, width_px: int) -> Answer:
        if picture.is_360:
            return jpeg_answer(encode_jpeg(band(self._city, picture.snapshot, picture.heading_deg, width_px)))
        width, height = (640, 480) if width_px >= 640 else (width_px, width_px * 3 // 4)
        return jpeg_answer(encode_jpeg(flat(self._city, picture.snapshot, picture.heading_deg, FLAT_FOV_DEG, width, height)))


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
