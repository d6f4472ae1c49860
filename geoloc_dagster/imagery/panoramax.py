"""Pictures of Panoramax, by the STAC API of an instance or of the catalogue that joins them.

Contract: https://docs.panoramax.fr (GeoVisio API). A search has no pages: one that gives as many items as it may is asked again
in quarters. Each picture has a licence of its own; one that is not open is left out, unless a permission is on record.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np

from geoloc_dagster.errors import ImageError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.ahead import ahead
from geoloc_dagster.imagery.client import Answer, ServiceClient
from geoloc_dagster.imagery.google import SAME_PLACE_M, Lookup
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
from geoloc_dagster.imagery.purse import IMAGE_CHARGE
from geoloc_dagster.imagery.received import check_picture, failure_of
from geoloc_dagster.imagery.stac import Item, read_item

SEARCH_PATH = "/api/search"
CELL_DEG = 0.002  # the lattice of searches, so that locations near each other share them
_SMALLEST_DEG = 0.00005  # about 5 m: a box that is full at this size is taken as it is
_CELLS_KEPT = 2_048
_SD_WIDTH_PX = 2_048
_RELATED_M = 2 * SAME_PLACE_M  # how far from a location a picture may be of which the service says that it shows the same
_RELATED_MOST = 20
_M_PER_DEG = 111_320.0
_COLUMNS = round(360 / CELL_DEG)
_GONE = ("gone", "no_imagery", "disallowed")


class Panoramax:
    """The provider `panoramax`.

    A location's panoramas are the pictures within 15 m of it and those that these name as related, one a day: whole
    panoramas first, then the nearest. A whole panorama gives any view; a flat picture gives the one that it is.

    Args:
        client: asks the service; its etiquette applies.
        terms: permission for pictures under other than open licences.
        radius_m: how far a lookup may look.
        size: (width, height) of views that are cut from whole panoramas, pixels.
        fov_deg: of those views, and of flat pictures that do not say theirs.
        history: every date of a place, or the newest only.
        page: items of one search.
    """

    def __init__(
        self,
        client: ServiceClient,
        terms: Terms,
        *,
        radius_m: int = 50,
        size: tuple[int, int] = (640, 640),
        fov_deg: float = 90.0,
        history: Literal["all", "newest"] = "all",
        page: int = 500,
    ) -> None:
        self._client = client
        self._terms = terms
        self._radius_m = radius_m
        self._size = size
        self._fov_deg = fov_deg
        self._history = history
        self._page = page
        self._cells: OrderedDict[tuple[int, int], asyncio.Task[list[Item]]] = OrderedDict()
        self._items: dict[str, Item] = {}

    @property
    def name(self) -> str:
        """`panoramax`."""
        return "panoramax"

    @property
    def terms(self) -> Terms:
        """For the whole; each picture says its own licence."""
        return self._terms

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Connections for one run; what the service said is remembered for as long."""
        async with self._client.session():
            try:
                yield
            finally:
                tasks = list(self._cells.values())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._cells.clear()
                self._items.clear()

    async def lookup(self, lat_deg: float, lng_deg: float) -> Lookup:
        """The picture nearest to a position, or that there is none within the radius.

        Raises:
            RequestFailedError, CollectionStopped, ServiceBlockedError, ServiceUnavailableError: as the client.
        """
        near = await self._near(lat_deg, lng_deg, self._radius_m)
        if not near:
            return Lookup("ZERO_RESULTS")
        item = near[0]
        return Lookup("OK", item.item_id, item.lat_deg, item.lng_deg, item.captured_on, item.creator)

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The newest panorama at each location, asked for ahead by as many as may be in flight."""
        async for answer in ahead(self._find_one, locations, self._client.etiquette.concurrency):
            yield answer

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every panorama of that place, newest first."""
        if self._history == "newest":
            return [panorama]
        location = panorama.location
        items = await self._near(location.lat_deg, location.lng_deg, SAME_PLACE_M)
        return self._panoramas(location, items + await self._related(location, items))

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One answer per view, in their order; a whole panorama is fetched once for all of them."""
        try:
            item = await self._item(panorama.pano_id or "")
            answer = await self._client.get(self._asset(item), {}, expect="image", charge=IMAGE_CHARGE, check=check_picture)
            images = [answer.body] * len(views)
            if item.is_360:
                images = await asyncio.to_thread(cut_views, answer.body, item, views, self._size)
        except RequestFailedError as failure:
            for view in views:
                yield failure_of(failure, panorama, view)
            return
        except ImageError as error:
            for view in views:
                yield Failure("undecodable", str(error), panorama, view)
            return
        attribution = f"Photo by {item.creator}, Panoramax" if item.creator else "Panoramax contributors"
        for view, image in zip(views, images, strict=True):
            yield Capture(panorama, view, image, answer.url, item.creator, item.licence, attribution)

    def _asset(self, item: Item) -> str:
        """The address of the smallest picture that is large enough."""
        needed_px = self._size[0] * (360 / self._fov_deg if item.is_360 else 1)
        first, second = ("sd", "hd") if needed_px <= _SD_WIDTH_PX else ("hd", "sd")
        return item.assets.get(first) or item.assets[second]

    async def _find_one(self, location: Location) -> Panorama | Negative | RequestFailedError:
        try:
            near = await self._near(location.lat_deg, location.lng_deg, SAME_PLACE_M)
        except RequestFailedError as failure:
            return failure
        panoramas = self._panoramas(location, near)
        return panoramas[0] if panoramas else Negative(location, "ZERO_RESULTS")

    def _panoramas(self, location: Location, items: Sequence[Item]) -> list[Panorama]:
        """One a day, newest first, undated ones last; `items` nearest first."""
        return [self._panorama(location, item) for item in one_a_day(items)]

    def _panorama(self, location: Location, item: Item) -> Panorama:
        self._items[item.item_id] = item
        precision: Precision = "unknown" if item.captured_on is None else "day"
        return Panorama(
            location,
            self.name,
            item.captured_on,
            precision,
            f"{self._size[0]}x{self._size[1]}" if item.is_360 else "flat",
            pano_id=item.item_id,
            sequence_id=item.sequence_id,
            views=own_views(item, self._fov_deg),
            lat_deg=item.lat_deg,
            lng_deg=item.lng_deg,
        )

    def _usable(self, item: Item | None) -> bool:
        """Whether it may be collected, and its addresses may be asked."""
        if item is None or not item.ready or not (item.is_open or self._terms.permission):
            return False
        return all(self._is_safe(address) for address in item.assets.values())

    def _is_safe(self, address: str) -> bool:
        """An answer must not send us to just any host of this network."""
        return address.startswith(("https://", self._client.base_url + "/"))

    async def _near(self, lat_deg: float, lng_deg: float, radius_m: float) -> list[Item]:
        """Usable items within a circle, nearest first, then by id."""
        half_deg = radius_m / _M_PER_DEG
        wide_deg = half_deg / max(0.01, math.cos(math.radians(lat_deg)))
        rows = range(math.floor((lat_deg - half_deg) / CELL_DEG), math.floor((lat_deg + half_deg) / CELL_DEG) + 1)
        columns = range(math.floor((lng_deg - wide_deg) / CELL_DEG), math.floor((lng_deg + wide_deg) / CELL_DEG) + 1)
        asked = [self._cell(row, _wrapped(column)) for row in rows for column in columns]
        cells: list[list[Item]] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):  # all are through before one of them fails
            if isinstance(answer, BaseException):
                raise answer
            cells.append(answer)
        items = list({item.item_id: item for cell in cells for item in cell}.values())
        if not items:
            return []
        lats, lngs = (np.array([getattr(item, name) for item in items]) for name in ("lat_deg", "lng_deg"))
        away_m = geodesic_m(np.full(len(items), lat_deg), np.full(len(items), lng_deg), lats, lngs)
        near = sorted((float(m), item.item_id, item) for m, item in zip(away_m, items, strict=True) if m <= radius_m)
        return [item for _, _, item in near]

    async def _cell(self, row: int, column: int) -> list[Item]:
        """The usable items of one cell, asked for once in a run; a failure is not remembered."""
        key = (row, column)
        if key not in self._cells:
            south, west = row * CELL_DEG, column * CELL_DEG
            self._cells[key] = asyncio.create_task(self._search(west, south, west + CELL_DEG, south + CELL_DEG))
            while len(self._cells) > _CELLS_KEPT and next(iter(self._cells.values())).done():
                self._cells.popitem(last=False)
        self._cells.move_to_end(key)
        task = self._cells[key]
        try:
            return await asyncio.shield(task)
        except Exception:
            if self._cells.get(key) is task:
                del self._cells[key]
            raise

    async def _search(self, west: float, south: float, east: float, north: float) -> list[Item]:
        smallest = north - south <= _SMALLEST_DEG
        params = {"bbox": ",".join(f"{value:.7f}" for value in (west, south, east, north)), "limit": str(self._page)}
        try:
            answer = await self._client.get(SEARCH_PATH, params, expect="json", check=_check_features)
            features: list[Any] = json.loads(answer.body)["features"]
            if len(features) < self._page or smallest:
                return [item for item in map(read_item, features) if item is not None and self._usable(item)]
        except RequestFailedError as failure:
            if failure.kind != "too_large" or smallest:
                raise
        x, y = (west + east) / 2, (south + north) / 2
        quarters = ((west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north))
        found = [item for quarter in quarters for item in await self._search(*quarter)]
        return list({item.item_id: item for item in found}.values())

    async def _related(self, location: Location, items: Sequence[Item]) -> list[Item]:
        """Pictures that the service calls the same place at another date, and the search did not give."""
        known = {item.item_id for item in items}
        named = {link: None for item in items for link in item.related if link.rstrip("/").split("/")[-1] not in known}
        links = [link for link in named if self._is_safe(link)][:_RELATED_MOST]
        found = [item for item in await asyncio.gather(*map(self._linked, links)) if item is not None and self._usable(item)]
        return [item for item in found if _away_m(location, item) <= _RELATED_M]

    async def _linked(self, link: str) -> Item | None:
        try:
            answer = await self._client.get(link, {}, expect="json", check=_check_object)
        except RequestFailedError as failure:
            if failure.kind in _GONE:
                return None
            raise
        return read_item(json.loads(answer.body))

    async def _item(self, item_id: str) -> Item:
        if item_id not in self._items:
            answer = await self._client.get(SEARCH_PATH, {"ids": item_id}, expect="json", check=_check_features)
            item = next(iter(map(read_item, json.loads(answer.body)["features"])), None)
            if item is None or not self._usable(item):
                raise RequestFailedError("gone", f"there is no picture {item_id} any more", retryable=False)
            self._items[item_id] = item
        return self._items[item_id]


def _away_m(location: Location, item: Item) -> float:
    return float(geodesic_m(location.lat_deg, location.lng_deg, item.lat_deg, item.lng_deg))


def _wrapped(column: int) -> int:
    """The same column counted from the antimeridian's other side where it lies beyond."""
    return (column + _COLUMNS // 2) % _COLUMNS - _COLUMNS // 2


def _check_object(answer: Answer) -> None:
    try:
        good = isinstance(json.loads(answer.body), dict)
    except ValueError:
        good = False
    if not good:
        raise RequestFailedError("invalid_answer", f"no JSON object in {answer.body[:80]!r}", retryable=True)


def _check_features(answer: Answer) -> None:
    _check_object(answer)
    if not isinstance(json.loads(answer.body).get("features"), list):
        raise RequestFailedError("invalid_answer", "a search without features", retryable=True)
