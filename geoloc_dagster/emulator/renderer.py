"""Draws views: walls and sky by runs of texels along each column, the ground from a map, sprites over both.

A frame of codes is filled first, column by column in memory; two tables then turn codes into colours and into classes, so
that the class map is exact. Neighbouring headings fit together: everything is computed per column from its own ray.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator import lens, looks, props, sky
from geoloc_dagster.emulator.arena import Arena, ArenaFullError
from geoloc_dagster.emulator.facades import draw_wall
from geoloc_dagster.emulator.frame import Frame, finish, grain_key
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.lens import CAMERA_M, Camera, Hits, Stack
from geoloc_dagster.emulator.light import Light
from geoloc_dagster.emulator.materials import (
    BUILDING,
    CLASSES,
    FACADE_CLASSES,
    GROUND_CLASSES,
    GROUND_CODES,
    WALL_CODES,
    Facade,
)
from geoloc_dagster.emulator.places import PlaceBook
from geoloc_dagster.emulator.scene import CELL_M, Cast, Scene, SceneBook, cast_of
from geoloc_dagster.emulator.sprites import draw_sprites

__all__ = ["CLASSES", "Camera", "Renderer", "View"]

_SCALES = (24.0, 12.0, 6.0, 3.0, 1.5)  # texels per metre of the walls' textures
_FOG_LEVELS = 24
_FOG_STEP_M = 6.0


@dataclass(frozen=True, slots=True)
class View:
    """A picture and the class of each of its pixels.

    Attributes:
        rgb: uint8 (height, width, 3).
        classes: uint8 (height, width), indices into `CLASSES`.
    """

    rgb: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]


class Renderer:
    """Draws views of one city; may be shared by threads."""

    def __init__(self, book: PlaceBook, seed: int, *, southern: bool) -> None:
        self._seed = seed
        self._scenes = SceneBook(book, seed, southern=southern)
        self._arena = Arena()
        self._moving = functools.lru_cache(maxsize=256)(self._passing)

    def render(self, camera: Camera, date: dt.date) -> View:
        """What the camera sees in that month."""
        while True:
            arena = self._arena
            try:
                return self._render(camera, date, arena)
            except ArenaFullError:
                self._arena = Arena()

    def _render(self, camera: Camera, date: dt.date, arena: Arena) -> View:
        light = self._scenes.light(camera.x_m, camera.y_m, date)
        shot = Dice(self._seed, 99, round(camera.x_m * 20), round(camera.y_m * 20), date.year, date.month)
        camera = _shaken(camera, shot)
        cell = (math.floor(camera.x_m / CELL_M), math.floor(camera.y_m / CELL_M))
        frame = Frame.of(camera.width, camera.height)
        seen = self._draw_walls(frame, camera, self._scenes.scene(cell, date.year), light, arena)
        self._draw_ground(frame, camera, cell, light, date)
        moving = self._moving(round(camera.x_m, 2), round(camera.y_m, 2), shot.key())
        casts = (self._scenes.cast(cell, date.replace(day=1)), moving)
        draw_sprites(frame, camera, seen, casts, light, arena)
        return View(*finish(frame, grain_key(shot.key(), camera.heading_deg)))

    def _passing(self, x_m: float, y_m: float, key: int) -> Cast:
        street = self._scenes.street(x_m, y_m)
        return cast_of([] if street is None else list(props.passing(street, (x_m, y_m), Dice(key))), "green")

    def _draw_walls(self, frame: Frame, camera: Camera, scene: Scene, light: Light, arena: Arena) -> Stack:
        ends = scene.ends_m
        hits = lens.cross(camera, camera.turned(ends[:, 0], ends[:, 1]), camera.turned(ends[:, 2], ends[:, 3]))
        far = len(scene.height_m)
        columns = np.arange(camera.width)
        bearing = math.radians(camera.heading_deg) + np.arctan(camera.slopes())
        roofs_m = sky.skyline_m(self._seed)[sky.columns_of(bearing)]
        hits = Hits(
            np.append(hits.segment, np.full(camera.width, far)),
            np.append(hits.column, columns),
            np.append(hits.share, np.zeros(camera.width)),
            np.append(hits.depth, sky.FAR_M / np.hypot(1, camera.slopes())),
        )
        height_m = np.append(scene.height_m, 0.0)[hits.segment]
        height_m[-camera.width :] = roofs_m
        seen = lens.stack(camera, hits, height_m)
        runs = _Runs(frame, camera, seen)
        runs.add_sky(bearing, arena.find(("sky", light.key), lambda: sky.draw_sky(light))[0], frame.add_sky(light))
        runs.add_walls(scene, light, arena, frame)
        frame.fill(arena.codes, *runs.columns())
        return seen

    def _draw_ground(self, frame: Frame, camera: Camera, cell: tuple[int, int], light: Light, date: dt.date) -> None:
        first = max(0, math.ceil(camera.horizon - 0.5 + 1e-6))
        if first >= camera.height:
            return
        depth = np.minimum(camera.focal * CAMERA_M / (np.arange(first, camera.height) + 0.5 - camera.horizon), 2000.0)
        fog = np.minimum(depth / _FOG_STEP_M, _FOG_LEVELS - 1).astype(np.int64)
        slot = _paint_ground(light, frame)
        steepest = math.hypot(1.0, camera.width / 2 / camera.focal)
        fx, fy = camera.forward
        slopes = camera.slopes()
        directions = (fx + slopes * fy, fy - slopes * fx)
        end = len(depth)
        for ground in self._scenes.ground(cell, date.replace(day=1)):
            # Rows from `begin` on lie within the map wherever in its cell the camera stands.
            begin = int(np.searchsorted(-depth * steepest, -ground.reach_m)) if ground.cells_per_m > 4 else 0
            frame.fill_ground(
                ground, camera, directions, depth[begin:end], slot + fog[begin:end] * 2 * GROUND_CODES, first + begin
            )
            end = begin


def _paint_ground(light: Light, frame: Frame) -> int:
    """The slot of the ground: for each step of distance its codes in the sun, then those in the shade."""
    sun = light.direct * (0.25 + 0.75 * light.towards_sun[2])
    paint = np.concatenate([light.ground * (light.ambient + sun), light.ground * light.ambient])
    steps = (np.arange(_FOG_LEVELS, dtype=np.float32) + np.float32(0.5)) * np.float32(_FOG_STEP_M)
    classes = np.broadcast_to(np.tile(GROUND_CLASSES, 2), (_FOG_LEVELS, 2 * GROUND_CODES))
    return frame.add(light.veil(np.broadcast_to(paint, (_FOG_LEVELS, *paint.shape)), steps), classes, light)


def _shaken(camera: Camera, shot: Dice) -> Camera:
    """The camera as it really stood: its heading and pitch are off by what a car's compass and suspension are."""
    heading, pitch = shot.between(-2.0, 2.0), shot.between(-1.2, 1.2)
    return Camera(
        camera.x_m,
        camera.y_m,
        camera.heading_deg + heading,
        camera.pitch_deg + pitch,
        camera.fov_deg,
        camera.width,
        camera.height,
    )


