"""Trees, people and street furniture as flat figures that always face the camera."""

from __future__ import annotations

import colorsys
import math
from typing import Literal

import numpy as np

from geoloc_dagster.emulator.drawing import Sheet
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.materials import OTHER, PERSON, ROAD, SIGN, SPRITE_CODES, VEGETATION, Codes, Colours

Leaves = Literal["bare", "green", "autumn"]
Furniture = Literal["lamp", "stop", "parking", "name", "lights", "bin", "bollard", "bench", "column"]
FURNITURE: tuple[Furniture, ...] = ("lamp", "stop", "parking", "name", "lights", "bin", "bollard", "bench", "column")

TREE_SPECIES = 4
TREE_SHAPES = 5
PEOPLE = 8

_TRUNK, _TRUNK_DARK, _LEAF, _TWIG = 1, 2, 3, 9  # leaves have six shades: 3 dark to 8 light
_SHADOW = 11

TREE_CLASSES = np.full(SPRITE_CODES, VEGETATION, np.uint8)
TREE_CLASSES[0], TREE_CLASSES[_SHADOW] = OTHER, ROAD
PERSON_CLASSES = np.full(SPRITE_CODES, PERSON, np.uint8)
PERSON_CLASSES[0], PERSON_CLASSES[_SHADOW] = OTHER, ROAD
FURNITURE_CLASSES = np.full(SPRITE_CODES, OTHER, np.uint8)
FURNITURE_CLASSES[2:6] = SIGN

_CROWNS = ((0.47, 0.40, 0.62), (0.40, 0.46, 0.56), (0.22, 0.50, 0.55), (0.50, 0.34, 0.66))  # half width, half height, middle


def draw_tree(species: int, shape: int, *, bare: bool, texels_per_m: float) -> Codes:
    """A tree of height 1 within a sheet of half-width 0.55; the scale is that of a tree of one metre."""
    sheet = Sheet(0.55, -0.02, 1.02, texels_per_m)
    dice = Dice(81, species, shape)
    sheet.disc(0.0, 0.0, (0.16, 0.018), _SHADOW)
    lean = dice.between(-0.03, 0.03)
    half_w, half_h, middle = _CROWNS[species]
    sheet.polygon([(-0.022, 0.0), (0.022, 0.0), (lean + 0.012, middle), (lean - 0.012, middle)], _TRUNK)
    sheet.polygon([(0.004, 0.0), (0.022, 0.0), (lean + 0.012, middle), (lean + 0.002, middle)], _TRUNK_DARK)
    _branch(
        sheet, dice, (lean * 0.5, middle - half_h * 0.9), math.pi / 2, half_h * 0.62, 4 if bare else 2, spread=half_w / half_h
    )
    if not bare:
        _crown(sheet, dice, (lean, middle), (half_w, half_h))
    return sheet.codes


def _branch(
    sheet: Sheet, dice: Dice, start: tuple[float, float], angle: float, length: float, depth: int, *, spread: float
) -> None:
    end = (start[0] + math.cos(angle) * length * (0.4 + 0.6 * spread), start[1] + math.sin(angle) * length)
    sheet.line(start, end, 0.004 + 0.003 * depth, _TWIG if depth < 3 else _TRUNK)
    if depth > 0:
        for turn in (-0.6, 0.0, 0.6):
            turned = angle + turn + dice.between(-0.3, 0.3)
            _branch(sheet, dice, end, turned, length * dice.between(0.55, 0.8), depth - 1, spread=spread)


def _crown(sheet: Sheet, dice: Dice, middle: tuple[float, float], half: tuple[float, float]) -> None:
    """Clumps of leaves from the dark inside to the lit outside, with holes between them."""
    clumps: list[tuple[float, float, float, int]] = []
    for _ in range(70):
        angle, out = dice.between(0, 2 * math.pi), math.sqrt(dice.unit())
        u, z = math.cos(angle) * out * half[0] * 0.86, math.sin(angle) * out * half[1] * 0.86
        lit = 2.6 + 2.4 * z / half[1] - 1.3 * u / half[0] + dice.between(-1.0, 1.0)
        clumps.append((middle[0] + u, middle[1] + z, dice.between(0.05, 0.105), min(5, max(0, round(lit)))))
    for u, z, radius, shade in sorted(clumps, key=lambda clump: clump[3]):
        sheet.disc(u, z, (radius, radius * 0.85), _LEAF + shade)
        for _ in range(5):
            du, dz, small = dice.between(-1, 1) * radius, dice.between(-0.9, 0.9) * radius, dice.between(0.008, 0.022)
            sheet.disc(u + du, z + dz, (small, small * 0.8), _LEAF + min(5, max(0, shade + dice.integer(-1, 1))))
    for _ in range(16):
        angle, out = dice.between(0, 2 * math.pi), dice.between(0.55, 1.0)
        radius = dice.between(0.008, 0.025)
        sheet.disc(
            middle[0] + math.cos(angle) * out * half[0], middle[1] + math.sin(angle) * out * half[1], (radius, radius * 0.7), 0
        )


