"""One photo of the emulated planet on its way: everything that whoever draws a part of it has to know."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import Canvas
from geoloc_dagster.emulator.planet_looks import Look
from geoloc_dagster.emulator.planet_weather import Weather

EYE_M = 1.65


@dataclass(frozen=True, slots=True)
class View:
    """One photo on its way: where it is, when, with which camera, and what is drawn already.

    Attributes:
        canvas: to draw on.
        look: of the place.
        weather: of the moment.
        month: 1 to 12, with its fraction.
        heading_deg: of the camera.
        focal: focal length in heights of the photo.
        horizon: y of the horizon.
        dice: of this photo.
    """

    canvas: Canvas
    look: Look
    weather: Weather
    month: float
    heading_deg: float
    focal: float
    horizon: float
    dice: Dice

    def at(self, right_m: float, up_m: float, ahead_m: float) -> tuple[float, float]:
        """Where a point of the world is on the canvas; the camera is held at the height of the eyes."""
        return right_m * self.focal / ahead_m, self.horizon - (up_m - EYE_M) * self.focal / ahead_m

    def panel(self, left_m: float, right_m: float, low_m: float, high_m: float, ahead_m: float, ink: int) -> None:
        """Draw an upright rectangle that faces the camera."""
        left, top = self.at(left_m, high_m, ahead_m)
        right, bottom = self.at(right_m, low_m, ahead_m)
        self.canvas.box(left, top, right, bottom, ink)

    def far(self, ahead_m: float) -> float:
        """How much of a thing the haze hides."""
        return 1 - math.exp(-ahead_m / self.weather.sight_m)

    @property
    def half(self) -> float:
        """Half the width of the canvas."""
        return self.canvas.aspect / 2 + 0.01
