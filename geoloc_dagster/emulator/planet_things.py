"""What stands and moves in the streets of the emulated planet: poles, signs, fences, vehicles and people."""

from __future__ import annotations

import math

from geoloc_dagster.emulator.planet_canvas import PixelClass, mix, shade, varied
from geoloc_dagster.emulator.planet_houses import script
from geoloc_dagster.emulator.planet_view import View


def pole(view: View, right_m: float, ahead_m: float) -> None:
    """One of the country's poles."""
    culture, canvas, weather = view.look.culture, view.canvas, view.weather
    ink = canvas.ink(culture.pole_rgb, PixelClass.OTHER, far=view.far(ahead_m))
    lamp = canvas.ink((255, 226, 150) if weather.night else (232, 232, 226), PixelClass.OTHER, glows=weather.night)
    metre, inwards = view.focal / ahead_m, -math.copysign(1.0, right_m)
    x, foot = view.at(right_m, 0, ahead_m)
    high = {"wooden": 8.0, "concrete": 8.5, "lamp": 7.0, "double lamp": 7.5, "lantern": 4.0}[culture.pole]
    canvas.box(x - 0.1 * metre, foot - high * metre, x + 0.1 * metre, foot, ink)
    if culture.pole in ("wooden", "concrete"):
        for up in (0.97, 0.88) if culture.pole == "wooden" else (0.95,):
            y = foot - up * high * metre
            canvas.box(x - 1.1 * metre, y, x + 1.1 * metre, y + 0.16 * metre, ink)
            for side in (-1, 1):
                canvas.line([(x + side * metre, y), (x + side * metre * 1.2 + side * 0.02, y - 0.5 * metre - 0.06)], 0.003, ink)
    elif culture.pole == "lantern":
        canvas.disc(x, foot - (high + 0.3) * metre, 0.35 * metre, lamp)
    else:
        for side in (inwards,) if culture.pole == "lamp" else (-1.0, 1.0):
            tip = (x + side * 1.6 * metre, foot - (high + 0.1) * metre)
            canvas.line([(x, foot - high * metre), tip], 0.12 * metre, ink)
            canvas.disc(tip[0], tip[1] + 0.1 * metre, 0.4 * metre, lamp, 0.16 * metre)


def board(view: View, right_m: float, ahead_m: float) -> None:
    """A sign with the country's letters."""
    culture, canvas = view.look.culture, view.canvas
    ink, post = canvas.ink(culture.sign, PixelClass.OTHER), canvas.ink(culture.pole_rgb, PixelClass.OTHER)
    x, foot = view.at(right_m, 0, ahead_m)
    metre = view.focal / ahead_m
    canvas.box(x - 0.06 * metre, foot - 3 * metre, x + 0.06 * metre, foot, post)
    canvas.box(x - 1.2 * metre, foot - 3.4 * metre, x + 1.2 * metre, foot - 2.2 * metre, ink)
    script(view, lambda s, h: (x + (s * 2.1 - 1.05) * metre, foot - (2.4 + 0.8 * h) * metre), view.dice)


def fence(view: View, ahead_m: float) -> None:
    """The country's fence, from left to right."""
    culture, canvas = view.look.culture, view.canvas
    if culture.fence == "none":
        return
    far = view.far(ahead_m)
    kind = PixelClass.VEGETATION if culture.fence == "hedge" else PixelClass.OTHER
    colour = shade(view.look.flora.leaf, 0.9) if culture.fence == "hedge" else culture.fence_rgb
    ink = canvas.ink(colour, kind, far=far, leafy=0.2 if culture.fence == "hedge" else 0.0)
    metre, foot = view.focal / ahead_m, view.at(0, 0, ahead_m)[1]
    if culture.fence in ("wall", "hedge"):
        canvas.box(-view.half, foot - 1.2 * metre, view.half, foot, ink)
        if culture.fence == "wall":
            canvas.box(
                -view.half, foot - 1.3 * metre, view.half, foot - 1.2 * metre, canvas.ink(shade(colour, 0.8), kind, far=far)
            )
        return
    step = {"pickets": 0.35, "wire": 2.4, "rails": 2.0}[culture.fence] * metre
    for up in (0.35, 0.95) if culture.fence != "wire" else (0.3, 0.6, 0.9):
        canvas.box(-view.half, foot - (up + 0.06) * metre, view.half, foot - (up - 0.06) * metre, ink)
    x = -view.half
    while x < view.half:
        canvas.box(x, foot - 1.15 * metre, x + max(0.12 * metre, 0.004), foot, ink)
        x += max(step, 0.012)


