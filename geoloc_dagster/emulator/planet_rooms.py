"""The indoor scenes of the emulated planet: they tell little of where they are."""

from __future__ import annotations

from collections.abc import Callable

from geoloc_dagster.emulator.planet_canvas import PixelClass, mix, shade, varied
from geoloc_dagster.emulator.planet_houses import script
from geoloc_dagster.emulator.planet_looks import grass_of
from geoloc_dagster.emulator.planet_things import person
from geoloc_dagster.emulator.planet_view import View


def room(view: View, group: int) -> None:
    """A room; floor, walls and the window's shape are all that tells of the country."""
    canvas, culture, dice = view.canvas, view.look.culture, view.dice
    wide, high, deep = dice.between(2.6, 4.2), dice.between(1.1, 1.9), dice.between(5.5, 9.0)
    wall = varied(dice, mix(culture.room, dice.pick(((230, 226, 216), (190, 196, 200), (214, 190, 160))), 0.5), 12)
    inks = [
        canvas.ink(shade(colour, factor), PixelClass.INTERIOR, fine=0.02)
        for colour, factor in ((mix(wall, (250, 250, 248), 0.6), 0.96), (wall, 0.86), (wall, 0.94), (wall, 1.0))
    ]
    floor = varied(dice, culture.floor, 8)
    near, up = 1.0, 1.65 + high
    canvas.box(-view.half, 0, view.half, 1.02, inks[3])
    sides = (((-wide, up), (wide, up)), ((-wide, 0), (-wide, up)), ((wide, 0), (wide, up)))
    for ink, (first, second) in zip(inks, sides, strict=False):
        canvas.polygon([view.at(*first, near), view.at(*second, near), view.at(*second, deep), view.at(*first, deep)], ink)
    canvas.polygon(
        [view.at(-wide, 0, near), view.at(wide, 0, near), view.at(wide, 0, deep), view.at(-wide, 0, deep)],
        canvas.ink(floor, PixelClass.INTERIOR, fine=0.04),
    )
    _floor_lines(view, wide, deep, canvas.ink(shade(floor, 0.8), PixelClass.INTERIOR))
    if group in (1, 2, 5) or dice.chance(0.4):
        _window(view, wide, up, deep)
    _FURNITURE[group](view, wide, up, deep)
    if dice.chance(0.25):
        person(view, dice.between(-0.5, 0.5) * wide, dice.between(3.0, deep))


def _floor_lines(view: View, wide: float, deep: float, ink: int) -> None:
    pattern = view.look.culture.floor_pattern
    if pattern in (0, 1):
        for number in range(-6, 7):
            view.canvas.line([view.at(number / 6 * wide, 0, 1.5), view.at(number / 6 * wide, 0, deep)], 0.003, ink)
    if pattern in (1, 2):
        for number in range(2, 12):
            ahead = number * deep / 12
            view.canvas.line([view.at(-wide, 0, ahead), view.at(wide, 0, ahead)], 0.003, ink)


def _window(view: View, wide: float, up: float, deep: float) -> None:
    canvas, culture, dice = view.canvas, view.look.culture, view.dice
    outside = canvas.ink(mix(view.weather.low_sky, (255, 255, 255), 0.2), PixelClass.SKY, glows=True)
    below = canvas.ink(grass_of(view.look, view.month), PixelClass.VEGETATION, far=0.3)
    frame = canvas.ink(culture.frame, PixelClass.INTERIOR)
    half, x = 0.25 + 0.9 * culture.window[0], dice.between(-0.5, 0.5) * wide
    low, top = 0.9, 0.9 + (up - 1.1) * min(1.0, 0.5 + 0.6 * culture.window[1])
    view.panel(x - half - 0.12, x + half + 0.12, low - 0.12, top + 0.12, deep, frame)
    arch = [view.at(x, top + 0.25, deep)] if culture.arched else []
    canvas.polygon(
        [
            view.at(x - half, low, deep),
            view.at(x + half, low, deep),
            view.at(x + half, top, deep),
            *arch,
            view.at(x - half, top, deep),
        ],
        outside,
    )
    view.panel(x - half, x + half, low, low + 0.3 * (top - low), deep, below)
    canvas.line([view.at(x, low, deep), view.at(x, top, deep)], 0.008, frame)


