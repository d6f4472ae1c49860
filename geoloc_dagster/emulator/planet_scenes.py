"""The natural scenes of the emulated planet."""

from __future__ import annotations

from collections.abc import Callable

from geoloc_dagster.emulator.planet_canvas import PixelClass, mix, shade
from geoloc_dagster.emulator.planet_looks import grass_of, roof_under
from geoloc_dagster.emulator.planet_nature import ground, patches, ridges, sky
from geoloc_dagster.emulator.planet_things import person
from geoloc_dagster.emulator.planet_trees import tree, trees
from geoloc_dagster.emulator.planet_view import View

_DENSITY = {
    "ice": 0.1, "boreal": 1.0, "temperate": 1.0, "mediterranean": 0.7, "steppe": 0.3, "desert": 0.25,
    "savanna": 0.55, "rainforest": 1.4,
}  # fmt: skip


def shore(view: View) -> None:
    """A lake or sea with its far shore."""
    look, canvas, dice = view.look, view.canvas, view.dice
    sky(view)
    ridges(view, 1.2)
    frozen = look.climate.temperature_c(view.month) < -6
    strip = view.horizon + dice.between(0.012, 0.03)
    canvas.box(
        -view.half,
        view.horizon - 0.006,
        view.half,
        strip,
        canvas.ink(grass_of(look, view.month), PixelClass.VEGETATION, far=0.35, leafy=0.15),
    )
    water = mix(look.water, view.weather.low_sky, 0.32)
    bottom = dice.between(0.8, 1.02)
    for step in range(12):
        top = strip + (bottom - strip) * (step / 12) ** 1.5
        colour = mix(water, shade(look.water, 0.82), step / 12)
        colour = mix(colour, (228, 236, 244), 0.85) if frozen else colour
        canvas.box(-view.half, top, view.half, bottom + 0.03, canvas.ink(colour, PixelClass.WATER, fine=0.025))
    glint = canvas.ink(mix(water, (255, 255, 250), 0.45), PixelClass.WATER)
    for _ in range(26):
        down = dice.unit() ** 1.4
        x, y = dice.between(-view.half, view.half), strip + (bottom - strip) * down
        canvas.box(x, y, x + 0.02 + 0.1 * down, y + 0.003 + 0.005 * down, glint)
    if frozen or look.climate.zone == "ice":
        for _ in range(7):
            down = dice.between(0.1, 1)
            x, y, size = dice.between(-view.half, view.half), strip + (bottom - strip) * down, 0.03 + 0.12 * down
            canvas.polygon(
                [(x - size, y), (x - size * 0.4, y - size * 0.5), (x + size * 0.5, y - size * 0.3), (x + size, y)],
                canvas.ink((224, 236, 246), PixelClass.WATER),
            )
    if bottom < 1:
        sand = roof_under(mix(look.soil, (226, 206, 160), 0.3), look.climate.snow(view.month))
        canvas.polygon(
            [(-view.half, bottom), (0, bottom - 0.03), (view.half, bottom + 0.02), (view.half, 1.02), (-view.half, 1.02)],
            canvas.ink(sand, PixelClass.GROUND, fine=0.06, leafy=0.05),
        )
    side = dice.pick((-1, 1))
    if dice.chance(0.7):
        for number in range(2):
            _tree_at(view, side * (2.4 + 1.5 * number), 5.5 + 2 * number)


def _tree_at(view: View, right_m: float, ahead_m: float) -> None:
    flora = view.look.flora
    tree(view, flora.pick(view.dice), right_m, ahead_m, flora.tall * 0.55)


def mountains(view: View) -> None:
    """Mountains, dunes or bare land under a wide sky."""
    look, dice = view.look, view.dice
    sky(view)
    ridges(view, 2.1)
    bare = roof_under(mix(look.soil, grass_of(look, view.month), 0.35), look.climate.snow(view.month))
    ground(view, bare, PixelClass.GROUND, 0.06)
    patches(view, 10, roof_under(shade(look.soil, 0.8), 0.5 * look.climate.snow(view.month)), PixelClass.GROUND, 2.2)
    if look.climate.zone == "desert":
        _dunes(view)
    patches(view, 9, mix((128, 124, 120), look.soil, 0.4), PixelClass.GROUND, 0.8)
    trees(view, round(7 * _DENSITY[look.climate.zone]), 14, 120)
    if dice.chance(0.2):
        person(view, dice.between(-2, 2), dice.between(6, 14))


