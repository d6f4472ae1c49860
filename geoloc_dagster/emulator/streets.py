"""The plan of the city: districts between avenues, cut into blocks by streets.

Districts are the cells of a lattice with displaced corners; its edges are the avenues. Inside, each district is cut in two
again and again, mostly across its longer side, until the blocks are small enough: so each district has a grid of its own
direction, blocks of many sizes, T-junctions and a few slanting streets. Every piece is convex, and every street ends on
the axis of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from geoloc_dagster.emulator.hashing import Dice

DISTRICT_M = 420.0
REACH_M = DISTRICT_M * 0.19
"""How far a corner of the lattice is displaced at most, in each direction."""

Point = tuple[float, float]
Character = Literal["old", "brick", "modern", "villa"]
Use = Literal["built", "park", "square"]


@dataclass(frozen=True, slots=True)
class Street:
    """A straight street from `start` to `end` along its axis, metres.

    Attributes:
        number: its number within the district that owns it.
        width_m: from facade to facade.
        road_m: width of the carriageway; the rest is pavement.
        crossings_m: half the width of the street at its start and at its end, for zebra crossings.
        trees: whether trees stand along it.
    """

    number: int
    start: Point
    end: Point
    width_m: float
    road_m: float
    crossings_m: tuple[float, float]
    trees: bool

    @property
    def length_m(self) -> float:
        """Length along the axis."""
        return math.dist(self.start, self.end)

    @property
    def along(self) -> Point:
        """Unit vector from start to end."""
        return (self.end[0] - self.start[0]) / self.length_m, (self.end[1] - self.start[1]) / self.length_m


@dataclass(frozen=True, slots=True)
class Block:
    """What lies between streets: a convex polygon, counter-clockwise, metres, without the streets around it."""

    number: int
    corners: tuple[Point, ...]
    use: Use


@dataclass(frozen=True, slots=True)
class District:
    """One cell of the lattice with the streets that it owns: those inside, and its southern and western avenue."""

    i: int
    j: int
    character: Character
    streets: tuple[Street, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A convex polygon and, for the edge that leaves each corner, half the width of the street along it."""

    corners: list[Point]
    halves_m: list[float]


def plan(seed: int, i: int, j: int) -> District:
    """The district (i, j): a pure function of its arguments."""
    dice = Dice(seed, 11, i, j)
    corners = [_corner(seed, i, j), _corner(seed, i + 1, j), _corner(seed, i + 1, j + 1), _corner(seed, i, j + 1)]
    halves_m = [
        _avenue_m(seed, 0, j) / 2,
        _avenue_m(seed, 1, i + 1) / 2,
        _avenue_m(seed, 0, j + 1) / 2,
        _avenue_m(seed, 1, i) / 2,
    ]
    streets = list(_avenues(seed, i, j))
    blocks: list[Block] = []
    slanting = dice.chance(0.2)
    _cut(_Piece(corners, halves_m), dice, 0, streets, blocks, slanting=slanting)
    return District(i, j, _character(seed, i, j), tuple(streets), tuple(blocks))


