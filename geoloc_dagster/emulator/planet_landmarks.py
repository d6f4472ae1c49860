"""Landmarks of the emulated planet: each town has one, and it looks the same from wherever it is seen."""

from __future__ import annotations

import math
from collections.abc import Callable

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import Canvas, PixelClass, arc, mix, shade
from geoloc_dagster.emulator.planet_looks import Landmark
from geoloc_dagster.emulator.planet_view import View

Shape = Callable[["_Block"], None]


class _Block:
    """A landmark's own coordinates: x from -1 to 1, y from 0 at its foot to 1 at its usual top."""

    def __init__(self, view: View, x: float, foot: float, high: float, far: float) -> None:
        self._canvas: Canvas = view.canvas
        self._x, self._foot, self._high = x, foot, high
        town = view.look.town
        self.dice = Dice(town.key, 961)
        self.tall = town.tall

        def ink(colour: tuple[float, float, float]) -> int:
            return view.canvas.ink(colour, PixelClass.BUILDING, far=far, fine=0.03)

        self.wall, self.dark, self.bright = (
            ink(town.stone),
            ink(shade(town.stone, 0.74)),
            ink(mix(town.stone, (255, 250, 240), 0.4)),
        )
        self.accent = ink(
            self.dice.pick(((72, 140, 120), (196, 150, 60), (150, 60, 50), (70, 84, 120), (90, 90, 96), town.accent))
        )
        self.hole = ink((252, 214, 130) if view.weather.night else (52, 54, 62))

    def poly(self, ink: int, *points: tuple[float, float]) -> None:
        self._canvas.polygon([(self._x + x * self._high, self._foot - y * self._high) for x, y in points], ink)

    def box(self, ink: int, left: float, low: float, right: float, high: float) -> None:
        x, foot, scale = self._x, self._foot, self._high
        self._canvas.box(x + left * scale, foot - high * scale, x + right * scale, foot - low * scale, ink)

    def disc(self, ink: int, x: float, y: float, radius: float, high: float | None = None) -> None:
        scale = self._high
        self._canvas.disc(
            self._x + x * scale, self._foot - y * scale, radius * scale, ink, None if high is None else high * scale
        )

    def line(self, ink: int, thick: float, *points: tuple[float, float]) -> None:
        scale = self._high
        self._canvas.line([(self._x + x * scale, self._foot - y * scale) for x, y in points], thick * scale, ink)


def landmark(view: View, x: float, foot: float, high: float, far: float = 0.0) -> None:
    """Draw the town's landmark.

    Args:
        view: the photo.
        x: of its middle on the canvas.
        foot: y of its foot.
        high: its height, parts of the photo's.
        far: how much of it the haze hides.
    """
    _SHAPES[view.look.town.landmark](_Block(view, x, foot, high, far))


def _tower(block: _Block, x: float, wide: float, high: float) -> None:
    block.box(block.wall, x - wide, 0, x + wide, high)
    block.box(block.dark, x + wide * 0.3, 0, x + wide, high)


def _windows(block: _Block, left: float, right: float, low: float, high: float, columns: int, rows: int) -> None:
    step, rise = (right - left) / columns, (high - low) / rows
    for row in range(rows):
        for column in range(columns):
            x, y = left + (column + 0.3) * step, low + (row + 0.25) * rise
            block.box(block.hole, x, y, x + 0.4 * step, y + 0.5 * rise)


def _spire(block: _Block) -> None:
    wide = block.dice.between(0.09, 0.14)
    block.box(block.wall, -0.05, 0, 0.55, 0.3)
    block.poly(block.accent, (-0.05, 0.3), (0.02, 0.46), (0.5, 0.46), (0.58, 0.3))
    _tower(block, -0.12, wide, 0.55)
    block.poly(block.accent, (-0.12 - wide * 1.15, 0.55), (-0.12, 1.0), (-0.12 + wide * 1.15, 0.55))
    _windows(block, 0.05, 0.5, 0.04, 0.28, 4, 1)
    block.disc(block.hole, -0.12, 0.45, 0.05)


def _dome(block: _Block) -> None:
    block.box(block.wall, -0.5, 0, 0.5, 0.32)
    _windows(block, -0.48, 0.48, 0.05, 0.28, 8, 1)
    block.box(block.bright, -0.54, 0.32, 0.54, 0.36)
    block.box(block.dark, -0.27, 0.36, 0.27, 0.5)
    block.disc(block.accent, 0, 0.5, 0.29, 0.29 * block.dice.between(0.85, 1.3))
    block.box(block.wall, -0.29, 0.4, 0.29, 0.5)
    block.box(block.bright, -0.03, 0.78, 0.03, 0.97)


def _minarets(block: _Block) -> None:
    block.box(block.wall, -0.4, 0, 0.4, 0.28)
    block.disc(block.accent, 0, 0.28, 0.26, 0.27)
    for x in (-0.28, 0.28):
        block.disc(block.accent, x, 0.27, 0.12, 0.13)
    for x in (-0.5, 0.5) if block.dice.chance(0.6) else (-0.62, -0.46, 0.46, 0.62):
        _tower(block, x, 0.035, 0.8)
        block.box(block.bright, x - 0.06, 0.6, x + 0.06, 0.64)
        block.poly(block.accent, (x - 0.05, 0.8), (x, 1.0), (x + 0.05, 0.8))
    block.poly(block.hole, (-0.08, 0), (-0.08, 0.14), (0, 0.2), (0.08, 0.14), (0.08, 0))


