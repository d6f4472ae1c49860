"""The ground of a neighbourhood as two maps of material codes: a fine one near its middle, a coarse one around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import units
from geoloc_dagster.emulator.materials import Codes, Ground
from geoloc_dagster.emulator.streets import Block, Character, Street

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class GroundMap:
    """Codes (columns eastwards, rows northwards) of a square around a middle.

    Attributes:
        codes: uint8 (size * size,), index `column * size + row`.
        low_m: the western and southern edge.
        size: cells along an edge.
        cells_per_m: scale.
        reach_m: whatever is this near to a camera in the cell of the map lies on the map.
    """

    codes: Codes
    low_m: tuple[float, float]
    size: int
    cells_per_m: float
    reach_m: float


def draw_ground(
    seed: int,
    middle_m: tuple[float, float],
    half_m: float,
    cells_per_m: float,
    cell_m: float,
    streets: Sequence[Street],
    blocks: Sequence[tuple[Block, Character]],
) -> GroundMap:
    """The map of the square of half-width `half_m` around the middle of a cell of width `cell_m`."""
    size = round(2 * half_m * cells_per_m)
    low_m = (middle_m[0] - half_m, middle_m[1] - half_m)
    along = ((np.arange(size) + 0.5) / cells_per_m).astype(np.float32)
    x, y = along[:, None], along[None, :]
    codes = np.full((size, size), Ground.YARD, np.uint8)
    reach_m = half_m * 1.42
    for block, character in blocks:
        if block.use != "built" or character == "villa":
            _draw_block(codes, x, y, low_m, cells_per_m, block)
    near = [street for street in streets if _distance_m(street, middle_m) < reach_m + street.width_m]
    for street in near:
        _draw_pavement(codes, x, y, low_m, cells_per_m, street)
    roads: npt.NDArray[np.uint8] = np.zeros((size, size), np.uint8)
    for street in near:
        _draw_road(codes, roads, x, y, low_m, cells_per_m, street)
    _draw_marks(codes, roads, x, y, low_m, cells_per_m, near)
    _age(codes, seed, low_m, cells_per_m)
    return GroundMap(codes.reshape(-1), low_m, size, cells_per_m, half_m - cell_m / 2 - 0.5)


def _window(
    size: int, low_m: tuple[float, float], cells_per_m: float, points: Sequence[tuple[float, float]], margin_m: float
) -> tuple[slice, slice]:
    """Slices of the cells within a margin of some points."""
    slices: list[slice] = []
    for axis in range(2):
        values = [point[axis] - low_m[axis] for point in points]
        first = max(0, int((min(values) - margin_m) * cells_per_m))
        last = min(size, int((max(values) + margin_m) * cells_per_m) + 1)
        slices.append(slice(first, max(first, last)))
    return slices[0], slices[1]


def _distance_m(street: Street, point: tuple[float, float]) -> float:
    s, d = _frame(street, (0.0, 0.0), np.float32(point[0]), np.float32(point[1]))
    beyond = max(0.0, -float(s), float(s) - street.length_m)
    return float(np.hypot(beyond, d))


def _frame(street: Street, low_m: tuple[float, float], x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Distance along the axis from its start, and to the left of it."""
    ux, uy = street.along
    dx, dy = np.asarray(x) - np.float32(street.start[0] - low_m[0]), np.asarray(y) - np.float32(street.start[1] - low_m[1])
    return dx * np.float32(ux) + dy * np.float32(uy), dy * np.float32(ux) - dx * np.float32(uy)


def _draw_block(codes: Codes, x: Floats, y: Floats, low_m: tuple[float, float], cells_per_m: float, block: Block) -> None:
    across, up = _window(len(codes), low_m, cells_per_m, block.corners, 0.0)
    if across.start == across.stop or up.start == up.stop:
        return
    px, py = x[across], y[:, up]
    depth: Floats = np.full((px.shape[0], py.shape[1]), 1e9, np.float32)
    for k, (ax, ay) in enumerate(block.corners):
        bx, by = block.corners[(k + 1) % len(block.corners)]
        length = float(np.hypot(bx - ax, by - ay))
        if length > 0:
            nx, ny = -(by - ay) / length, (bx - ax) / length
            np.minimum(
                depth,
                (px - np.float32(ax - low_m[0])) * np.float32(nx) + (py - np.float32(ay - low_m[1])) * np.float32(ny),
                depth,
            )
    part = codes[across, up]
    if block.use == "square":
        part[depth > 0] = Ground.COBBLE
        part[(depth > 0) & ((np.floor(px * 2.5).astype(np.int32) + np.floor(py * 2.5).astype(np.int32)) % 2 == 0)] = (
            Ground.COBBLE_DARK
        )
    else:
        part[depth > 0] = Ground.GRASS
        if block.use == "park":
            part[(depth > 6) & (depth < 8.5)] = Ground.GRAVEL