def bounds(seed: int, i: int, j: int) -> tuple[Point, Point]:
    """The lowest and the highest coordinates of a district."""
    corners = [_corner(seed, i, j), _corner(seed, i + 1, j), _corner(seed, i + 1, j + 1), _corner(seed, i, j + 1)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return (min(xs), min(ys)), (max(xs), max(ys))


def _corner(seed: int, i: int, j: int) -> Point:
    dice = Dice(seed, 12, i, j)
    return i * DISTRICT_M + dice.between(-REACH_M, REACH_M), j * DISTRICT_M + dice.between(-REACH_M, REACH_M)


def _avenue_m(seed: int, direction: int, line: int) -> float:
    return Dice(seed, 13, direction, line).between(19.0, 32.0)


def _character(seed: int, i: int, j: int) -> Character:
    out = math.hypot(i, j) * DISTRICT_M
    town = max(0.15, 1.0 - out / 6000.0)
    return Dice(seed, 14, i, j).pick(("old", "brick", "modern", "villa"), (0.2 + town, 0.75, 0.2 + 0.4 * town, 0.25))


def _avenues(seed: int, i: int, j: int) -> Iterator[Street]:
    start = _corner(seed, i, j)
    for direction, end in enumerate((_corner(seed, i + 1, j), _corner(seed, i, j + 1))):
        width_m = _avenue_m(seed, direction, j if direction == 0 else i)
        other = 1 - direction
        across = [_avenue_m(seed, other, line) / 2 for line in ((i, i + 1) if direction == 0 else (j, j + 1))]
        trees = Dice(seed, 15, direction, i, j).chance(0.65)
        yield Street(direction, start, end, width_m, width_m * 0.55, (across[0], across[1]), trees)


def _cut(piece: _Piece, dice: Dice, depth: int, streets: list[Street], blocks: list[Block], *, slanting: bool) -> None:
    if depth > 0 and (_area_m2(piece.corners) < dice.between(6500.0, 15000.0) or depth > 7):
        blocks.append(_block(piece, dice, len(blocks)))
        return
    ends = _line(piece, dice, slanting=slanting)
    width_m = dice.between(15.0, 20.0) if depth == 0 else dice.between(9.5, 15.0)
    street = _street(piece, ends, width_m, dice, len(streets))
    streets.append(street)
    for half in _halves(piece, ends, width_m / 2):
        _cut(half, dice, depth + 1, streets, blocks, slanting=False)


def _street(piece: _Piece, ends: list[tuple[int, Point]], width_m: float, dice: Dice, number: int) -> Street:
    (edge_a, start), (edge_b, end) = ends
    road_m = width_m * dice.between(0.52, 0.64)
    trees = width_m > 12.5 and dice.chance(0.5)
    return Street(number, start, end, width_m, road_m, (piece.halves_m[edge_a], piece.halves_m[edge_b]), trees)


def _line(piece: _Piece, dice: Dice, *, slanting: bool) -> list[tuple[int, Point]]:
    """Where a cut across the longer side of a piece meets its outline: two (edge, point)."""
    corners = piece.corners
    longest = max(range(len(corners)), key=lambda k: math.dist(corners[k], corners[(k + 1) % len(corners)]))
    a, b = corners[longest], corners[(longest + 1) % len(corners)]
    ux, uy = (b[0] - a[0]) / math.dist(a, b), (b[1] - a[1]) / math.dist(a, b)
    spread_u = [ux * x + uy * y for x, y in corners]
    spread_v = [-uy * x + ux * y for x, y in corners]
    if max(spread_v) - min(spread_v) > max(spread_u) - min(spread_u):
        ux, uy, spread_u, spread_v = -uy, ux, spread_v, [-value for value in spread_u]
    at = min(spread_u) + (max(spread_u) - min(spread_u)) * dice.between(0.38, 0.62)
    middle = (min(spread_v) + max(spread_v)) / 2
    turn = dice.between(-0.55, 0.55) if slanting else dice.between(-0.05, 0.05)
    nx, ny = ux * math.cos(turn) - uy * math.sin(turn), ux * math.sin(turn) + uy * math.cos(turn)
    offset = nx * (ux * at - uy * middle) + ny * (uy * at + ux * middle)
    return _crossings(corners, nx, ny, offset)


def _crossings(corners: list[Point], nx: float, ny: float, offset: float) -> list[tuple[int, Point]]:
    sides = [nx * x + ny * y - offset for x, y in corners]
    found: list[tuple[int, Point]] = []
    for k, side in enumerate(sides):
        other = sides[(k + 1) % len(corners)]
        if (side < 0) != (other < 0):
            (x0, y0), (x1, y1), share = corners[k], corners[(k + 1) % len(corners)], side / (side - other)
            found.append((k, (x0 + share * (x1 - x0), y0 + share * (y1 - y0))))
    return found


def _halves(piece: _Piece, ends: list[tuple[int, Point]], half_m: float) -> Iterator[_Piece]:
    (edge_a, a), (edge_b, b) = ends
    count = len(piece.corners)
    for first, start, last, end in ((edge_a, a, edge_b, b), (edge_b, b, edge_a, a)):
        inner = [(first + 1 + k) % count for k in range((last - first) % count)]
        corners = [start, *(piece.corners[k] for k in inner), end]
        yield _Piece(corners, [piece.halves_m[first], *(piece.halves_m[k] for k in inner), half_m])


def _block(piece: _Piece, dice: Dice, number: int) -> Block:
    use: Use = dice.pick(("built", "park", "square"), (0.89, 0.075, 0.035))
    corners = piece.corners
    for k, half_m in enumerate(piece.halves_m):
        a, b = piece.corners[k], piece.corners[(k + 1) % len(piece.corners)]
        corners = inside(corners, a, b, half_m)
    return Block(number, tuple(corners), use)


def inside(corners: list[Point], a: Point, b: Point, distance_m: float) -> list[Point]:
    """The part of a convex polygon that lies at least `distance_m` to the left of the line from `a` to `b`."""
    length = math.dist(a, b)
    nx, ny = -(b[1] - a[1]) / length, (b[0] - a[0]) / length
    sides = [nx * (x - a[0]) + ny * (y - a[1]) - distance_m for x, y in corners]
    kept: list[Point] = []
    for k, (x, y) in enumerate(corners):
        side, other = sides[k], sides[(k + 1) % len(corners)]
        if side >= 0:
            kept.append((x, y))
        if (side < 0) != (other < 0):
            x1, y1 = corners[(k + 1) % len(corners)]
            share = side / (side - other)
            kept.append((x + share * (x1 - x), y + share * (y1 - y)))
    return kept


def _area_m2(corners: list[Point]) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)) / 2
