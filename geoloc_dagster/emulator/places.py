"""Where the camera car has been: places every ten metres along the streets, and the dates of their panoramas."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.plane import Plane
from geoloc_dagster.emulator.streets import DISTRICT_M, REACH_M, District, Street, bounds, plan

SPACING_M = 10.0
FIRST_YEAR, LAST_YEAR = 2009, 2030

_RUN = 9  # places of one stretch, which share whether and how often they were visited
_TILE_M = 64.0
_OFFSET = 1 << 15
_MONTH_WEIGHTS = (2, 2, 4, 8, 11, 12, 11, 11, 10, 8, 5, 2)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One panorama: one place at one date.

    Attributes:
        place_id: the place.
        number: index of the date within the place, 0 the oldest; the same for ever.
        captured_on: the first day of its month.
        lat_deg: where the camera stood that time: some 2 m along the street and 1 m across from the place's position.
        lng_deg: likewise.
    """

    place_id: int
    number: int
    captured_on: dt.date
    lat_deg: float
    lng_deg: float


@dataclass(frozen=True, slots=True)
class Place:
    """A position on a street with all panoramas that will ever be taken there, oldest first.

    Attributes:
        place_id: 0 <= place_id < 2**56, stable for a seed.
        lat_deg: nominal position.
        lng_deg: likewise.
        snapshots: from 2009 to 2030; some lie in the future of whoever asks.
    """

    place_id: int
    lat_deg: float
    lng_deg: float
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class _Tile:
    xy_m: npt.NDArray[np.float64]  # (n, 2)
    place_ids: tuple[int, ...]


