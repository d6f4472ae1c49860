"""Houses of the emulated planet: fronts with windows, shops and roofs, seen from the front or along a street."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import PixelClass, Point, Rgb, mix, shade, varied
from geoloc_dagster.emulator.planet_looks import roof_under
from geoloc_dagster.emulator.planet_view import View

STOREY_M = 3.1
OnFront = Callable[[float, float], Point]


@dataclass(frozen=True, slots=True)
class House:
    """One house before it is drawn: its front's width and height in metres, its colours, and whether it has a shop."""

    width_m: float
    storeys: int
    wall: Rgb
    roof: Rgb
    shop: bool

    @property
    def height_m(self) -> float:
        """Up to the eaves."""
        return self.storeys * STOREY_M + 0.6


def house(view: View, dice: Dice, shops: float, tall: float = 1.0) -> House:
    """A house as they are built here: of the country, with walls that the town likes."""
    culture, town = view.look.culture, view.look.town
    wall = dice.pick((*culture.walls, town.accent), (4, 2, 1, 5))
    low, high = culture.storeys
    storeys = max(1, round(dice.integer(low, high) * tall))
    return House(
        width_m=culture.rhythm_m * dice.integer(3, 5),
        storeys=storeys,
        wall=varied(dice, wall, 9),
        roof=varied(dice, dice.pick((*culture.roofs, town.roof), (4, 2, 1, 4)), 6),
        shop=dice.chance(shops),
    )


def front(view: View, built: House, on: OnFront, light: float, ahead_m: float) -> None:
    """Draw a front without its roof.

    Args:
        view: the photo.
        built: whose front.
        on: where a point of the front is on the canvas: metres from its left edge and up from its foot.
        light: factor of the wall's brightness: which side the sun is on.
        ahead_m: how far away it is.
    """
    canvas, culture = view.canvas, view.look.culture
    far, width, height = view.far(ahead_m), built.width_m, built.height_m
    wall = canvas.ink(shade(built.wall, light), PixelClass.BUILDING, far=far, fine=0.035)
    canvas.polygon([on(0, 0), on(width, 0), on(width, height), on(0, height)], wall)
    metre = abs(on(0, 1)[1] - on(0, 0)[1])
    if culture.bands and metre > 0.008:
        band = canvas.ink(shade(mix(built.wall, (250, 246, 236), 0.5), light), PixelClass.BUILDING, far=far)
        for storey in range(1, built.storeys + 1):
            at = storey * STOREY_M + 0.1
            canvas.polygon([on(0, at), on(width, at), on(width, at + 0.32), on(0, at + 0.32)], band)
    if metre > 0.0055:
        _windows(view, built, on, light, far, metre)
    if built.shop and metre > 0.008:
        _shop(view, built, on, light, far, metre)


def _windows(view: View, built: House, on: OnFront, light: float, far: float, metre: float) -> None:
    canvas, culture, dice = view.canvas, view.look.culture, view.dice
    dark = canvas.ink(mix((50, 60, 74), view.weather.zenith, 0.22 * light), PixelClass.BUILDING, far=far, fine=0.02)
    lit = canvas.ink((255, 214, 130), PixelClass.BUILDING, far=far, glows=True)
    frame = canvas.ink(shade(culture.frame, light), PixelClass.BUILDING, far=far)
    shutter = None if culture.shutters is None else canvas.ink(shade(culture.shutters, light), PixelClass.BUILDING, far=far)
    columns = max(1, round(built.width_m / culture.rhythm_m))
    step = built.width_m / columns
    wide, high = step * culture.window[0], STOREY_M * culture.window[1]
    for storey in range(1 if built.shop else 0, built.storeys):
        low = storey * STOREY_M + 0.55 + 0.5 * (STOREY_M - 0.6 - high)
        for column in range(columns):
            left = (column + 0.5) * step - wide / 2
            right, top = left + wide, low + high
            pane = lit if view.weather.night and dice.chance(0.45) else dark
            if metre > 0.014:
                edge = 0.13
                canvas.polygon(
                    [
                        on(left - edge, low - edge),
                        on(right + edge, low - edge),
                        on(right + edge, top + edge),
                        on(left - edge, top + edge),
                    ],
                    frame,
                )
                if shutter is not None:
                    for a, b in ((left - 0.5 * wide, left - edge), (right + edge, right + 0.5 * wide)):
                        canvas.polygon([on(a, low), on(b, low), on(b, top), on(a, top)], shutter)
            arch = [on((left + right) / 2, top + 0.45 * wide)] if culture.arched else []
            canvas.polygon([on(left, low), on(right, low), on(right, top), *arch, on(left, top)], pane)


