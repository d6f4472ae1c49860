"""Vehicles, drawn from solids seen under an angle: cars, vans, trucks and buses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from geoloc_dagster.emulator.drawing import Points, Sheet
from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.materials import OTHER, ROAD, SPRITE_CODES, VEHICLE, Codes, Colours

BODY, BODY_DARK, BODY_LIGHT, GLASS, GLASS_LIGHT, TYRE, LAMP, TAIL, PLATE, TRIM, SHADOW, LOAD, LOAD_DARK = range(1, 14)

CLASSES = np.full(SPRITE_CODES, VEHICLE, np.uint8)
CLASSES[0], CLASSES[SHADOW] = OTHER, ROAD


@dataclass(frozen=True, slots=True)
class Model:
    """The solids of a vehicle, metres: a body, a cabin that narrows upwards, and perhaps a load."""

    length_m: float
    width_m: float
    body_m: tuple[float, float]  # from, to, above the road
    cabin: (
        tuple[float, float, float, float, float] | None
    )  # rear and front at its foot, rear and front at its roof, height of the roof
    load: tuple[float, float, float] | None = None  # rear, front, height
    glazed: bool = False  # the body itself has a band of windows


MODELS = (
    Model(4.3, 1.75, (0.28, 0.92), (-2.0, 1.0, -1.5, 0.25, 1.46)),
    Model(4.7, 1.8, (0.26, 0.90), (-1.65, 1.1, -0.95, 0.35, 1.43)),
    Model(4.5, 1.85, (0.34, 1.04), (-2.2, 1.1, -1.95, 0.35, 1.70)),
    Model(3.7, 1.65, (0.28, 0.90), (-1.8, 1.15, -1.55, 0.3, 1.52)),
    Model(5.3, 2.0, (0.34, 1.15), (0.5, 2.25, 0.5, 1.45, 2.05), (-2.62, 0.75, 2.2)),
    Model(7.6, 2.4, (0.55, 1.1), (2.0, 3.75, 2.0, 3.5, 2.75), (-3.75, 1.9, 3.5)),
    Model(11.0, 2.5, (0.35, 3.05), None, None, glazed=True),
)
PARKED = (0, 1, 2, 3, 4)
PARKED_WEIGHTS = (4.0, 3.0, 3.0, 3.0, 1.4)
MOVING_WEIGHTS = (4.0, 3.0, 3.0, 2.0, 2.0, 1.6, 1.2)

_PAINTS = (
    (0.82, 0.82, 0.82), (0.13, 0.13, 0.14), (0.45, 0.46, 0.48), (0.62, 0.64, 0.66), (0.55, 0.10, 0.10), (0.12, 0.20, 0.42),
    (0.20, 0.30, 0.25), (0.70, 0.62, 0.20), (0.30, 0.42, 0.55), (0.32, 0.22, 0.16),
)  # fmt: skip


def paint_vehicle(key: int) -> Colours:
    """The colours of one vehicle: float32 (16, 3)."""
    dice = Dice(key, 71)
    body = np.array(dice.pick(_PAINTS, (6, 5, 5, 5, 2, 2, 1, 1, 1, 1)))
    load = np.array(
        dice.pick(((0.85, 0.85, 0.83), (0.70, 0.72, 0.74), (0.78, 0.55, 0.18), (0.20, 0.35, 0.55), (0.60, 0.20, 0.18)))
    )
    colours = np.zeros((SPRITE_CODES, 3))
    colours[1:14] = (
        body, body * 0.62, np.minimum(body * 1.18 + 0.05, 0.95), (0.11, 0.13, 0.15), (0.36, 0.40, 0.44), (0.06, 0.06, 0.06),
        (0.90, 0.90, 0.82), (0.62, 0.06, 0.05), (0.85, 0.84, 0.78), (0.16, 0.16, 0.17), (0.13, 0.13, 0.14), load, load * 0.68,
    )  # fmt: skip
    return colours.astype(np.float32)


def half_width_m(model: Model) -> float:
    """Half the width of the sheet that holds a model from every side."""
    return math.hypot(model.length_m, model.width_m) / 2 + 0.1


def span_m(model: Model) -> tuple[float, float]:
    """Lower and upper edge of the sheet."""
    top = max(model.body_m[1], model.cabin[4] if model.cabin else 0.0, model.load[2] if model.load else 0.0)
    return -0.42 * half_width_m(model) - 0.05, top + 0.36 * half_width_m(model)


def draw_vehicle(model: Model, yaw: float, down: float, texels_per_m: float) -> Codes:
    """A vehicle whose front points `yaw` to the left of the line away from the camera, seen from `down` above; radians."""
    low_m, high_m = span_m(model)
    sheet = Sheet(half_width_m(model), low_m, high_m, texels_per_m)
    view = _View(yaw, down)
    half_l, half_w = model.length_m / 2, model.width_m / 2
    flat = [(half_l * x, half_w * y * 1.08, 0.0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    sheet.polygon(view.flat(np.array(flat))[:, :2], SHADOW)
    # Painted one over the other: what is behind the load comes before it.
    upper = (_cabin, _load) if math.cos(yaw) > 0 else (_load, _cabin)
    for solid in (_body, *upper):
        for corners, code in solid(model):
            placed = view.flat(np.array(corners))
            if _faces_camera(placed):
                sheet.polygon(placed[:, :2], code)
    return sheet.codes


class _View:
    def __init__(self, yaw: float, down: float) -> None:
        self._turn = np.array([[-math.sin(yaw), math.cos(yaw)], [-math.cos(yaw), -math.sin(yaw)]])
        self._down = down

    def flat(self, points: Points) -> Points:
        """(forward, left, up) of the vehicle to (right, up, towards the camera) of the picture."""
        # The camera looks along +away; a yaw of zero shows the rear.
        across = points[:, :2] @ np.array([self._turn[0][0], -self._turn[0][1]])
        towards = points[:, :2] @ np.array([self._turn[1][0], -self._turn[1][1]])
        up = points[:, 2] * math.cos(self._down) - towards * math.sin(self._down)
        return np.column_stack([across, up, towards * math.cos(self._down) + points[:, 2] * math.sin(self._down)])


def _faces_camera(corners: Points) -> bool:
    """Corners run counter-clockwise seen from outside."""
    u, z = corners[:, 0], corners[:, 1]
    return float((u * np.roll(z, -1) - z * np.roll(u, -1)).sum()) > 1e-6


Face = tuple[list[tuple[float, float, float]], int]


def _body(model: Model) -> Iterator[Face]:
    half_l, half_w = model.length_m / 2, model.width_m / 2
    ends = (-half_l, half_l, -half_l * 0.99, half_l * 0.97)
    yield from _solid(ends, half_w, half_w * 0.97, model.body_m, (BODY, BODY_DARK, BODY_LIGHT))
    yield from _details(model)


def _load(model: Model) -> Iterator[Face]:
    if model.load:
        rear, front, top = model.load
        half_w = model.width_m / 2
        codes = (LOAD, LOAD_DARK, LOAD) if model.length_m > 6 else (BODY, BODY_DARK, BODY_LIGHT)
        yield from _solid((rear, front, rear, front), half_w, half_w * 0.98, (model.body_m[1], top), codes)


def _cabin(model: Model) -> Iterator[Face]:
    if not model.cabin:
        return
    half_w, high = model.width_m / 2, model.body_m[1]
    rear, front, roof_rear, roof_front, roof = model.cabin
    yield from _solid(
        (rear, front, roof_rear, roof_front), half_w * 0.96, half_w * 0.80, (high, roof), (GLASS, GLASS, BODY_LIGHT)
    )
    for share in (0.0, 0.42, 0.94):
        foot, top = rear + (front - rear) * share, roof_rear + (roof_front - roof_rear) * share
        for side in (-1, 1):
            post = [(foot, side * half_w * 0.97, high), (foot + 0.14, side * half_w * 0.97, high)]
            post += [(top + 0.12, side * half_w * 0.81, roof), (top, side * half_w * 0.81, roof)]
            yield (post if side < 0 else post[::-1]), BODY


def _solid(
    ends: tuple[float, float, float, float],
    wide: float,
    wide_top: float,
    heights: tuple[float, float],
    codes: tuple[int, int, int],
) -> Iterator[Face]:
    """A frustum: rear and front at its foot and at its top; codes of the sides, of rear and front, and of the top."""
    rear, front, rear_top, front_top = ends
    low, high = heights
    foot = [(rear, -wide, low), (front, -wide, low), (front, wide, low), (rear, wide, low)]
    top = [(rear_top, -wide_top, high), (front_top, -wide_top, high), (front_top, wide_top, high), (rear_top, wide_top, high)]
    for k in range(4):
        following = (k + 1) % 4
        yield [foot[k], foot[following], top[following], top[k]], codes[k % 2]
    yield top, codes[2]


def _details(model: Model) -> Iterator[Face]:
    half_l, half_w = model.length_m / 2, model.width_m / 2
    low, high = model.body_m
    radius = 0.33 if model.length_m < 6 else 0.48
    for side in (-1, 1):
        y = side * (half_w + 0.01)
        for at in (-half_l * 0.62, half_l * 0.62):
            wheel = [(at + radius * math.cos(a), y, radius + radius * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 9)[:-1]]
            yield (wheel if side < 0 else wheel[::-1]), TYRE
        if model.glazed:
            for k in range(6):
                left, right = -half_l + 0.4 + k * 1.72, -half_l + 1.95 + k * 1.72
                pane = [(left, y, 1.35), (right, y, 1.35), (right, y, 2.45), (left, y, 2.45)]
                yield (pane if side < 0 else pane[::-1]), GLASS
    for end, lamp in ((1, LAMP), (-1, TAIL)):
        x = end * (half_l + 0.02)
        middle = low + (high - low) * 0.62 if not model.glazed else 0.8
        for left, right in ((-half_w * 0.92, -half_w * 0.55), (half_w * 0.55, half_w * 0.92)):
            yield _end_face(x, (left, right), (middle - 0.09, middle + 0.09), end), lamp
        yield _end_face(x, (-0.27, 0.27), (low + 0.12, low + 0.24), end), PLATE
        yield _end_face(x, (-half_w * 0.95, half_w * 0.95), (low, low + 0.1), end), TRIM
        if model.glazed:
            yield _end_face(x, (-half_w * 0.88, half_w * 0.88), (1.3, 2.7), end), GLASS


def _end_face(x: float, across: tuple[float, float], heights: tuple[float, float], end: int) -> list[tuple[float, float, float]]:
    left, right = across
    face = [(x, left, heights[0]), (x, right, heights[0]), (x, right, heights[1]), (x, left, heights[1])]
    return face if end > 0 else face[::-1]
