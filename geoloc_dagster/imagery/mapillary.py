"""Street-level pictures from Mapillary: vector tiles say where there are any, entities what they are.

Contract: https://www.mapillary.com/developer/api-documentation. A search for a box gives a bounded sample without pages, so
nothing is ever searched: the tiles of zoom 14 are complete. Addresses of pictures are signed and expire; they live no longer
than a run. Everything is under CC BY-SA 4.0: pictures may be kept, passed on and learned from, with their makers' names.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

from geoloc_dagster.errors import ImageError, ServiceKeyError, ServiceUnavailableError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.ahead import ahead
from geoloc_dagster.imagery.client import Answer, OverQuotaError, ServiceClient
from geoloc_dagster.imagery.google import SAME_PLACE_M, Lookup
from geoloc_dagster.imagery.graph import BAD_TOKEN, FIELDS, LIMITS, THUMBS_PX, Image, instant, read_image, read_refusal
from geoloc_dagster.imagery.open_pictures import cut_views, one_a_day, own_views
from geoloc_dagster.imagery.provider import (
    Capture,
    Failure,
    Location,
    Negative,
    Panorama,
    Precision,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.purse import IMAGE_CHARGE, TILE_CHARGE
from geoloc_dagster.imagery.received import check_picture, failure_of
from geoloc_dagster.imagery.tile_index import ZOOM, Spot, TileIndex
from geoloc_dagster.imagery.together import Together
from geoloc_dagster.imagery.vector_tiles import Point, read_points

GRAPH_URL = "https://graph.mapillary.com"
TILES_URL = "https://tiles.mapillary.com"
GRAPH_PATH, TILES_PATH = "/mapillary/graph", "/mapillary/tiles"
"""Of the two, where one server stands for both."""
TERMS = Terms("CC-BY-SA-4.0", "Photos from Mapillary, CC BY-SA")
MOST_IDS = 50
_TILESET = "/maps/vtp/mly1_public/2"
_DRIFT_M = 10  # tiles say where the camera thought it was; the entity may know better
_A_DAY = 3  # of each day so many pictures are looked at; the best of them is taken
_REFUSED_IN_A_ROW = 10


class Mapillary:
    """The provider `mapillary`.

    A location's panoramas are the pictures within 15 m of it, one a day: whole panoramas first, then the nearest. A whole
    panorama gives any view; a flat picture gives the one that it is.

    Args:
        graph: asks for entities and pictures; its etiquette applies.
        tiles: asks for vector tiles; likewise. Both have the token.
        terms: under which pictures are kept.
        radius_m: how far a lookup may look.
        size: (width, height) of views that are cut from whole panoramas, pixels.
        fov_deg: of those views, and of flat pictures that do not say theirs.
        history: every date of a place, or the newest only.
    """

    def __init__(
        self,
        graph: ServiceClient,
        tiles: ServiceClient,
        terms: Terms = TERMS,
        *,
        radius_m: int = 50,
        size: tuple[int, int] = (640, 640),
        fov_deg: float = 90.0,
        history: Literal["all", "newest"] = "all",
    ) -> None:
        self._graph = graph
        self._tiles = tiles
        self._terms = terms
        self._radius_m = radius_m
        self._size = size
        self._fov_deg = fov_deg
        self._history = history
        self._index = TileIndex(self._points)
        self._images = Together(self._entities, MOST_IDS)
        self._refused = 0

    @property
    def name(self) -> str:
        """`mapillary`."""
        return "mapillary"

    @property
    def terms(self) -> Terms:
        """CC BY-SA 4.0; each picture names its maker."""
        return self._terms

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Connections for one run; what the service said is remembered for as long."""
        async with self._graph.session(), self._tiles.session():
            self._refused = 0
            try:
                yield
            finally:
                await self._index.close()
                await self._images.close()

    async def lookup(self, lat_deg: float, lng_deg: float) -> Lookup:
        """The picture nearest to a position by the tiles, or that there is none within the radius.

        Raises:
            RequestFailedError, CollectionStopped, ServiceKeyError, ServiceBlockedError, ServiceUnavailableError: as the client.
        """
        near = await self._index.near(lat_deg, lng_deg, self._radius_m)
        if not near:
            return Lookup("ZERO_RESULTS")
        spot = near[0]
        return Lookup("OK", spot.image_id, spot.lat_deg, spot.lng_deg, _day(spot), self._terms.attribution)

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The newest panorama at each location, asked for ahead by as many as may be in flight."""
        async for answer in ahead(self._find_one, locations, self._graph.etiquette.concurrency):
            yield answer

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every panorama of that place, one a day, newest first."""
        return [panorama] if self._history == "newest" else await self._panoramas(panorama.location)

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One answer per view, in their order; a whole panorama is fetched once for all of them."""
        try:
            image, content = await self._picture(panorama.pano_id or "")
            pictures = [content] * len(views)
            if image.is_360:
                pictures = await asyncio.to_thread(cut_views, content, image, views, self._size)
        except RequestFailedError as failure:
            for view in views:
                yield failure_of(failure, panorama, view)
            return
        except ImageError as error:
            for view in views:
                yield Failure("undecodable", str(error), panorama, view)
            return
        for view, picture in zip(views, pictures, strict=True):
            yield Capture(panorama, view, picture, image.permalink, image.creator, attribution=image.attribution)

    async def _find_one(self, location: Location) -> Panorama | Negative | RequestFailedError:
        try:
            panoramas = await self._panoramas(location)
        except RequestFailedError as failure:
            return failure
        return panoramas[0] if panoramas else Negative(location, "ZERO_RESULTS")

    async def _panoramas(self, location: Location) -> list[Panorama]:
        near = await self._index.near(location.lat_deg, location.lng_deg, SAME_PLACE_M + _DRIFT_M)
        images = await self._images.get(_promising(near))
        away_m = {one: _away_m(location, image) for one, image in images.items()}
        ranked = sorted((m, one) for one, m in away_m.items() if m <= SAME_PLACE_M)
        return [self._panorama(location, image) for image in one_a_day(images[one] for _, one in ranked)]

    def _panorama(self, location: Location, image: Image) -> Panorama:
        precision: Precision = "unknown" if image.captured_on is None else "day"
        return Panorama(
            location,
            self.name,
            image.captured_on,
            precision,
            f"{self._size[0]}x{self._size[1]}" if image.is_360 else "flat",
            pano_id=image.image_id,
            sequence_id=image.sequence_id,
            views=own_views(image, self._fov_deg),
            lat_deg=image.lat_deg,
            lng_deg=image.lng_deg,
        )

    async def _picture(self, image_id: str) -> tuple[Image, bytes]:
        """An image and its bytes; an address that has expired is asked for once more."""
        image = await self._image(image_id)
        try:
            content = await self._fetch(image)
        except RequestFailedError as failure:
            if failure.kind != "gone":
                raise
            self._images.forget(image_id)
            image = await self._image(image_id)
            content = await self._fetch_again(image)
        self._refused = 0
        return image, content

    async def _fetch(self, image: Image) -> bytes:
        answer = await self._graph.get(self._thumb(image), {}, expect="image", charge=IMAGE_CHARGE, check=check_picture)
        return answer.body

    async def _fetch_again(self, image: Image) -> bytes:
        """The entity is there and its address fresh: a refusal passes, or is about us; the picture is not gone."""
        try:
            return await self._fetch(image)
        except RequestFailedError as failure:
            if failure.kind != "gone":
                raise
            self._refused += 1
            if self._refused >= _REFUSED_IN_A_ROW:
                cause = f"`{self.name}` refused {self._refused} pictures in a row under fresh addresses: {failure.detail}"
                raise ServiceUnavailableError(cause) from None
            said = f"refused under a fresh address as well: {failure.detail}"
            raise RequestFailedError("server_error", said, retryable=True) from None

    def _thumb(self, image: Image) -> str:
        """The address of the smallest picture that is large enough, else of the largest."""
        needed_px = self._size[0] * (360 / self._fov_deg if image.is_360 else 1)
        by_width = sorted(image.thumbs, key=THUMBS_PX.__getitem__)
        return image.thumbs[next((name for name in by_width if THUMBS_PX[name] >= needed_px), by_width[-1])]

    async def _image(self, image_id: str) -> Image:
        image = (await self._images.get([image_id])).get(image_id)
        if image is None:
            raise RequestFailedError("gone", f"there is no picture {image_id} any more", retryable=False)
        return image

    async def _entities(self, ids: list[str]) -> Mapping[str, Image]:
        params = {"image_ids": ",".join(ids), "fields": ",".join(FIELDS)}
        answer = await self._graph.get("/images", params, expect="json", check=_check_data, refused=self._refused_by_graph)
        images = [read_image(entity) for entity in json.loads(answer.body)["data"]]
        return {image.image_id: image for image in images if image is not None and self._is_safe(image)}

    def _is_safe(self, image: Image) -> bool:
        """An answer must not send us to just any host of this network."""
        ours = urlsplit(self._graph.base_url)
        return all(url.startswith(("https://", f"{ours.scheme}://{ours.netloc}/")) for url in image.thumbs.values())

    async def _points(self, column: int, row: int) -> list[Point]:
        path = f"{_TILESET}/{ZOOM}/{column}/{row}"
        answer = await self._tile(path)
        if not answer.body:  # a service may say nothing so; one that is disturbed seldom says it twice
            answer = await self._tile(path)
        try:
            return await asyncio.to_thread(read_points, answer.body, "image")
        except ValueError as error:
            raise RequestFailedError("invalid_answer", f"no vector tile: {error}", retryable=True) from None

    async def _tile(self, path: str) -> Answer:
        try:
            return await self._tiles.get(path, {}, expect="data", charge=TILE_CHARGE, refused=self._refused_by_graph)
        except RequestFailedError as failure:
            if failure.kind != "no_imagery":
                raise
            return Answer(404, b"", path)

    def _refused_by_graph(self, answer: Answer) -> None:
        """A bad token and a spent quota have codes of their own, whatever the status."""
        refusal = read_refusal(answer.body)
        if refusal is None:
            return
        said = self._graph.without_secrets(refusal.message)
        if refusal.code == BAD_TOKEN:
            raise ServiceKeyError(f"`{self.name}` refused the token: {said}")
        if refusal.code in LIMITS:
            raise OverQuotaError(said)


def _promising(near: Sequence[Spot]) -> list[str]:
    """Ids of the few pictures of each day that are worth a question: whole panoramas first, then the nearest."""
    days: dict[dt.date | None, list[str]] = {}
    for spot in sorted(near, key=lambda spot: not spot.is_pano):
        days.setdefault(_day(spot), []).append(spot.image_id)
    return [one for ids in days.values() for one in ids[:_A_DAY]]


def _day(spot: Spot) -> dt.date | None:
    at = instant(spot.captured_ms)
    return None if at is None else at.date()


def _away_m(location: Location, image: Image) -> float:
    return float(geodesic_m(location.lat_deg, location.lng_deg, image.lat_deg, image.lng_deg))


def _check_data(answer: Answer) -> None:
    try:
        good = isinstance(json.loads(answer.body)["data"], list)
    except (ValueError, TypeError, KeyError):
        good = False
    if not good:
        raise RequestFailedError("invalid_answer", f"no list of images in {answer.body[:80]!r}", retryable=True)