def _pagoda(block: _Block) -> None:
    tiers = block.dice.integer(3, 6)
    for tier in range(tiers):
        low, step, wide = 0.86 * tier / tiers, 0.86 / tiers, 0.34 - 0.2 * tier / tiers
        block.box(block.wall, -wide * 0.7, low, wide * 0.7, low + step * 0.62)
        _windows(block, -wide * 0.65, wide * 0.65, low + 0.02, low + step * 0.5, 3, 1)
        top = low + step
        block.poly(
            block.accent,
            (-wide * 1.25, low + step * 0.66),
            (-wide, low + step * 0.6),
            (wide, low + step * 0.6),
            (wide * 1.25, low + step * 0.66),
            (wide * 0.5, top),
            (-wide * 0.5, top),
        )
    block.line(block.dark, 0.02, (0, 0.86), (0, 1.0))


def _obelisk(block: _Block) -> None:
    block.box(block.dark, -0.2, 0, 0.2, 0.06)
    block.box(block.wall, -0.13, 0.06, 0.13, 0.14)
    block.poly(block.wall, (-0.075, 0.14), (-0.045, 0.92), (0.045, 0.92), (0.075, 0.14))
    block.poly(block.dark, (0.02, 0.14), (0.015, 0.92), (0.045, 0.92), (0.075, 0.14))
    block.poly(block.accent, (-0.045, 0.92), (0, 1.0), (0.045, 0.92))


def _twin_towers(block: _Block) -> None:
    gap, high = block.dice.between(0.16, 0.28), block.dice.between(0.75, 0.9)
    for x, top in ((-gap, high), (gap, high * block.dice.pick((1.0, 0.86)))):
        _tower(block, x, 0.12, top)
        _windows(block, x - 0.11, x + 0.11, 0.03, top, 3, 10)
        block.poly(block.accent, (x - 0.12, top), (x, top + 0.12), (x + 0.12, top))
    if block.dice.chance(0.6):
        block.box(block.accent, -gap, 0.45, gap, 0.5)


def _needle(block: _Block) -> None:
    block.poly(block.wall, (-0.13, 0), (-0.025, 0.7), (0.025, 0.7), (0.13, 0))
    block.poly(block.dark, (0.03, 0), (0.008, 0.7), (0.025, 0.7), (0.13, 0))
    at = block.dice.between(0.58, 0.74)
    block.disc(block.accent, 0, at, 0.12, block.dice.between(0.04, 0.1))
    block.box(block.hole, -0.11, at, 0.11, at + 0.018)
    block.line(block.bright, 0.02, (0, 0.7), (0, 1.05))


def _arch(block: _Block) -> None:
    high = block.dice.between(0.6, 0.85)
    block.box(block.wall, -0.36, 0, 0.36, high)
    block.box(block.bright, -0.4, high * 0.8, 0.4, high * 0.86)
    block.box(block.accent, -0.36, high * 0.9, 0.36, high)
    block.box(block.hole, -0.15, 0, 0.15, high * 0.45)
    block.disc(block.hole, 0, high * 0.45, 0.15)
    for x in (-0.28, 0.24):
        block.box(block.dark, x, 0.05, x + 0.05, high * 0.78)


def _castle(block: _Block) -> None:
    block.box(block.wall, -0.55, 0, 0.55, 0.4)
    for number in range(9):
        block.box(block.wall, -0.55 + number * 0.128, 0.4, -0.49 + number * 0.128, 0.46)
    for x, high in ((-0.5, 0.7), (0.5, 0.62), (0.12, block.dice.between(0.75, 0.9))):
        _tower(block, x, 0.11, high)
        block.poly(block.accent, (x - 0.14, high), (x, high + 0.22), (x + 0.14, high))
        block.box(block.hole, x - 0.025, high * 0.7, x + 0.025, high * 0.82)
    block.box(block.hole, -0.2, 0, -0.04, 0.2)


def _wheel(block: _Block) -> None:
    for side in (-0.3, 0.3):
        block.line(block.dark, 0.035, (side, 0), (0, 0.52))
    spokes = block.dice.pick((8, 12, 16))
    for number in range(spokes):
        turn = number / spokes * 2 * math.pi
        x, y = 0.44 * math.cos(turn), 0.52 + 0.44 * math.sin(turn)
        block.line(block.wall, 0.008, (0, 0.52), (x, y))
        block.disc(block.accent, x, y, 0.04)
    block.line(block.bright, 0.025, *arc(0, 0.52, 0.44, 0, 360, 25))


def _pyramid(block: _Block) -> None:
    steps = block.dice.pick((1, 5, 8))
    for step in range(steps):
        low, wide = 0.72 * step / steps, 0.72 * (1 - step / steps)
        high, top = 0.72 * (step + 1) / steps, 0.0 if steps == 1 else wide * 0.88
        block.poly(block.wall, (-wide, low), (-top, high), (top, high), (wide, low))
        block.poly(block.dark, (wide * 0.35, low), (top * 0.35, high), (top, high), (wide, low))
    block.box(block.accent, -0.06, 0.66, 0.06, 0.76)


def _pylons(block: _Block) -> None:
    reach, high = 0.95, block.dice.between(0.75, 1.0)
    block.box(block.dark, -reach, 0.18, reach, 0.23)
    for x in (-0.42, 0.42):
        block.poly(block.accent, (x - 0.05, 0), (x - 0.03, high), (x + 0.03, high), (x + 0.05, 0))
        for step in (1, 2, 3):
            for side in (-1, 1):
                block.line(block.wall, 0.008, (x, high * (0.97 - 0.06 * step)), (x + side * 0.13 * step, 0.22))


_SHAPES: dict[Landmark, Shape] = {
    "spire": _spire, "dome": _dome, "minarets": _minarets, "pagoda": _pagoda, "obelisk": _obelisk, "twin towers": _twin_towers,
    "needle": _needle, "arch": _arch, "castle": _castle, "wheel": _wheel, "pyramid": _pyramid, "pylons": _pylons,
}  # fmt: skip
