"""The canvas on which walls are drawn, and the windows in them."""

from __future__ import annotations

import math

import numpy as np

from geoloc_dagster.emulator.hashing import Dice, units
from geoloc_dagster.emulator.looks import Look
from geoloc_dagster.emulator.materials import Codes, Facade

Box = tuple[float, float, float, float]


class Canvas:
    """A wall to draw on: metres from its left end and up from the ground."""

    def __init__(self, width_m: float, height_m: float, texels_per_m: float) -> None:
        self.width_m = width_m
        self.height_m = height_m
        self.texels_per_m = texels_per_m
        self._rows = max(1, round(height_m * texels_per_m))
        # Rows below the ground repeat it: rounding may ask for one more than there is.
        self.codes: Codes = np.zeros((max(1, round(width_m * texels_per_m)), self._rows + 2), np.uint8)

    def box(self, left_m: float, right_m: float, low_m: float, high_m: float, code: int) -> None:
        """Fill a rectangle; nothing where it is thinner than half a texel."""
        scale = self.texels_per_m
        u0, u1 = max(0, round(left_m * scale)), round(right_m * scale)
        v0, v1 = max(0, self._rows - round(high_m * scale)), self._rows - round(low_m * scale)
        if u1 > u0 and v1 > v0:
            self.codes[u0:u1, v0 : v1 + 2 if low_m <= 0 else v1] = code

    def courses(self, low_m: float, high_m: float, step_m: float, thick_m: float, code: int) -> None:
        """Horizontal lines over the whole width."""
        for at_m in np.arange(low_m + step_m, high_m, step_m):
            top = self._rows - round(float(at_m) * self.texels_per_m)
            if top >= 0 and (thick_m + 0.02) * self.texels_per_m >= 0.5:
                self.codes[:, top : top + max(1, round(thick_m * self.texels_per_m))] = code

    def grain(self, key: int, share: float) -> None:
        """Small blotches, a little darker or lighter than the wall."""
        wide, tall = math.ceil(self.codes.shape[0] / 3), math.ceil(self.codes.shape[1] / 2)
        chance = units(key, np.arange(wide * tall)).reshape(wide, tall)
        chance = np.repeat(np.repeat(chance, 3, axis=0), 2, axis=1)[: self.codes.shape[0], : self.codes.shape[1]]
        plain = self.codes == Facade.WALL
        self.codes[plain & (chance < share)] = Facade.WALL_DARK
        self.codes[plain & (chance > 1 - share)] = Facade.WALL_LIGHT

    def letters(self, left_m: float, right_m: float, low_m: float, high_m: float, key: int) -> None:
        """A word of block letters of no alphabet, centred."""
        dice = Dice(key)
        tall_m = high_m - low_m
        step_m = tall_m * 0.8
        count = min(dice.integer(4, 10), int((right_m - left_m) / step_m))
        start_m = (left_m + right_m - count * step_m) / 2
        for k in range(count):
            at_m = start_m + k * step_m
            thick_m = tall_m * 0.18
            shape = dice.integer(1, 62)
            strokes = (
                (0.0, 0.18, 0.0, 1.0), (0.5, 0.68, 0.0, 1.0), (0.0, 0.68, 0.82, 1.0), (0.0, 0.68, 0.41, 0.59),
                (0.0, 0.68, 0.0, 0.18), (0.25, 0.43, 0.0, 1.0),
            )  # fmt: skip
            for bit, (u0, u1, v0, v1) in enumerate(strokes):
                if shape >> bit & 1 and thick_m > 0:
                    self.box(at_m + u0 * tall_m, at_m + u1 * tall_m, low_m + v0 * tall_m, low_m + v1 * tall_m, Facade.SIGN_TEXT)


