"""What stands, parks and walks in the streets: fixed things per district, and who happened to be there on a date."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geoloc_dagster.emulator import figures, vehicles
from geoloc_dagster.emulator.hashing import Dice, key_of
from geoloc_dagster.emulator.streets import Block, District, Point, Street

Kind = Literal["tree", "furniture", "vehicle", "person"]


@dataclass(frozen=True, slots=True)
class Prop:
    """A thing that is drawn as a sprite.

    Attributes:
        kind: what it is.
        variant: which tree, vehicle, …
        x_m: its foot.
        y_m: likewise.
        size_m: height of a tree; 1 for everything else.
        towards: where a vehicle's front points, radians counter-clockwise from east.
        key: decides on its colours.
        bare: whether a tree has lost its leaves.
    """

    kind: Kind
    variant: int
    x_m: float
    y_m: float
    size_m: float
    towards: float
    key: int
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a vehicle may park or a person may walk; `chance` that one does."""

    kind: Kind
    x_m: float
    y_m: float
    towards: float
    key: int
    chance: float


def street_props(seed: int, district: District, street: Street) -> list[Prop]:
    """Trees and furniture of a street."""
    dice = Dice(seed, 91, district.i, district.j, street.number)
    return [*_street_trees(street, dice), *_street_furniture(street, dice)]


def block_props(seed: int, district: District, block: Block) -> list[Prop]:
    """Trees and furniture of a park or a square, and the trees of gardens."""
    dice = Dice(seed, 92, district.i, district.j, block.number)
    if block.use != "built":
        return list(_scattered(block, dice))
    return list(_garden_trees(block, dice)) if district.character == "villa" else []


def slots(seed: int, district: District, street: Street) -> list[Slot]:
    """Parking spaces and the pavements' walkers of a street."""
    found: list[Slot] = []
    dice = Dice(seed, 93, district.i, district.j, street.number)
    busy, crowd = dice.between(0.25, 0.85), dice.between(0.02, 0.12)
    sides = (-1, 1) if street.road_m > 8.2 else (-1,) if dice.chance(0.5) else (1,)
    for side in sides:
        turn = math.pi if side > 0 else 0.0  # one keeps to the right
        for s in np.arange(street.crossings_m[0] + 8, street.length_m - street.crossings_m[1] - 7, 6.1):
            found.append(_slot(street, "vehicle", float(s), side * (street.road_m / 2 - 1.05), turn, dice, busy))
    for side in (-1, 1):
        for s in np.arange(3.0, street.length_m - 3.0, 4.0):
            low, high = street.road_m / 2 + 0.5, street.width_m / 2 - 0.4
            found.append(_slot(street, "person", float(s), side * dice.between(low, max(low, high)), 0.0, dice, crowd))
    return found


def passing(street: Street, camera_m: Point, dice: Dice) -> Iterator[Prop]:
    """The moving traffic around one panorama: seldom none, sometimes a truck that hides a third of a view."""
    (x0, y0), (ux, uy) = street.start, street.along
    here = (camera_m[0] - x0) * ux + (camera_m[1] - y0) * uy
    lane = max(1.5, street.road_m / 4 - (0.6 if street.road_m > 8.2 else 0.0))
    taken: list[float] = []
    for _ in range(dice.pick((0, 1, 2, 3, 4), (2, 4, 4, 3, 1))):
        side = dice.pick((-1, 1))
        model = dice.pick(range(len(vehicles.MODELS)), vehicles.MOVING_WEIGHTS)
        ahead = dice.pick((-1, 1)) * dice.between(6.5, 45.0)
        if dice.chance(0.30) and lane > 1.9:
            ahead, side = dice.between(-4.0, 4.0), 1  # just passing on the other lane
        across = side * lane if abs(ahead) > 6 else side * max(lane + 1.0, 2.9)
        clearance = vehicles.MODELS[model].length_m / 2 + 3.5
        if any(abs(ahead - other) < clearance + 3 for other in taken) or (abs(ahead) < clearance and side < 0):
            continue
        taken.append(ahead)
        x, y = _at(street, here + ahead, across)
        towards = math.atan2(uy, ux) + (math.pi if side > 0 else 0.0)
        yield Prop("vehicle", model, x, y, 1.0, towards, dice.key())


def present(places: Sequence[Slot], date_key: int) -> Iterator[Prop]:
    """Who fills the slots on a date."""
    for slot in places:
        key = key_of(slot.key, date_key)
        dice = Dice(key)
        if dice.chance(slot.chance):
            if slot.kind == "vehicle":
                variant = dice.pick(vehicles.PARKED, vehicles.PARKED_WEIGHTS)
                turn = math.pi if dice.chance(0.12) else 0.0
                yield Prop("vehicle", variant, slot.x_m, slot.y_m, 1.0, slot.towards + turn, dice.key())
            else:
                yield Prop(
                    "person", dice.integer(0, figures.PEOPLE - 1), slot.x_m, slot.y_m, dice.between(0.9, 1.08), 0.0, dice.key()
                )


def _at(street: Street, s: float, d: float) -> Point:
    ux, uy = street.along
    return street.start[0] + ux * s - uy * d, street.start[1] + uy * s + ux * d