def _shop(view: View, built: House, on: OnFront, light: float, far: float, metre: float) -> None:
    canvas, culture, dice = view.canvas, view.look.culture, view.dice
    width = built.width_m
    glass = canvas.ink(
        (250, 226, 160) if view.weather.night else (78, 92, 104), PixelClass.BUILDING, far=far, glows=view.weather.night
    )
    canvas.polygon([on(0.4, 0.3), on(width - 0.4, 0.3), on(width - 0.4, 2.4), on(0.4, 2.4)], glass)
    door = canvas.ink(shade(culture.frame, light), PixelClass.BUILDING, far=far)
    canvas.polygon([on(width * 0.45, 0), on(width * 0.58, 0), on(width * 0.58, 2.3), on(width * 0.45, 2.3)], door)
    colour = culture.sign if dice.chance(0.7) else dice.pick(culture.cars)
    board = canvas.ink(shade(colour, light), PixelClass.OTHER, far=far)
    canvas.polygon([on(0.2, 2.5), on(width - 0.2, 2.5), on(width - 0.2, 3.35), on(0.2, 3.35)], board)
    if metre > 0.015:
        script(view, lambda s, h: on(0.5 + s * (width - 1.0), 2.6 + 0.65 * h), dice, far)
    if dice.chance(0.5) and metre > 0.012:
        _awning(view, on, width, light, far)
    if culture.upright_signs and built.storeys > 1:
        at = width * 0.9
        canvas.polygon([on(at, 3.6), on(at + 0.8, 3.6), on(at + 0.8, 6.2), on(at, 6.2)], board)
        if metre > 0.02:
            script(view, lambda s, h: on(at + 0.15 + 0.5 * h, 6.1 - 2.4 * s), dice, far)


def _awning(view: View, on: OnFront, width: float, light: float, far: float) -> None:
    first, second = (view.canvas.ink(shade(c, light), PixelClass.OTHER, far=far) for c in view.look.culture.awning)
    stripes = max(3, round(width / 0.8))
    for stripe in range(stripes):
        a, b = stripe / stripes * width, (stripe + 1) / stripes * width
        view.canvas.polygon([on(a, 2.55), on(b, 2.55), on(b, 1.95), on(a, 1.95)], second if stripe % 2 else first)


def script(view: View, on: OnFront, dice: Dice, far: float = 0.0) -> None:
    """Something that looks like writing, in the letters of the country; `on` takes shares of the board, right and up."""
    culture, canvas = view.look.culture, view.canvas
    ink = canvas.ink(culture.letters, PixelClass.OTHER, far=far)
    thick = abs(on(0, 1)[1] - on(0, 0)[1]) * 0.16
    letters = dice.integer(4, 7)
    for number in range(letters):
        if dice.chance(0.12):
            continue
        a = number / letters
        b, m = a + 0.7 / letters, a + 0.35 / letters
        if culture.script == 0:  # upright strokes with bars
            canvas.line([on(a, 0), on(a, 1)], thick, ink)
            canvas.line([on(a, dice.pick((0.0, 0.5, 1.0))), on(b, dice.pick((0.0, 0.5, 1.0)))], thick, ink)
        elif culture.script == 1:  # squares with a cross
            canvas.line([on(a, 0), on(a, 1), on(b, 1), on(b, 0), on(a, 0)], thick, ink)
            canvas.line([on(m, 0), on(m, 1)] if dice.chance(0.5) else [on(a, 0.5), on(b, 0.5)], thick, ink)
        elif culture.script == 2:  # a flowing line with dots
            canvas.line([on(a, 0.3), on(m, dice.between(0, 0.3)), on(b, 0.3), on(a + 1 / letters, 0.3)], thick, ink)
            canvas.line([on(m, 0.75), on(m + 0.1 / letters, 0.85)], thick, ink)
        elif culture.script == 3:  # hanging from a bar
            canvas.line([on(a, 1), on(a + 1 / letters, 1)], thick, ink)
            canvas.line([on(m, 1), on(dice.pick((a, b)), 0.5), on(m, 0)], thick, ink)
        else:  # round
            canvas.line([on(a, 0.5), on(m, 1), on(b, 0.5), on(m, 0), on(a, 0.5)], thick, ink)


