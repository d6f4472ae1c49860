"""The urban scenes of the emulated planet."""

from __future__ import annotations

import math
from collections.abc import Callable

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import PixelClass, mix, shade, varied
from geoloc_dagster.emulator.planet_houses import House, OnFront, front, house, roof_along, roof_in_front
from geoloc_dagster.emulator.planet_landmarks import landmark
from geoloc_dagster.emulator.planet_looks import grass_of, roof_under
from geoloc_dagster.emulator.planet_nature import ground, ridges, sky
from geoloc_dagster.emulator.planet_things import board, fence, people, pole, vehicle
from geoloc_dagster.emulator.planet_trees import tree, trees
from geoloc_dagster.emulator.planet_view import View


def street(view: View) -> None:
    """Along a street between rows of houses, with its traffic."""
    dice = view.dice
    half_m = dice.between(4.5, 7.5)
    backdrop(view)
    _skyline(view, 90)
    if dice.chance(0.55):
        landmark(view, dice.between(-0.1, 0.1), view.horizon + 0.01, dice.between(0.13, 0.22), 0.22)
    _pavement(view, half_m + 2.6)
    _road(view, half_m)
    shops = 0.55 if view.dice.chance(0.6) else 0.15
    for side in (-1, 1):
        _row(view, side * (half_m + 2.6), shops, 0.8 if (side > 0) == (view.heading_deg < 180) else 1.04)
    _along(view, half_m)
    for _ in range(dice.integer(0, 4)):
        vehicle(view, dice.pick((-1, 1)) * half_m * dice.between(0.35, 0.8), dice.between(7, 40))


def shops(view: View) -> None:
    """A row of shops across the street."""
    backdrop(view)
    _skyline(view, 120)
    ahead = view.dice.between(13, 20)
    _pavement(view, 400)
    _cross_road(view, ahead - 2.6)
    _terrace(view, ahead, 0.85, gap_m=0.0)
    for _ in range(view.dice.integer(0, 3)):
        vehicle(view, view.dice.between(-6, 6), ahead - view.dice.between(3.5, 6.5))
    people(view, view.dice.integer(1, 6), 5, ahead - 2)


def homes(view: View) -> None:
    """Houses in their gardens behind a fence."""
    dice = view.dice
    backdrop(view)
    ahead = dice.between(17, 26)
    ground(view, grass_of(view.look, view.month), PixelClass.VEGETATION, 0.08)
    if dice.chance(0.4):
        landmark(view, dice.between(-0.4, 0.4), view.horizon + 0.01, dice.between(0.16, 0.28), 0.25)
    trees(view, 5, ahead + 3, ahead * 3)
    _terrace(view, ahead, 0.0, gap_m=dice.between(3, 8), tall=0.55)
    for _ in range(dice.integer(1, 3)):
        tree(view, view.look.flora.pick(dice), dice.between(-9, 9), ahead * dice.between(0.55, 0.9), 0.5)
    fence(view, ahead * 0.5)
    if dice.chance(0.6):
        _cross_road(view, ahead * 0.45, 0.6)
    if dice.chance(0.5):
        vehicle(view, dice.between(-5, 5), ahead * 0.45)


def landmark_square(view: View) -> None:
    """The landmark of the town on its paved square."""
    backdrop(view)
    _skyline(view, 140)
    _pavement(view, 400)
    _terrace(view, view.dice.between(55, 75), 0.4, gap_m=0.5)
    trees(view, 3, 30, 50, keep_free=14, kinds=(view.look.town.street_tree,))
    foot = view.at(0, 0, view.dice.between(24, 46))[1]
    high = min(view.dice.between(0.42, 0.66), foot - 0.04)
    landmark(view, view.dice.between(-0.22, 0.22), foot, high)
    people(view, view.dice.integer(2, 9), 6, 26)


