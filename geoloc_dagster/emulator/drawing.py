"""Filling shapes on a grid of codes whose rows run from the top and whose columns lie in memory one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.materials import Codes

Points = npt.NDArray[np.float64]


class Sheet:
    """A transparent grid: metres to the right of its middle and up from the ground, code 0 where nothing is.

    Args:
        half_width_m: half of its width.
        low_m: its lower edge; below zero for what reaches below the horizon of its foot, such as a shadow.
        high_m: its upper edge.
        texels_per_m: scale.
    """

    def __init__(self, half_width_m: float, low_m: float, high_m: float, texels_per_m: float) -> None:
        self.half_width_m, self.low_m, self.high_m, self.texels_per_m = half_width_m, low_m, high_m, texels_per_m
        columns, rows = max(1, round(2 * half_width_m * texels_per_m)), max(1, round((high_m - low_m) * texels_per_m))
        self.codes: Codes = np.zeros((columns, rows + 2), np.uint8)

    def box(self, left_m: float, right_m: float, low_m: float, high_m: float, code: int) -> None:
        """Fill a rectangle."""
        u0, u1, v0, v1 = self._window(left_m, right_m, low_m, high_m)
        self.codes[u0:u1, v0:v1] = code

    def disc(self, u_m: float, z_m: float, radius_m: tuple[float, float], code: int) -> None:
        """Fill an ellipse with upright axes."""
        u0, u1, v0, v1 = self._window(u_m - radius_m[0], u_m + radius_m[0], z_m - radius_m[1], z_m + radius_m[1])
        if u1 > u0 and v1 > v0:
            u = ((np.arange(u0, u1) + 0.5) / self.texels_per_m - self.half_width_m - u_m) / radius_m[0]
            v = (self.high_m - (np.arange(v0, v1) + 0.5) / self.texels_per_m - z_m) / radius_m[1]
            self.codes[u0:u1, v0:v1][u[:, None] ** 2 + v[None, :] ** 2 <= 1] = code

    def polygon(self, corners: Sequence[tuple[float, float]] | Points, code: int) -> None:
        """Fill a convex polygon of (u, z)."""
        points = np.asarray(corners, np.float64)
        (left, low), (right, high) = points.min(axis=0), points.max(axis=0)
        u0, u1, v0, v1 = self._window(float(left), float(right), float(low), float(high))
        if u1 <= u0 or v1 <= v0:
            return
        u = ((np.arange(u0, u1) + 0.5) / self.texels_per_m - self.half_width_m)[:, None]
        z = (self.high_m - (np.arange(v0, v1) + 0.5) / self.texels_per_m)[None, :]
        turns = np.roll(points, -1, axis=0) - points
        area = float((points[:, 0] * np.roll(points[:, 1], -1) - points[:, 1] * np.roll(points[:, 0], -1)).sum())
        filled = np.ones((u1 - u0, v1 - v0), np.bool_)
        for (pu, pz), (du, dz) in zip(points, turns * (1 if area > 0 else -1), strict=True):
            filled &= du * (z - pz) - dz * (u - pu) >= 0
        self.codes[u0:u1, v0:v1][filled] = code

    def line(self, start: tuple[float, float], end: tuple[float, float], thick_m: float, code: int) -> None:
        """Draw a line, at least one texel thick."""
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        steps = np.linspace(0, 1, max(2, int(length * self.texels_per_m * 1.5)))
        u = (start[0] + steps * (end[0] - start[0]) + self.half_width_m) * self.texels_per_m
        v = (self.high_m - start[1] - steps * (end[1] - start[1])) * self.texels_per_m
        half = max(1, round(thick_m * self.texels_per_m)) / 2
        for shift in np.arange(-half + 0.5, half + 0.4):
            ui, vi = (u + shift).astype(np.int64), v.astype(np.int64)
            inside = (ui >= 0) & (ui < self.codes.shape[0]) & (vi >= 0) & (vi < self.codes.shape[1])
            self.codes[ui[inside], vi[inside]] = code

    def _window(self, left_m: float, right_m: float, low_m: float, high_m: float) -> tuple[int, int, int, int]:
        scale = self.texels_per_m
        u0, u1 = round((left_m + self.half_width_m) * scale), round((right_m + self.half_width_m) * scale)
        v0, v1 = round((self.high_m - high_m) * scale), round((self.high_m - low_m) * scale)
        return max(0, u0), min(self.codes.shape[0], u1), max(0, v0), min(self.codes.shape[1], v1)
