"""The light of a date: sun, sky, weather and season, and how the camera of that year renders colours.

One drive of the camera car has one light: it is a pure function of the seed, a cell of the plane and the month.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.figures import Leaves
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.materials import GROUND_PAINT, Colours, Ground

Weather = Literal["clear", "broken", "overcast", "fog", "rain"]

Vector = npt.NDArray[np.float32]

_STEPS = 1024
BRIGHTEST = 246
"""The brightest value that development gives; grain comes on top of it."""


@dataclass(frozen=True, slots=True)
class Light:
    """What the pictures of one drive have in common.

    Attributes:
        towards_sun: unit vector east, north, up.
        direct: what a surface that faces the sun gets of it, RGB.
        ambient: what every surface gets.
        zenith: colour of the sky overhead.
        haze: colour of the sky at the horizon and of whatever is far away.
        haze_m: distance at which two thirds of the contrast are gone.
        clouds: 0 none, 1 closed.
        lamps: share of the light that windows and lamps give of themselves.
        curve: uint8 (3, 1025): from radiance in 1/512 to the value of each channel.
        saturation: 1 true colours, 0 grey.
        ground: float32 (16, 3), the paint of the ground: wet, dry or under snow.
    """

    weather: Weather
    leaves: Leaves
    snow: bool
    towards_sun: tuple[float, float, float]
    direct: Vector
    ambient: Vector
    zenith: Vector
    haze: Vector
    haze_m: float
    clouds: float
    lamps: float
    curve: npt.NDArray[np.uint8]
    saturation: float
    ground: Colours
    key: int

    @property
    def sunny(self) -> bool:
        """Whether the sun throws shadows."""
        return self.weather in ("clear", "broken")

    def develop(self, radiance: Colours) -> npt.NDArray[np.uint32]:
        """Packed colours (red in the lowest byte) of radiances (..., 3)."""
        grey = radiance.mean(axis=-1, keepdims=True)
        steps = ((grey + (radiance - grey) * np.float32(self.saturation)) * np.float32(_STEPS / 2)).astype(np.int32)
        np.clip(steps, 0, _STEPS, out=steps)
        red, green, blue = (self.curve[k][steps[..., k]].astype(np.uint32) for k in range(3))
        return red | green << np.uint32(8) | blue << np.uint32(16)

    def veil(self, radiance: Colours, distance_m: npt.NDArray[np.float32]) -> Colours:
        """Radiances (n, k, 3) seen through the haze of n distances."""
        kept = np.exp(-distance_m / np.float32(self.haze_m)).astype(np.float32)[:, None, None]
        return radiance * kept + self.haze * (1 - kept)


def light_of(seed: int, cell: tuple[int, int], date: dt.date, *, southern: bool) -> Light:
    """The light of a month in a cell of the plane."""
    dice = Dice(seed, 61, *cell, date.year, date.month)
    season = (date.month + (5 if southern else -1)) % 12  # 0 is the middle of winter
    weather: Weather = dice.pick(("clear", "broken", "overcast", "fog", "rain"), (36, 22, 24, 7, 11))
    snow = season in (0, 1, 2, 11) and dice.chance(0.6 if season < 2 else 0.3)
    leaves: Leaves = "bare" if season in (0, 1, 2, 10, 11) else "autumn" if season == 9 else "green"
    sun = _sun(dice, season, southern=southern)
    direct, ambient, zenith, haze, haze_m = _sky(dice, weather, sun[2])
    return Light(
        weather,
        leaves,
        snow,
        sun,
        direct,
        ambient,
        zenith,
        haze,
        haze_m,
        clouds={"clear": dice.between(0.0, 0.35), "broken": dice.between(0.45, 0.7)}.get(weather, 1.0),
        lamps=1.0 if sun[2] < 0.16 or weather == "fog" else 0.35,
        curve=_curve(dice),
        saturation=dice.between(0.55, 1.2),
        ground=_ground(dice, weather, snow=snow),
        key=dice.key(),
    )


def _sun(dice: Dice, season: int, *, southern: bool) -> tuple[float, float, float]:
    warmth = 0.5 - 0.5 * math.cos(season / 12 * 2 * math.pi)
    hour = dice.between(-1.0, 1.0)
    elevation = math.radians((12 + 46 * warmth) * math.cos(hour * 1.25) + dice.between(0, 6))
    azimuth = math.radians((0 if southern else 180) + (-1 if southern else 1) * hour * (55 + 45 * warmth))
    return math.sin(azimuth) * math.cos(elevation), math.cos(azimuth) * math.cos(elevation), math.sin(elevation)


def _sky(dice: Dice, weather: Weather, height: float) -> tuple[Vector, Vector, Vector, Vector, float]:
    """Direct and ambient light, the colours of zenith and horizon, and how far one sees."""
    low = max(0.0, 1 - height / 0.45)  # 1 with the sun at the horizon
    warm = np.array((1.0, 0.93 - 0.16 * low, 0.84 - 0.36 * low))
    cool = np.array((0.86, 0.95, 1.10))
    grey = np.array((1.0, 1.0, 1.02))
    if weather in ("clear", "broken"):
        strength = (0.74 if weather == "clear" else 0.58) * (1 - 0.35 * low)
        values = (warm * strength, cool * dice.between(0.46, 0.6), np.array((0.30, 0.50, 0.86)), np.array((0.78, 0.87, 0.96)))
        values = (*values[:2], values[2] * (1 - 0.35 * low), values[3] * (1 - low * np.array((0.02, 0.14, 0.28))))
        haze_m = dice.between(450.0, 1200.0)
    elif weather == "overcast":
        brightness = dice.between(0.68, 0.98)
        values = (warm * 0.06, grey * brightness, grey * brightness * 0.9, grey * brightness * 1.08)
        haze_m = dice.between(280.0, 700.0)
    elif weather == "fog":
        brightness = dice.between(0.6, 0.8)
        values = (warm * 0.02, grey * brightness, grey * brightness, grey * brightness)
        haze_m = dice.between(45.0, 110.0)
    else:
        brightness = dice.between(0.5, 0.74)
        values = (warm * 0.0, cool * brightness, grey * brightness * 0.85, grey * brightness)
        haze_m = dice.between(150.0, 320.0)
    direct, ambient, zenith, haze = (value.astype(np.float32) for value in values)
    return direct, ambient, zenith, haze, haze_m


def _curve(dice: Dice) -> npt.NDArray[np.uint8]:
    """Exposure, contrast, black level and white balance of a camera."""
    exposure, gamma, contrast = dice.between(0.8, 1.5), dice.between(0.75, 1.2), dice.between(0.0, 0.7)
    warmth, tint, black = dice.between(-0.13, 0.13), dice.between(-0.05, 0.05), dice.between(0.0, 0.09)
    gains = (1 + warmth, 1 + tint, 1 - warmth)
    radiance = np.arange(_STEPS + 1) / (_STEPS / 2)
    curves: list[npt.NDArray[np.float64]] = []
    for gain in gains:
        exposed = np.minimum(radiance * exposure * gain, 1.6)
        shouldered = np.where(exposed < 0.75, exposed, 0.75 + 0.25 * np.tanh((exposed - 0.75) / 0.25))
        toned = shouldered**gamma
        toned = toned * (1 - contrast) + (toned * toned * (3 - 2 * toned)) * contrast
        curves.append(black + (1 - black) * toned)
    return np.round(np.array(curves) * BRIGHTEST).clip(0, BRIGHTEST).astype(np.uint8)


def _ground(dice: Dice, weather: Weather, *, snow: bool) -> Colours:
    paint = GROUND_PAINT.copy()
    if weather == "rain":
        paint *= np.array((0.66, 0.68, 0.72), np.float32)
        paint[[Ground.PATCH, Ground.WORN, Ground.GUTTER]] += np.array((0.10, 0.11, 0.12), np.float32)
    if snow:
        white = np.array((0.88, 0.90, 0.94), np.float32)
        cover = np.full((len(paint), 1), dice.between(0.75, 0.95), np.float32)
        on_road = dice.pick((0.1, 0.45, 0.75))
        cover[[Ground.ASPHALT, Ground.PATCH, Ground.MARK, Ground.COVER, Ground.CYCLE]] = on_road
        cover[[Ground.WORN, Ground.GUTTER]] = (on_road * 0.4,), (0.85,)
        paint = paint * (1 - cover) + white * cover
    return paint
