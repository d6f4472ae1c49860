"""Fields over the emulated planet: smooth noise, nearest sites, and cells; each a pure function of a seed and a position."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import Dice, key_of

EARTH_KM = 6371.0088
_WAVES = 5
_REGION_DEG = 0.6

Vector = tuple[float, float, float]


def vector(lat_deg: float, lng_deg: float) -> Vector:
    """The unit vector of a position."""
    lat, lng = math.radians(lat_deg), math.radians(lng_deg)
    return math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)


def moved(lat_deg: float, lng_deg: float, bearing_deg: float, distance_km: float) -> tuple[float, float]:
    """(lat, lng) after a way along a great circle."""
    lat, lng, bearing, angle = math.radians(lat_deg), math.radians(lng_deg), math.radians(bearing_deg), distance_km / EARTH_KM
    sine = math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing)
    there = math.asin(min(max(sine, -1.0), 1.0))
    turn = math.atan2(math.sin(bearing) * math.sin(angle) * math.cos(lat), math.cos(angle) - math.sin(lat) * math.sin(there))
    return math.degrees(there), (math.degrees(lng + turn) + 540) % 360 - 180


@lru_cache(maxsize=64)
def _waves(seed: int, name: int, size_km: float) -> tuple[tuple[float, float, float, float], ...]:
    dice = Dice(seed, 901, name)
    waves: list[tuple[float, float, float, float]] = []
    for _ in range(_WAVES):
        z, turn = dice.between(-1, 1), dice.between(0, 2 * math.pi)
        flat, pace = math.sqrt(1 - z * z), 2 * math.pi * EARTH_KM / (size_km * dice.between(0.7, 1.5))
        waves.append((flat * math.cos(turn) * pace, flat * math.sin(turn) * pace, z * pace, dice.between(0, 2 * math.pi)))
    return tuple(waves)


def smooth(seed: int, name: int, size_km: float, at: Vector) -> float:
    """Noise whose hills are about `size_km` apart; mostly within -1 to 1, at its very ends rare."""
    x, y, z = at
    waves = _waves(seed, name, size_km)
    return sum(math.sin(a * x + b * y + c * z + d) for a, b, c, d in waves) / math.sqrt(_WAVES)


class Sites:
    """Points spread evenly over the sphere and shaken; every position belongs to its nearest one.

    Args:
        seed: of the planet.
        name: of this set of points.
        count: on the whole sphere, sea included.
        shake: 0 leaves them on a spiral, 1 moves each by about the distance of its neighbours.
    """

    def __init__(self, seed: int, name: int, count: int, shake: float = 0.8) -> None:
        points: list[Vector] = []
        reach_km = EARTH_KM * math.sqrt(4 * math.pi / count)
        for number in range(count):
            dice = Dice(seed, 902, name, number)
            lat_deg = math.degrees(math.asin(1 - 2 * (number + 0.5) / count))
            lng_deg = (number * 137.50776405) % 360 - 180
            points.append(vector(*moved(lat_deg, lng_deg, dice.between(0, 360), shake * reach_km * dice.unit())))
        self._points: npt.NDArray[np.float64] = np.array(points)

    def nearest(self, at: Vector) -> int:
        """The number of the site of a position."""
        x, y, z = at
        points = self._points
        return int((points[:, 0] * x + points[:, 1] * y + points[:, 2] * z).argmax())


def region_of(seed: int, lat_deg: float, lng_deg: float) -> int:
    """The key of a cell about 66 km wide; neighbours have unrelated keys."""
    row = math.floor(lat_deg / _REGION_DEG)
    width_deg = _REGION_DEG / max(math.cos(math.radians((row + 0.5) * _REGION_DEG)), 0.02)
    return key_of(seed, 903, row, math.floor((lng_deg + 180 + 7.3 * (row % 3)) / width_deg))