def _block(
    view: View, right: float, low: float, ahead: float, half: float, high: float, colour: tuple[float, float, float]
) -> None:
    """A box on the floor: its front and its top."""
    canvas = view.canvas
    face, top = canvas.ink(colour, PixelClass.OTHER), canvas.ink(shade(colour, 1.15), PixelClass.OTHER)
    back = ahead + half
    canvas.polygon(
        [
            view.at(right - half, high, ahead),
            view.at(right + half, high, ahead),
            view.at(right + half, high, back),
            view.at(right - half, high, back),
        ],
        top,
    )
    view.panel(right - half, right + half, low, high, ahead, face)


def _shelves(view: View, wide: float, up: float, deep: float) -> None:
    canvas, dice = view.canvas, view.dice
    lamp = canvas.ink((255, 252, 240), PixelClass.INTERIOR, glows=True)
    for step in range(4, 0, -1):
        z = 1.5 + step * (deep - 1.8) / 4
        canvas.polygon([view.at(x, up - 0.02, z + d) for x, d in ((-0.5, 0), (0.5, 0), (0.5, 0.5), (-0.5, 0.5))], lamp)
    for row in (0.35, 0.8, 1.25):
        for number in range(6):
            x = (number - 2.5) / 3 * wide * 0.55
            ink = canvas.ink(varied(dice, dice.pick(view.look.culture.cars + view.look.culture.clothes), 40), PixelClass.OTHER)
            view.panel(x - wide * 0.08, x + wide * 0.08, row, row + 0.36, deep, ink)
    sign = canvas.ink(view.look.culture.sign, PixelClass.OTHER)
    view.panel(-0.9, 0.9, 1.85, 2.35, deep, sign)
    script(view, lambda s, h: view.at(-0.8 + 1.6 * s, 1.92 + 0.36 * h, deep), dice)
    for side in (-1, 1):
        for level in range(4):
            low = 0.25 + level * 0.55
            for step in range(6, 0, -1):
                ahead = 2.2 + (deep - 2.4) * step / 6
                ink = canvas.ink(
                    varied(dice, dice.pick(view.look.culture.cars + view.look.culture.clothes), 40), PixelClass.OTHER
                )
                x, near = side * (wide - 0.5), ahead - (deep - 2.4) / 6 * 0.85
                canvas.polygon(
                    [view.at(x, low, near), view.at(x, low + 0.4, near), view.at(x, low + 0.4, ahead), view.at(x, low, ahead)],
                    ink,
                )


def _desks(view: View, wide: float, up: float, deep: float) -> None:
    dice, wood_rgb = view.dice, view.look.culture.wood
    for ahead in (deep * 0.8, deep * 0.5):
        for side in (-0.5, 0.45):
            x = side * wide + dice.between(-0.3, 0.3)
            _block(view, x, 0, ahead, 0.7, 0.75, wood_rgb)
            _block(view, x, 0.8, ahead + 0.2, 0.3, 1.2, (40, 44, 52))


def _home(view: View, wide: float, up: float, deep: float) -> None:
    culture, dice = view.look.culture, view.dice
    _block(
        view,
        dice.between(-0.5, 0.5) * wide,
        0,
        deep * 0.7,
        dice.between(0.8, 1.2),
        0.6,
        varied(dice, dice.pick(culture.clothes), 25),
    )
    _block(view, dice.between(-0.7, 0.7) * wide, 0, deep * 0.5, 0.45, 0.5, culture.wood)
    _pictures(view, wide, up, deep, 2)