def paint_tree(species: int, leaves: Leaves, key: int) -> Colours:
    """The colours of one tree in a season: float32 (16, 3)."""
    dice = Dice(key, 82)
    hue = {"green": dice.between(0.21, 0.31), "autumn": dice.between(0.05, 0.16), "bare": 0.1}[leaves] + 0.01 * species
    saturation, value = dice.between(0.5, 0.7), {"green": 0.42, "autumn": 0.62, "bare": 0.4}[leaves] * dice.between(0.85, 1.1)
    colours = np.zeros((SPRITE_CODES, 3))
    colours[1], colours[2], colours[_TWIG], colours[_SHADOW] = (
        (0.32, 0.27, 0.22),
        (0.20, 0.17, 0.14),
        (0.27, 0.23, 0.20),
        (0.2, 0.2, 0.2),
    )
    for shade in range(6):
        colours[_LEAF + shade] = colorsys.hsv_to_rgb(hue + 0.008 * (2 - shade), saturation, value * (0.45 + 0.15 * shade))
    return colours.astype(np.float32)


def draw_person(pose: int, texels_per_m: float) -> Codes:
    """A person of 1.75 m in a sheet of half-width 0.5."""
    sheet = Sheet(0.5, -0.08, 1.85, texels_per_m)
    dice = Dice(83, pose)
    stride = dice.between(0.02, 0.24)
    skirt, bag = dice.chance(0.25), dice.chance(0.4)
    sheet.disc(0.05, 0.0, (0.38, 0.06), _SHADOW)
    for foot, hip in ((-stride, -0.08), (stride, 0.08)):
        sheet.polygon([(foot - 0.06, 0.06), (foot + 0.06, 0.06), (hip + 0.085, 0.88), (hip - 0.085, 0.88)], 5)
        sheet.box(foot - 0.07, foot + 0.11, 0.0, 0.08, 6)
    sheet.polygon([(-0.16, 0.80), (0.16, 0.80), (0.23, 1.42), (-0.23, 1.42)], 3)
    if skirt:
        sheet.polygon([(-0.27, 0.55), (0.27, 0.55), (0.16, 0.95), (-0.16, 0.95)], 4)
    swing = dice.between(0.0, 0.14)
    for shoulder, hand in ((-0.24, -0.27 - swing), (0.24, 0.27 + swing)):
        sheet.polygon([(hand - 0.05, 0.82), (hand + 0.05, 0.82), (shoulder + 0.06, 1.42), (shoulder - 0.06, 1.42)], 4)
        sheet.disc(hand, 0.8, (0.05, 0.06), 1)
    sheet.disc(0.0, 1.60, (0.105, 0.14), 1)
    sheet.disc(0.0, 1.66, (0.115, 0.10), 2)
    if bag:
        sheet.box(0.22, 0.42, 0.62, 0.98, 7)
    return sheet.codes


def paint_person(key: int) -> Colours:
    """The clothes of one person: float32 (16, 3)."""
    dice = Dice(key, 84)
    skin = np.array((0.80, 0.62, 0.50)) * dice.between(0.4, 1.05)
    top = np.array(colorsys.hsv_to_rgb(dice.unit(), dice.between(0.0, 0.75), dice.between(0.12, 0.8)))
    legs = np.array(dice.pick(((0.12, 0.14, 0.22), (0.10, 0.10, 0.10), (0.30, 0.28, 0.25), (0.45, 0.42, 0.36), (0.2, 0.27, 0.4))))
    colours = np.zeros((SPRITE_CODES, 3))
    colours[1:8] = (
        skin,
        np.array((0.2, 0.14, 0.09)) * dice.between(0.4, 2.2),
        top,
        top * 0.78,
        legs,
        (0.1, 0.1, 0.1),
        (0.35, 0.2, 0.12),
    )
    colours[_SHADOW] = 0.19
    return colours.astype(np.float32)


FURNITURE_SIZE_M: dict[Furniture, tuple[float, float]] = {
    "lamp": (1.1, 6.6), "stop": (0.45, 3.0), "parking": (0.4, 2.7), "name": (0.7, 3.1), "lights": (0.4, 3.6), "bin": (0.4, 1.1),
    "bollard": (0.15, 1.0), "bench": (0.95, 0.95), "column": (0.75, 3.3),
}  # fmt: skip
"""Half width and height."""


