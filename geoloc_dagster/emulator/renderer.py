"""Draws views."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.places import PlaceBook

CLASSES = ("other", "sky", "building", "road", "vegetation", "vehicle", "person", "sign")


@dataclass(frozen=True, slots=True)
class View:
    """A picture and the class of each of its pixels.

    Attributes:
        rgb: uint8 (height, width, 3).
        classes: uint8 (height, width), indices into `CLASSES`.
    """

    rgb: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Camera:
    """Where it stands, metres; where it looks, degrees; and what it takes, pixels."""

    x_m: float
    y_m: float
    heading_deg: float
    pitch_deg: float
    fov_deg: float
    width: int
    height: int


class Renderer:
    """Draws views of one city."""

    def __init__(self, book: PlaceBook, seed: int, *, southern: bool) -> None:
        self._book = book
        self._seed = seed
        self._southern = southern

    def render(self, camera: Camera, date: dt.date) -> View:
        """Sky over road, for now."""
        classes = np.full((camera.height, camera.width), 3, np.uint8)
        classes[: camera.height // 2] = 1
        colours = np.array([[0, 0, 0], [150, 190, 230], [0, 0, 0], [90, 90, 95]], np.uint8)
        return View(colours[classes], classes)
