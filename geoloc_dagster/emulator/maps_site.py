"""The emulated city as a maps site for people: consent, map, search, street view with its time machine.

What a client may rely on is what a person sees: labels, addresses, the one canvas of the scene. The `data-` attributes
on the canvas are for tests; the fault `no_attributes` serves the page without them. The page asks the server before it obeys a
click, so that the script of faults decides, and the log counts, which clicks get lost.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, quote

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import COPYRIGHT, Answer, encode_jpeg, jpeg_answer, json_answer, text_answer
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.mishaps import Wire
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.service import Resolved, StreetView

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City

FACE_FOCAL_PX, FACE_WIDTH_PX, FACE_HEIGHT_PX = 320, 656, 912
"""Of the four pictures of a panorama; `maps_pages/panorama.js` has the same numbers."""
FACE_FOV_DEG = 91.4147  # 2 atan(328 / 320)

_PAGES = Path(__file__).parent / "maps_pages"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_KEPT_TILES = 256
_COOKIE = "CONSENT"
_LANGUAGES = ("sv", "fr", "ja")
_NAMES = ("Storgatan", "Kyrkogatan", "Hamngatan", "Skolgatan", "Ågatan", "Lindvägen", "Björkgatan", "Kungsgatan")


def maps_site(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application of `/maps/`, `/consent` and `/sorry`."""
    return _Site(city, options, desk)


class _Site:
    def __init__(self, city: City, options: EmulatorOptions, desk: Desk) -> None:
        self._city = city
        self._options = options
        self._desk = desk
        self._views = StreetView(city, options.seed, desk.controls.clock)
        self._tiles: OrderedDict[str, Answer] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self._desk.wire(scope, receive, send)
        path = str(scope["path"])
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        kind, _, rest = path.removeprefix("/maps/").partition("/") if path.startswith("/maps/") else (path, "", "")
        match kind:
            case "static":
                await wire.deliver(_static(rest), None)
            case "panorama":
                await self._panorama(wire, query)
            case "click":
                what = f"{query.get('kind', '')}/{self._resolve({'pano': query.get('pano', '')}).what}"
                await self._serve(wire, "maps_click", what, json_answer({"mishap": ""}))
            case "tile" | "thumb":
                await self._picture(wire, kind, rest)
            case "/consent":
                await self._serve(wire, "maps_consent", "page", _consent(query.get("continue", "/maps/")))
            case "/consent/save":
                await wire.deliver(_consented(await _posted(wire)), None)
            case "/sorry/index":
                await wire.deliver(Answer("OK", 429, "text/html; charset=utf-8", _page("sorry.html")), None)
            case "api":
                await wire.deliver(text_answer(404, "there is no such page", "NOT_FOUND"), None)
            case _:
                await self._serve(wire, "maps_page", path, self._map(scope, path))

    async def _serve(self, wire: Wire, endpoint: Endpoint, what: str, answer: Answer | Callable[[], Awaitable[Answer]]) -> None:
        async def ready() -> Answer:
            return answer if isinstance(answer, Answer) else await answer()

        await self._desk.serve(wire, endpoint, what, ready, (FACE_WIDTH_PX, FACE_HEIGHT_PX))

    def _map(self, scope: Scope, path: str) -> Answer:
        """The one page of the site; whoever has not been asked about cookies is asked first."""
        if not path.startswith("/maps/"):
            return text_answer(404, "there is no such page", "NOT_FOUND")
        cookies = dict(scope["headers"]).get(b"cookie", b"").decode("latin-1")
        if f"{_COOKIE}=" not in cookies:
            raw = scope.get("raw_path", path.encode()).decode("latin-1")
            query = scope["query_string"].decode("latin-1")
            return _redirect(f"/consent?continue={quote(raw + ('?' + query if query else ''), safe='')}")
        lat_deg, lng_deg = self._options.origin
        settings = json.dumps({"mishap": "", "lat": lat_deg, "lng": lng_deg}, separators=(",", ":"))
        page = _page("index.html").replace(b"{{settings}}", settings.encode())
        return Answer("OK", 200, "text/html; charset=utf-8", page)

    def _resolve(self, query: dict[str, str]) -> Resolved:
        return self._views.resolve("metadata", query)

    async def _panorama(self, wire: Wire, query: dict[str, str]) -> None:
        """What the page shows of one panorama, and the dates of its place."""
        by = query.pop("by", "link")
        found = self._resolve(query)
        if found.place is None or found.snapshot is None:
            where = query.get("location") or query.get("pano", "")
            await self._serve(wire, "maps_panorama", f"{by}/{where[:80]}", json_answer({"status": found.status, "mishap": ""}))
            return
        about = json.loads(self._views.answer("metadata", query, found).body)
        history = json.loads(self._views.answer("history", query, found).body)
        street, number = _address(self._options.seed, found.place.place_id)
        content = {
            "status": "OK",
            "mishap": "",
            "pano_id": about["pano_id"],
            "date": about["date"],
            **about["location"],
            "address": f"{number} {street}",
            "locality": "Emulated City",
            "copyright": COPYRIGHT,
            "dates": [{"pano_id": one["pano_id"], "date": one["date"]} for one in history["panoramas"]],
        }
        name = f"{found.snapshot.place_id}/{found.snapshot.number}"
        await self._serve(wire, "maps_panorama", f"{by}/{name}", json_answer(content))

    async def _picture(self, wire: Wire, kind: str, rest: str) -> None:
        """One of a panorama's four pictures, `PANO/0.jpg` to `PANO/3.jpg`, or its small one, `PANO.jpg`."""
        pano_id, _, face = rest.removesuffix(".jpg").partition("/")
        found = self._resolve({"pano": pano_id})
        tile = kind == "tile"
        if found.snapshot is None or not rest.endswith(".jpg") or (tile and face not in ("0", "1", "2", "3")):
            await wire.deliver(text_answer(404, "there is no such picture", "NOT_FOUND"), None)
            return
        name = f"{found.snapshot.place_id}/{found.snapshot.number}" + (f"/{face}" if tile else "")

        async def answer() -> Answer:
            key = f"{kind}/{name}"
            if key not in self._tiles:
                self._tiles[key] = await self._desk.drawn(partial(self._draw, found, int(face) if tile else None))
                while len(self._tiles) > _KEPT_TILES:
                    self._tiles.popitem(last=False)
            return self._tiles[key]

        await self._serve(wire, "maps_tile" if tile else "maps_thumbnail", name, answer)

    def _draw(self, found: Resolved, face: int | None) -> Answer:
        assert found.snapshot is not None
        small = face is None
        view = self._city.render(
            found.snapshot.lat_deg,
            found.snapshot.lng_deg,
            heading_deg=0.0 if face is None else 90.0 * face,
            fov_deg=90.0 if small else FACE_FOV_DEG,
            width=300 if small else FACE_WIDTH_PX,
            height=168 if small else FACE_HEIGHT_PX,
            date=found.snapshot.captured_on,
        )
        picture = jpeg_answer(encode_jpeg(view.rgb))
        return Answer(picture.outcome, 200, picture.media_type, picture.body, (("cache-control", "private, max-age=3600"),))


