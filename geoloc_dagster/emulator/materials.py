"""What surfaces are made of: the codes that textures hold, and the class of each.

A texture holds codes, not colours: the colour of a code is decided per building or object (its paint) and per picture (the
light). So one texture serves every date, and the class map comes from the same pixels as the picture.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

CLASSES = ("other", "sky", "building", "road", "vegetation", "vehicle", "person", "sign")
OTHER, SKY, BUILDING, ROAD, VEGETATION, VEHICLE, PERSON, SIGN = range(len(CLASSES))

Codes = npt.NDArray[np.uint8]
Colours = npt.NDArray[np.floating[Any]]

WALL_CODES = 32
GROUND_CODES = 16
SPRITE_CODES = 16


class Facade(IntEnum):
    """Codes of walls."""

    WALL = 0
    WALL_DARK = 1
    WALL_LIGHT = 2
    SECOND = 3
    SECOND_DARK = 4
    TRIM = 5
    TRIM_DARK = 6
    FRAME = 7
    GLASS = 8
    GLASS_LIGHT = 9
    GLASS_DARK = 10
    CURTAIN = 11
    DOOR = 12
    DOOR_DARK = 13
    SIGN = 14
    SIGN_TEXT = 15
    SHOP_GLASS = 16
    SHOP_LIGHT = 17
    AWNING = 18
    AWNING_LIGHT = 19
    ROOF = 20
    ROOF_DARK = 21
    RAIL = 22
    SLAB = 23
    SHADOW = 24
    PLANT = 25
    POLE = 26
    BOARD = 27
    SCRAWL = 28
    STAIN = 29
    SHUTTER = 30
    PLINTH = 31


class Ground(IntEnum):
    """Codes of the ground."""

    ASPHALT = 0
    PATCH = 1
    WORN = 2
    MARK = 3
    KERB = 4
    PAVEMENT = 5
    JOINT = 6
    GRASS = 7
    GRASS_DARK = 8
    GRAVEL = 9
    YARD = 10
    COVER = 11
    CYCLE = 12
    COBBLE = 13
    COBBLE_DARK = 14
    GUTTER = 15


FACADE_CLASSES = np.full(WALL_CODES, BUILDING, np.uint8)
FACADE_CLASSES[[Facade.SIGN, Facade.SIGN_TEXT]] = SIGN
FACADE_CLASSES[Facade.PLANT] = VEGETATION
FACADE_CLASSES[[Facade.POLE, Facade.BOARD]] = OTHER

GROUND_CLASSES = np.full(GROUND_CODES, ROAD, np.uint8)
GROUND_CLASSES[[Ground.GRASS, Ground.GRASS_DARK]] = VEGETATION

GROUND_PAINT = np.array(
    [
        (0.30, 0.30, 0.31),
        (0.27, 0.27, 0.28),
        (0.32, 0.32, 0.325),
        (0.80, 0.80, 0.76),
        (0.56, 0.55, 0.53),
        (0.50, 0.49, 0.47),
        (0.40, 0.39, 0.38),
        (0.30, 0.40, 0.16),
        (0.24, 0.33, 0.13),
        (0.60, 0.54, 0.44),
        (0.42, 0.41, 0.39),
        (0.17, 0.17, 0.17),
        (0.47, 0.24, 0.20),
        (0.43, 0.41, 0.39),
        (0.33, 0.31, 0.30),
        (0.22, 0.22, 0.23),
    ],
    np.float32,
)
