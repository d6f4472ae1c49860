"""The geometry of a picture: where walls and sprites cross its columns, and which of them are seen.

The camera is a pinhole that looks along the ground; pitch shifts the horizon up or down instead of tilting the picture, so
that walls stay upright. Depth is measured along the optical axis: heights in pixels are `focal * height / depth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CAMERA_M = 2.5
"""Height of the camera above the road."""

_NEAR_M = 0.25
_STEEPEST_DEG = 60.0

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Camera:
    """Where it stands, metres; where it looks, degrees; and what it takes, pixels."""

    x_m: float
    y_m: float
    heading_deg: float
    pitch_deg: float
    fov_deg: float
    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length, pixels."""
        return self.width / 2 / math.tan(math.radians(self.fov_deg) / 2)

    @property
    def horizon(self) -> float:
        """Row of the horizon, counted from the upper edge of the picture."""
        pitch = math.radians(min(_STEEPEST_DEG, max(-_STEEPEST_DEG, self.pitch_deg)))
        return self.height / 2 + self.focal * math.tan(pitch)

    @property
    def forward(self) -> tuple[float, float]:
        """Unit vector along the optical axis."""
        heading = math.radians(self.heading_deg)
        return math.sin(heading), math.cos(heading)

    def slopes(self) -> Floats:
        """For each column, metres to the right per metre of depth."""
        return np.asarray((np.arange(self.width) + 0.5 - self.width / 2) / self.focal, np.float64)

    def turned(self, x_m: Floats, y_m: Floats) -> tuple[Floats, Floats]:
        """Points of the plane as metres to the right and metres of depth."""
        fx, fy = self.forward
        dx, dy = x_m - self.x_m, y_m - self.y_m
        return dx * fy - dy * fx, dx * fx + dy * fy


@dataclass(frozen=True, slots=True)
class Hits:
    """Columns that segments cross: one entry per segment and column.

    Attributes:
        segment: index of the segment.
        column: the column.
        share: where along the segment, from 0 at its left end to 1.
        depth: metres along the optical axis.
    """

    segment: Integers
    column: Integers
    share: Floats
    depth: Floats

    def pick(self, chosen: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Hits:
        """Some of them."""
        return Hits(self.segment[chosen], self.column[chosen], self.share[chosen], self.depth[chosen])


def cross(camera: Camera, left: tuple[Floats, Floats], right: tuple[Floats, Floats]) -> Hits:
    """Where upright segments, given as (right, depth) of their ends, cross the columns; only those that face the camera."""
    (x0, z0), (x1, z1) = left, right
    facing = np.flatnonzero((z0 * x1 - x0 * z1 > 1e-9) & ((z0 > _NEAR_M) | (z1 > _NEAR_M)))
    x0, z0, x1, z1 = x0[facing], z0[facing], x1[facing], z1[facing]
    dx, dz = x1 - x0, z1 - z0
    safe = np.where(np.abs(dz) < 1e-12, 1.0, dz)
    at0 = np.where(z0 < _NEAR_M, (_NEAR_M - z0) / safe, 0.0)
    at1 = np.where(z1 < _NEAR_M, (_NEAR_M - z0) / safe, 1.0)
    focal, middle = camera.focal, camera.width / 2 - 0.5
    first = np.ceil(focal * (x0 + at0 * dx) / (z0 + at0 * dz) + middle).clip(0, camera.width).astype(np.int64)
    last = np.ceil(focal * (x0 + at1 * dx) / (z0 + at1 * dz) + middle).clip(0, camera.width).astype(np.int64)
    count = np.maximum(last - first, 0)
    index = np.repeat(np.arange(len(count)), count)
    column = np.arange(len(index)) - np.repeat(np.cumsum(count) - count - first, count)
    slope = camera.slopes()[column]
    share = (slope * z0[index] - x0[index]) / (dx[index] - slope * dz[index])
    np.clip(share, 0.0, 1.0, out=share)
    return Hits(facing[index], column, share, z0[index] + share * dz[index])


@dataclass(frozen=True, slots=True)
class Stack:
    """The walls that are seen, column by column and from far to near, with the rows that each covers.

    Attributes:
        hits: which walls.
        top: first row.
        low: row after its last.
        limit: row at which the next nearer wall begins, or the picture ends; from `low` to there one sees the ground.
        first: whether it is the farthest of its column: above it is the sky.
    """

    hits: Hits
    top: Integers
    low: Integers
    limit: Integers
    first: npt.NDArray[np.bool_]


def stack(camera: Camera, hits: Hits, height_m: Floats) -> Stack:
    """Find what is seen of walls that stand on the ground: from far to near, each hides what is behind its rows.

    Args:
        camera: the camera.
        hits: all crossings; every column has at least one.
        height_m: of each hit's wall.
    """
    order = np.argsort(hits.column * 8192.0 - hits.depth, kind="stable")
    hits, height_m = hits.pick(order), height_m[order]
    scale = camera.focal / hits.depth
    rows = camera.height
    top = np.ceil(camera.horizon - (height_m - CAMERA_M) * scale - 0.5).clip(-1e6, rows).astype(np.int64)
    low = np.ceil(camera.horizon + CAMERA_M * scale - 0.5).clip(0, rows).astype(np.int64)
    np.clip(top, 0, rows, out=top)
    # From near to far, a wall is seen where its top rises above all before it; the column number separates the columns.
    step = 2 * rows
    backwards = top[::-1] + hits.column[::-1] * step
    nearer = np.minimum.accumulate(backwards)
    seen = np.ones(len(top), np.bool_)
    seen[1:] = backwards[1:] < nearer[:-1]
    new_column = np.ones(len(top), np.bool_)
    new_column[1:] = hits.column[::-1][1:] != hits.column[::-1][:-1]
    kept = np.flatnonzero((seen | new_column)[::-1])
    hits, top, low = hits.pick(kept), top[kept], low[kept]
    changes = np.ones(len(top) + 1, np.bool_)
    changes[1:-1] = hits.column[1:] != hits.column[:-1]
    limit = np.where(changes[1:], rows, np.append(top[1:], rows))
    return Stack(hits, top, np.minimum(low, limit), limit, changes[:-1])
