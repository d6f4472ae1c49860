"""How a building looks: its style, measures and paint, drawn from a key."""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.materials import WALL_CODES, Colours, Facade
from geoloc_dagster.emulator.streets import Character

Pattern = Literal["plaster", "brick", "panel", "boards", "courses"]
Panes = Literal["plain", "cross", "sash", "pair", "grid", "triple"]
Ground = Literal["shop", "home", "garage", "arcade"]
Top = Literal["cornice", "mansard", "parapet", "eaves"]
Balconies = Literal["none", "middle", "ends", "all", "alternate"]


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that is drawn on a building's walls but its colours; metres.

    Attributes:
        key: starts the small chances of its texture: curtains, letters, stains.
        storeys: with the ground floor.
        bay_m: aimed distance between the axes of windows.
        header: 0 none, 1 flat, 2 arched, 3 gabled.
        stripes: every n-th storey is in the second colour; 0 for none.
    """

    key: int
    style: Character
    storeys: int
    storey_m: float
    ground_m: float
    top: Top
    top_m: float
    bay_m: float
    window_m: tuple[float, float]
    sill_m: float
    panes: Panes
    pattern: Pattern
    ground: Ground
    balconies: Balconies
    header: int
    surround_m: float
    shutters: bool
    stripes: int
    scaffold: bool = False

    @property
    def eaves_m(self) -> float:
        """Height of the walls without the roof."""
        return self.ground_m + (self.storeys - 1) * self.storey_m

    @property
    def height_m(self) -> float:
        """Height with the roof or parapet."""
        return self.eaves_m + self.top_m


def look(style: Character, key: int) -> Look:
    """The look that a key gives a building of a style."""
    dice = Dice(key, 31)
    if style == "old":
        return _old(dice, key)
    if style == "brick":
        return _brick(dice, key)
    return _modern(dice, key) if style == "modern" else _villa(dice, key)


def _old(dice: Dice, key: int) -> Look:
    top: Top = dice.pick(("cornice", "mansard", "eaves"), (5, 4, 2))
    return Look(
        key,
        "old",
        storeys=dice.pick((3, 4, 5, 6), (2, 4, 4, 2)),
        storey_m=dice.between(3.1, 3.8),
        ground_m=dice.between(3.7, 4.8),
        top=top,
        top_m={"cornice": 0.9, "mansard": dice.between(2.4, 3.4), "eaves": 1.6}[top],
        bay_m=dice.between(1.9, 3.1),
        window_m=(dice.between(0.95, 1.35), dice.between(1.7, 2.2)),
        sill_m=dice.between(0.75, 0.95),
        panes=dice.pick(("cross", "sash", "grid", "pair")),
        pattern=dice.pick(("plaster", "courses", "brick"), (5, 3, 2)),
        ground=dice.pick(("shop", "home", "arcade"), (5, 4, 1)),
        balconies=dice.pick(("none", "middle", "ends", "alternate"), (5, 3, 1, 1)),
        header=dice.pick((0, 1, 2, 3), (2, 3, 2, 2)),
        surround_m=dice.pick((0.0, 0.14, 0.22), (1, 3, 2)),
        shutters=dice.chance(0.18),
        stripes=0,
    )


def _brick(dice: Dice, key: int) -> Look:
    top: Top = dice.pick(("parapet", "eaves", "mansard"), (3, 4, 1))
    return Look(
        key,
        "brick",
        storeys=dice.pick((2, 3, 4, 5), (3, 4, 3, 1)),
        storey_m=dice.between(2.8, 3.2),
        ground_m=dice.between(3.0, 3.7),
        top=top,
        top_m={"parapet": 0.8, "mansard": 2.6, "eaves": dice.between(1.4, 2.6)}[top],
        bay_m=dice.between(2.2, 3.6),
        window_m=(dice.between(1.1, 1.8), dice.between(1.3, 1.7)),
        sill_m=dice.between(0.8, 1.0),
        panes=dice.pick(("sash", "pair", "plain", "triple", "grid")),
        pattern=dice.pick(("brick", "brick", "plaster")),
        ground=dice.pick(("home", "shop", "garage"), (6, 3, 2)),
        balconies=dice.pick(("none", "all", "ends"), (7, 1, 1)),
        header=dice.pick((0, 1, 2), (3, 4, 3)),
        surround_m=dice.pick((0.0, 0.12), (2, 1)),
        shutters=dice.chance(0.1),
        stripes=dice.pick((0, 2), (6, 1)),
    )


def _modern(dice: Dice, key: int) -> Look:
    bay_m = dice.between(2.6, 4.8)
    return Look(
        key,
        "modern",
        storeys=dice.pick((3, 4, 5, 6, 7, 8), (1, 3, 4, 3, 2, 1)),
        storey_m=dice.between(2.8, 3.3),
        ground_m=dice.between(3.2, 4.6),
        top="parapet",
        top_m=dice.between(0.4, 1.3),
        bay_m=bay_m,
        window_m=(bay_m * dice.between(0.45, 0.92), dice.between(1.3, 2.3)),
        sill_m=dice.between(0.3, 0.9),
        panes=dice.pick(("plain", "pair", "triple")),
        pattern=dice.pick(("panel", "plaster", "brick", "boards"), (5, 3, 1, 1)),
        ground=dice.pick(("shop", "home", "arcade", "garage"), (4, 3, 2, 2)),
        balconies=dice.pick(("none", "all", "ends", "alternate", "middle"), (5, 2, 2, 3, 1)),
        header=0,
        surround_m=0.0,
        shutters=False,
        stripes=dice.pick((0, 1, 2, 3), (4, 2, 1, 1)),
    )


def _villa(dice: Dice, key: int) -> Look:
    return Look(
        key,
        "villa",
        storeys=dice.pick((1, 2, 3), (2, 6, 1)),
        storey_m=dice.between(2.6, 3.0),
        ground_m=dice.between(2.9, 3.4),
        top="eaves",
        top_m=dice.between(1.8, 3.6),
        bay_m=dice.between(2.4, 3.8),
        window_m=(dice.between(1.0, 1.7), dice.between(1.1, 1.5)),
        sill_m=dice.between(0.8, 1.0),
        panes=dice.pick(("cross", "pair", "grid", "plain")),
        pattern=dice.pick(("boards", "plaster", "brick"), (4, 4, 2)),
        ground=dice.pick(("home", "garage"), (3, 1)),
        balconies=dice.pick(("none", "middle"), (4, 1)),
        header=dice.pick((0, 1)),
        surround_m=dice.pick((0.0, 0.12)),
        shutters=dice.chance(0.35),
        stripes=0,
    )


_WALLS: dict[Character, tuple[tuple[float, float, float], ...]] = {
    "old": (
        (0.80, 0.70, 0.50), (0.84, 0.80, 0.70), (0.72, 0.55, 0.40), (0.70, 0.42, 0.32), (0.62, 0.64, 0.60), (0.86, 0.76, 0.42),
        (0.66, 0.70, 0.56), (0.76, 0.62, 0.58), (0.60, 0.64, 0.70), (0.83, 0.63, 0.44), (0.73, 0.71, 0.67), (0.55, 0.47, 0.40),
    ),
    "brick": (
        (0.52, 0.26, 0.20), (0.60, 0.34, 0.24), (0.46, 0.24, 0.20), (0.66, 0.50, 0.34), (0.56, 0.40, 0.32), (0.70, 0.60, 0.44),
        (0.40, 0.30, 0.28), (0.62, 0.29, 0.20),
    ),
    "modern": (
        (0.78, 0.78, 0.77), (0.62, 0.63, 0.64), (0.44, 0.45, 0.47), (0.86, 0.85, 0.80), (0.55, 0.48, 0.42), (0.34, 0.36, 0.40),
        (0.66, 0.60, 0.50), (0.50, 0.56, 0.60), (0.74, 0.52, 0.36),
    ),
    "villa": (
        (0.84, 0.82, 0.74), (0.62, 0.22, 0.18), (0.82, 0.72, 0.46), (0.52, 0.58, 0.62), (0.56, 0.62, 0.48), (0.88, 0.87, 0.85),
        (0.45, 0.33, 0.26), (0.72, 0.58, 0.46),
    ),
}  # fmt: skip
_ROOFS = ((0.48, 0.24, 0.18), (0.30, 0.30, 0.32), (0.24, 0.23, 0.23), (0.40, 0.30, 0.25), (0.36, 0.46, 0.42))
_FRAMES = ((0.88, 0.88, 0.86), (0.86, 0.84, 0.78), (0.30, 0.22, 0.16), (0.20, 0.21, 0.23), (0.26, 0.36, 0.30), (0.50, 0.20, 0.16))


Coat = tuple[Character, int]
"""The style and the key of a paint."""


@functools.lru_cache(maxsize=8192)
def paint(style: Character, key: int) -> Colours:
    """The colour of each facade code: float32 (32, 3), shares of the light that is thrown back."""
    dice = Dice(key, 32)
    wall = np.array(dice.pick(_WALLS[style])) * dice.between(0.85, 1.1) + [dice.between(-0.04, 0.04) for _ in range(3)]
    wall = np.clip(wall, 0.12, 0.9)
    second = wall * dice.between(0.6, 0.85) if dice.chance(0.6) else np.array(dice.pick(_WALLS[style]))
    trim = np.array(dice.pick(((0.86, 0.84, 0.78), (0.74, 0.72, 0.68), (0.50, 0.47, 0.44), (0.90, 0.89, 0.87)))) * dice.between(
        0.9, 1.05
    )
    frame, roof, door = np.array(dice.pick(_FRAMES)), np.array(dice.pick(_ROOFS)), _vivid(dice, 0.55, 0.45)
    sign, awning = _vivid(dice, 0.75, dice.between(0.3, 0.85)), _vivid(dice, 0.7, 0.6)
    dark_text = float(sign.mean()) > 0.45
    colours = np.zeros((WALL_CODES, 3))
    for code, colour in {
        Facade.WALL: wall, Facade.WALL_DARK: wall * 0.86, Facade.WALL_LIGHT: np.minimum(wall * 1.1, 0.95),
        Facade.SECOND: second, Facade.SECOND_DARK: second * 0.82, Facade.TRIM: trim, Facade.TRIM_DARK: trim * 0.66,
        Facade.FRAME: frame, Facade.GLASS: (0.17, 0.20, 0.23), Facade.GLASS_LIGHT: (0.36, 0.42, 0.48),
        Facade.GLASS_DARK: (0.08, 0.09, 0.10), Facade.CURTAIN: (0.62, 0.60, 0.55),
        Facade.DOOR: door, Facade.DOOR_DARK: door * 0.6,
        Facade.SIGN: sign, Facade.SIGN_TEXT: (0.08, 0.08, 0.1) if dark_text else (0.93, 0.92, 0.88),
        Facade.SHOP_GLASS: (0.14, 0.16, 0.18), Facade.SHOP_LIGHT: (0.55, 0.50, 0.40), Facade.AWNING: awning,
        Facade.AWNING_LIGHT: (0.85, 0.84, 0.80), Facade.ROOF: roof, Facade.ROOF_DARK: roof * 0.75,
        Facade.RAIL: dice.pick(((0.14, 0.14, 0.15), (0.62, 0.64, 0.66), (0.80, 0.80, 0.78))), Facade.SLAB: (0.60, 0.59, 0.57),
        Facade.SHADOW: wall * 0.6, Facade.PLANT: (0.22, 0.34, 0.12), Facade.POLE: (0.55, 0.56, 0.58),
        Facade.BOARD: (0.60, 0.48, 0.30),
        Facade.SCRAWL: _vivid(dice, 0.8, 0.5), Facade.STAIN: wall * 0.74, Facade.SHUTTER: _vivid(dice, 0.5, 0.4),
        Facade.PLINTH: np.array(dice.pick(((0.42, 0.40, 0.38), (0.32, 0.31, 0.30), (0.52, 0.48, 0.44)))),
    }.items():  # fmt: skip
        colours[code] = colour
    return colours.astype(np.float32)


def _vivid(dice: Dice, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(dice.unit(), saturation * dice.between(0.5, 1.0), value))