class PlaceBook:
    """The places of one city, made when they are first asked for and kept in bounded caches."""

    def __init__(self, plane: Plane, seed: int) -> None:
        self._plane = plane
        self._seed = seed
        self.district = functools.lru_cache(maxsize=512)(functools.partial(plan, seed))
        self._tile = functools.lru_cache(maxsize=4096)(self._make_tile)
        self._district_places = functools.lru_cache(maxsize=128)(self._make_district_places)
        self.place = functools.lru_cache(maxsize=16384)(self._make_place)

    def nearest(self, x_m: float, y_m: float, radius_m: float) -> Place | None:
        """The place nearest to a point of the plane, or None where there is none within the radius."""
        best_id, best_m2 = -1, radius_m * radius_m
        for ring in range(math.ceil(radius_m / _TILE_M) + 1):
            # Whatever lies in this ring or beyond it is farther away than the rings before it are wide.
            if best_id >= 0 and best_m2 <= ((ring - 1) * _TILE_M) ** 2:
                break
            for a, b in _ring(math.floor(x_m / _TILE_M), math.floor(y_m / _TILE_M), ring):
                if _gap_m2(x_m, y_m, a, b) > best_m2:
                    continue
                tile = self._tile(a, b)
                if tile.place_ids:
                    squared = ((tile.xy_m - (x_m, y_m)) ** 2).sum(axis=1)
                    k = int(squared.argmin())
                    if squared[k] <= best_m2:
                        best_id, best_m2 = tile.place_ids[k], float(squared[k])
        return self.place(best_id) if best_id >= 0 else None

    def around(self, x_m: float, y_m: float, radius_m: float) -> Iterator[tuple[int, float, float]]:
        """Every covered place of the tiles that a square of half-width `radius_m` touches: id and position."""
        low_a, high_a = math.floor((x_m - radius_m) / _TILE_M), math.floor((x_m + radius_m) / _TILE_M)
        low_b, high_b = math.floor((y_m - radius_m) / _TILE_M), math.floor((y_m + radius_m) / _TILE_M)
        for a in range(low_a, high_a + 1):
            for b in range(low_b, high_b + 1):
                tile = self._tile(a, b)
                for place_id, (x, y) in zip(tile.place_ids, tile.xy_m.tolist(), strict=True):
                    yield place_id, x, y

    def street(self, place_id: int) -> Street | None:
        """The street that a place stands on."""
        i, j = (place_id >> 40) - _OFFSET, (place_id >> 24 & 0xFFFF) - _OFFSET
        streets = self.district(i, j).streets
        number = place_id >> 12 & 0xFFF
        return streets[number] if number < len(streets) else None

    def _make_tile(self, a: int, b: int) -> _Tile:
        found: list[tuple[int, float, float]] = []
        for i in _districts(a):
            for j in _districts(b):
                low_m, high_m = bounds(self._seed, i, j)
                if not all(
                    low <= (n + 1) * _TILE_M and high >= n * _TILE_M for low, high, n in zip(low_m, high_m, (a, b), strict=True)
                ):
                    continue
                ids, xy_m = self._district_places(i, j)
                here = np.flatnonzero((np.floor(xy_m / _TILE_M) == (a, b)).all(axis=1))
                found.extend((ids[k], float(xy_m[k, 0]), float(xy_m[k, 1])) for k in here)
        return _Tile(np.array([(x, y) for _, x, y in found]).reshape(-1, 2), tuple(place_id for place_id, _, _ in found))

    def _make_district_places(self, i: int, j: int) -> tuple[list[int], npt.NDArray[np.float64]]:
        district = self.district(i, j)
        found: list[tuple[int, Point]] = []
        for street in district.streets:
            for run in range(0, _count(street), _RUN):
                if self._visits(district, street, run) > 0:
                    stretch = range(run, min(run + _RUN, _count(street)))
                    found.extend((_place_id(district, street, k), _position(street, k)) for k in stretch)
        return [place_id for place_id, _ in found], np.array([xy for _, xy in found]).reshape(-1, 2)

    def _make_place(self, place_id: int) -> Place | None:
        street = self.street(place_id) if 0 <= place_id < 1 << 56 else None
        if street is None:
            return None
        district = self.district((place_id >> 40) - _OFFSET, (place_id >> 24 & 0xFFFF) - _OFFSET)
        k = place_id & 0xFFF
        visits = self._visits(district, street, k) if k < _count(street) else 0
        if visits == 0:
            return None
        x, y = _position(street, k)
        dates = self._dates(district, street, k, single=visits == 1)
        snapshots = tuple(self._snapshot(place_id, street, number, date, (x, y)) for number, date in enumerate(dates))
        return Place(place_id, *self._plane.degrees(x, y), snapshots)

    def _snapshot(self, place_id: int, street: Street, number: int, date: dt.date, xy_m: Point) -> Snapshot:
        dice = Dice(self._seed, 21, place_id, number)
        along, across = dice.between(-2.0, 2.0), dice.between(-1.0, 1.0)
        ux, uy = street.along
        lat_deg, lng_deg = self._plane.degrees(xy_m[0] + ux * along - uy * across, xy_m[1] + uy * along + ux * across)
        return Snapshot(place_id, number, date, lat_deg, lng_deg)

    def _visits(self, district: District, street: Street, k: int) -> int:
        """0 where the camera car has never been, 1 where once, 2 where more often: by district, street and stretch."""
        i, j = district.i, district.j
        if Dice(self._seed, 22, i, j).chance(0.04) or Dice(self._seed, 23, i, j, street.number).chance(0.085):
            return 0
        chance = Dice(self._seed, 24, i, j, street.number, k // _RUN).unit()
        return 0 if chance < 0.035 else 1 if chance < 0.14 else 2

    def _dates(self, district: District, street: Street, k: int, *, single: bool) -> list[dt.date]:
        drives = _drives(Dice(self._seed, 25, district.i, district.j, street.number))
        if single:
            past = [date for date in drives if date.year <= 2024]
            return [Dice(self._seed, 26, district.i, district.j, street.number, k // _RUN).pick(past or drives)]
        seen = [
            date for date in drives if not Dice(self._seed, 27, _place_id(district, street, k), date.toordinal()).chance(0.15)
        ]
        return seen if len(seen) > 1 else drives


Point = tuple[float, float]


def _drives(dice: Dice) -> list[dt.date]:
    """When the camera car drove through a street: every few years, seldom in winter."""
    dates: list[dt.date] = []
    at = FIRST_YEAR + dice.between(0.0, 4.0)
    while at < LAST_YEAR + 1:
        dates.append(dt.date(int(at), dice.pick(range(1, 13), _MONTH_WEIGHTS), 1))
        at += dice.between(1.2, 6.0)
    return dates


def _count(street: Street) -> int:
    return max(1, round(street.length_m / SPACING_M))


def _position(street: Street, k: int) -> Point:
    # Avenues own the crossing that they start from.
    first = 0.0 if street.number == 0 else 0.5
    share = (k + first) / _count(street)
    (x0, y0), (x1, y1) = street.start, street.end
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def _place_id(district: District, street: Street, k: int) -> int:
    return (district.i + _OFFSET) << 40 | (district.j + _OFFSET) << 24 | street.number << 12 | k


def _districts(tile: int) -> range:
    """The lattice lines whose districts may own places in a row of tiles: they reach over their cell by `REACH_M`."""
    low_m, high_m = tile * _TILE_M, (tile + 1) * _TILE_M
    return range(math.floor((low_m - DISTRICT_M - REACH_M) / DISTRICT_M), math.floor((high_m + REACH_M) / DISTRICT_M) + 1)


def _ring(a: int, b: int, ring: int) -> Iterator[tuple[int, int]]:
    for da in range(-ring, ring + 1):
        inner = abs(da) < ring
        for db in (-ring, ring) if inner else range(-ring, ring + 1):
            yield a + da, b + db


def _gap_m2(x_m: float, y_m: float, a: int, b: int) -> float:
    dx = max(a * _TILE_M - x_m, 0.0, x_m - (a + 1) * _TILE_M)
    dy = max(b * _TILE_M - y_m, 0.0, y_m - (b + 1) * _TILE_M)
    return dx * dx + dy * dy
