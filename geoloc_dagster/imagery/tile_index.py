"""Where pictures are, from the vector tiles of a service: each tile is asked for once in a run."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.geo.mercator import tile_degrees, tile_position
from geoloc_dagster.imagery.vector_tiles import Point

ZOOM = 14
_KEPT = 512  # tiles of up to some 100,000 pictures
_M_PER_DEG = 111_320.0


@dataclass(frozen=True, slots=True)
class Spot:
    """One picture of a tile.

    Attributes:
        image_id: of the service.
        lat_deg: where its camera said it was.
        lng_deg: likewise.
        away_m: from the position that was asked about.
        captured_ms: since 1970; 0 where it is not said.
        is_pano: whether it goes all round.
    """

    image_id: str
    lat_deg: float
    lng_deg: float
    away_m: float
    captured_ms: int
    is_pano: bool


@dataclass(frozen=True, slots=True)
class _Tile:
    ids: tuple[str, ...]
    lat_deg: npt.NDArray[np.float64]
    lng_deg: npt.NDArray[np.float64]
    captured_ms: npt.NDArray[np.int64]
    is_pano: npt.NDArray[np.bool_]


class TileIndex:
    """The pictures of tiles that were asked for.

    Args:
        ask: the points of one tile, by its column and row at zoom 14.
    """

    def __init__(self, ask: Callable[[int, int], Awaitable[list[Point]]]) -> None:
        self._ask = ask
        self._tiles: OrderedDict[tuple[int, int], asyncio.Task[_Tile]] = OrderedDict()

    async def near(self, lat_deg: float, lng_deg: float, radius_m: float) -> list[Spot]:
        """The pictures within a circle, nearest first, then by id. Raises as `ask`."""
        half_deg = radius_m / _M_PER_DEG
        wide_deg = half_deg / max(0.01, math.cos(math.radians(lat_deg)))
        west, north = tile_position(lat_deg + half_deg, lng_deg - wide_deg, ZOOM)
        east, south = tile_position(lat_deg - half_deg, lng_deg + wide_deg, ZOOM)
        columns = range(math.floor(west), math.floor(east) + 1)
        rows = range(max(0, math.floor(north)), min((1 << ZOOM) - 1, math.floor(south)) + 1)
        asked = [self._tile(column % (1 << ZOOM), row) for column in columns for row in rows]
        found: dict[str, Spot] = {}
        for answer in await asyncio.gather(*asked, return_exceptions=True):  # all are through before one of them fails
            if isinstance(answer, BaseException):
                raise answer
            found |= {spot.image_id: spot for spot in _within(answer, lat_deg, lng_deg, radius_m)}
        return sorted(found.values(), key=lambda spot: (spot.away_m, spot.image_id))

    async def close(self) -> None:
        """End what is under way, and forget everything."""
        tasks = list(self._tiles.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tiles.clear()

    async def _tile(self, column: int, row: int) -> _Tile:
        """Asked for once; a failure is not remembered."""
        key = (column, row)
        if key not in self._tiles:
            self._tiles[key] = asyncio.create_task(self._read(column, row))
            while len(self._tiles) > _KEPT and next(iter(self._tiles.values())).done():
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(key)
        task = self._tiles[key]
        try:
            return await asyncio.shield(task)
        except Exception:
            if self._tiles.get(key) is task:
                del self._tiles[key]
            raise

    async def _read(self, column: int, row: int) -> _Tile:
        points = [point for point in await self._ask(column, row) if isinstance(point.properties.get("id"), int)]
        x, y = (np.array([getattr(point, name) for point in points], np.float64) for name in ("x", "y"))
        lat, lng = tile_degrees(column + x, row + y, ZOOM)
        captured = [point.properties.get("captured_at") for point in points]
        return _Tile(
            tuple(str(point.properties["id"]) for point in points),
            lat,
            lng,
            np.array([int(ms) if isinstance(ms, int | float) and 0 < ms < 1 << 53 else 0 for ms in captured], np.int64),
            np.array([point.properties.get("is_pano") is True for point in points], np.bool_),
        )


def _within(tile: _Tile, lat_deg: float, lng_deg: float, radius_m: float) -> list[Spot]:
    half_deg = 1.02 * radius_m / _M_PER_DEG
    wide_deg = half_deg / max(0.01, math.cos(math.radians(lat_deg)))
    around = (tile.lng_deg - lng_deg + 180) % 360 - 180
    (near,) = np.nonzero((np.abs(tile.lat_deg - lat_deg) <= half_deg) & (np.abs(around) <= wide_deg))
    if not len(near):
        return []
    lats, lngs = tile.lat_deg[near], tile.lng_deg[near]
    away_m = geodesic_m(np.full(len(near), lat_deg), np.full(len(near), lng_deg), lats, lngs)
    return [
        Spot(tile.ids[n], float(lat), float(lng), float(m), int(tile.captured_ms[n]), bool(tile.is_pano[n]))
        for n, lat, lng, m in zip(near, lats, lngs, away_m, strict=True)
        if m <= radius_m
    ]
