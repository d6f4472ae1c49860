"""A city that costs nothing: places on a lattice, flat pictures whose colour says what was asked for."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np

ORIGIN = (59.33, 18.07)
STEP_DEG = 0.002  # about 220 m to the north and 110 m to the east
DATES = (dt.date(2009, 7, 1), dt.date(2017, 5, 1), dt.date(2024, 9, 1), dt.date(2026, 10, 1), dt.date(2026, 11, 1))
TODAY = dt.date(2026, 11, 21)
EXISTING = DATES[:-1]
"""Those whose month is over on `TODAY`."""
_SIDE = 1000


@dataclass(frozen=True, slots=True)
class Snapshot:
    place_id: int
    number: int
    captured_on: dt.date
    lat_deg: float
    lng_deg: float


@dataclass(frozen=True, slots=True)
class Place:
    place_id: int
    lat_deg: float
    lng_deg: float
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class View:
    rgb: np.ndarray
    classes: np.ndarray


class StubCity:
    """Place `r * 1000 + c` lies `r` steps north and `c` steps east of the origin."""

    def __init__(self) -> None:
        self.rendered: list[dict[str, object]] = []

    def nearest(self, lat_deg: float, lng_deg: float, radius_m: float) -> Place | None:
        row, column = round((lat_deg - ORIGIN[0]) / STEP_DEG), round((lng_deg - ORIGIN[1]) / STEP_DEG)
        place = self.place(row * _SIDE + column) if 0 <= row < _SIDE and 0 <= column < _SIDE else None
        if place is None:
            return None
        north_m = (place.lat_deg - lat_deg) * 111_000
        east_m = (place.lng_deg - lng_deg) * 111_000 * math.cos(math.radians(lat_deg))
        return place if math.hypot(north_m, east_m) <= radius_m else None

    def within(self, west_deg: float, south_deg: float, east_deg: float, north_deg: float) -> list[Place]:
        rows = range(math.ceil((south_deg - ORIGIN[0]) / STEP_DEG), math.floor((north_deg - ORIGIN[0]) / STEP_DEG) + 1)
        columns = range(math.ceil((west_deg - ORIGIN[1]) / STEP_DEG), math.floor((east_deg - ORIGIN[1]) / STEP_DEG) + 1)
        ids = [row * _SIDE + column for row in rows for column in columns if 0 <= row < _SIDE and 0 <= column < _SIDE]
        return [place for place in map(self.place, ids) if place is not None]

    def place(self, place_id: int) -> Place | None:
        if not 0 <= place_id < _SIDE * _SIDE:
            return None
        row, column = divmod(place_id, _SIDE)
        lat_deg, lng_deg = ORIGIN[0] + row * STEP_DEG, ORIGIN[1] + column * STEP_DEG
        dates = enumerate(DATES)
        snapshots = tuple(Snapshot(place_id, number, date, lat_deg + number * 1e-6, lng_deg) for number, date in dates)
        return Place(place_id, lat_deg, lng_deg, snapshots)

    def render(self, lat_deg: float, lng_deg: float, **view: object) -> View:
        self.rendered.append({"lat_deg": lat_deg, "lng_deg": lng_deg, **view})
        height, width = int(str(view["height"])), int(str(view["width"]))
        rng = np.random.default_rng(abs(hash((lat_deg, lng_deg, view["heading_deg"]))))  # floats: the same in every process
        rgb = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        rgb = np.ascontiguousarray(rgb.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])
        return View(rgb, np.zeros((height, width), np.uint8))


def spot(row: int = 0, column: int = 0) -> str:
    """The `location` of a place."""
    return f"{ORIGIN[0] + row * STEP_DEG:.7f},{ORIGIN[1] + column * STEP_DEG:.7f}"