def park(view: View) -> None:
    """A lawn with paths, trees and the town behind."""
    dice = view.dice
    backdrop(view)
    _skyline(view, 160)
    if dice.chance(0.75):
        landmark(view, dice.between(-0.45, 0.45), view.horizon + 0.01, dice.between(0.14, 0.26), 0.25)
    ground(view, grass_of(view.look, view.month), PixelClass.VEGETATION, 0.07)
    _path(view, view.look.town.paving, PixelClass.ROAD)
    trees(view, 7, 12, 70, keep_free=3.5, kinds=(view.look.town.street_tree, view.look.flora.trees[0]))
    if dice.chance(0.6):
        fence(view, dice.between(22, 34))
    people(view, dice.integer(0, 5), 6, 22)


def industry(view: View) -> None:
    """Sheds, chimneys and cranes."""
    dice, canvas = view.dice, view.canvas
    backdrop(view)
    ground(view, mix(view.look.soil, (128, 124, 120), 0.5), PixelClass.GROUND)
    for number in range(dice.integer(2, 4)):
        ahead, right = 70 - 12 * number, dice.between(-24, 24)
        colour = varied(dice, dice.pick((view.look.town.accent, (150, 152, 156), (176, 96, 70))), 10)
        wall = canvas.ink(colour, PixelClass.BUILDING, far=view.far(ahead))
        roof = canvas.ink(
            roof_under(shade(colour, 0.7), view.look.climate.snow(view.month)), PixelClass.BUILDING, far=view.far(ahead)
        )
        view.panel(right - 11, right + 11, 0, 8, ahead, wall)
        for tooth in range(4):
            x = right - 11 + tooth * 5.5
            canvas.polygon([view.at(x, 8, ahead), view.at(x, 10.6, ahead), view.at(x + 5.5, 8, ahead)], roof)
        _mast(view, right + dice.between(-9, 9), ahead + 4)
    fence(view, 18)
    if dice.chance(0.6):
        _cross_road(view, 14, 0.5)
        vehicle(view, dice.between(-5, 5), dice.between(8, 12))


URBAN: dict[int, Callable[[View], None]] = {10: street, 11: landmark_square, 12: park, 13: industry, 14: homes, 15: shops}
"""What draws each urban group."""


def backdrop(view: View) -> None:
    """Sky and horizon."""
    sky(view)
    ridges(view, 0.75)


def _skyline(view: View, ahead_m: float) -> None:
    """The far houses of the town: the outline belongs to the town."""
    town, canvas = view.look.town, view.canvas
    dice, far = Dice(town.key, 971, round(view.heading_deg / 60)), max(view.far(ahead_m * 4), 0.25)
    base = 0.012 + 0.03 * town.skyline
    x = -view.half
    while x < view.half:
        wide = dice.between(0.03, 0.09)
        high = base * dice.between(0.7, 1.4) + (0.16 * town.skyline * dice.unit() ** 3 if town.skyline > 0.35 else 0.0)
        wall = canvas.ink(
            mix(dice.pick((*view.look.culture.walls, town.accent)), (140, 144, 150), 0.3), PixelClass.BUILDING, far=far
        )
        canvas.box(x, view.horizon - high, x + wide, view.horizon + 0.02, wall)
        if high < 0.06:
            roof = canvas.ink(
                roof_under(dice.pick(view.look.culture.roofs), view.look.climate.snow(view.month)), PixelClass.BUILDING, far=far
            )
            canvas.polygon(
                [
                    (x - 0.004, view.horizon - high),
                    (x + wide / 2, view.horizon - high - 0.018),
                    (x + wide + 0.004, view.horizon - high),
                ],
                roof,
            )
        x += wide


def _row(view: View, side_m: float, shops_share: float, light: float) -> None:
    houses: list[tuple[House, float]] = []
    at = view.dice.between(1.2, 5.0)
    while at < 60:
        built = house(view, view.dice, shops_share)
        houses.append((built, at))
        at += built.width_m + (view.dice.between(2, 6) if view.look.culture.storeys[0] == 1 else 0.0)
    for built, near in reversed(houses):
        end = near + built.width_m
        if view.look.culture.storeys[0] == 1 or near == houses[-1][1]:
            wall = view.canvas.ink(shade(built.wall, 0.9), PixelClass.BUILDING, far=view.far(near))
            out = side_m + math.copysign(8, side_m)
            view.panel(min(side_m, out), max(side_m, out), 0, built.height_m, near, wall)
        roof_along(view, built, side_m, near, end, light)
        front(view, built, _sideways(view, side_m, near, end), light, near)


