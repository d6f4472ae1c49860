"""The plants of the emulated planet: nine habits, in the colours of region and season."""

from __future__ import annotations

import math
from collections.abc import Callable

from geoloc_dagster.emulator.planet_canvas import PixelClass, shade
from geoloc_dagster.emulator.planet_looks import Tree, leaf_of
from geoloc_dagster.emulator.planet_view import View


def trees(
    view: View, count: int, nearest_m: float, farthest_m: float, keep_free: float = 0.0, kinds: tuple[Tree, ...] = ()
) -> None:
    """Trees at random, far ones first; none within `keep_free` metres of the middle."""
    dice, flora = view.dice, view.look.flora
    depths = sorted((nearest_m * (farthest_m / nearest_m) ** dice.unit() for _ in range(count)), reverse=True)
    for ahead in depths:
        right = dice.between(-0.62, 0.62) * ahead
        if abs(right) < keep_free:
            right += math.copysign(keep_free, right)
        kind = dice.pick(kinds) if kinds else flora.pick(dice)
        tree(view, kind, right, ahead, flora.tall * dice.between(0.75, 1.25))


def tree(view: View, kind: Tree, right_m: float, ahead_m: float, tall: float) -> None:
    """One plant."""
    canvas = view.canvas
    leaf = leaf_of(view.look, view.month, view.dice)
    far = view.far(ahead_m)
    inks = [
        canvas.ink(shade(leaf, factor), PixelClass.VEGETATION, far=far, fine=0.08, leafy=0.12) for factor in (0.74, 1.0, 1.18)
    ]
    bark = canvas.ink(view.look.flora.bark, PixelClass.VEGETATION, far=far)
    x, foot = view.at(right_m, 0, ahead_m)
    _SHAPES[kind](view, x, foot, tall * view.focal / ahead_m, inks, bark)