def draw_window(canvas: Canvas, look: Look, place: Box, dice: Dice) -> None:
    """One window: (middle, sill, width, height), metres."""
    at_m, sill_m, wide_m, tall_m = place
    left_m, right_m, top_m = at_m - wide_m / 2, at_m + wide_m / 2, sill_m + tall_m
    if wide_m < 0.3 or tall_m < 0.4:
        return
    _draw_surround(canvas, look, (left_m, right_m, sill_m, top_m))
    canvas.box(left_m, right_m, sill_m, top_m, Facade.FRAME)
    edge_m = 0.08
    if canvas.texels_per_m < 5:
        edge_m = 0.0
    canvas.box(left_m + edge_m, right_m - edge_m, sill_m + edge_m, top_m - edge_m, Facade.GLASS)
    reflection = dice.unit()
    if reflection < 0.5:
        canvas.box(left_m + edge_m, right_m - edge_m, sill_m + tall_m * (0.35 + reflection), top_m - edge_m, Facade.GLASS_LIGHT)
    canvas.box(left_m + edge_m, right_m - edge_m, top_m - edge_m - 0.14, top_m - edge_m, Facade.GLASS_DARK)
    curtain = dice.unit()
    if curtain < 0.3:
        for side_m in (left_m + edge_m, right_m - edge_m - wide_m * 0.22):
            canvas.box(side_m, side_m + wide_m * 0.22, sill_m + edge_m, top_m - edge_m - 0.1, Facade.CURTAIN)
    elif curtain < 0.42:
        canvas.box(
            left_m + edge_m, right_m - edge_m, sill_m + tall_m * dice.between(0.3, 0.8), top_m - edge_m - 0.1, Facade.CURTAIN
        )
    _draw_panes(canvas, look, (left_m, right_m, sill_m, top_m))


def _draw_surround(canvas: Canvas, look: Look, box: Box) -> None:
    left_m, right_m, sill_m, top_m = box
    edge_m, wide_m = look.surround_m, right_m - left_m
    if edge_m:
        canvas.box(left_m - edge_m, right_m + edge_m, sill_m - 0.05, top_m + edge_m, Facade.TRIM)
    canvas.box(left_m - edge_m - 0.06, right_m + edge_m + 0.06, sill_m - 0.14, sill_m, Facade.TRIM)
    canvas.box(left_m - edge_m - 0.06, right_m + edge_m + 0.06, sill_m - 0.24, sill_m - 0.14, Facade.WALL_DARK)
    if look.header:
        high_m = top_m + edge_m
        canvas.box(left_m - edge_m - 0.08, right_m + edge_m + 0.08, high_m, high_m + 0.17, Facade.TRIM)
        if look.header == 2:
            canvas.box(left_m + wide_m * 0.12, right_m - wide_m * 0.12, high_m + 0.17, high_m + 0.28, Facade.TRIM)
            canvas.box(left_m + wide_m * 0.3, right_m - wide_m * 0.3, high_m + 0.28, high_m + 0.36, Facade.TRIM)
        elif look.header == 3:
            for k in range(4):
                inset_m = wide_m * 0.13 * k
                canvas.box(left_m + inset_m, right_m - inset_m, high_m + 0.17 + k * 0.07, high_m + 0.24 + k * 0.07, Facade.TRIM)
    if look.shutters and wide_m < 2:
        half_m = wide_m * 0.48
        canvas.box(left_m - edge_m - half_m, left_m - edge_m, sill_m, top_m, Facade.SHUTTER)
        canvas.box(right_m + edge_m, right_m + edge_m + half_m, sill_m, top_m, Facade.SHUTTER)


def _draw_panes(canvas: Canvas, look: Look, box: Box) -> None:
    left_m, right_m, sill_m, top_m = box
    wide_m, tall_m, bar_m = right_m - left_m, top_m - sill_m, 0.07
    upright, across = _BARS[look.panes]
    for share in upright:
        at_m = left_m + wide_m * share
        canvas.box(at_m - bar_m / 2, at_m + bar_m / 2, sill_m, top_m, Facade.FRAME)
    for share in across:
        at_m = sill_m + tall_m * share
        canvas.box(left_m, right_m, at_m - bar_m / 2, at_m + bar_m / 2, Facade.FRAME)


_BARS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "plain": ((), ()),
    "cross": ((0.5,), (0.68,)),
    "sash": ((), (0.5,)),
    "pair": ((0.5,), ()),
    "grid": ((0.33, 0.67), (0.25, 0.5, 0.75)),
    "triple": ((0.33, 0.67), ()),
}