class _Runs:
    """Runs of rows in order of columns, five for each wall that is seen: two of sky, lit wall, shaded wall, ground."""

    def __init__(self, frame: Frame, camera: Camera, seen: Stack) -> None:
        count = len(seen.top)
        self._camera, self._seen = camera, seen
        self._length = np.zeros((count, 5), np.int64)
        self._start = np.zeros((count, 5), np.float32)
        self._step = np.zeros((count, 5), np.float32)
        self._base = np.zeros((count, 5), np.int64)
        self._slot = np.full((count, 5), frame.GROUND, np.int64)
        self._length[:, 4] = seen.limit - seen.low

    def columns(
        self,
    ) -> tuple[
        npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]
    ]:
        """Lengths, first texels, texels per row, starts of texture columns, and slots of all runs."""
        return (
            self._length.reshape(-1),
            self._start.reshape(-1),
            self._step.reshape(-1),
            self._base.reshape(-1),
            self._slot.reshape(-1),
        )

    def add_sky(self, bearing: npt.NDArray[np.float64], texture: int, slot: int) -> None:
        """Fill what is above the farthest wall of each column."""
        camera, first = self._camera, np.flatnonzero(self._seen.first)
        column = self._seen.hits.column[first]
        per_row = 1 / np.hypot(1, camera.slopes())[column] / camera.focal * sky.ROWS / sky.TALLEST
        start = sky.ROWS + (0.5 - camera.horizon) * per_row
        above = np.clip(np.ceil(-start / per_row), 0, self._seen.top[first]).astype(np.int64)
        self._length[first, 0], self._length[first, 1] = above, self._seen.top[first] - above
        self._start[first, 1], self._step[first, 1] = start, per_row
        self._base[first, :2] = (texture + sky.columns_of(bearing)[column] * sky.ROWS)[:, None]
        self._slot[first, :2] = slot

    def add_walls(self, scene: Scene, light: Light, arena: Arena, frame: Frame) -> None:
        """Fill the walls, lit above and shaded below the shadow of what stands opposite."""
        seen, camera, hits = self._seen, self._camera, self._seen.hits
        far = len(scene.height_m)
        real = np.flatnonzero(hits.segment < far)
        used, position = np.unique(hits.segment[real], return_inverse=True)
        depth = hits.depth[real]
        shadow_m, lit_slot, shaded_slot, far_slot = _paint_walls(scene, used, position, depth, light, frame)
        scale = np.log2(np.maximum(depth * (_SCALES[0] / 1.25 / camera.focal), 1e-6))
        level = np.clip(np.ceil(scale), 0, len(_SCALES) - 1).astype(np.int64)
        base = _textures(scene, used[position], level, hits.share[real], arena)
        texels = np.array(_SCALES)[level]
        per_row = depth / camera.focal * texels
        height_m = scene.height_m[used][position]
        start = (0.5 - camera.horizon) * per_row + (height_m - CAMERA_M) * texels
        top, low = seen.top[real], seen.low[real]
        line = np.ceil(camera.horizon - (shadow_m[position] - CAMERA_M) * camera.focal / depth - 0.5)
        line = np.clip(line, top, np.maximum(top, low)).astype(np.int64)
        self._length[real, 2], self._length[real, 3] = line - top, np.maximum(low, line) - line
        self._start[real, 2:4], self._step[real, 2:4], self._base[real, 2:4] = start[:, None], per_row[:, None], base[:, None]
        self._slot[real, 2], self._slot[real, 3] = lit_slot[position], shaded_slot[position]
        skyline = np.flatnonzero(hits.segment == far)
        self._length[skyline, 2] = seen.low[skyline] - seen.top[skyline]
        self._slot[skyline, 2] = far_slot