def _sideways(view: View, side_m: float, near_m: float, end_m: float) -> OnFront:
    def on(along: float, up: float) -> tuple[float, float]:
        return view.at(side_m, up, near_m + along if side_m > 0 else end_m - along)

    return on


def _terrace(view: View, ahead_m: float, shops_share: float, gap_m: float, tall: float = 1.0) -> None:
    reach = view.half / view.focal * ahead_m + 2
    left = -reach - view.dice.between(0, 6)
    light = 1.02 if 90 < view.heading_deg < 270 else 0.9
    while left < reach:
        built = house(view, view.dice, shops_share, tall)
        start = left

        def on(along: float, up: float, start: float = start) -> tuple[float, float]:
            return view.at(start + along, up, ahead_m)

        roof_in_front(view, built, on, light, ahead_m)
        front(view, built, on, light, ahead_m)
        left += built.width_m + gap_m * view.dice.between(0.6, 1.5)


def _pavement(view: View, half_m: float) -> None:
    """Paved ground, with the pattern of the town."""
    town, canvas = view.look.town, view.canvas
    colour = roof_under(town.paving, 0.6 * view.look.climate.snow(view.month))
    ground(view, colour, PixelClass.ROAD, 0.03)
    line = canvas.ink(shade(colour, 0.8), PixelClass.ROAD)
    if town.paving_pattern in (0, 1):
        for number in range(2, 12):
            y = view.at(0, 0, 1.3 * number)[1]
            canvas.line([(-view.half, y), (view.half, y)], 0.004, line)
    if town.paving_pattern in (1, 2):
        for number in range(-9, 10):
            canvas.line([view.at(number * 1.3, 0, 1.5), view.at(number * 1.3, 0, 40)], 0.004, line)
    if town.paving_pattern == 3:
        for number in range(14):
            ahead = 2.0 * 1.22**number
            for step in range(-3, 4):
                x, y = view.at((step + 0.5 * (number % 2)) * ahead * 0.25, 0, ahead)
                canvas.polygon([(x - 0.05, y), (x, y - 0.012), (x + 0.05, y), (x, y + 0.012)], line)


def _road(view: View, half_m: float) -> None:
    culture, canvas = view.look.culture, view.canvas
    asphalt = roof_under(culture.asphalt, 0.5 * view.look.climate.snow(view.month))
    for near, far in ((1.4, 6), (6, 18), (18, 120)):
        ink = canvas.ink(asphalt, PixelClass.ROAD, far=0.8 * view.far(far), fine=0.05)
        canvas.polygon(
            [view.at(-half_m, 0, near), view.at(half_m, 0, near), view.at(half_m, 0, far), view.at(-half_m, 0, far)], ink
        )
    paint = canvas.ink(culture.line, PixelClass.ROAD)
    if culture.edge is not None:
        edge = canvas.ink(culture.edge, PixelClass.ROAD)
        for side in (-1, 1):
            _stripe(view, side * (half_m - 0.4), 0.14, 1.4, 60, edge)
    if culture.pattern == "dashes":
        for start in range(2, 44, 5):
            _stripe(view, 0, 0.16, start, start + 2.6, paint)
    elif culture.pattern != "none":
        for shift in (0.0,) if culture.pattern == "solid" else (-0.18, 0.18):
            _stripe(view, shift, 0.13, 1.4, 60, paint)


def _stripe(view: View, right_m: float, half_m: float, near_m: float, far_m: float, ink: int) -> None:
    view.canvas.polygon(
        [
            view.at(right_m - half_m, 0, near_m),
            view.at(right_m + half_m, 0, near_m),
            view.at(right_m + half_m, 0, far_m),
            view.at(right_m - half_m, 0, far_m),
        ],
        ink,
    )


