"""Draws the walls of buildings as textures of material codes, at any scale.

Everything is a box in metres; a coarser scale drops what is smaller than half a texel instead of blurring it, so that far
walls stay calm. Chances come from the look's key and never depend on the scale.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.looks import Look
from geoloc_dagster.emulator.materials import Codes, Facade
from geoloc_dagster.emulator.windows import Canvas, draw_window

Side = Literal["front", "side", "back", "fence", "hedge"]


def draw_wall(look: Look, side: Side, width_m: float, height_m: float, texels_per_m: float) -> Codes:
    """The texture of a wall: uint8 (columns from left to right, rows from the top), at least one row more than its height."""
    canvas = Canvas(width_m, height_m, texels_per_m)
    dice = Dice(look.key, 41, len(side))
    if side in ("fence", "hedge"):
        _draw_fence(canvas, side, dice)
        return canvas.codes
    _draw_surface(canvas, look, dice)
    if side == "side":
        _draw_blind(canvas, look, dice)
    else:
        _draw_storeys(canvas, look, dice)
        if side == "front":
            _draw_ground_floor(canvas, look, dice)
    _draw_top(canvas, look, dice, gabled=side != "side")
    if look.scaffold:
        _draw_scaffold(canvas)
    return canvas.codes


def _draw_surface(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Plaster, bricks, panels or boards, with the blotches of age."""
    width_m, eaves_m = canvas.width_m, look.eaves_m
    if canvas.texels_per_m > 5:
        if look.pattern == "brick":
            canvas.courses(0.0, eaves_m, 0.30 if canvas.texels_per_m < 10 else 0.15, 0.03, Facade.WALL_DARK)
        elif look.pattern == "boards":
            canvas.courses(0.0, eaves_m, 0.24, 0.04, Facade.WALL_DARK)
        canvas.grain(dice.key(), 0.08 if look.pattern == "brick" else 0.025)
    if look.stripes:
        for storey in range(1, look.storeys, look.stripes):
            base_m = look.ground_m + (storey - 1) * look.storey_m
            canvas.box(0, width_m, base_m + look.storey_m * 0.8, base_m + look.storey_m * 1.02, Facade.SECOND)
    if look.pattern == "panel":
        for storey in range(1, look.storeys):
            canvas.box(0, width_m, *_thin(look.ground_m + (storey - 1) * look.storey_m, 0.06), Facade.WALL_DARK)
        for at_m in _axes(width_m, look.bay_m):
            canvas.box(*_thin(at_m - look.bay_m / 2, 0.06), look.ground_m, eaves_m, Facade.WALL_DARK)
    for _ in range(dice.integer(0, 3)):
        at_m, wide_m, from_m = dice.between(0, width_m), dice.between(0.1, 0.5), dice.between(0.2, 1.0) * eaves_m
        canvas.box(at_m, at_m + wide_m, from_m - dice.between(0.8, 2.5), from_m, Facade.STAIN)


def _draw_storeys(canvas: Canvas, look: Look, dice: Dice) -> None:
    axes = _axes(canvas.width_m, look.bay_m)
    blind = dice.integer(0, len(axes) - 1) if len(axes) > 3 and dice.chance(0.2) else -1
    for storey in range(1, look.storeys):
        base_m = look.ground_m + (storey - 1) * look.storey_m
        height_m = min(look.window_m[1] * (0.8 if storey == look.storeys - 1 else 1.0), look.storey_m - look.sill_m - 0.25)
        for bay, at_m in enumerate(axes):
            if bay == blind:
                continue
            wide_m = min(look.window_m[0], canvas.width_m / len(axes) - 0.25)
            balcony = _has_balcony(look, bay, len(axes)) and storey < look.storeys
            sill_m = 0.1 if balcony else look.sill_m
            draw_window(
                canvas, look, (at_m, base_m + sill_m, wide_m, height_m + look.sill_m - sill_m), Dice(look.key, 42, storey, bay)
            )
            if balcony:
                _draw_balcony(canvas, look, at_m, base_m, canvas.width_m / len(axes))
        if look.style == "old" and storey in (1, look.storeys - 1):
            canvas.box(0, canvas.width_m, base_m - 0.12, base_m + 0.10, Facade.TRIM)
            canvas.box(0, canvas.width_m, base_m - 0.22, base_m - 0.12, Facade.TRIM_DARK)


def _has_balcony(look: Look, bay: int, bays: int) -> bool:
    match look.balconies:
        case "none":
            return False
        case "middle":
            return abs(bay - (bays - 1) / 2) < 0.8
        case "ends":
            return bay in (0, bays - 1)
        case "alternate":
            return bay % 2 == look.key % 2
        case "all":
            return True


