"""Draws trees, vehicles, people and street furniture into a frame, each behind whatever walls are nearer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator import figures, lens, vehicles
from geoloc_dagster.emulator.arena import Arena
from geoloc_dagster.emulator.frame import Frame
from geoloc_dagster.emulator.lens import CAMERA_M, Camera, Hits, Stack
from geoloc_dagster.emulator.light import Light
from geoloc_dagster.emulator.materials import SPRITE_CODES, Codes
from geoloc_dagster.emulator.props import Prop
from geoloc_dagster.emulator.scene import Cast

_TURNS = 32
_COARSENESS = 1.15  # pixels per texel that are still fine enough
_SCALES: dict[str, tuple[float, ...]] = {
    "vehicle": (64.0, 32.0, 16.0, 8.0),
    "person": (60.0, 30.0, 15.0, 7.5),
    "furniture": (60.0, 30.0, 15.0, 7.5),
    "tree": (260.0, 130.0, 65.0, 32.0),  # for a tree of one metre
}


def draw_sprites(frame: Frame, camera: Camera, seen: Stack, casts: Sequence[Cast], light: Light, arena: Arena) -> None:
    """Draw casts from far to near."""
    cast = _joined(casts)
    right, depth = camera.turned(cast.feet_m[:, 0], cast.feet_m[:, 1])
    away = np.maximum(np.hypot(right, depth), 0.5)
    # A sprite is an upright sheet across the line of sight to its foot, whatever the heading: so headings fit together.
    across = cast.half_m / away
    left = right - depth * across, depth + right * across
    hits = lens.cross(camera, left, (right + depth * across, depth - right * across))
    top, low = _rows(camera, hits, cast, seen)
    shown = np.flatnonzero(low > top)
    if not len(shown):
        return
    hits, top, low = hits.pick(shown), top[shown], low[shown]
    used, position = np.unique(hits.segment, return_inverse=True)
    order = np.argsort(-away[hits.segment], kind="stable")
    hits, top, low, position = hits.pick(order), top[order], low[order], position[order]
    table = np.array([_texture(cast.props[k], float(away[k]), camera, arena) for k in used.tolist()])
    start, columns, rows, texels = table[position].T
    slot = _paint(frame, cast, used, away, light) + position * SPRITE_CODES
    base = (start + np.minimum((hits.share * columns).astype(np.int64), columns - 1) * rows).astype(np.int64)
    per_row = hits.depth / camera.focal * texels
    first = (top + 0.5 - camera.horizon) * per_row + (cast.high_m[hits.segment] - CAMERA_M) * texels
    _fill(frame, arena.codes, (hits.column * camera.height + top, low - top), (first, per_row), base, slot)


def _joined(casts: Sequence[Cast]) -> Cast:
    return Cast(
        tuple(prop for cast in casts for prop in cast.props),
        np.concatenate([cast.feet_m for cast in casts]),
        np.concatenate([cast.half_m for cast in casts]),
        np.concatenate([cast.low_m for cast in casts]),
        np.concatenate([cast.high_m for cast in casts]),
        np.concatenate([cast.paints for cast in casts]),
        np.concatenate([cast.classes for cast in casts]),
    )


def _rows(camera: Camera, hits: Hits, cast: Cast, seen: Stack) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows that each hit covers, down to the top of the nearest-but-nearer wall."""
    scale = camera.focal / hits.depth
    top = np.ceil(camera.horizon - (cast.high_m[hits.segment] - CAMERA_M) * scale - 0.5).clip(0, camera.height)
    low = np.ceil(camera.horizon - (cast.low_m[hits.segment] - CAMERA_M) * scale - 0.5).clip(0, camera.height)
    # Walls are sorted by column and from far to near: the first that is nearer has the highest top of all that hide it.
    walls = seen.hits.column * 8192.0 - seen.hits.depth
    nearer = np.searchsorted(walls, hits.column * 8192.0 - hits.depth, side="right")
    same = nearer < len(walls)
    hidden = np.full(len(low), camera.height)
    index = np.minimum(nearer, len(walls) - 1)
    same &= seen.hits.column[index] == hits.column
    hidden[same] = seen.top[index[same]]
    return top.astype(np.int64), np.minimum(low, hidden).astype(np.int64)


def _paint(frame: Frame, cast: Cast, used: npt.NDArray[np.int64], away: npt.NDArray[np.float64], light: Light) -> int:
    radiance = cast.paints[used] * (light.ambient + light.direct * 0.55)
    return frame.add(light.veil(radiance, away[used].astype(np.float32)), cast.classes[used], light)


def _texture(prop: Prop, away_m: float, camera: Camera, arena: Arena) -> tuple[int, int, int, float]:
    """Where the texture of a sprite starts, its columns and rows, and its texels per metre."""
    scales = _SCALES[prop.kind]
    wanted = camera.focal / away_m / _COARSENESS * (prop.size_m if prop.kind == "tree" else 1.0)
    level = next((k for k in range(len(scales) - 1, -1, -1) if scales[k] >= wanted), 0)
    key, draw = _drawing(prop, away_m, camera, scales[level])
    start, columns, rows = arena.find((prop.kind, level, *key), draw)
    return start, columns, rows, scales[level] / (prop.size_m if prop.kind in ("tree", "person") else 1.0)


def _drawing(prop: Prop, away_m: float, camera: Camera, scale: float) -> tuple[tuple[int, ...], Callable[[], Codes]]:
    if prop.kind == "vehicle":
        model = vehicles.MODELS[prop.variant]
        bearing = math.atan2(prop.y_m - camera.y_m, prop.x_m - camera.x_m)
        turn = round((prop.towards - bearing) / (2 * math.pi) * _TURNS) % _TURNS
        down = math.atan2(max(0.0, CAMERA_M - 0.75 * max(model.body_m[1], model.cabin[4] if model.cabin else 0)), away_m)
        step = min(4, round(down / 0.07))
        return (prop.variant, turn, step), lambda: vehicles.draw_vehicle(model, turn * 2 * math.pi / _TURNS, step * 0.07, scale)
    if prop.kind == "tree":
        species, shape = divmod(prop.variant, figures.TREE_SHAPES)
        bare = prop.bare
        return (species, shape, bare), lambda: figures.draw_tree(species, shape, bare=bare, texels_per_m=scale)
    if prop.kind == "person":
        return (prop.variant,), lambda: figures.draw_person(prop.variant, scale)
    kind = figures.FURNITURE[prop.variant // 4]
    return (prop.variant,), lambda: figures.draw_furniture(kind, prop.variant % 4, scale)


def _fill(
    frame: Frame,
    pool: Codes,
    run: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    texel: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    base: npt.NDArray[np.int64],
    slot: npt.NDArray[np.int64],
) -> None:
    place, length = run
    total = int(length.sum())
    within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
    at = np.repeat(texel[1].astype(np.float32), length) * within.astype(np.float32)
    at += np.repeat(texel[0].astype(np.float32), length)
    index = at.astype(np.int64)
    index += np.repeat(base, length)
    frame.paint(np.repeat(place, length) + within, np.take(pool, index, mode="wrap"), np.repeat(slot, length))