def _cross_road(view: View, far_m: float, share: float = 0.62) -> None:
    """A road from left to right."""
    culture, near = view.look.culture, far_m * (1 - share)
    asphalt = roof_under(culture.asphalt, 0.5 * view.look.climate.snow(view.month))
    top, bottom = view.at(0, 0, far_m)[1], view.at(0, 0, max(near, 1.5))[1]
    view.canvas.box(-view.half, top, view.half, bottom, view.canvas.ink(asphalt, PixelClass.ROAD, fine=0.05))
    middle = view.at(0, 0, (far_m + near) / 2)[1]
    if culture.pattern != "none":
        paint, dash = view.canvas.ink(culture.line, PixelClass.ROAD), culture.pattern == "dashes"
        for number in range(-6, 7):
            view.canvas.box(number * 0.16, middle, number * 0.16 + (0.08 if dash else 0.17), middle + 0.012, paint)
    if culture.edge is not None:
        view.canvas.box(-view.half, top + 0.01, view.half, top + 0.018, view.canvas.ink(culture.edge, PixelClass.ROAD))


def _along(view: View, half_m: float) -> None:
    """Poles, street trees, signs and people beside a street, far ones first."""
    culture, town, dice = view.look.culture, view.look.town, view.dice
    leafy = dice.chance(0.45)
    for step in range(6, 0, -1):
        ahead = 8.0 * step + dice.between(-1, 1)
        if step % 2:
            pole(view, (half_m + 0.8) * (1 if culture.script % 2 else -1), ahead)
        elif leafy:
            tree(view, town.street_tree, (half_m + 1.3) * (-1 if step % 4 else 1), ahead, 0.6)
    if dice.chance(0.4):
        board(view, (half_m + 0.6) * dice.pick((-1, 1)), dice.between(9, 16))
    people(view, dice.integer(0, 4), 6, 24, half_m + 0.5)


def _path(view: View, colour: tuple[float, float, float], kind: PixelClass) -> None:
    """A winding path into the distance."""
    bend, half = view.dice.between(-4, 4), 1.1
    ink = view.canvas.ink(roof_under(colour, 0.5 * view.look.climate.snow(view.month)), kind, fine=0.06)
    depths = [1.5 * 1.35**step for step in range(12)]
    middle = [bend * math.sin(depth / 14) * depth / 12 for depth in depths]
    left = [view.at(m - half, 0, d) for m, d in zip(middle, depths, strict=True)]
    right = [view.at(m + half, 0, d) for m, d in zip(middle, depths, strict=True)]
    view.canvas.polygon([*left, *reversed(right)], ink)


def _mast(view: View, right_m: float, ahead_m: float) -> None:
    """A chimney with smoke, or a crane."""
    canvas, dice, far = view.canvas, view.dice, view.far(ahead_m)
    if dice.chance(0.5):
        stone, white = (
            canvas.ink((176, 104, 84), PixelClass.BUILDING, far=far),
            canvas.ink((232, 228, 222), PixelClass.BUILDING, far=far),
        )
        for step in range(6):
            canvas.polygon(
                [
                    view.at(right_m - 1.2, 4.5 * step, ahead_m),
                    view.at(right_m + 1.2, 4.5 * step, ahead_m),
                    view.at(right_m + 1.1, 4.5 * step + 4.5, ahead_m),
                    view.at(right_m - 1.1, 4.5 * step + 4.5, ahead_m),
                ],
                white if step % 2 else stone,
            )
        return
    ink = canvas.ink((226, 180, 50), PixelClass.OTHER, far=far)
    canvas.line([view.at(right_m, 0, ahead_m), view.at(right_m, 26, ahead_m)], 0.009, ink)
    canvas.line([view.at(right_m - 6, 25, ahead_m), view.at(right_m + 18, 25, ahead_m)], 0.007, ink)
    canvas.line([view.at(right_m + 12, 25, ahead_m), view.at(right_m + 12, 16, ahead_m)], 0.003, ink)