def _seats(view: View, wide: float, up: float, deep: float) -> None:
    """Rows of seats with windows along both sides, as in a train."""
    canvas, colour = view.canvas, view.dice.pick(view.look.culture.cars)
    pane = canvas.ink(mix(view.weather.low_sky, (255, 255, 255), 0.2), PixelClass.SKY, glows=True)
    green = canvas.ink(grass_of(view.look, view.month), PixelClass.VEGETATION, far=0.3)
    rows = 4
    for step in range(rows, 0, -1):
        ahead = 1.3 + step * (deep - 1.5) / (rows + 0.5)
        for side in (-1, 1):
            end = ahead + 0.72 * (deep - 1.5) / (rows + 0.5)
            for low, high, ink in ((1.0, 1.4, green), (1.4, min(2.3, up - 0.2), pane)):
                corners = ((low, ahead), (high, ahead), (high, end), (low, end))
                canvas.polygon([view.at(side * wide, h, z) for h, z in corners], ink)
            _block(view, side * wide * 0.66, 0, ahead + 0.5, wide * 0.24, 0.55, shade(colour, 0.85))
            back = canvas.ink(shade(colour, 0.7 + 0.07 * step), PixelClass.OTHER)
            view.panel(side * wide * 0.66 - wide * 0.24, side * wide * 0.66 + wide * 0.24, 0.3, 1.25, ahead + 0.3, back)


def _court(view: View, wide: float, up: float, deep: float) -> None:
    canvas = view.canvas
    line = canvas.ink((240, 240, 236), PixelClass.INTERIOR)
    for right in (-0.6, 0.6):
        canvas.line([view.at(right * wide, 0, 1.4), view.at(right * wide, 0, deep)], 0.008, line)
    canvas.line([view.at(-wide * 0.6, 0, deep * 0.6), view.at(wide * 0.6, 0, deep * 0.6)], 0.008, line)
    net = canvas.ink((226, 96, 48), PixelClass.OTHER)
    canvas.line(
        [view.at(-0.8, 1.1, deep), view.at(-0.8, 1.9, deep), view.at(0.8, 1.9, deep), view.at(0.8, 1.1, deep)], 0.012, net
    )


def _columns(view: View, wide: float, up: float, deep: float) -> None:
    canvas, stone = view.canvas, mix(view.look.town.stone, (220, 214, 200), 0.5)
    _pictures(view, wide, up, deep, 3)
    for step in range(4, 0, -1):
        ahead = 1.6 + step * (deep - 1.8) / 4
        for side in (-1, 1):
            light, dark = (canvas.ink(shade(stone, f), PixelClass.INTERIOR) for f in (1.0, 0.8))
            x0, x1, x2 = (view.at(side * wide * 0.6 + d, 0, ahead)[0] for d in (-0.22, 0.06, 0.22))
            top, foot = view.at(0, up, ahead)[1], view.at(0, 0, ahead)[1]
            canvas.box(x0, top, x2, foot, light)
            canvas.box(x1, top, x2, foot, dark)


def _pictures(view: View, wide: float, up: float, deep: float, count: int) -> None:
    canvas, dice = view.canvas, view.dice
    for _ in range(count):
        x, half = dice.between(-0.8, 0.8) * wide, dice.between(0.2, 0.5)
        low, top = 1.2, min(1.2 + 1.3 * half, up - 0.1)
        for edge, colour in ((0.07, view.look.culture.wood), (0.0, dice.pick(view.look.culture.clothes))):
            ink = canvas.ink(colour, PixelClass.OTHER)
            view.panel(x - half - edge, x + half + edge, low - edge, top + edge, deep, ink)


_FURNITURE: dict[int, Callable[[View, float, float, float], None]] = {
    0: _shelves, 1: _desks, 2: _home, 3: _seats, 4: _court, 5: _columns,
}  # fmt: skip
