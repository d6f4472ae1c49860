"""What can be seen from a cell of the plane in a year and on a date, gathered from the districts around it."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator import buildings, figures, props, vehicles
from geoloc_dagster.emulator.buildings import Skin, Walls
from geoloc_dagster.emulator.ground import GroundMap, draw_ground
from geoloc_dagster.emulator.hashing import key_of
from geoloc_dagster.emulator.light import Light, light_of
from geoloc_dagster.emulator.looks import Coat
from geoloc_dagster.emulator.materials import Colours
from geoloc_dagster.emulator.places import PlaceBook
from geoloc_dagster.emulator.props import Prop, Slot
from geoloc_dagster.emulator.shadows import with_shadows
from geoloc_dagster.emulator.streets import DISTRICT_M, REACH_M, Block, Character, District, Street, bounds

CELL_M = 32.0
SIGHT_M = 170.0
TREES_M = 130.0
THINGS_M = 80.0
GROUND_LEVELS = ((26.0, 10.0), (48.0, 5.5), (116.0, 2.5))
"""Half width and cells per metre of the maps of the ground, the finest first."""

_LIGHT_CELL_M = 256.0

Cell = tuple[int, int]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scene:
    """The walls around a cell in a year.

    Attributes:
        ends_m: float64 (n, 4).
        height_m: float64 (n,).
        normals: float64 (n, 2), outwards.
        skin_ids: int64 (n,), the same for ever.
        skins: one per wall.
        coats: one per wall.
    """

    ends_m: Floats
    height_m: Floats
    normals: Floats
    skin_ids: npt.NDArray[np.int64]
    skins: tuple[Skin, ...]
    coats: tuple[Coat, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """Things that are drawn as sprites, as columns.

    Attributes:
        props: what they are.
        feet_m: float64 (n, 2).
        half_m: float64 (n,), half width of the sheet.
        low_m: float64 (n,), lower edge of the sheet above the ground.
        high_m: float64 (n,), upper edge.
        paints: float32 (n, 16, 3).
        classes: uint8 (n, 16).
    """

    props: tuple[Prop, ...]
    feet_m: Floats
    half_m: Floats
    low_m: Floats
    high_m: Floats
    paints: Colours
    classes: npt.NDArray[np.uint8]


class SceneBook:
    """Scenes of one city, kept in bounded caches."""

    def __init__(self, places: PlaceBook, seed: int, *, southern: bool) -> None:
        self._places = places
        self._seed = seed
        self._southern = southern
        self._walls = functools.lru_cache(maxsize=1024)(self._make_walls)
        self._block_props = functools.lru_cache(maxsize=1024)(self._make_block_props)
        self._street_props = functools.lru_cache(maxsize=1024)(self._make_street_props)
        self.scene = functools.lru_cache(maxsize=96)(self._make_scene)
        self.cast = functools.lru_cache(maxsize=96)(self._make_cast)
        self.ground = functools.lru_cache(maxsize=40)(self._make_shaded_ground)
        self._ground = functools.lru_cache(maxsize=40)(self._make_ground)
        self._light = functools.lru_cache(maxsize=256)(lambda cell, date: light_of(seed, cell, date, southern=southern))

    def light(self, x_m: float, y_m: float, date: dt.date) -> Light:
        """The light at a point in a month."""
        return self._light((math.floor(x_m / _LIGHT_CELL_M), math.floor(y_m / _LIGHT_CELL_M)), date.replace(day=1))

    def street(self, x_m: float, y_m: float) -> Street | None:
        """The street that a point lies on: the one whose axis is nearest, if that is near."""
        best, best_m = None, 12.0
        for _, street in self._streets((math.floor(x_m / CELL_M), math.floor(y_m / CELL_M)), 20.0):
            (x0, y0), (ux, uy) = street.start, street.along
            s, d = (x_m - x0) * ux + (y_m - y0) * uy, abs((y_m - y0) * ux - (x_m - x0) * uy)
            if -2 < s < street.length_m + 2 and d < best_m:
                best, best_m = street, d
        return best

    def _districts(self, cell: Cell, sight_m: float) -> Iterator[District]:
        """Those that may own something within sight of a cell's middle."""
        spans: list[range] = []
        for index in cell:
            middle = (index + 0.5) * CELL_M
            low, high = middle - sight_m - REACH_M - DISTRICT_M, middle + sight_m + REACH_M
            spans.append(range(math.floor(low / DISTRICT_M), math.floor(high / DISTRICT_M) + 1))
        for i in spans[0]:
            for j in spans[1]:
                low_m, high_m = bounds(self._seed, i, j)
                gaps = [max(low_m[k] - (cell[k] + 0.5) * CELL_M, (cell[k] + 0.5) * CELL_M - high_m[k]) for k in range(2)]
                if max(gaps) < sight_m:
                    yield self._places.district(i, j)

    def _blocks(self, cell: Cell, sight_m: float) -> Iterator[tuple[District, Block]]:
        x, y = ((index + 0.5) * CELL_M for index in cell)
        for district in self._districts(cell, sight_m):
            for block in district.blocks:
                if _gap_m(block.corners, x, y) < sight_m:
                    yield district, block

    def _streets(self, cell: Cell, sight_m: float) -> Iterator[tuple[District, Street]]:
        x, y = ((index + 0.5) * CELL_M for index in cell)
        for district in self._districts(cell, sight_m):
            for street in district.streets:
                if _gap_m((street.start, street.end), x, y) < sight_m:
                    yield district, street

    def _make_walls(self, i: int, j: int, number: int) -> Walls:
        district = self._places.district(i, j)
        return buildings.build(self._seed, district, district.blocks[number])

    def _make_block_props(self, i: int, j: int, number: int) -> list[Prop]:
        district = self._places.district(i, j)
        return props.block_props(self._seed, district, district.blocks[number])

    def _make_street_props(self, i: int, j: int, number: int) -> tuple[list[Prop], list[Slot]]:
        district = self._places.district(i, j)
        street = district.streets[number]
        return props.street_props(self._seed, district, street), props.slots(self._seed, district, street)

    def _make_scene(self, cell: Cell, year: int) -> Scene:
        x, y = ((index + 0.5) * CELL_M for index in cell)
        parts: list[tuple[Walls, npt.NDArray[np.intp], int]] = []
        for district, block in self._blocks(cell, SIGHT_M):
            walls = self._walls(district.i, district.j, block.number)
            middle = (walls.ends_m[:, :2] + walls.ends_m[:, 2:]) / 2
            near = np.hypot(middle[:, 0] - x, middle[:, 1] - y) < SIGHT_M
            chosen = np.flatnonzero(near & (walls.years[:, 0] <= year) & (walls.years[:, 1] >= year))
            parts.append((walls, chosen, key_of(district.i, district.j, block.number) >> 20 << 16))
        ends_m = np.concatenate([np.empty((0, 4)), *(walls.ends_m[chosen] for walls, chosen, _ in parts)])
        along = ends_m[:, 2:] - ends_m[:, :2]
        length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
        return Scene(
            ends_m,
            np.concatenate([np.empty(0), *(walls.height_m[chosen] for walls, chosen, _ in parts)]),
            np.column_stack([along[:, 1], -along[:, 0]]) / length[:, None],
            np.concatenate([np.empty(0, np.int64), *(chosen + base for _, chosen, base in parts)]),
            tuple(walls.skins[k] for walls, chosen, _ in parts for k in chosen.tolist()),
            tuple(walls.coats[k] for walls, chosen, _ in parts for k in walls.coat[chosen].tolist()),
        )

    def _make_cast(self, cell: Cell, date: dt.date) -> Cast:
        x, y = ((index + 0.5) * CELL_M for index in cell)
        leaves = self.light(x, y, date).leaves
        fixed: list[Prop] = []
        free: list[Slot] = []
        for district, block in self._blocks(cell, TREES_M):
            fixed.extend(self._block_props(district.i, district.j, block.number))
        for district, street in self._streets(cell, TREES_M):
            standing, places = self._street_props(district.i, district.j, street.number)
            fixed.extend(standing)
            free.extend(slot for slot in places if math.hypot(slot.x_m - x, slot.y_m - y) < THINGS_M)
        seen: list[Prop] = []
        for prop in fixed:
            if math.hypot(prop.x_m - x, prop.y_m - y) < (TREES_M if prop.kind == "tree" else THINGS_M):
                seen.append(replace(prop, bare=leaves == "bare"))
        seen.extend(props.present(free, key_of(self._seed, date.year, date.month)))
        return cast_of(seen, leaves)

    def _make_shaded_ground(self, cell: Cell, date: dt.date) -> tuple[GroundMap, ...]:
        light = self.light((cell[0] + 0.5) * CELL_M, (cell[1] + 0.5) * CELL_M, date)
        if not light.sunny:
            return self._ground(cell)
        scene = self.scene(cell, date.year)
        return with_shadows(self._ground(cell), scene.ends_m, scene.height_m, scene.normals, light)

    def _make_ground(self, cell: Cell) -> tuple[GroundMap, ...]:
        middle = ((cell[0] + 0.5) * CELL_M, (cell[1] + 0.5) * CELL_M)
        streets = [street for _, street in self._streets(cell, 140.0)]
        blocks: list[tuple[Block, Character]] = [(block, district.character) for district, block in self._blocks(cell, 140.0)]
        return tuple(draw_ground(self._seed, middle, half_m, scale, CELL_M, streets, blocks) for half_m, scale in GROUND_LEVELS)