def _draw_balcony(canvas: Canvas, look: Look, at_m: float, base_m: float, bay_m: float) -> None:
    half_m = min(look.window_m[0] * 0.5 + 0.45, bay_m / 2 - 0.04)
    canvas.box(at_m - half_m, at_m + half_m, base_m - 0.55, base_m - 0.12, Facade.SHADOW)
    canvas.box(at_m - half_m, at_m + half_m, base_m - 0.12, base_m + 0.06, Facade.SLAB)
    if look.style == "modern" and look.key & 4:
        canvas.box(at_m - half_m, at_m + half_m, base_m + 0.06, base_m + 1.0, Facade.SECOND)
    else:
        step_m = 0.14 if canvas.texels_per_m > 10 else 0.30
        for k in range(int(2 * half_m / step_m) + 1):
            canvas.box(*_thin(at_m - half_m + k * step_m, 0.045), base_m + 0.06, base_m + 0.98, Facade.RAIL)
    canvas.box(at_m - half_m, at_m + half_m, base_m + 0.95, base_m + 1.04, Facade.RAIL)
    if Dice(look.key, 43, int(at_m * 7), int(base_m * 7)).chance(0.12):
        canvas.box(at_m - half_m * 0.6, at_m + half_m * 0.1, base_m + 0.9, base_m + 1.3, Facade.PLANT)


def _draw_ground_floor(canvas: Canvas, look: Look, dice: Dice) -> None:
    canvas.box(0, canvas.width_m, 0, look.ground_m, Facade.WALL if dice.chance(0.5) else Facade.SECOND)
    if look.pattern == "courses" and canvas.texels_per_m > 5:
        canvas.courses(0.4, look.ground_m, 0.5, 0.05, Facade.SECOND_DARK)
    canvas.box(0, canvas.width_m, 0, dice.between(0.3, 0.9), Facade.PLINTH)
    if look.ground == "shop":
        _draw_shop(canvas, look, dice)
    elif look.ground == "arcade":
        _draw_arcade(canvas, look)
    else:
        _draw_home(canvas, look, dice)
    if dice.chance(0.12):
        for k in range(dice.integer(4, 9)):
            at_m, z_m = 0.5 + k * 0.22, 0.8 + 0.25 * dice.unit()
            canvas.box(at_m, at_m + 0.12, z_m, z_m + dice.between(0.15, 0.6), Facade.SCRAWL)


def _draw_shop(canvas: Canvas, look: Look, dice: Dice) -> None:
    count = max(1, round(canvas.width_m / dice.between(4.0, 7.0)))
    wide_m = canvas.width_m / count
    top_m = look.ground_m - 1.05
    door_m = dice.between(0.2, 0.8) * wide_m
    awning = dice.chance(0.35)
    for shop in range(count):
        left_m, right_m = shop * wide_m + 0.35, (shop + 1) * wide_m - 0.35
        canvas.box(left_m - 0.1, right_m + 0.1, 0.3, top_m + 0.1, Facade.FRAME)
        canvas.box(left_m, right_m, 0.45, top_m, Facade.SHOP_GLASS)
        for _ in range(5):
            at_m, z_m = dice.between(left_m, right_m - 0.6), dice.between(0.5, top_m - 0.8)
            canvas.box(at_m, at_m + dice.between(0.2, 0.7), z_m, z_m + dice.between(0.2, 0.8), dice.pick(_WARES))
        for at_m in np.arange(left_m + 1.4, right_m - 0.3, 1.5):
            canvas.box(*_thin(float(at_m), 0.09), 0.3, top_m, Facade.FRAME)
        canvas.box(shop * wide_m + door_m - 0.5, shop * wide_m + door_m + 0.5, 0.08, top_m, Facade.DOOR)
        canvas.box(shop * wide_m + door_m - 0.36, shop * wide_m + door_m + 0.36, 0.9, top_m - 0.2, Facade.SHOP_LIGHT)
        canvas.box(left_m - 0.1, right_m + 0.1, top_m + 0.15, look.ground_m - 0.2, Facade.SIGN)
        canvas.letters(left_m + 0.25, right_m - 0.25, top_m + 0.27, look.ground_m - 0.32, dice.key())
        if awning:
            for k, at_m in enumerate(np.arange(left_m, right_m - 0.1, 0.4)):
                colour = Facade.AWNING_LIGHT if k % 2 else Facade.AWNING
                canvas.box(float(at_m), min(float(at_m) + 0.4, right_m), top_m - 0.75, top_m + 0.12, colour)


_WARES = (Facade.SHOP_LIGHT, Facade.SHOP_LIGHT, Facade.GLASS_DARK, Facade.AWNING, Facade.CURTAIN, Facade.SIGN)


def _draw_arcade(canvas: Canvas, look: Look) -> None:
    for at_m in _axes(canvas.width_m, 3.2):
        canvas.box(at_m - 1.15, at_m + 1.15, 0, look.ground_m - 0.9, Facade.GLASS_DARK)
        canvas.box(at_m - 0.85, at_m + 0.85, look.ground_m - 0.9, look.ground_m - 0.55, Facade.GLASS_DARK)
        canvas.box(at_m - 0.7, at_m + 0.7, 0.2, look.ground_m - 1.3, Facade.SHOP_GLASS)