def roof_in_front(view: View, built: House, on: OnFront, light: float, ahead_m: float) -> None:
    """The roof of a house that is seen from the front."""
    canvas, culture, width, eaves = view.canvas, view.look.culture, built.width_m, built.height_m
    colour = roof_under(built.roof, view.look.climate.snow(view.month))
    far = view.far(ahead_m)
    ink = canvas.ink(shade(colour, light), PixelClass.BUILDING, far=far, fine=0.04, leafy=0.04)
    dark = canvas.ink(shade(colour, light * 0.75), PixelClass.BUILDING, far=far)
    rise = min(culture.pitch * width * 0.5, 5.5)
    over = 0.45
    if culture.roof == "gable":
        wall = canvas.ink(shade(built.wall, light), PixelClass.BUILDING, far=far, fine=0.035)
        canvas.polygon([on(0, eaves), on(width / 2, eaves + rise), on(width, eaves)], wall)
        for edge in (-over, width + over):
            canvas.line([on(edge, eaves - 0.3), on(width / 2, eaves + rise + 0.2)], 0.55 * abs(on(0, 1)[1] - on(0, 0)[1]), ink)
    elif culture.roof == "hip":
        canvas.polygon(
            [
                on(-over, eaves),
                on(width * 0.24, eaves + rise * 0.8),
                on(width * 0.76, eaves + rise * 0.8),
                on(width + over, eaves),
            ],
            ink,
        )
    elif culture.roof == "curved":
        canvas.polygon(
            [
                on(-1.3, eaves + 0.7),
                on(width * 0.12, eaves + 0.35),
                on(width * 0.3, eaves + rise),
                on(width * 0.7, eaves + rise),
                on(width * 0.88, eaves + 0.35),
                on(width + 1.3, eaves + 0.7),
                on(width + 0.6, eaves - 0.2),
                on(-0.6, eaves - 0.2),
            ],
            ink,
        )
        canvas.polygon(
            [on(-0.6, eaves - 0.2), on(width + 0.6, eaves - 0.2), on(width + 0.4, eaves + 0.1), on(-0.4, eaves + 0.1)], dark
        )
    elif culture.roof == "mansard":
        canvas.polygon([on(-over, eaves), on(0.5, eaves + 2.3), on(width - 0.5, eaves + 2.3), on(width + over, eaves)], ink)
        canvas.polygon(
            [on(0.5, eaves + 2.3), on(1.4, eaves + 3.1), on(width - 1.4, eaves + 3.1), on(width - 0.5, eaves + 2.3)], dark
        )
    else:
        canvas.polygon([on(-0.15, eaves), on(-0.15, eaves + 0.5), on(width + 0.15, eaves + 0.5), on(width + 0.15, eaves)], ink)
        if culture.roof == "dome":
            steps = [math.pi * step / 8 for step in range(9)]
            canvas.polygon(
                [on(width * (0.5 - 0.22 * math.cos(t)), eaves + 0.5 + width * 0.24 * math.sin(t)) for t in steps], dark
            )
    if culture.roof in ("gable", "hip") and view.dice.chance(0.6):
        at = width * view.dice.pick((0.3, 0.68))
        canvas.polygon(
            [
                on(at, eaves + rise * 0.5),
                on(at + 0.8, eaves + rise * 0.5),
                on(at + 0.8, eaves + rise + 0.7),
                on(at, eaves + rise + 0.7),
            ],
            dark,
        )


def roof_along(view: View, built: House, side_m: float, near_m: float, far_m: float, light: float) -> None:
    """The roof of a house in a row, seen from the street: sloping away from it, or a parapet."""
    canvas, culture, eaves = view.canvas, view.look.culture, built.height_m
    colour = roof_under(built.roof, view.look.climate.snow(view.month))
    ink = canvas.ink(shade(colour, light), PixelClass.BUILDING, far=view.far(near_m), fine=0.04)
    back, out = math.copysign(4.5, side_m), -math.copysign(0.4, side_m)
    if culture.roof in ("flat", "dome"):
        canvas.polygon(
            [
                view.at(side_m, eaves, near_m),
                view.at(side_m, eaves + 0.5, near_m),
                view.at(side_m, eaves + 0.5, far_m),
                view.at(side_m, eaves, far_m),
            ],
            ink,
        )
        return
    rise, middle = culture.pitch * 4.5, (near_m + far_m) / 2
    if culture.roof == "gable" and built.storeys < 4:  # gables to the street
        wall = canvas.ink(shade(built.wall, light), PixelClass.BUILDING, far=view.far(near_m), fine=0.035)
        canvas.polygon(
            [view.at(side_m, eaves, near_m), view.at(side_m, eaves + rise, middle), view.at(side_m, eaves, far_m)], wall
        )
        canvas.polygon(
            [
                view.at(side_m + out, eaves - 0.2, near_m),
                view.at(side_m, eaves + rise, middle),
                view.at(side_m + back, eaves + rise, middle),
                view.at(side_m + back, eaves, near_m),
            ],
            ink,
        )
        return
    lift = 0.7 if culture.roof == "curved" else -0.15
    canvas.polygon(
        [
            view.at(side_m + out, eaves + lift, near_m),
            view.at(side_m + back, eaves + rise, near_m + 0.5),
            view.at(side_m + back, eaves + rise, far_m),
            view.at(side_m + out, eaves + lift, far_m),
        ],
        ink,
    )