def _conifer(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas = 11 * metre, view.canvas
    canvas.box(x - 0.2 * metre, foot - 1.6 * metre, x + 0.2 * metre, foot, bark)
    for step in range(4):
        base, wide = foot - high * (0.1 + 0.2 * step), high * (0.22 - 0.042 * step)
        tip = base - high * 0.36
        canvas.polygon([(x - wide, base), (x, tip), (x + wide, base)], inks[0])
        canvas.polygon([(x - wide, base), (x, tip), (x - wide * 0.1, base)], inks[1])
    snow = view.look.climate.snow(view.month)
    if snow > 0.3:
        white = canvas.ink((236, 240, 246), PixelClass.VEGETATION)
        for step in range(4):
            base, wide = foot - high * (0.2 + 0.2 * step), high * (0.12 - 0.025 * step)
            canvas.polygon([(x - wide, base), (x, base - high * 0.22), (x + wide * 0.3, base - high * 0.05)], white)


def _broadleaf(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas, dice = 8.5 * metre, view.canvas, view.dice
    canvas.box(x - 0.28 * metre, foot - high * 0.55, x + 0.28 * metre, foot, bark)
    bare = view.look.climate.green(view.month) < 0.25 and view.look.climate.zone in ("temperate", "boreal", "steppe")
    if bare:
        for spread in (-0.3, -0.16, -0.05, 0.07, 0.18, 0.29):
            canvas.line(
                [(x, foot - high * 0.4), (x + spread * high * 0.6, foot - high * 0.72), (x + spread * high, foot - high)],
                0.13 * metre,
                bark,
            )
        return
    for number in range(7):
        turn = number * 0.9 + dice.unit()
        across, up = 0.22 * high * math.cos(turn), 0.17 * high * math.sin(turn)
        canvas.disc(x + across, foot - high * 0.7 - up, 0.2 * high, inks[0 if up < 0 else 1 if number % 3 else 2], 0.17 * high)


def _birch(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas = 9.5 * metre, view.canvas
    white = canvas.ink((222, 220, 212), PixelClass.VEGETATION)
    canvas.box(x - 0.16 * metre, foot - high * 0.9, x + 0.16 * metre, foot, white)
    if view.look.climate.green(view.month) > 0.25:
        for step, ink in ((0.45, 0), (0.58, 1), (0.72, 1), (0.86, 2)):
            canvas.disc(x, foot - high * step, high * (0.19 - 0.12 * step), inks[ink], high * 0.13)


def _palm(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas, lean = 9 * metre, view.canvas, view.dice.between(-0.12, 0.12)
    top = (x + lean * high, foot - high)
    canvas.line([(x, foot), (x + lean * high * 0.3, foot - high * 0.5), top], 0.38 * metre, bark)
    for number in range(8):
        turn = math.pi * (number / 7) * 1.24 - 0.12 * math.pi
        across, up = math.cos(turn) * 0.34 * high, math.sin(turn) * 0.2 * high
        bend = (top[0] + across * 0.55, top[1] - up - 0.06 * high)
        tip = (top[0] + across, top[1] - up + 0.1 * high)
        canvas.polygon([top, bend, tip, (bend[0], bend[1] + 0.055 * high)], inks[number % 3])


def _acacia(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas = 6.5 * metre, view.canvas
    for spread in (-0.45, -0.1, 0.3):
        canvas.line(
            [(x, foot), (x + 0.05 * high, foot - high * 0.45), (x + spread * high, foot - high * 0.85)], 0.22 * metre, bark
        )
    for across, up, ink in ((-0.3, 0.84, 0), (0.28, 0.86, 0), (0.0, 0.92, 1), (-0.25, 0.93, 2)):
        canvas.disc(x + across * high, foot - up * high, 0.48 * high, inks[ink], 0.1 * high)


def _cypress(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high = 10 * metre
    view.canvas.box(x - 0.15 * metre, foot - metre, x + 0.15 * metre, foot, bark)
    view.canvas.disc(x, foot - high * 0.52, high * 0.085, inks[0], high * 0.48)
    view.canvas.disc(x - high * 0.025, foot - high * 0.5, high * 0.045, inks[1], high * 0.42)


def _cactus(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas = 4 * metre, view.canvas
    canvas.line([(x, foot), (x, foot - high)], 0.5 * metre, inks[0])
    canvas.line([(x + 0.08 * metre, foot), (x + 0.08 * metre, foot - high)], 0.2 * metre, inks[1])
    for side, low in ((-1, 0.35), (1, 0.5)):
        canvas.line(
            [(x, foot - high * low), (x + side * metre, foot - high * low), (x + side * metre, foot - high * (low + 0.3))],
            0.34 * metre,
            inks[0],
        )


def _bush(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    for across, up, size, ink in ((-0.5, 0.4, 0.7, 0), (0.5, 0.45, 0.75, 0), (0.0, 0.7, 0.8, 1), (-0.2, 0.95, 0.4, 2)):
        view.canvas.disc(x + across * metre, foot - up * metre, size * metre, inks[ink], 0.72 * size * metre)


def _jungle(view: View, x: float, foot: float, metre: float, inks: list[int], bark: int) -> None:
    high, canvas, dice = 14 * metre, view.canvas, view.dice
    canvas.box(x - 0.3 * metre, foot - high * 0.7, x + 0.3 * metre, foot, bark)
    for number in range(6):
        across, up = dice.between(-0.22, 0.22) * high, dice.between(0.5, 0.95) * high
        canvas.disc(x + across, foot - up, 0.17 * high, inks[number % 3], 0.11 * high)
    for across in (-0.12, 0.1):
        canvas.line(
            [(x + across * high, foot - high * 0.6), (x + across * high * 1.3, foot - high * 0.15)], 0.08 * metre, inks[0]
        )
    for side in (-1.0, -0.5, 0.5, 1.0):
        canvas.polygon(
            [(x, foot), (x + side * 1.6 * metre, foot - 2.2 * metre), (x + side * 2.4 * metre, foot - 0.9 * metre)], inks[2]
        )


_SHAPES: dict[Tree, Callable[[View, float, float, float, list[int], int], None]] = {
    "conifer": _conifer, "broadleaf": _broadleaf, "birch": _birch, "palm": _palm, "acacia": _acacia, "cypress": _cypress,
    "cactus": _cactus, "bush": _bush, "jungle": _jungle,
}  # fmt: skip