def _gap_m(points: Sequence[tuple[float, float]], x_m: float, y_m: float) -> float:
    """A lower bound of the distance from the box around some points: the larger of its two gaps."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return max(min(xs) - x_m, x_m - max(xs), min(ys) - y_m, y_m - max(ys))


def cast_of(seen: list[Prop], leaves: figures.Leaves) -> Cast:
    """Props as columns."""
    sizes = np.array([_size_m(prop) for prop in seen]).reshape(-1, 3)
    return Cast(
        tuple(seen),
        np.array([(prop.x_m, prop.y_m) for prop in seen]).reshape(-1, 2),
        sizes[:, 0],
        sizes[:, 1],
        sizes[:, 2],
        np.array([_paint(prop, leaves) for prop in seen], np.float32).reshape(-1, 16, 3),
        np.array([_CLASSES[prop.kind] for prop in seen], np.uint8).reshape(-1, 16),
    )


_CLASSES = {
    "tree": figures.TREE_CLASSES,
    "furniture": figures.FURNITURE_CLASSES,
    "vehicle": vehicles.CLASSES,
    "person": figures.PERSON_CLASSES,
}


def _size_m(prop: Prop) -> tuple[float, float, float]:
    """Half width, lower and upper edge of a prop's sheet."""
    match prop.kind:
        case "tree":
            return 0.55 * prop.size_m, -0.02 * prop.size_m, 1.02 * prop.size_m
        case "furniture":
            half_m, high_m = figures.FURNITURE_SIZE_M[figures.FURNITURE[prop.variant // 4]]
            return half_m, -0.05, high_m
        case "person":
            return 0.5 * prop.size_m, -0.08 * prop.size_m, 1.85 * prop.size_m
        case "vehicle":
            model = vehicles.MODELS[prop.variant]
            return vehicles.half_width_m(model), *vehicles.span_m(model)


def _paint(prop: Prop, leaves: figures.Leaves) -> Colours:
    match prop.kind:
        case "tree":
            return figures.paint_tree(prop.variant // figures.TREE_SHAPES, leaves, prop.key)
        case "furniture":
            return figures.paint_furniture(prop.key)
        case "person":
            return figures.paint_person(prop.key)
        case "vehicle":
            return vehicles.paint_vehicle(prop.key)