def _dunes(view: View) -> None:
    canvas, dice = view.canvas, view.dice
    for number in range(3):
        y = view.horizon + 0.03 + 0.1 * number
        top = dice.between(-0.5, 0.5)
        sun, shadow = (
            canvas.ink(shade(view.look.soil, f), PixelClass.GROUND, far=0.25 - 0.08 * number, fine=0.03) for f in (1.12, 0.82)
        )
        canvas.polygon([(top - 0.7, y + 0.09), (top, y - 0.07), (top + 0.25, y + 0.09)], sun)
        canvas.polygon([(top, y - 0.07), (top + 0.9, y + 0.09), (top + 0.12, y + 0.09)], shadow)


def wood(view: View) -> None:
    """Forest, or fields with trees."""
    look, dice = view.look, view.dice
    sky(view)
    ridges(view)
    ground(view, grass_of(look, view.month), PixelClass.VEGETATION, 0.09)
    dense = _DENSITY[look.climate.zone]
    if dice.chance(0.4) and dense > 0.5:
        _fields(view)
        trees(view, round(7 * dense), 25, 120)
    else:
        patches(view, 8, mix(look.soil, grass_of(look, view.month), 0.4), PixelClass.GROUND, 1.4)
        trees(view, round(24 * dense) + 2, 9, 90, keep_free=1.2)
    if dice.chance(0.35 * dense):
        _tree_at(view, dice.pick((-1, 1)) * dice.between(1.6, 2.6), 4.2)


def _fields(view: View) -> None:
    canvas, dice, flora = view.canvas, view.dice, view.look.flora
    green = view.look.climate.green(view.month)
    snow = view.look.climate.snow(view.month)
    first = canvas.ink(roof_under(mix(view.look.soil, flora.crop, green), snow), PixelClass.VEGETATION, leafy=0.12)
    second = canvas.ink(roof_under(mix(view.look.soil, shade(flora.crop, 0.8), green), snow), PixelClass.VEGETATION, leafy=0.1)
    lean = dice.between(-0.6, 0.6)
    for number in range(-12, 13):
        canvas.polygon(
            [
                view.at(number * 2.2, 0, 2),
                view.at(number * 2.2 + 1.1, 0, 2),
                view.at(number * 2.2 + 1.1 + lean * 40, 0, 60),
                view.at(number * 2.2 + lean * 40, 0, 60),
            ],
            first if number % 2 else second,
        )


def countryside(view: View) -> None:
    """A track with fence, hut and poles: what people leave in the country."""
    look, dice, canvas = view.look, view.dice, view.canvas
    sky(view)
    ridges(view)
    ground(view, grass_of(look, view.month), PixelClass.VEGETATION, 0.08)
    trees(view, round(6 * _DENSITY[look.climate.zone]) + 1, 30, 120, keep_free=5)
    earth = canvas.ink(roof_under(look.soil, 0.6 * look.climate.snow(view.month)), PixelClass.GROUND, fine=0.06)
    bend = dice.between(-9, 9)
    canvas.polygon(
        [
            view.at(-1.3, 0, 1.5),
            view.at(1.3, 0, 1.5),
            view.at(1.3 + bend * 0.3, 0, 14),
            view.at(bend + 0.9, 0, 60),
            view.at(bend - 0.9, 0, 60),
            view.at(-1.3 + bend * 0.3, 0, 14),
        ],
        earth,
    )
    post = canvas.ink((112, 92, 70), PixelClass.OTHER)
    side = dice.pick((-1, 1))
    for step in range(8, 0, -1):
        x, foot = view.at(side * 3.2, 0, 3.2 * step)
        metre = view.focal / (3.2 * step)
        canvas.box(x - 0.07 * metre, foot - 1.1 * metre, x + 0.07 * metre, foot, post)
    canvas.line([view.at(side * 3.2, 0.9, 3.2), view.at(side * 3.2, 0.9, 26)], 0.004, post)
    if dice.chance(0.5):
        _hut(view, -side * dice.between(6, 10), dice.between(22, 34))


def _hut(view: View, right_m: float, ahead_m: float) -> None:
    canvas, far = view.canvas, view.far(ahead_m)
    stone = mix(view.look.soil, (150, 130, 110), 0.5)
    wall, roof = (
        canvas.ink(stone, PixelClass.BUILDING, far=far),
        canvas.ink(roof_under((120, 96, 76), view.look.climate.snow(view.month)), PixelClass.BUILDING, far=far),
    )
    view.panel(right_m - 3, right_m + 3, 0, 2.6, ahead_m, wall)
    canvas.polygon(
        [view.at(right_m - 3.5, 2.5, ahead_m), view.at(right_m, 4.9, ahead_m), view.at(right_m + 3.5, 2.5, ahead_m)], roof
    )


NATURAL: dict[int, Callable[[View], None]] = {6: shore, 7: mountains, 8: wood, 9: countryside}
"""What draws each natural group."""