def _textures(
    scene: Scene, wall: npt.NDArray[np.int64], level: npt.NDArray[np.int64], share: npt.NDArray[np.float64], arena: Arena
) -> npt.NDArray[np.int64]:
    """Where the texture column of each hit starts."""
    kinds, inverse = np.unique(wall * 8 + level, return_inverse=True)
    table = np.empty((len(kinds), 3), np.int64)
    for k, kind in enumerate(kinds.tolist()):
        index, scale = kind >> 3, _SCALES[kind & 7]
        skin = scene.skins[index]
        table[k] = arena.find(
            (int(scene.skin_ids[index]), kind & 7),
            lambda skin=skin, scale=scale: draw_wall(skin.look, skin.side, skin.width_m, skin.height_m, scale),
        )
    start, columns, rows = table[inverse].T
    return start + np.minimum((share * columns).astype(np.int64), columns - 1) * rows


def _paint_walls(
    scene: Scene,
    used: npt.NDArray[np.int64],
    position: npt.NDArray[np.int64],
    depth: npt.NDArray[np.float64],
    light: Light,
    frame: Frame,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Heights of the shadow on walls, their slots in light and in shade, and the slot of the skyline."""
    sun_x, sun_y, sun_z = light.towards_sun
    facing = scene.normals[used] @ np.array([sun_x, sun_y])
    shadow_m = np.where(facing > 0.02, 15.0 - 15.0 * sun_z / np.maximum(facing, 0.02), 1e9)
    coats = np.array([looks.paint(*scene.coats[k]) for k in used.tolist()], np.float32).reshape(-1, WALL_CODES, 3)
    glow = np.zeros((WALL_CODES, 3), np.float32)
    glow[[Facade.SHOP_LIGHT, Facade.SHOP_GLASS]] = np.float32(light.lamps) * np.array(
        [(0.5, 0.42, 0.3), (0.12, 0.1, 0.07)], np.float32
    )
    side = (0.86 + 0.14 * scene.normals[used] @ np.array([0.6, 0.8])).astype(np.float32)[:, None, None]
    shaded = coats * light.ambient * side + glow
    lit = shaded + coats * light.direct * np.maximum(facing, 0).astype(np.float32)[:, None, None] * np.float32(1.15)
    count = np.bincount(position, minlength=len(used))
    far_m = (np.bincount(position, depth, minlength=len(used)) / np.maximum(count, 1)).astype(np.float32)
    classes = np.broadcast_to(FACADE_CLASSES, (len(used), WALL_CODES))
    lit_slot, shaded_slot = (
        frame.add(light.veil(lit, far_m), classes, light),
        frame.add(light.veil(shaded, far_m), classes, light),
    )
    haze = light.veil(np.full((1, WALL_CODES, 3), 0.45, np.float32) * light.ambient, np.array([400.0], np.float32))
    far_slot = frame.add(haze, np.full((1, WALL_CODES), BUILDING, np.uint8), light)
    numbers = np.arange(len(used)) * WALL_CODES
    return shadow_m, lit_slot + numbers, shaded_slot + numbers, far_slot
