"""Which pictures can show the same scene: two views of one scene look the same way.

A camera with a field of view of 90° that is turned by 90° sees another scene, wherever along the street it stands; a facade
across the street is seen the same way from ten metres further on. So the directions of two hits say whether they can be
pictures of one scene, as far as both are known in one frame: absolute headings compare everywhere, rotations from an
unknown start only within their location.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_ABSOLUTE, _UNKNOWN = 0, -1
_ROTATION_STEP_DEG = 90.0


@dataclass(frozen=True, slots=True)
class Headings:
    """Directions of pictures, arrays of one shape.

    Attributes:
        deg: degrees clockwise from the zero of the frame; anything where the direction is unknown.
        frame: which zero: 0 from north, a positive number for the unknown start of one location, -1 where nothing is known.
    """

    deg: Floats
    frame: Ints

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice | tuple[slice | None, ...]) -> Headings:
        """The headings of the chosen rows, in the shape of the choice."""
        return Headings(self.deg[rows], self.frame[rows])


def absolute_headings(heading_deg: npt.ArrayLike) -> Headings:
    """Headings from north in degrees; unknown where not a number."""
    deg = np.asarray(heading_deg, dtype=np.float64)
    return Headings(deg, np.where(np.isfinite(deg), _ABSOLUTE, _UNKNOWN))


def view_headings(views: Sequence[str], location_ids: Sequence[str]) -> Headings:
    """The directions that the catalog's views name: `h090` is 90° from north, `r1` 90° from its location's start, `v` unknown.

    Args:
        views: (R,) names of views.
        location_ids: (R,) the location of each.
    """
    names = np.asarray(views, np.str_)
    _, location = np.unique(np.asarray(location_ids, np.str_), return_inverse=True)
    absolute, turned = np.char.startswith(names, "h"), np.char.startswith(names, "r")
    number = np.array([float(name[1:]) if known else 0.0 for name, known in zip(names, absolute | turned, strict=True)])
    frame = np.where(absolute, _ABSOLUTE, np.where(turned, location.reshape(-1) + 1, _UNKNOWN))
    return Headings(np.where(turned, number * _ROTATION_STEP_DEG, number), frame.astype(np.int64))


def agreement(one: Headings, other: Headings, bandwidth_deg: float) -> Floats:
    """How well pictures agree in direction, 0 to 1: a Gaussian of the turn between them; shapes broadcast.

    1 where the two cannot be compared: what is not known speaks against nothing.
    """
    turn = (one.deg - other.deg + 180) % 360 - 180
    comparable = (one.frame == other.frame) & (one.frame != _UNKNOWN)
    return np.where(comparable, np.exp(-0.5 * np.square(turn / bandwidth_deg)), 1.0)
