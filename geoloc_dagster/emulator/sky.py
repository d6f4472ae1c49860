"""The sky: a texture of brightness steps around the horizon, with clouds that come and go."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import units
from geoloc_dagster.emulator.light import Light
from geoloc_dagster.emulator.materials import Codes, Colours

COLUMNS = 1024
ROWS = 160
TALLEST = 2.5
"""Tangent of the elevation at the upper edge of the texture."""

BANDS = 24
COVERS = 8
SKY_CODES = BANDS * COVERS
FAR_M = 900.0
"""Distance of the skyline, which closes every street."""


def draw_sky(light: Light) -> Codes:
    """Codes `band + BANDS * cover`: uint8 (columns clockwise from north, rows from the top)."""
    tangent = TALLEST * (1 - (np.arange(ROWS) + 0.5) / ROWS)
    band = np.minimum(BANDS - 1, np.sqrt(tangent / TALLEST) * BANDS)
    dither = units(7, np.arange(COLUMNS * ROWS)).reshape(COLUMNS, ROWS)
    bands = np.clip(band[None, :] + dither - 0.5, 0, BANDS - 1).astype(np.uint8)
    amount = _noise(light.key % 5)
    threshold = 1.05 - 1.1 * light.clouds
    cover = np.clip((amount - threshold) * 18.0 + (dither - 0.5) * 0.8 + 0.5, 0, COVERS - 1).astype(np.uint8)
    return (bands + BANDS * cover).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _noise(number: int) -> npt.NDArray[np.float64]:
    """Clouds that get flatter towards the horizon, in [0, 1], seamless all around."""
    tangent = TALLEST * (1 - (np.arange(ROWS) + 0.5) / ROWS)
    up = 5.0 / (tangent + 0.25)
    total = np.zeros((COLUMNS, ROWS))
    for octave in range(5):
        cells = 8 << octave
        at = np.arange(COLUMNS) / COLUMNS * cells
        total += _smooth(number * 16 + octave, at, up * cells / 24, cells) * 0.5**octave
    return np.clip((total - total.min()) / (total.max() - total.min()), 0, 1)


def _smooth(key: int, u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], period: int) -> npt.NDArray[np.float64]:
    u0, v0 = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    fu, fv = (u - u0)[:, None], (v - v0)[None, :]
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    corner = [[units(key, ((u0 + a) % period)[:, None] * 4099 + (v0 + b)[None, :]) for b in (0, 1)] for a in (0, 1)]
    low = corner[0][0] * (1 - fu) + corner[1][0] * fu
    high = corner[0][1] * (1 - fu) + corner[1][1] * fu
    return low * (1 - fv) + high * fv


def paint_sky(light: Light) -> Colours:
    """The radiance of each code: float32 (192, 3)."""
    height = (np.arange(BANDS) / BANDS)[:, None] ** 1.2
    clear = light.haze * (1 - height) + light.zenith * height
    mean = float((light.direct + light.ambient).mean())
    bright = np.full(3, mean * 0.98) if light.weather in ("clear", "broken") else light.haze * 1.04
    dark = bright * (0.82 if light.weather in ("clear", "broken") else 0.9)
    shares = [(0.0, bright), (0.2, bright), (0.42, bright), (0.62, bright), (0.8, bright), (0.9, bright)]
    shares += [(0.9, bright * 0.5 + dark * 0.5), (0.9, dark)]
    veil = np.clip((np.arange(BANDS) / BANDS * 6), 0, 1)[:, None]
    return np.concatenate([clear * (1 - share * veil) + colour * (share * veil) for share, colour in shares]).astype(np.float32)


@functools.lru_cache(maxsize=8)
def skyline_m(seed: int) -> npt.NDArray[np.float64]:
    """Heights of the roofs far away, by direction clockwise from north."""
    steps = np.arange(COLUMNS)
    total = np.zeros(COLUMNS)
    for octave, weight in ((24, 14.0), (128, 12.0), (320, 5.0)):
        total += units(seed ^ octave, (steps * octave // COLUMNS).astype(np.int64)) * weight
    return 6.0 + total


def columns_of(bearings: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Columns of the texture for bearings in radians clockwise from north."""
    return np.floor(bearings / (2 * math.pi) * COLUMNS).astype(np.int64) % COLUMNS