def vehicle(view: View, right_m: float, ahead_m: float) -> None:
    """A car or van from behind, with the country's plate."""
    culture, canvas, dice = view.look.culture, view.canvas, view.dice
    colour = dice.pick((*culture.cars, (200, 202, 206), (52, 54, 60)))
    van = dice.chance(culture.vans)
    high, wide, metre = 2.3 if van else 1.5, 1.0 if van else 0.88, view.focal / ahead_m
    x, foot = view.at(right_m, 0, ahead_m)
    far, kind = view.far(ahead_m), PixelClass.VEHICLE
    body, dark = canvas.ink(colour, kind, far=far, fine=0.01), canvas.ink((34, 36, 40), kind, far=far)
    glass = canvas.ink(mix((70, 86, 100), view.weather.zenith, 0.3), kind, far=far)
    lamp = canvas.ink((236, 60, 44), kind, glows=view.weather.night)
    canvas.disc(x, foot, wide * 1.1 * metre, canvas.ink(shade(culture.asphalt, 0.55), PixelClass.ROAD), 0.16 * metre)
    for side in (-1, 1):
        canvas.box(
            x + side * 0.66 * wide * metre - 0.14 * metre,
            foot - 0.5 * metre,
            x + side * 0.66 * wide * metre + 0.14 * metre,
            foot,
            dark,
        )
    canvas.box(x - wide * metre, foot - high * 0.62 * metre, x + wide * metre, foot - 0.25 * metre, body)
    narrow = 0.96 if van else 0.78
    canvas.polygon(
        [
            (x - wide * metre, foot - high * 0.6 * metre),
            (x - narrow * wide * metre, foot - high * metre),
            (x + narrow * wide * metre, foot - high * metre),
            (x + wide * metre, foot - high * 0.6 * metre),
        ],
        body,
    )
    canvas.polygon(
        [
            (x - 0.82 * wide * metre, foot - high * 0.63 * metre),
            (x - 0.7 * wide * metre, foot - high * 0.93 * metre),
            (x + 0.7 * wide * metre, foot - high * 0.93 * metre),
            (x + 0.82 * wide * metre, foot - high * 0.63 * metre),
        ],
        glass,
    )
    for side in (-1, 1):
        canvas.box(
            x + side * 0.8 * metre * wide - 0.12 * metre,
            foot - 0.85 * metre,
            x + side * 0.8 * metre * wide + 0.12 * metre,
            foot - 0.65 * metre,
            lamp,
        )
    canvas.box(x - 0.27 * metre, foot - 0.62 * metre, x + 0.27 * metre, foot - 0.46 * metre, canvas.ink(culture.plate, kind))


def people(view: View, count: int, near_m: float, far_m: float, beside_m: float = 0.0) -> None:
    """Passers-by, none within `beside_m` of the middle."""
    for ahead in sorted((view.dice.between(near_m, far_m) for _ in range(count)), reverse=True):
        right = view.dice.between(-0.5, 0.5) * ahead
        person(view, right if abs(right) > beside_m else math.copysign(beside_m + 0.8, right), ahead)


def person(view: View, right_m: float, ahead_m: float) -> None:
    """Someone in the colours of the country."""
    canvas, dice, kind = view.canvas, view.dice, PixelClass.PERSON
    x, foot = view.at(right_m, 0, ahead_m)
    metre, far = view.focal / ahead_m, view.far(ahead_m)
    coat = canvas.ink(varied(dice, dice.pick(view.look.culture.clothes), 20), kind, far=far)
    legs = canvas.ink(dice.pick(((48, 52, 66), (92, 80, 66), (34, 34, 36))), kind, far=far)
    skin = canvas.ink(dice.pick(((226, 184, 152), (176, 124, 88), (110, 74, 54))), kind, far=far)
    for side in (-0.14, 0.14):
        canvas.box(x + (side - 0.09) * metre, foot - 0.85 * metre, x + (side + 0.09) * metre, foot, legs)
    canvas.polygon(
        [
            (x - 0.27 * metre, foot - 0.7 * metre),
            (x - 0.2 * metre, foot - 1.45 * metre),
            (x + 0.2 * metre, foot - 1.45 * metre),
            (x + 0.27 * metre, foot - 0.7 * metre),
        ],
        coat,
    )
    canvas.disc(x, foot - 1.6 * metre, 0.13 * metre, skin, 0.16 * metre)
