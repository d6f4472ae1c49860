"""The emulated city as Mapillary: vector tiles, entities of the Graph API, and pictures under signed addresses that expire.

The real service has a host for each; here they are `/mapillary/tiles`, `/mapillary/graph` and `/mapillary/cdn`. Contract:
https://www.mapillary.com/developer/api-documentation.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator import graph
from geoloc_dagster.emulator.answers import Answer, encode_jpeg, jpeg_answer, text_answer
from geoloc_dagster.emulator.bands import band, flat
from geoloc_dagster.emulator.coverage_tiles import CoverageTiles
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.limits import QuotaMeter
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.walkers import FLAT_FOV_DEG, FLAT_PX, THUMBS_PX, Picture, Walkers

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City

ROOT = "/mapillary"
_TILE_PATH = ["maps", "vtp"]
_GONE_AFTER_S = 7 * 86_400  # an address that expired long ago is not forbidden but gone


def mapillary(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application below `/mapillary/`."""
    return _Service(city, options, desk)


class _Service:
    def __init__(self, city: City, options: EmulatorOptions, desk: Desk) -> None:
        self._city = city
        self._desk = desk
        self._token = options.key
        self._meter = QuotaMeter(options.quotas)
        self._walkers = Walkers(city, options.seed, desk.controls.clock)
        self._tiles = CoverageTiles(self._walkers, options.origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        host, *parts = scope["path"].removeprefix(f"{ROOT}/").split("/")
        query: Mapping[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        headers = dict(scope["headers"])
        if host == "cdn" and len(parts) == 2:
            endpoint, what, answer = self._cdn(parts[0], parts[1], query)
        else:
            root = f"http://{headers.get(b'host', b'127.0.0.1').decode()}{ROOT}"
            endpoint, what, good = self._asked(host, parts, query, root)
            token = query.get("access_token") or headers.get(b"authorization", b"").decode("latin-1").removeprefix("OAuth ")
            answer = partial(self._admitted, endpoint, token, good)
        if scope["method"] != "GET":
            await wire.deliver(graph.error(400, 100, "Unsupported request method"), None)
            return
        await self._desk.serve(wire, endpoint, what, answer, (640, 640))

    def _asked(
        self, host: str, parts: list[str], query: Mapping[str, str], root: str
    ) -> tuple[Endpoint, str, Callable[[], Awaitable[Answer]]]:
        """The endpoint, what is asked for, and what makes the answer for those who may ask."""
        if host == "tiles" and parts[:2] == _TILE_PATH and len(parts) == 7 and parts[3] == "2":
            tile = partial(self._tiles.answer, parts[2], parts[4:])
            return "mapillary_tile", "/".join(parts[4:]), partial(self._desk.drawn, tile)
        if host == "graph" and parts == ["images"] and "image_ids" in query:
            return "mapillary_images", query["image_ids"], _said(partial(graph.batch, self._walkers, query, root))
        if host == "graph" and parts == ["images"]:
            return "mapillary_search", query.get("bbox", "nothing"), _said(partial(graph.search, self._walkers, query, root))
        if host == "graph" and parts == ["image_ids"]:
            sequence_id = query.get("sequence_id", "")
            return "mapillary_search", sequence_id or "nothing", _said(partial(graph.sequence, self._walkers, sequence_id))
        if host == "graph" and len(parts) == 1:
            return "mapillary_images", parts[0], _said(partial(graph.entity, self._walkers, parts[0], query, root))
        return "mapillary_images", "unknown", _said(lambda: graph.error(404, 2500, "Unknown path components"))

    async def _admitted(self, endpoint: Endpoint, token: str, good: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer, for who has a token and has not asked too often."""
        if not token:
            return graph.error(401, 190, "An access token is required to request this resource.", "OAuthException")
        if self._token is not None and not hmac.compare_digest(token.encode(), self._token.encode()):
            return graph.error(400, 190, "Invalid OAuth 2.0 Access Token", "OAuthException")
        spent = self._meter.spend(endpoint, self._desk.controls.clock.today())
        if spent is None:
            return await good()
        refusal = graph.error(429, 4, "Application request limit reached", "OAuthException")
        seconds = self._meter.seconds_left(spent)
        return refusal if seconds is None else refusal.with_retry_after(str(seconds))

    def _cdn(self, image_id: str, name: str, query: Mapping[str, str]) -> tuple[Endpoint, str, Callable[[], Awaitable[Answer]]]:
        size = name.removesuffix(".jpg")
        picture = self._walkers.picture(image_id)

        async def answer() -> Answer:
            if picture is None or size not in THUMBS_PX:
                return text_answer(404, "Not found", "ZERO_RESULTS")
            over_s = self._walkers.expired_s(picture, size, query)
            if over_s is None:
                return text_answer(403, "URL signature mismatch", "REQUEST_DENIED")
            if over_s > 0:
                return text_answer(410 if over_s > _GONE_AFTER_S else 403, "URL signature expired", "REQUEST_DENIED")
            return await self._desk.drawn(partial(self._jpeg, picture, THUMBS_PX[size]))

        return "mapillary_picture", "unknown" if picture is None else f"{picture.name}/{size}", answer

    def _jpeg(self, picture: Picture, width_px: int) -> Answer:
        if picture.is_pano:
            return jpeg_answer(encode_jpeg(band(self._city, picture.snapshot, picture.heading_deg, width_px)))
        width, height = FLAT_PX if width_px >= FLAT_PX[0] else (width_px, width_px * FLAT_PX[1] // FLAT_PX[0])
        return jpeg_answer(encode_jpeg(flat(self._city, picture.snapshot, picture.heading_deg, FLAT_FOV_DEG, width, height)))


def _said(answer: Callable[[], Answer | dict[str, Any]]) -> Callable[[], Awaitable[Answer]]:
    """An answer of the Graph API, refusals as its envelope of errors."""

    async def say() -> Answer:
        return graph.answered(answer)

    return say
