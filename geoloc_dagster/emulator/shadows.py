"""The shadows that buildings throw on the ground, added to its maps for the sun of a date."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.ground import GroundMap
from geoloc_dagster.emulator.light import Light
from geoloc_dagster.emulator.materials import GROUND_CODES, Codes

Floats = npt.NDArray[np.float64]

_LONGEST_M = 60.0


def with_shadows(
    maps: tuple[GroundMap, ...], ends_m: Floats, height_m: Floats, normals: Floats, light: Light
) -> tuple[GroundMap, ...]:
    """The same maps with `GROUND_CODES` added to the codes of cells in the shade.

    Args:
        maps: the finest first, one middle; shadows are drawn at the scale of the last.
        ends_m: (n, 4), the walls that throw shadows.
        height_m: (n,).
        normals: (n, 2), outwards.
        light: where the sun is.
    """
    east, north, up = light.towards_sun
    length = np.minimum(height_m * np.hypot(east, north) / max(up, 0.05), _LONGEST_M)
    away = -np.array([east, north]) / np.hypot(east, north)
    facing = np.flatnonzero((normals @ away < 0) & (height_m > 2))
    coarse = maps[-1]
    shade: npt.NDArray[np.bool_] = np.zeros((coarse.size, coarse.size), np.bool_)
    for k in facing.tolist():
        a, b = ends_m[k, :2] - coarse.low_m, ends_m[k, 2:] - coarse.low_m
        shift = away * length[k]
        _fill(shade, np.array([a, b, b + shift, a + shift]) * coarse.cells_per_m)
    return tuple(replace(ground, codes=_added(ground, coarse, shade)) for ground in maps)


def _fill(shade: npt.NDArray[np.bool_], corners: Floats) -> None:
    """Fill a parallelogram, in cells."""
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), len(shade)).astype(int)
    if (high <= low).any():
        return
    x, y = (
        np.arange(low[0], high[0], dtype=np.float32)[:, None] + 0.5,
        np.arange(low[1], high[1], dtype=np.float32)[None, :] + 0.5,
    )
    (u, v), origin = (corners[1] - corners[0], corners[3] - corners[0]), corners[0]
    area = u[0] * v[1] - u[1] * v[0]
    if abs(area) < 1e-6:
        return
    s = ((x - origin[0]) * np.float32(v[1] / area)) - ((y - origin[1]) * np.float32(v[0] / area))
    t = ((y - origin[1]) * np.float32(u[0] / area)) - ((x - origin[0]) * np.float32(u[1] / area))
    shade[low[0] : high[0], low[1] : high[1]] |= (np.abs(s - 0.5) <= 0.5) & (np.abs(t - 0.5) <= 0.5)


def _added(ground: GroundMap, coarse: GroundMap, shade: npt.NDArray[np.bool_]) -> Codes:
    cells: list[npt.NDArray[np.int64]] = []
    for axis in range(2):
        along_m = (np.arange(ground.size) + 0.5) / ground.cells_per_m + ground.low_m[axis] - coarse.low_m[axis]
        cells.append((along_m * coarse.cells_per_m).astype(np.int64).clip(0, coarse.size - 1))
    near = shade.astype(np.uint8)[cells[0]][:, cells[1]]
    return ground.codes + near.reshape(-1) * np.uint8(GROUND_CODES)