def _slot(street: Street, kind: Kind, s: float, d: float, turn: float, dice: Dice, chance: float) -> Slot:
    x, y = _at(street, s, d)
    ux, uy = street.along
    return Slot(kind, x, y, math.atan2(uy, ux) + turn, dice.key(), chance)


def _street_trees(street: Street, dice: Dice) -> Iterator[Prop]:
    if not street.trees:
        return
    species, step_m, size_m = dice.integer(0, figures.TREE_SPECIES - 1), dice.between(8.5, 15.0), dice.between(5.0, 9.5)
    for side in dice.pick(((-1,), (1,), (-1, 1), (-1, 1))):
        s = street.crossings_m[0] + 6.0
        while s < street.length_m - street.crossings_m[1] - 6.0:
            if dice.chance(0.86):
                x, y = _at(street, s + dice.between(-0.8, 0.8), side * (street.road_m / 2 + 0.9))
                variant = species * figures.TREE_SHAPES + dice.integer(0, figures.TREE_SHAPES - 1)
                yield Prop("tree", variant, x, y, size_m * dice.between(0.75, 1.2), 0.0, dice.key())
            s += step_m


_ODDS = {"stop": 2.0, "parking": 3.0, "bin": 2.0, "bollard": 3.0, "bench": 1.0, "column": 0.6}


def _street_furniture(street: Street, dice: Dice) -> Iterator[Prop]:
    edge_m = street.road_m / 2 + 0.55
    lamp_side = dice.pick((-1, 1))
    step_m = dice.between(24.0, 36.0)
    placed: list[tuple[str, float, float]] = []
    for k, s in enumerate(np.arange(street.crossings_m[0] + 9.0, street.length_m - street.crossings_m[1] - 4.0, step_m)):
        placed.append(("lamp", float(s), edge_m * lamp_side * (1 if street.width_m < 14 or k % 2 else -1)))
    for s in (street.crossings_m[0] + 1.2, street.length_m - street.crossings_m[1] - 1.2):
        placed.append(("name", s, edge_m * dice.pick((-1, 1))))
        if street.road_m > 8.5:
            placed.append(("lights", s + 0.6, -edge_m))
    s = street.crossings_m[0] + 5.0
    while s < street.length_m - street.crossings_m[1] - 4.0:
        kind = dice.pick(tuple(_ODDS), tuple(_ODDS.values()))
        offset = street.width_m / 2 - 0.6 if kind in ("bench", "bin") else edge_m
        placed.append((kind, s, offset * dice.pick((-1, 1))))
        s += dice.between(5.0, 24.0)
    for kind, along, across in placed:
        x, y = _at(street, along, across)
        yield Prop("furniture", figures.FURNITURE.index(kind) * 4 + dice.integer(0, 3), x, y, 1.0, 0.0, dice.key())  # type: ignore[arg-type]


def _inner(block: Block, dice: Dice, margin: float) -> Point:
    """A random point of a convex polygon, off its edge."""
    shares = [dice.unit() ** 2 for _ in block.corners]
    total = sum(shares)
    middle = [sum(c[axis] for c in block.corners) / len(block.corners) for axis in range(2)]
    point = [sum(w * c[axis] for w, c in zip(shares, block.corners, strict=True)) / total for axis in range(2)]
    return middle[0] + (point[0] - middle[0]) * margin, middle[1] + (point[1] - middle[1]) * margin


def _scattered(block: Block, dice: Dice) -> Iterator[Prop]:
    species = dice.integer(0, figures.TREE_SPECIES - 1)
    for _ in range(dice.integer(14, 30) if block.use == "park" else dice.integer(3, 8)):
        x, y = _inner(block, dice, 1.25)
        kind = species if dice.chance(0.6) else dice.integer(0, figures.TREE_SPECIES - 1)
        variant = kind * figures.TREE_SHAPES + dice.integer(0, figures.TREE_SHAPES - 1)
        yield Prop("tree", variant, x, y, dice.between(5.0, 13.0), 0.0, dice.key())
    for _ in range(dice.integer(2, 6)):
        x, y = _inner(block, dice, 1.1)
        yield Prop(
            "furniture", figures.FURNITURE.index(dice.pick(("bench", "bench", "lamp", "column"))) * 4, x, y, 1.0, 0.0, dice.key()
        )


def _garden_trees(block: Block, dice: Dice) -> Iterator[Prop]:
    for k, a in enumerate(block.corners):
        b = block.corners[(k + 1) % len(block.corners)]
        length = math.dist(a, b)
        inwards = (-(b[1] - a[1]) / length, (b[0] - a[0]) / length)
        for _ in range(int(length / 12)):
            share, depth = dice.unit(), dice.between(1.2, 3.2)
            x, y = a[0] + (b[0] - a[0]) * share + inwards[0] * depth, a[1] + (b[1] - a[1]) * share + inwards[1] * depth
            variant = dice.integer(0, figures.TREE_SPECIES * figures.TREE_SHAPES - 1)
            yield Prop("tree", variant, x, y, dice.between(2.5, 7.0), 0.0, dice.key())
