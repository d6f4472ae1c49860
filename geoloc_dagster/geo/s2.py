"""S2 cells of many positions at once: leaf ids, parents, ranges, tokens, centres, neighbours and areas, as arrays.

A cell id is an unsigned 64-bit integer: three bits for the face of the cube, two for each level down the Hilbert curve, and a
one. The leaf cells of any cell are one range of ids, so sorted leaf ids answer how many positions a cell holds. Ids are bit for
bit those that s2sphere gives one by one.

Source: https://s2geometry.io/devguide/s2cell_hierarchy; quadratic projection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geoloc_dagster.geo.distance import EARTH_RADIUS_M

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

MAX_LEVEL = 30
_SIZE = 1 << MAX_LEVEL  # leaf cells along an edge of a face
_ONE = np.uint64(1)
_TOKEN = re.compile(r"[0-9a-fA-F]{1,16}")

_STEP = 6  # levels of the curve that one look into a table walks down
_MASK = (1 << _STEP) - 1
_SWAPPED, _INVERTED = 1, 2
_PLACE_OF = ((0, 1, 3, 2), (0, 2, 3, 1), (3, 2, 0, 1), (3, 1, 0, 2))  # by orientation and position on the curve: 2 i + j
_TURN = (_SWAPPED, 0, 0, _INVERTED | _SWAPPED)  # what the orientation changes by, by position on the curve

_CHUNK = 1 << 14  # positions at once, so that what is in between stays in the processor's cache
_THREADS_FROM = 1 << 17
_DOUBTFUL = 1e-5  # of a leaf cell: a rounding error is a tenth of that at most
_DOUBTFUL_FACE = 1e-12


def leaf_ids(lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> U64:
    """The leaf cell of each position; the arguments broadcast to the shape of the result.

    Positions within a rounding error of an edge are looked up one by one, so that the result is s2sphere's there too.

    Args:
        lat_deg: -90 to 90.
        lng_deg: -180 to 180.

    Raises:
        ValueError: a position is not finite, or not on the globe.
    """
    lat, lng = np.broadcast_arrays(np.asarray(lat_deg, np.float64), np.asarray(lng_deg, np.float64))
    shape, lat, lng = lat.shape, lat.ravel(), lng.ravel()
    if not (np.all(np.abs(lat) <= 90) and np.all(np.abs(lng) <= 180)):  # not-a-number fails as well
        bad = int(np.flatnonzero(~((np.abs(lat) <= 90) & (np.abs(lng) <= 180)))[0])
        raise ValueError(f"position {bad} is ({lat[bad]}, {lng[bad]}), which is not on the globe")
    ids = np.empty(lat.size, np.uint64)

    def fill(first: int) -> None:
        part = slice(first, first + _CHUNK)
        ids[part] = _leaf_ids(lat[part], lng[part])

    starts = range(0, lat.size, _CHUNK)
    if lat.size < _THREADS_FROM:
        for first in starts:
            fill(first)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fill, starts))
    return ids.reshape(shape)


def levels(ids: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The level of each cell, 0 (a face) to 30 (a leaf)."""
    zeros = np.bitwise_count(_lowest(_ids(ids)) - _ONE)
    return (MAX_LEVEL - zeros // 2).astype(np.uint8)


def parents(ids: npt.ArrayLike, level: int) -> U64:
    """The cell of that level that holds each cell, which is itself where it is of that level.

    Raises:
        ValueError: one of them is of a lower level.
    """
    cells = _ids(ids)
    lowest = np.uint64(1 << 2 * (MAX_LEVEL - _level(level)))
    if np.any(_lowest(cells) > lowest):
        raise ValueError(f"a cell is larger than those of level {level}")
    return (cells & ~(lowest - _ONE)) & ~lowest | lowest


def children(ids: npt.ArrayLike) -> U64:
    """The four cells that each cell is made of: shape (..., 4), in the order of the curve.

    Raises:
        ValueError: one of them is a leaf.
    """
    cells = _ids(ids)
    lowest = _lowest(cells)
    if np.any(lowest == 1):
        raise ValueError("leaf cells have no children")
    small = lowest >> np.uint64(2)
    return (cells - lowest + small)[..., None] + (small * np.uint64(2))[..., None] * np.arange(4, dtype=np.uint64)


def ranges(ids: npt.ArrayLike) -> tuple[U64, U64]:
    """The first and the last leaf id of each cell."""
    cells = _ids(ids)
    below = _lowest(cells) - _ONE
    return cells - below, cells + below


def are_valid(ids: npt.ArrayLike) -> Bool:
    """Whether each is the id of a cell: one of six faces, and the lowest one bit at an even place."""
    cells = np.asarray(ids, np.uint64)
    lowest = cells & (~cells + _ONE)
    return ((cells >> np.uint64(61)) < 6) & ((lowest & np.uint64(0x1555555555555555)) != 0)


def tokens(ids: npt.ArrayLike) -> list[str]:
    """The hexadecimal names of cells, without the zeros at their ends."""
    return [format(cell, "016x").rstrip("0") for cell in _ids(ids).ravel().tolist()]


def from_tokens(names: Sequence[str]) -> U64:
    """The cells of such names.

    Raises:
        ValueError: naming the first that is none.
    """
    ids = np.array([_parsed(name) for name in names], np.uint64)
    valid = are_valid(ids)
    if not valid.all():
        raise ValueError(f"{names[int(np.argmin(valid))]!r} is no token of an S2 cell")
    return ids


def centres(ids: npt.ArrayLike) -> tuple[F64, F64]:
    """(lat, lng) in degrees of the middle of each cell, in the cell's own projection."""
    face, i, j, size = _square(_ids(ids))
    return _lat_lng(face, _real(2 * i + size) * (0.5 / _SIZE), _real(2 * j + size) * (0.5 / _SIZE))


def corners(ids: npt.ArrayLike) -> tuple[F64, F64]:
    """(lat, lng) in degrees of the four corners of each cell, against the clock: shapes (..., 4)."""
    points = corner_vectors(_ids(ids))
    return _degrees(points[..., 0], points[..., 1], points[..., 2])


def corner_vectors(ids: U64) -> F64:
    """Unit vectors of the corners, against the clock: shape (..., 4, 3)."""
    face, i, j, size = _square(ids)
    across = [(i, j), (i + size, j), (i + size, j + size), (i, j + size)]
    return np.stack([_unit(face, _uv(column / _SIZE), _uv(row / _SIZE)) for column, row in across], axis=-2)


def neighbours(ids: npt.ArrayLike) -> U64:
    """The four cells of the same level across each edge: shape (..., 4), below, right, above, left on the face."""
    cells = _ids(ids)
    face, i, j, size = _square(cells)
    found = [_wrapped(face, i + di * size, j + dj * size) for di, dj in ((0, -1), (1, 0), (0, 1), (-1, 0))]
    lowest = _lowest(cells)[..., None]
    return (np.stack(found, axis=-1) & ~(lowest - _ONE)) & ~lowest | lowest


def areas_m2(ids: npt.ArrayLike) -> F64:
    """The area of each cell on the sphere of radius `EARTH_RADIUS_M`, square metres, to six digits also for leaves."""
    points = corner_vectors(_ids(ids))
    a, b, c, d = (points[..., corner, :] for corner in range(4))
    return (triangle_areas(a, b, c) + triangle_areas(a, c, d)) * EARTH_RADIUS_M**2


def fewest(ids: npt.ArrayLike) -> U64:
    """The same cover with the parent in place of its four children, as often as that goes; ascending."""
    from s2sphere import CellId, CellUnion

    cover = CellUnion([CellId(int(cell)) for cell in _ids(ids).tolist()])
    cover.normalize()
    return np.array([cell.id() for cell in cover.cell_ids()], np.uint64)


def triangle_areas(a: F64, b: F64, c: F64) -> F64:
    """Of spherical triangles, steradians, without loss where they are small; unit vectors of the corners, (..., 3) each.

    Source: Eriksson, On the measure of solid angles, Math. Mag. 63 (1990).
    """
    volume = (a * np.cross(b - a, c - a)).sum(-1)
    return 2 * np.arctan2(np.abs(volume), 1 + (a * b).sum(-1) + (b * c).sum(-1) + (c * a).sum(-1))


# --- positions to ids ------------------------------------------------------------------------------------------------
def _leaf_ids(lat_deg: F64, lng_deg: F64) -> U64:
    lat, lng = np.radians(lat_deg), np.radians(lng_deg)
    across = np.cos(lat)
    face, u, v, doubtful = _on_cube(np.cos(lng) * across, np.sin(lng) * across, np.sin(lat))
    i, vague_i = _grid(u)
    j, vague_j = _grid(v)
    ids = _from_face_ij(face, i, j)
    for index in np.flatnonzero(doubtful | vague_i | vague_j).tolist():
        ids[index] = _one_by_one(float(lat_deg[index]), float(lng_deg[index]))
    return ids


def _on_cube(x: F64, y: F64, z: F64) -> tuple[I32, F64, F64, Bool]:
    """Face, u and v of points, and whether the face is in doubt."""
    far_x, far_y, far_z = np.abs(x), np.abs(y), np.abs(z)
    by_x = (far_x > far_y) & (far_x > far_z)
    by_y = ~(far_x > far_y) & (far_y > far_z)
    depth = np.where(by_x, x, np.where(by_y, y, z))
    behind = depth < 0
    u = np.where(by_x, np.where(behind, z, y), np.where(by_y, np.where(behind, z, -x), np.where(behind, -y, -x)))
    v = np.where(by_x, np.where(behind, y, z), np.where(by_y, np.where(behind, -x, z), np.where(behind, -x, -y)))
    face = np.where(by_x, 0, np.where(by_y, 1, 2)) + 3 * behind
    depth_far = np.abs(depth)
    near = np.maximum(np.abs(u), np.abs(v))
    return face.astype(np.int32), u / depth, v / depth, depth_far - near < _DOUBTFUL_FACE


def _grid(u: F64) -> tuple[I32, Bool]:
    """The row or column of leaf cells of a coordinate, and whether it is in doubt."""
    half = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    place = _SIZE * np.where(u >= 0, half, 1 - half)
    whole = np.floor(place)
    rest = place - whole
    return np.clip(whole, 0, _SIZE - 1).astype(np.int32), (rest < _DOUBTFUL) | (rest > 1 - _DOUBTFUL)


def _one_by_one(lat_deg: float, lng_deg: float) -> int:
    from s2sphere import CellId, LatLng

    return int(CellId.from_lat_lng(LatLng.from_degrees(lat_deg, lng_deg)).id())


def _from_face_ij(face: I32, i: I32, j: I32) -> U64:
    """Leaf ids by face, column and row, several levels of the curve at a time."""
    down, _ = _tables()
    state = (face & 1).astype(np.int32)
    ids = face.astype(np.uint64)
    for shift in range(MAX_LEVEL - _STEP, -1, -_STEP):
        found = down[(state << 2 * _STEP) | ((i >> shift & _MASK) << _STEP) | (j >> shift & _MASK)]
        ids = ids << np.uint64(2 * _STEP) | (found >> 2).astype(np.uint64)
        state = found & 3
    return ids << _ONE | _ONE


@lru_cache(maxsize=1)
def _tables() -> tuple[I32, I32]:
    """By orientation and place (column, row) of `_STEP` levels: position on the curve and orientation there; and the inverse."""
    count = 1 << 2 * _STEP
    down, up = np.empty(4 * count, np.int32), np.empty(4 * count, np.int32)
    for first in range(4):
        orientation = np.full(count, first)
        position = np.arange(count)
        i, j = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for shift in range(2 * (_STEP - 1), -1, -2):
            quarter = position >> shift & 3
            place = np.array(_PLACE_OF)[orientation, quarter]
            i, j = i << 1 | place >> 1, j << 1 | place & 1
            orientation = orientation ^ np.array(_TURN)[quarter]
        down[first * count + (i << _STEP | j)] = position << 2 | orientation
        up[first * count + position] = (i << _STEP | j) << 2 | orientation
    return down, up


# --- ids to places ---------------------------------------------------------------------------------------------------
def _square(ids: U64) -> tuple[I64, I64, I64, I64]:
    """Face, first column and row, and leaf cells along an edge, of each cell."""
    _, up = _tables()
    face = (ids >> np.uint64(61)).astype(np.int64)
    state = (face & 1).astype(np.int32)
    i, j = np.zeros(ids.shape, np.int64), np.zeros(ids.shape, np.int64)
    for shift in range(MAX_LEVEL - _STEP, -1, -_STEP):
        position = (ids >> np.uint64(2 * shift + 1) & np.uint64((1 << 2 * _STEP) - 1)).astype(np.int32)
        found = up[state << 2 * _STEP | position]
        i, j = i << _STEP | found >> 2 + _STEP, j << _STEP | found >> 2 & _MASK
        state = found & 3
    size = np.int64(1) << (MAX_LEVEL - levels(ids)).astype(np.int64)
    return face, i & -size, j & -size, size


def _lat_lng(face: I64, s: F64, t: F64) -> tuple[F64, F64]:
    points = _unit(face, _uv(s), _uv(t))
    return _degrees(points[..., 0], points[..., 1], points[..., 2])


def _degrees(x: F64, y: F64, z: F64) -> tuple[F64, F64]:
    return np.degrees(np.arctan2(z, np.sqrt(x * x + y * y))), np.degrees(np.arctan2(y, x))


def _uv(s: F64) -> F64:
    return np.where(s >= 0.5, (1.0 / 3.0) * (4 * s * s - 1), (1.0 / 3.0) * (1 - 4 * (1 - s) * (1 - s)))


def _cube(face: I64, u: F64, v: F64) -> F64:
    """Points on the cube: shape (..., 3)."""
    one = np.ones_like(u)
    sides = ((one, u, v), (-u, one, v), (-u, -v, one), (-one, -v, -u), (v, -one, -u), (v, u, -one))
    return np.stack([np.choose(face, [side[axis] for side in sides]) for axis in range(3)], axis=-1)


def _unit(face: I64, u: F64, v: F64) -> F64:
    points = _cube(face, u, v)
    return points / np.sqrt((points * points).sum(-1, keepdims=True))


def _wrapped(face: I64, i: I64, j: I64) -> U64:
    """Leaf ids by column and row, which may lie just beyond the face and are then on the next one."""
    inside = (i >= 0) & (i < _SIZE) & (j >= 0) & (j < _SIZE)
    kept = _from_face_ij(face.astype(np.int32), np.where(inside, i, 0).astype(np.int32), np.where(inside, j, 0).astype(np.int32))
    if inside.all():
        return kept
    column, row = np.clip(i, -1, _SIZE), np.clip(j, -1, _SIZE)
    points = _cube(face, _real(2 * column + 1 - _SIZE) * (1.0 / _SIZE), _real(2 * row + 1 - _SIZE) * (1.0 / _SIZE))
    beyond, u, v, _ = _on_cube(points[..., 0], points[..., 1], points[..., 2])
    column, row = (np.clip(np.floor(_SIZE * (0.5 * (w + 1))), 0, _SIZE - 1).astype(np.int32) for w in (u, v))
    return np.where(inside, kept, _from_face_ij(beyond, column, row))


def _real(whole: I64) -> F64:
    return whole.astype(np.float64)


# --- bits ------------------------------------------------------------------------------------------------------------
def _ids(ids: npt.ArrayLike) -> U64:
    cells = np.asarray(ids, np.uint64)
    valid = are_valid(cells)
    if not valid.all():
        raise ValueError(f"{int(cells[~valid].ravel()[0])} is no id of an S2 cell")
    return cells


def _lowest(ids: U64) -> U64:
    """The lowest one bit of each, which says the level."""
    return ids & (~ids + _ONE)


def _level(level: int) -> int:
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"there is no level {level}; they go from 0 to {MAX_LEVEL}")
    return level


def _parsed(name: str) -> int:
    """0, which is no cell, where it is no token at all."""
    return int(name.ljust(16, "0"), 16) if _TOKEN.fullmatch(name) else 0