def _draw_home(canvas: Canvas, look: Look, dice: Dice) -> None:
    axes = _axes(canvas.width_m, look.bay_m)
    door = dice.integer(0, len(axes) - 1)
    for bay, at_m in enumerate(axes):
        half_m = min(look.window_m[0], canvas.width_m / len(axes) - 0.25) / 2
        if bay == door:
            tall_m = min(2.5, look.ground_m - 0.5)
            canvas.box(at_m - 0.72, at_m + 0.72, 0, tall_m + 0.2, Facade.TRIM)
            canvas.box(at_m - 0.55, at_m + 0.55, 0.1, tall_m, Facade.DOOR)
            canvas.box(at_m - 0.4, at_m + 0.4, tall_m - 0.5, tall_m - 0.1, Facade.GLASS)
            canvas.box(at_m - 0.04, at_m + 0.04, 0.1, tall_m - 0.55, Facade.DOOR_DARK)
        elif look.ground == "garage" and (bay + look.key) % 3:
            canvas.box(at_m - half_m - 0.3, at_m + half_m + 0.3, 0, 2.3, Facade.DOOR_DARK)
            canvas.box(at_m - half_m - 0.2, at_m + half_m + 0.2, 0.05, 2.2, Facade.SHUTTER)
        else:
            tall_m = min(look.window_m[1], look.ground_m - 1.4)
            draw_window(canvas, look, (at_m, 1.05, half_m * 2, tall_m), Dice(look.key, 42, 0, bay))


def _draw_blind(canvas: Canvas, look: Look, dice: Dice) -> None:
    """A party wall: a few windows at most."""
    canvas.box(0, canvas.width_m, 0, 0.5, Facade.PLINTH)
    if dice.chance(0.5):
        at_m = dice.between(0.3, 0.7) * canvas.width_m
        for storey in range(1, look.storeys):
            base_m = look.ground_m + (storey - 1) * look.storey_m
            draw_window(canvas, look, (at_m, base_m + 1.0, 0.8, 1.1), Dice(look.key, 44, storey))


def _draw_top(canvas: Canvas, look: Look, dice: Dice, *, gabled: bool) -> None:
    width_m, eaves_m = canvas.width_m, look.eaves_m
    top_m = canvas.height_m
    if look.top in ("mansard", "eaves"):
        canvas.box(0, width_m, eaves_m, top_m, Facade.ROOF)
        canvas.courses(eaves_m, top_m, 0.32 if look.top == "eaves" else 0.5, 0.06, Facade.ROOF_DARK)
        canvas.box(0, width_m, eaves_m - 0.3, eaves_m, Facade.SHADOW)
        canvas.box(0, width_m, eaves_m, eaves_m + 0.18, Facade.TRIM)
        if look.top == "mansard" and gabled:
            for bay, at_m in enumerate(_axes(width_m, look.bay_m * 1.3)):
                canvas.box(at_m - 0.75, at_m + 0.75, eaves_m + 0.2, top_m - 0.35, Facade.TRIM)
                draw_window(canvas, look, (at_m, eaves_m + 0.4, 0.95, top_m - eaves_m - 1.05), Dice(look.key, 45, bay))
        return
    canvas.box(0, width_m, eaves_m, top_m, Facade.TRIM if look.top == "cornice" else Facade.WALL)
    if look.top == "cornice":
        canvas.box(0, width_m, eaves_m - 0.25, eaves_m, Facade.SHADOW)
        for at_m in np.arange(0.2, width_m, 0.6):
            canvas.box(float(at_m), float(at_m) + 0.25, eaves_m, eaves_m + 0.3, Facade.TRIM_DARK)
    canvas.box(0, width_m, top_m - 0.16, top_m, Facade.TRIM_DARK if dice.chance(0.5) else Facade.SLAB)


def _draw_scaffold(canvas: Canvas) -> None:
    for at_m in np.arange(0.1, canvas.width_m, 2.2):
        canvas.box(*_thin(float(at_m), 0.09), 0, canvas.height_m, Facade.POLE)
    for z_m in np.arange(2.0, canvas.height_m, 2.0):
        canvas.box(0, canvas.width_m, float(z_m), float(z_m) + 0.16, Facade.BOARD)
        canvas.box(0, canvas.width_m, *_thin(float(z_m) + 1.0, 0.07), Facade.POLE)


def _draw_fence(canvas: Canvas, side: Side, dice: Dice) -> None:
    if side == "hedge":
        canvas.box(0, canvas.width_m, 0, canvas.height_m, Facade.PLANT)
        return
    canvas.box(0, canvas.width_m, 0, canvas.height_m, Facade.SECOND if dice.chance(0.5) else Facade.TRIM)
    for at_m in np.arange(0.12, canvas.width_m, 0.24):
        canvas.box(*_thin(float(at_m), 0.05), 0, canvas.height_m, Facade.SECOND_DARK)
    canvas.box(0, canvas.width_m, 0, 0.15, Facade.PLINTH)


def _axes(width_m: float, bay_m: float) -> list[float]:
    count = max(1, math.floor(width_m / bay_m + 0.35))
    return [(k + 0.5) * width_m / count for k in range(count)]


def _thin(at_m: float, wide_m: float) -> tuple[float, float]:
    return at_m - wide_m / 2, at_m + wide_m / 2
