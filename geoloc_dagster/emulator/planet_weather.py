"""Weather and light of one photo of the emulated planet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import Rgb, mix
from geoloc_dagster.emulator.planet_climate import Climate


@dataclass(frozen=True, slots=True)
class Weather:
    """Sky and light of a moment.

    Attributes:
        zenith: colour of the sky above.
        low_sky: of the sky at the horizon, and of the haze.
        cloud: of clouds.
        clouds: 0 (none) to 1 (all over).
        light: factor of every colour.
        sun: 0 (shade everywhere) to 1 (hard light).
        night: whether lamps are lit.
        sight_m: how far one sees.
    """

    zenith: Rgb
    low_sky: Rgb
    cloud: Rgb
    clouds: float
    light: Rgb
    sun: float
    night: bool
    sight_m: float


def weather_of(climate: Climate, sun_deg: float, dice: Dice) -> Weather:
    """The weather of a photo: a matter of chance, though not the same chance everywhere.

    Args:
        climate: of the place.
        sun_deg: height of the sun.
        dice: of the photo.
    """
    grey = dice.chance(0.12 + 0.42 * climate.rain)
    clouds = dice.between(0.75, 1.0) if grey else dice.unit() ** (2.2 - 1.6 * climate.rain)
    dust = climate.zone in ("desert", "steppe") and dice.chance(0.35)
    # blue is deeper in thin and dry air, paler where it is damp
    deep = min(max(0.35 + 0.13 * climate.elevation_km + 0.35 * (1 - climate.rain), 0), 1)
    zenith, low = mix((112, 164, 218), (38, 98, 184), deep), mix((206, 222, 234), (168, 202, 232), deep)
    if dust:
        zenith, low = mix(zenith, (206, 184, 148), 0.35), mix(low, (224, 204, 168), 0.6)
    if grey:
        tone = dice.between(168, 214)
        zenith, low = (tone - 14, tone - 6, tone + 2), (tone + 12, tone + 15, tone + 18)
    height = math.sin(math.radians(max(sun_deg, 0)))
    low_sun = max(0.0, 1 - max(sun_deg, 0) / 16) * (0.35 if grey else 1.0)
    zenith, low = mix(zenith, (104, 108, 160), 0.5 * low_sun), mix(low, (250, 178, 118), 0.75 * low_sun)
    bright = 0.76 + 0.36 * height**0.5
    light: Rgb = (bright * (1 + 0.16 * low_sun), bright * (1 - 0.02 * low_sun), bright * (1 - 0.22 * low_sun))
    if grey:
        light = (bright * 0.9, bright * 0.92, bright * 0.96)
    cloud = mix((250, 250, 252), (252, 190, 150), 0.6 * low_sun)
    dusk = min(max((-1 - sun_deg) / 9, 0), 1)
    if dusk > 0:
        zenith, low, cloud = mix(zenith, (22, 28, 62), dusk), mix(low, (96, 78, 112), dusk), mix(cloud, (46, 46, 70), dusk)
        light = mix(light, (0.36, 0.39, 0.5), dusk)
    sight_m = dice.between(250, 700) if grey and dice.chance(0.3) else 900 if dust else dice.between(1_500, 4_500)
    return Weather(zenith, low, cloud, clouds, light, 0.25 if grey else 1.0, dusk > 0.5, sight_m)
