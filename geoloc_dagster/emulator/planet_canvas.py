"""The sheet on which photos of the emulated planet are drawn: shapes in numbered inks, of which each has a colour and a class.

Shapes are drawn once, twice as large as the photo; colours and classes are looked up by ink afterwards, so that the class map
agrees with the photo to the pixel.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from geoloc_dagster.emulator.answers import encode_classes
from geoloc_dagster.emulator.hashing import Dice, units

Rgb = tuple[float, float, float]
Point = tuple[float, float]
_MOST_INKS = 255
_TILE_PX = 1024


class PixelClass(IntEnum):
    """What a pixel of a class map shows."""

    SKY = 0
    BUILDING = 1
    """Walls, roofs, landmarks."""
    ROAD = 2
    """Carriageways, pavements, paved squares."""
    VEGETATION = 3
    """Trees, bushes, lawns, crops."""
    WATER = 4
    VEHICLE = 5
    PERSON = 6
    GROUND = 7
    """Soil, sand, rock, snow, mountains far away."""
    OTHER = 8
    """Poles, fences, signs, furniture."""
    INTERIOR = 9
    """Floors, walls and ceilings of rooms."""


@dataclass(frozen=True, slots=True)
class Lens:
    """What camera and light do to a photo.

    Attributes:
        tint: factor of each channel.
        contrast: around the middle grey.
        noise: standard deviation, grey levels.
        vignette: how much darker the corners are, 0 to 1.
        quality: of the JPEG.
    """

    tint: Rgb
    contrast: float
    noise: float
    vignette: float
    quality: int


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """A colour between two, `share` of the way to the second."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def shade(colour: Rgb, factor: float) -> Rgb:
    """A darker or lighter colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def varied(dice: Dice, colour: Rgb, by: float) -> Rgb:
    """A colour like another one: all channels moved together, and each a little."""
    all_ = dice.between(-by, by)
    red, green, blue = (channel + all_ + dice.between(-by, by) * 0.4 for channel in colour)
    return red, green, blue


class Canvas:
    """One photo being drawn; coordinates are parts of its height, x from -aspect/2 to aspect/2, y from 0 at the top to 1.

    Args:
        width: pixels.
        height: likewise.
        light: factor of every colour: how much light there is, and which.
        haze: the colour of things far away.
    """

    def __init__(self, width: int, height: int, light: Rgb, haze: Rgb) -> None:
        self.aspect = width / height
        self._size = (width, height)
        self._scale = 2.0 * height
        self._middle = width
        self._light, self._haze = light, haze
        self._picture = Image.new("L", (2 * width, 2 * height))
        self._draw = ImageDraw.Draw(self._picture)
        self._palette: list[int] = []
        self._classes: list[int] = []
        self._grain: list[tuple[float, float]] = []
        self._inks: dict[tuple[int, int, int, int], int] = {}

    def ink(
        self, colour: Rgb, kind: PixelClass, *, far: float = 0.0, fine: float = 0.03, leafy: float = 0.0, glows: bool = False
    ) -> int:
        """The number of a colour.

        Args:
            colour: in daylight.
            kind: what it shows.
            far: 0 near to 1 lost in the haze.
            fine: strength of fine grain, a share of the brightness.
            leafy: strength of coarser grain.
            glows: whether it has a light of its own, or of the sky.
        """
        red, green, blue = colour
        if not glows:
            red, green, blue = red * self._light[0], green * self._light[1], blue * self._light[2]
        if far:
            haze = self._haze
            red, green, blue = red + (haze[0] - red) * far, green + (haze[1] - green) * far, blue + (haze[2] - blue) * far
        red, green, blue = min(max(int(red), 0), 255), min(max(int(green), 0), 255), min(max(int(blue), 0), 255)
        key = (red >> 1, green >> 1, blue >> 1, int(kind))
        known = self._inks.get(key)
        if known is not None:
            return known
        if len(self._classes) >= _MOST_INKS:
            return self._like(key)
        self._inks[key] = len(self._classes)
        self._palette += (red, green, blue)
        self._classes.append(int(kind))
        self._grain.append((fine, leafy))
        return len(self._classes) - 1

    def polygon(self, points: Sequence[Point], ink: int) -> None:
        """Fill a polygon."""
        scale, middle = self._scale, self._middle
        self._draw.polygon([(x * scale + middle, y * scale) for x, y in points], fill=ink)

    def box(self, left: float, top: float, right: float, bottom: float, ink: int) -> None:
        """Fill a rectangle; nothing where it has no width or height."""
        scale, middle = self._scale, self._middle
        x0, y0, x1, y1 = left * scale + middle, top * scale, right * scale + middle - 1, bottom * scale - 1
        if x1 >= x0 and y1 >= y0:
            self._draw.rectangle((x0, y0, x1, y1), fill=ink)

    def disc(self, x: float, y: float, radius: float, ink: int, high: float | None = None) -> None:
        """Fill an ellipse with upright axes; a circle without `high`."""
        scale = self._scale
        u, v, a, b = x * scale + self._middle, y * scale, radius * scale, (radius if high is None else high) * scale
        if a >= 0.5 and b >= 0.5:
            self._draw.ellipse((u - a, v - b, u + a, v + b), fill=ink)

    def line(self, points: Sequence[Point], thick: float, ink: int) -> None:
        """Draw a line, at least half a pixel thick."""
        scale, middle = self._scale, self._middle
        width = max(1, int(thick * scale + 0.5))
        self._draw.line([(x * scale + middle, y * scale) for x, y in points], fill=ink, width=width)

    def bands(self, top: float, bottom: float, inks: Sequence[int]) -> None:
        """Fill the whole width with level bands, from the top down."""
        step, half = (bottom - top) / len(inks), self.aspect / 2 + 0.01
        for number, ink in enumerate(inks):
            self.box(-half, top + number * step, half, top + (number + 1) * step, ink)

    def _like(self, key: tuple[int, int, int, int]) -> int:
        """The ink of the same class that is nearest in colour; the last one where the class has none."""
        best, least = len(self._classes) - 1, 1e9
        for (red, green, blue, kind), ink in self._inks.items():
            apart = (red - key[0]) ** 2 + (green - key[1]) ** 2 + (blue - key[2]) ** 2 + (0 if kind == key[3] else 1e6)
            if apart < least:
                best, least = ink, apart
        return best

    def classes(self) -> npt.NDArray[np.uint8]:
        """The class of every pixel, uint8 (height, width)."""
        table = np.zeros(256, np.uint8)
        table[: len(self._classes)] = self._classes
        return table[np.asarray(self._picture)[1::2, 1::2]]

    def photo(self, lens: Lens, dice: Dice) -> npt.NDArray[np.uint8]:
        """The colours of every pixel, uint8 (height, width, 3)."""
        width, height = self._size
        coloured = self._picture.copy()
        coloured.putpalette(self._palette)
        rgb = np.asarray(coloured.convert("RGB").reduce(2)).astype(np.float32)
        inks = np.asarray(self._picture)[::2, ::2]
        strength = np.zeros((2, 256), np.float32)
        strength[:, : len(self._grain)] = np.array(self._grain, np.float32).T
        fine, leafy = _tiles()
        x, y = dice.integer(0, _TILE_PX - width - 1), dice.integer(0, _TILE_PX - height - 1)
        texture = fine[y : y + height, x : x + width] * strength[0][inks]
        texture += leafy[y : y + height, x : x + width] * strength[1][inks]
        texture += 1
        tint, corners = np.array(lens.tint, np.float32), _corners(width, height, lens.vignette)
        texture *= corners
        rgb *= texture[..., None] * (tint * np.float32(lens.contrast))
        u, v = dice.integer(0, _TILE_PX - width - 1), dice.integer(0, _TILE_PX - height - 1)
        lifted = corners * np.float32(118 * (1 - lens.contrast)) + fine[v : v + height, u : u + width] * np.float32(lens.noise)
        rgb += lifted[..., None]
        return np.clip(rgb, 0, 255, out=rgb).astype(np.uint8)


def encode(rgb: npt.NDArray[np.uint8], quality: int) -> bytes:
    """A picture as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def encode_map(classes: npt.NDArray[np.uint8]) -> bytes:
    """A class map as PNG of one channel: the numbers of `PixelClass`, which the file names."""
    return encode_classes(classes, [one.name.lower() for one in PixelClass])


@lru_cache(maxsize=1)
def _tiles() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fine and leafy grain, of mean 0 and standard deviation 1."""
    shape = (_TILE_PX, _TILE_PX)
    fine, rough = ((units(key, np.arange(_TILE_PX**2)).reshape(shape) - 0.5) * math.sqrt(12) for key in (1, 2))
    leafy = np.sum([np.roll(rough, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0) / 3
    return fine.astype(np.float32), leafy.astype(np.float32)


@lru_cache(maxsize=64)
def _corners(width: int, height: int, vignette: float) -> npt.NDArray[np.float32]:
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    return (1 - vignette * 0.5 * (x * x + y * y)).astype(np.float32)


def arc(x: float, y: float, radius: float, start_deg: float, end_deg: float, points: int = 12) -> list[Point]:
    """Points of a piece of a circle, degrees clockwise from the right."""
    turns = (math.radians(start_deg + (end_deg - start_deg) * step / (points - 1)) for step in range(points))
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