def draw_furniture(kind: Furniture, variant: int, texels_per_m: float) -> Codes:
    """A piece of street furniture; the variants of a kind differ in their symbols."""
    half_m, high_m = FURNITURE_SIZE_M[kind]
    sheet = Sheet(half_m, -0.05, high_m, texels_per_m)
    dice = Dice(85, FURNITURE.index(kind), variant)
    if kind in ("lamp", "stop", "parking", "name", "lights"):
        sheet.box(-0.05, 0.05, -0.04, high_m - 0.1, 1)
    if kind == "lamp":
        sheet.box(-0.09, 0.09, 0.0, 1.0, 1)
        sheet.line((0.0, 6.2), (0.85, 6.45), 0.07, 1)
        sheet.box(0.55, 1.05, 6.36, 6.52, 6)
    elif kind == "stop":
        sheet.disc(0.0, 2.55, (0.36, 0.36), 3)
        sheet.disc(0.0, 2.55, (0.29, 0.29), 2)
        sheet.box(-0.2, 0.2, 2.49, 2.61, 4 if variant % 2 else 3)
    elif kind == "parking":
        sheet.box(-0.32, 0.32, 2.0, 2.65, 3)
        sheet.box(-0.28, 0.28, 2.04, 2.61, 5)
        sheet.box(-0.12, -0.03, 2.12, 2.52, 4)
        sheet.disc(0.03, 2.42, (0.12, 0.11), 4)
    elif kind == "name":
        sheet.box(-0.68, 0.68, 2.6, 2.98, 3)
        sheet.box(-0.65, 0.65, 2.63, 2.95, 5)
        for k in range(7):
            sheet.box(-0.55 + k * 0.16, -0.45 + k * 0.16, 2.70, 2.70 + dice.between(0.08, 0.18), 4)
    elif kind == "lights":
        sheet.box(-0.17, 0.17, 2.5, 3.5, 7)
        for k in range(3):
            sheet.disc(0.0, 2.68 + k * 0.32, (0.11, 0.11), (9 if variant % 2 else 7, 7, 7 if variant % 2 else 8)[k])
    else:
        _draw_low_furniture(sheet, kind, dice)
    return sheet.codes


def _draw_low_furniture(sheet: Sheet, kind: Furniture, dice: Dice) -> None:
    if kind == "bin":
        sheet.box(-0.3, 0.3, 0.05, 1.0, 10)
        sheet.box(-0.34, 0.34, 0.95, 1.08, 7)
    elif kind == "bollard":
        sheet.box(-0.09, 0.09, -0.03, 0.95, 7)
        sheet.box(-0.09, 0.09, 0.74, 0.84, 3)
    elif kind == "bench":
        for at_m in (-0.75, 0.7):
            sheet.box(at_m, at_m + 0.07, -0.03, 0.9, 7)
        for z_m in (0.42, 0.60, 0.76):
            sheet.box(-0.9, 0.9, z_m, z_m + 0.1, 12)
    elif kind == "column":
        sheet.box(-0.62, 0.62, 0.0, 0.45, 7)
        sheet.box(-0.58, 0.58, 0.45, 2.9, 3)
        sheet.box(-0.5, 0.5, 0.6, 2.75, dice.pick((2, 4, 5)))
        sheet.disc(dice.between(-0.2, 0.2), dice.between(1.4, 2.2), (0.3, 0.4), dice.pick((2, 3, 4, 5)))
        sheet.box(-0.68, 0.68, 2.9, 3.2, 7)


def paint_furniture(key: int) -> Colours:
    """The colours of street furniture: float32 (16, 3)."""
    dice = Dice(key, 86)
    metal = dice.pick((0.25, 0.42, 0.55))
    colours = np.zeros((SPRITE_CODES, 3))
    colours[1:13] = (
        (metal, metal, metal * 1.02), (0.72, 0.08, 0.08), (0.88, 0.88, 0.86), (0.92, 0.92, 0.90), (0.10, 0.24, 0.58),
        (0.75, 0.75, 0.70), (0.15, 0.17, 0.16), (0.85, 0.12, 0.08), (0.10, 0.75, 0.35),
        colorsys.hsv_to_rgb(dice.pick((0.33, 0.6, 0.1)), 0.5, 0.35),
        (0.2, 0.2, 0.2), (0.46, 0.33, 0.20),
    )  # fmt: skip
    return colours.astype(np.float32)