def _draw_pavement(codes: Codes, x: Floats, y: Floats, low_m: tuple[float, float], cells_per_m: float, street: Street) -> None:
    across, up = _window(len(codes), low_m, cells_per_m, (street.start, street.end), street.width_m)
    s, d = _frame(street, low_m, x[across], y[:, up])
    inside = (np.abs(d) <= street.width_m / 2) & (s >= -street.crossings_m[0]) & (s <= street.length_m + street.crossings_m[1])
    part = codes[across, up]
    part[inside] = Ground.PAVEMENT
    if cells_per_m > 5:
        joint = (np.mod(s, 1.2) < 0.11) | (np.mod(np.abs(d), 0.9) < 0.1)
        part[inside & joint] = Ground.JOINT


def _draw_road(
    codes: Codes, roads: Codes, x: Floats, y: Floats, low_m: tuple[float, float], cells_per_m: float, street: Street
) -> None:
    across, up = _window(len(codes), low_m, cells_per_m, (street.start, street.end), street.width_m)
    s, d = _frame(street, low_m, x[across], y[:, up])
    away = np.abs(d) - np.float32(street.road_m / 2)
    # A road that ends on the axis of another reaches over it, so that their kerbs meet.
    beyond = np.maximum(-s, s - np.float32(street.length_m))
    lasts = beyond <= 0
    part, road = codes[across, up], roads[across, up]
    edge = (away > 0) & (away < 0.22) & lasts & (road == 0)
    part[edge] = Ground.KERB
    inside = (away <= 0) & lasts
    part[inside] = Ground.ASPHALT
    part[inside & (away > -0.35) & (road == 0)] = Ground.GUTTER
    lane_m = street.road_m / 4
    part[inside & (np.abs(np.abs(np.abs(d) - np.float32(lane_m)) - 0.75) < 0.25)] = Ground.WORN
    road += inside


def _draw_marks(
    codes: Codes, roads: Codes, x: Floats, y: Floats, low_m: tuple[float, float], cells_per_m: float, streets: Sequence[Street]
) -> None:
    # Where two carriageways meet there are neither kerbs nor marks.
    codes[(roads > 1)] = Ground.ASPHALT
    kerb = codes == Ground.KERB
    codes[kerb & (roads > 0)] = Ground.ASPHALT
    for street in streets:
        across, up = _window(len(codes), low_m, cells_per_m, (street.start, street.end), street.width_m)
        s, d = _frame(street, low_m, x[across], y[:, up])
        part, alone = codes[across, up], roads[across, up] == 1
        from_start, from_end = (
            s - np.float32(street.crossings_m[0] + 0.8),
            np.float32(street.length_m - street.crossings_m[1] - 0.8) - s,
        )
        free = alone & (np.abs(d) < street.road_m / 2) & (from_start > 4.5) & (from_end > 4.5)
        if street.road_m > 7:
            part[free & (np.abs(d) < 0.09) & (np.mod(s, 6.0) < 3.0)] = Ground.MARK
        if street.road_m > 13:
            part[free & (np.abs(np.abs(d) - np.float32(street.road_m / 4)) < 0.07) & (np.mod(s, 4.0) < 1.6)] = Ground.MARK
        if street.number % 5 == 1 and street.road_m > 8:
            part[free & (np.abs(np.abs(d) - np.float32(street.road_m / 2 - 2.9)) < 0.7)] = Ground.CYCLE
        zebra = alone & (np.abs(d) < street.road_m / 2 - 0.4) & (np.mod(d + 100, 1.0) < 0.5)
        part[zebra & (((from_start > 0.3) & (from_start < 3.3)) | ((from_end > 0.3) & (from_end < 3.3)))] = Ground.MARK


def _age(codes: Codes, seed: int, low_m: tuple[float, float], cells_per_m: float) -> None:
    """Patches, covers and worn blotches; by position, so that neighbouring maps agree."""
    step_m = 0.5
    count = int(len(codes) / cells_per_m / step_m) + 1
    first = [round(low / step_m) for low in low_m]
    numbers = (first[0] + np.arange(count))[:, None] * 1_000_003 + (first[1] + np.arange(count))[None, :]
    coarse = (np.arange(len(codes)) / cells_per_m / step_m).astype(np.int64)
    chance = units(seed ^ 0x67, numbers.astype(np.int64))[coarse[:, None], coarse[None, :]]
    wide = np.zeros((count // 6 + 2, count // 3 + 2), np.int64)
    wide += (first[0] // 6 + np.arange(wide.shape[0]))[:, None] * 7_000_003 + (first[1] // 3 + np.arange(wide.shape[1]))[None, :]
    patch = units(seed ^ 0x68, wide)
    at = [(np.arange(len(codes)) / cells_per_m / step_m + low) for low in first]
    rows, columns = (at[0] // 6).astype(np.int64) - first[0] // 6, (at[1] // 3).astype(np.int64) - first[1] // 3
    codes[(codes == Ground.ASPHALT) & (patch[rows[:, None], columns[None, :]] < 0.05)] = Ground.PATCH
    codes[(codes == Ground.GRASS) & (chance < 0.35)] = Ground.GRASS_DARK
    codes[(codes == Ground.ASPHALT) & (chance > 0.4) & (chance < 0.4015)] = Ground.COVER
    codes[(codes == Ground.PAVEMENT) & (chance > 0.92)] = Ground.JOINT
