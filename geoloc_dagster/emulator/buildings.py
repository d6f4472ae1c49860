"""Puts buildings on blocks: plots along the streets, and every building's walls with the years in which they stood.

A building is repainted, replaced or scaffolded in some years; each such phase is a set of walls of its own with a first and
a last year, so that the walls of a year are a mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.facades import Side
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.looks import Coat, Look, look
from geoloc_dagster.emulator.places import FIRST_YEAR, LAST_YEAR
from geoloc_dagster.emulator.streets import Block, Character, District, Point, inside

_CORNER_M = 11.0
_NARROWEST_M = 6.0


@dataclass(frozen=True, slots=True)
class Skin:
    """What a wall's texture depends on."""

    look: Look
    side: Side
    width_m: float
    height_m: float


@dataclass(frozen=True, slots=True)
class Walls:
    """Walls as columns: everything has one entry per wall but `coats`, which are pointed into.

    Attributes:
        ends_m: float64 (n, 4): x0, y0, x1, y1; seen from outside, the first end is on the left.
        height_m: float64 (n,), from the ground.
        coat: int64 (n,), index into `coats`.
        years: int16 (n, 2), the first and the last year.
        skins: what each wall's texture depends on.
        coats: style and key of each paint; mixed only for walls that are seen.
    """

    ends_m: npt.NDArray[np.float64]
    height_m: npt.NDArray[np.float64]
    coat: npt.NDArray[np.int64]
    years: npt.NDArray[np.int16]
    skins: tuple[Skin, ...]
    coats: tuple[Coat, ...]


@dataclass(frozen=True, slots=True)
class _Phase:
    look: Look
    coat: Coat
    first_year: int
    last_year: int


@dataclass(frozen=True, slots=True)
class _Plot:
    """The footprint of a building: front from `a` to `b`, then round the corner or back to the yard."""

    corners: tuple[Point, ...]  # counter-clockwise, the front first
    sides: tuple[Side, ...]  # of the wall that leaves each corner


class _Collector:
    def __init__(self) -> None:
        self.ends_m: list[tuple[float, float, float, float]] = []
        self.height_m: list[float] = []
        self.coat: list[int] = []
        self.years: list[tuple[int, int]] = []
        self.skins: list[Skin] = []
        self.coats: list[Coat] = []

    def add(self, a: Point, b: Point, phase: _Phase, side: Side, height_m: float) -> None:
        """One wall of the phase whose coat was added last."""
        self.ends_m.append((*a, *b))
        self.height_m.append(height_m)
        self.coat.append(len(self.coats) - 1)
        self.years.append((phase.first_year, phase.last_year))
        self.skins.append(Skin(phase.look, side, math.dist(a, b), height_m))

    def walls(self) -> Walls:
        return Walls(
            np.array(self.ends_m).reshape(-1, 4),
            np.array(self.height_m),
            np.array(self.coat, np.int64),
            np.array(self.years, np.int16).reshape(-1, 2),
            tuple(self.skins),
            tuple(self.coats),
        )


def build(seed: int, district: District, block: Block) -> Walls:
    """All walls that ever stand on a block of a district."""
    collector = _Collector()
    if block.use == "built":
        dice = Dice(seed, 51, district.i, district.j, block.number)
        setback_m = dice.between(3.5, 6.0) if district.character == "villa" else dice.pick((0.0, 0.0, 2.2), (8, 4, 1))
        outline = _outline(block, setback_m)
        for corners in _plots(outline, dice, gap=0.75 if district.character == "villa" else 0.05):
            _raise(collector, _plot(corners, outline), dice, district.character)
        if setback_m > 0:
            _fence(collector, block, dice)
    return collector.walls()


def _outline(block: Block, setback_m: float) -> list[Point]:
    """Where the facades of a block stand."""
    corners = list(block.corners)
    for k, a in enumerate(block.corners):
        corners = inside(corners, a, block.corners[(k + 1) % len(block.corners)], setback_m)
    return [c for k, c in enumerate(corners) if math.dist(c, corners[k - 1]) > 0.5]


def _plots(outline: list[Point], dice: Dice, *, gap: float) -> Iterator[list[Point]]:
    """Footprints along the outline, the front first; those of sharp corners may reach out of it."""
    if len(outline) < 3:
        return
    for k, a in enumerate(outline):
        b, c = outline[(k + 1) % len(outline)], outline[(k + 2) % len(outline)]
        start_m = min(_CORNER_M, math.dist(outline[k - 1], a) / 2, math.dist(a, b) / 2)
        yield from _row(a, b, c, start_m, dice, gap=gap)


def _plot(corners: list[Point], outline: list[Point]) -> _Plot:
    """The footprint within the outline, and which of its walls face a street."""
    first = corners[0], corners[1]
    for k, a in enumerate(outline):
        corners = inside(corners, a, outline[(k + 1) % len(outline)], -0.01)
    sides: list[Side] = []
    for k, a in enumerate(corners):
        b = corners[(k + 1) % len(corners)]
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        on_street = min(_depth_m(middle, p, outline[(n + 1) % len(outline)]) for n, p in enumerate(outline)) < 0.3
        if on_street or abs(_depth_m(middle, *first)) < 0.05:
            sides.append("front")
        else:
            sides.append("back" if _depth_m(middle, *first) > 7.0 else "side")
    return _Plot(tuple(corners), tuple(sides))


