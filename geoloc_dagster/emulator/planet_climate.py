"""Climate of the emulated planet: from latitude, distance to the sea and height to a zone, its seasons and its light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from geoloc_dagster.emulator.planet_fields import smooth, vector
from geoloc_dagster.emulator.planet_land import continentality, elevation_km

Zone = Literal["ice", "boreal", "temperate", "mediterranean", "steppe", "desert", "savanna", "rainforest"]
ZONES: tuple[Zone, ...] = ("ice", "boreal", "temperate", "mediterranean", "steppe", "desert", "savanna", "rainforest")
_TILT_DEG = 23.44
# Coasts that the trade winds keep wet: (lat, lng, degrees around it, rain).
_MONSOONS = (
    (23, 90, 14, 0.5),
    (29, 116, 12, 0.5),
    (35, 137, 8, 0.3),
    (33, -84, 11, 0.45),
    (-24, -50, 10, 0.4),
    (-29, 153, 7, 0.35),
)


@dataclass(frozen=True, slots=True)
class Climate:
    """What the weather of a position is like over the year.

    Attributes:
        lat_deg: of the position.
        zone: which kind.
        mean_c: over the year.
        swing_c: how far the warmest month is above the mean.
        rain: 0 (none) to 1.
        elevation_km: of the land.
        relief: 0 (plain) to 1 (high mountains).
    """

    lat_deg: float
    zone: Zone
    mean_c: float
    swing_c: float
    rain: float
    elevation_km: float
    relief: float

    def temperature_c(self, month: float) -> float:
        """Of a month, 1 to 12: the warmest is July in the north and January in the south."""
        warmest = 7.2 if self.lat_deg >= 0 else 1.2
        return self.mean_c + self.swing_c * math.cos((month - warmest) / 12 * 2 * math.pi)

    def snow(self, month: float) -> float:
        """Share of the ground under snow, 0 to 1."""
        if self.zone == "desert" and self.mean_c > 8:
            return 0.0
        return min(max((1.0 - self.temperature_c(month)) / 6, 0.0), 1.0)

    def green(self, month: float) -> float:
        """How green the vegetation is, 0 (dry or bare) to 1."""
        warm = min(max((self.temperature_c(month) - 3) / 9, 0.0), 1.0)
        summer = math.cos((month - (7.2 if self.lat_deg >= 0 else 1.2)) / 12 * 2 * math.pi)
        if self.zone == "mediterranean":
            return warm * (0.6 - 0.35 * summer)
        if self.zone == "savanna":  # rain comes with the sun
            return 0.45 + 0.45 * summer
        if self.zone == "steppe":
            return warm * (0.5 + 0.15 * math.cos((month - (4.7 if self.lat_deg >= 0 else 10.7)) / 12 * 2 * math.pi) * 2)
        return warm if self.zone in ("boreal", "temperate", "ice") else min(0.3 + self.rain, 1.0)

    def autumn(self, month: float) -> float:
        """How far leaves have turned, 0 to 1; only where trees drop them."""
        if self.zone not in ("temperate", "boreal"):
            return 0.0
        middle = 10.3 if self.lat_deg >= 0 else 4.3
        return max(0.0, 1 - abs((month - middle + 6) % 12 - 6) / 1.6)


def climate_of(seed: int, lat_deg: float, lng_deg: float) -> Climate:
    """The climate of a position of a planet."""
    at = vector(lat_deg, lng_deg)
    inland, height = continentality(lat_deg, lng_deg), elevation_km(lat_deg, lng_deg)
    local = max(0.0, smooth(seed, 1, 420, at)) * 0.5
    elevation = height + 0.35 * local
    relief = min(1.0, height / 2.4 + 0.55 * local + 0.12 * (1 + smooth(seed, 2, 160, at)))
    sine = abs(at[2])
    mean = 27 - 33 * sine * sine - 5.2 * elevation + 2.5 * (1 - inland) * sine + 1.5 * smooth(seed, 3, 2400, at)
    swing = (3 + 20 * inland) * sine + 5 * sine
    rain = _rain(seed, (lat_deg, lng_deg), inland, at)
    return Climate(lat_deg, _zone(lat_deg, mean, swing, rain, inland), mean, swing, rain, elevation, relief)


def _rain(seed: int, position: tuple[float, float], inland: float, at: tuple[float, float, float]) -> float:
    lat_deg, lng_deg = position
    high = abs(lat_deg)
    belts = math.exp(-((lat_deg / 13) ** 2)) * 1.05 + 0.72 * math.exp(-(((high - 50) / 16) ** 2)) + 0.1
    for lat, lng, reach, wetter in _MONSOONS:
        apart = math.hypot(lat_deg - lat, (lng_deg - lng) * math.cos(math.radians(lat))) / reach
        belts += wetter * math.exp(-apart * apart)
    return min(max(belts * (1.12 - 0.5 * inland) + 0.16 * smooth(seed, 4, 3200, at) + 0.07 * smooth(seed, 5, 800, at), 0.0), 1.0)


def _zone(lat_deg: float, mean_c: float, swing_c: float, rain: float, inland: float) -> Zone:
    if mean_c + swing_c < 7.5:
        return "ice"
    if mean_c > 19.5 and abs(lat_deg) < 32:
        return "rainforest" if rain > 0.72 else "savanna" if rain > 0.34 else "desert"
    if rain < 0.22:
        return "desert"
    if mean_c < 3.2:
        return "boreal"
    if 28 < abs(lat_deg) < 45.5 and mean_c > 11 and inland < 0.42 and rain < 0.66:
        return "mediterranean"
    return "steppe" if rain < 0.43 else "temperate"


def sun_elevation_deg(lat_deg: float, day_of_year: int, hour: float) -> float:
    """Height of the sun above the horizon at an hour of local solar time."""
    declination = math.radians(_TILT_DEG) * math.sin((day_of_year - 81) / 365.25 * 2 * math.pi)
    lat, turn = math.radians(lat_deg), (hour - 12) / 24 * 2 * math.pi
    sine = math.sin(lat) * math.sin(declination) + math.cos(lat) * math.cos(declination) * math.cos(turn)
    return math.degrees(math.asin(min(max(sine, -1.0), 1.0)))
