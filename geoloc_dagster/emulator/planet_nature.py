"""What every outdoor photo of the emulated planet has: sky, horizon and ground."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import Dice, units
from geoloc_dagster.emulator.planet_canvas import PixelClass, Rgb, mix, shade, varied
from geoloc_dagster.emulator.planet_looks import grass_of
from geoloc_dagster.emulator.planet_view import EYE_M, View

_STEPS = 49  # of a skyline


def sky(view: View) -> None:
    """Sky from the top to the horizon, with clouds."""
    canvas, weather, dice = view.canvas, view.weather, view.dice
    steps = 26
    inks = [
        canvas.ink(mix(weather.zenith, weather.low_sky, (step / (steps - 1)) ** 1.3), PixelClass.SKY, fine=0.006, glows=True)
        for step in range(steps)
    ]
    canvas.bands(0, view.horizon + 0.02, inks)
    for _ in range(round(weather.clouds * 9)):
        far = dice.unit() ** 0.7
        x, y = dice.between(-view.half, view.half), view.horizon * (0.08 + 0.72 * far)
        size = (0.2 - 0.13 * far) * dice.between(0.5, 1.3)
        white = mix(weather.cloud, weather.low_sky, 0.15 + 0.55 * far)
        under = canvas.ink(shade(white, 0.9), PixelClass.SKY, fine=0.01, glows=True)
        top = canvas.ink(white, PixelClass.SKY, fine=0.01, glows=True)
        for ink, drop in ((under, 0.12), (top, 0.0)):
            for puff in range(4):
                canvas.disc(
                    x + (puff - 1.5) * size * 0.55,
                    y + drop * size - (0.16 * size if puff in (1, 2) else 0),
                    size * 0.5,
                    ink,
                    size * (0.24 if puff in (1, 2) else 0.15),
                )


def ridges(view: View, lift: float = 1.0) -> None:
    """The mountains at the horizon: their outline belongs to the region and the direction, not to the photo."""
    relief, canvas = view.look.climate.relief, view.canvas
    bare = mix(view.look.soil, (112, 110, 116), 0.35)
    for layer, (far, height) in enumerate(((0.72, 0.30), (0.5, 0.19), (0.3, 0.085))):
        top = height * lift * (0.10 + relief) * (1.0 if layer else max(0.0, relief - 0.15) / 0.85 * 1.25)
        if top < 0.008:
            continue
        colour = mix(bare, grass_of(view.look, view.month), (0.05, 0.45, 0.8)[layer] * (1 - 0.4 * relief))
        edge = outline(view, layer, top)
        snowy = view.look.climate.snow(view.month) + (0.55 if layer == 0 and relief > 0.55 else 0.0)
        ink = canvas.ink(colour, PixelClass.GROUND, far=far * (0.5 + 0.5 * view.far(1_500)), fine=0.02, leafy=0.03)
        canvas.polygon([(-view.half, view.horizon + 0.03), *edge, (view.half, view.horizon + 0.03)], ink)
        if snowy > 0.3:
            _snow_caps(view, edge, top, min(snowy, 1.0), far)


def outline(view: View, layer: int, top: float) -> list[tuple[float, float]]:
    """The upper edge of a layer of mountains, from left to right, at most about `top` above the horizon."""
    x, turns = _directions(view)
    harmonics, phases, weights = _profile(view.look.region + 7 * layer)
    rough = 0.25 + 0.75 * view.look.climate.relief
    angles = harmonics * turns[:, None]
    sharp = ((1 - np.abs(np.sin(angles / 2 + phases)) * 2) * weights).sum(axis=1)
    soft = (np.sin(angles[:, :3] + phases[:3]) * weights[:3]).sum(axis=1)
    height = np.maximum(0.5 + 0.8 * (sharp * rough + soft * (1 - rough)) / weights.sum(), 0.04)
    return list(zip(x.tolist(), (view.horizon - top * height).tolist(), strict=True))


def _directions(view: View) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places along the horizon, from left to right, and the directions in which they lie, radians from north."""
    x = np.linspace(-view.half, view.half, _STEPS)
    return x, math.radians(view.heading_deg) + np.arctan2(x, view.focal)


@lru_cache(maxsize=4_096)
def _profile(key: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Harmonics of a skyline around the compass, their phases and weights."""
    dice, harmonics = Dice(key, 951), np.array((3, 5, 9, 16, 31, 57))
    phases = np.array([dice.between(0, 2 * math.pi) for _ in harmonics])
    return harmonics, phases, np.array([dice.between(0.4, 1.0) for _ in harmonics]) / harmonics**0.75


def _snow_caps(view: View, outline: list[tuple[float, float]], top: float, snowy: float, far: float) -> None:
    line = view.horizon - top * (1.15 - snowy)
    ink = view.canvas.ink((236, 240, 248), PixelClass.GROUND, far=far * 0.6, fine=0.02)
    jitter = units(view.look.region, np.arange(len(outline)))
    for index in range(len(outline) - 1):
        (x0, y0), (x1, y1) = outline[index], outline[index + 1]
        low0, low1 = line + 0.16 * top * (jitter[index] - 0.5), line + 0.16 * top * (jitter[index + 1] - 0.5)
        if y0 < low0 or y1 < low1:
            view.canvas.polygon([(x0, y0), (x1, y1), (x1, max(low1, y1)), (x0, max(low0, y0))], ink)


def ground(view: View, colour: Rgb, kind: PixelClass, leafy: float = 0.1) -> None:
    """The ground from the horizon down, in the haze at its far end."""
    steps = 9
    inks: list[int] = []
    for step in range(steps):
        down = ((step + 0.7) / steps) ** 1.6 * (1.02 - view.horizon)
        ahead_m = EYE_M * view.focal / down
        lit = mix(colour, shade(colour, 0.86), step / steps)
        inks.append(view.canvas.ink(lit, kind, far=0.75 * view.far(ahead_m), fine=0.05, leafy=leafy * (0.5 + step / steps)))
    for step, ink in enumerate(inks):
        top = view.horizon + (step / steps) ** 1.6 * (1.02 - view.horizon)
        view.canvas.box(-view.half, top, view.half, 1.02, ink)


def patches(view: View, count: int, colour: Rgb, kind: PixelClass, size_m: float) -> None:
    """Flat patches on the ground: bare soil, snow, flowers, puddles."""
    for _ in range(count):
        ahead = 3.0 * (1 - view.dice.unit()) ** -1.2
        x, y = view.at(view.dice.between(-0.7, 0.7) * ahead, 0, ahead)
        across = size_m * view.focal / ahead * view.dice.between(0.4, 1.3)
        if y < 1:
            high = across * 1.1 / ahead
            ink = view.canvas.ink(varied(view.dice, colour, 5), kind, far=0.7 * view.far(ahead), leafy=0.08)
            view.canvas.disc(x, y, across, ink, max(high, 0.004))