def _depth_m(point: Point, a: Point, b: Point) -> float:
    """How far a point lies to the left of the line from a to b."""
    return ((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])) / math.dist(a, b)


def _row(a: Point, b: Point, c: Point, start_m: float, dice: Dice, *, gap: float) -> Iterator[list[Point]]:
    """The plots along the edge from a to b, from where the building round the corner at a ends; the last goes round b."""
    length_m = math.dist(a, b)
    u = ((b[0] - a[0]) / length_m, (b[1] - a[1]) / length_m)
    inwards = (-u[1], u[0])
    depth_m = dice.between(9.5, 12.0)
    widths = _widths(length_m - start_m, dice)
    at_m = start_m
    for k, width_m in enumerate(widths):
        low, high = _along(a, u, at_m), _along(a, u, at_m + width_m)
        at_m += width_m
        if k + 1 == len(widths):
            round_m = min(_CORNER_M, math.dist(b, c) / 2, length_m / 2)
            corner = _along(b, ((c[0] - b[0]) / math.dist(b, c), (c[1] - b[1]) / math.dist(b, c)), round_m)
            yield [low, b, corner, _along(low, inwards, depth_m)]
            continue
        if dice.chance(gap):
            high = _along(high, u, -min(width_m * 0.35, dice.between(2.0, 4.5)))
        back_m = dice.between(0.4, 1.6) if dice.chance(0.15) else 0.0
        low, high = _along(low, inwards, back_m), _along(high, inwards, back_m)
        if not dice.chance(0.03):
            yield [low, high, _along(high, inwards, depth_m), _along(low, inwards, depth_m)]


def _widths(length_m: float, dice: Dice) -> list[float]:
    widths: list[float] = []
    while length_m > 0:
        width_m = dice.between(7.0, 18.0)
        if length_m - width_m < _NARROWEST_M:
            width_m = length_m if length_m <= 18.0 else length_m / 2
        widths.append(width_m)
        length_m -= width_m
        if length_m < 1e-6:
            break
    return widths


def _along(start: Point, direction: Point, distance_m: float) -> Point:
    return start[0] + direction[0] * distance_m, start[1] + direction[1] * distance_m


def _phases(dice: Dice, character: Character) -> list[_Phase]:
    """What stands on a plot over the years: mostly one building, sometimes repainted or replaced, before that scaffolded."""
    style: Character = dice.pick(("old", "brick", "modern"), _MIXTURES[character]) if character != "villa" else "villa"
    first = look(style, dice.key())
    coat = style, dice.key()
    change = dice.unit()
    year = dice.integer(FIRST_YEAR + 2, LAST_YEAR - 1)
    new_key, new_coat = dice.key(), dice.key()
    if change > 0.22:
        return [_Phase(first, coat, 0, 9999)]
    if change < 0.06:
        style = dice.pick(("modern", style), (2, 1))
        second = _Phase(look(style, new_key), (style, new_coat), year, 9999)
        return [_Phase(first, coat, 0, year - 1), second]
    phases = [_Phase(first, coat, 0, year - 2), _Phase(first, (style, new_coat), year, 9999)]
    before = replace(first, scaffold=dice.chance(0.5))
    return [phases[0], _Phase(before, coat, year - 1, year - 1), phases[1]]


_MIXTURES: dict[Character, tuple[float, float, float]] = {
    "old": (8, 1, 1.5),
    "brick": (1.5, 8, 1),
    "modern": (1, 1.5, 8),
    "villa": (1, 1, 1),
}


def _raise(collector: _Collector, plot: _Plot, dice: Dice, character: Character) -> None:
    corners = plot.corners
    for phase in _phases(dice, character):
        collector.coats.append(phase.coat)
        for k, a in enumerate(corners):
            b = corners[(k + 1) % len(corners)]
            if math.dist(a, b) > 0.3:
                collector.add(a, b, phase, plot.sides[k], phase.look.height_m)


def _fence(collector: _Collector, block: Block, dice: Dice) -> None:
    side: Side = "hedge" if dice.chance(0.5) else "fence"
    shape = look("villa", dice.key())
    collector.coats.append(("villa", dice.key()))
    phase = _Phase(shape, collector.coats[-1], 0, 9999)
    height_m = dice.between(0.8, 1.5)
    for k, a in enumerate(block.corners):
        b = block.corners[(k + 1) % len(block.corners)]
        count = max(1, round(math.dist(a, b) / 9.0))
        for piece in range(count):
            if dice.chance(0.75):
                collector.add(_between(a, b, piece / count), _between(a, b, (piece + 0.8) / count), phase, side, height_m)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