def _address(seed: int, place_id: int) -> tuple[str, int]:
    """Street and number of a place; neighbours of one street share its name."""
    street = Dice(seed, 71, place_id >> 12).pick(_NAMES)
    return street, 2 * (place_id & 0xFFF) + 1


def _page(name: str) -> bytes:
    return (_PAGES / name).read_bytes()


def _static(name: str) -> Answer:
    path = _PAGES / name
    if "/" in name or path.suffix not in _TYPES or not path.is_file():
        return text_answer(404, "there is no such file", "NOT_FOUND")
    return Answer("OK", 200, _TYPES[path.suffix], path.read_bytes(), (("cache-control", "private, max-age=3600"),))


def _redirect(where: str, status: int = 302, *headers: tuple[str, str]) -> Answer:
    return Answer("OK", status, "text/html; charset=utf-8", b"", (("location", where), *headers))


def _consent(target: str) -> Answer:
    chosen = hashlib.blake2b(target.encode(), digest_size=1).digest()[0] % len(_LANGUAGES)
    page = _page("consent.html").replace(b"{{continue}}", html.escape(target).encode())
    return Answer("OK", 200, "text/html; charset=utf-8", page.replace(b"{{language}}", _LANGUAGES[chosen].encode()))


def _consented(form: dict[str, str]) -> Answer:
    """Remember the answer and go where the visitor wanted to, on this site only."""
    target = form.get("continue", "")
    target = target if target.startswith("/maps/") else "/maps/"
    value = "REJECTED" if form.get("set_eom") == "true" else "ACCEPTED"
    return _redirect(target, 303, ("set-cookie", f"{_COOKIE}={value}; Path=/; SameSite=Lax"))


async def _posted(wire: Wire) -> dict[str, str]:
    body = b""
    while True:
        message = await wire.receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
