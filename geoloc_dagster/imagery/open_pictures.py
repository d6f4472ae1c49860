"""Pictures of open services: flat photos, which are one view each, and whole panoramas, which can be cut into any."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from geoloc_dagster.imagery.equirectangular import cut_view, open_panorama
from geoloc_dagster.imagery.provider import View


class OpenPicture(Protocol):
    """One picture, as far as its views go; see `stac.Item` and `graph.Image`."""

    @property
    def captured_on(self) -> dt.date | None:
        """The day (UTC)."""
        ...

    @property
    def is_360(self) -> bool:
        """Whether it can be cut into views of any heading."""
        ...

    @property
    def heading_deg(self) -> float | None:
        """Of its middle, clockwise from north; None where nobody knows."""
        ...

    @property
    def pitch_deg(self) -> float:
        """Of the camera, upwards."""
        ...

    @property
    def fov_deg(self) -> float | None:
        """Horizontal field of view; None where nobody knows."""
        ...


P = TypeVar("P", bound=OpenPicture)


def one_a_day(nearest_first: Iterable[P]) -> list[P]:
    """The best picture of each day, newest first, undated ones last: whole panoramas before flat ones, then the nearest."""
    best: dict[dt.date | None, P] = {}
    for picture in sorted(nearest_first, key=lambda picture: not picture.is_360):  # stable: the nearest stays first
        best.setdefault(picture.captured_on, picture)
    days = sorted(best, key=lambda day: dt.date.min if day is None else day, reverse=True)
    return [best[day] for day in days]


def own_views(picture: OpenPicture, fov_deg: float) -> tuple[View, ...]:
    """The views that there are: one of a flat picture, whose field of view is `fov_deg` where nobody knows it.

    Of a whole panorama none, which stands for any, but quarter turns where nobody knows its heading.
    """
    heading_deg = picture.heading_deg
    if picture.is_360:
        return () if heading_deg is not None else tuple(View(None, turn, 0.0, fov_deg) for turn in range(4))
    return (View(heading_deg, 0 if heading_deg is None else None, picture.pitch_deg, picture.fov_deg or fov_deg),)


def cut_views(content: bytes, picture: OpenPicture, views: Sequence[View], size: tuple[int, int]) -> list[bytes]:
    """Views of a whole panorama as JPEGs of `size` (width, height) pixels.

    Raises:
        ImageError: the bytes are no equirectangular picture.
    """
    pixels = open_panorama(content, min(view.fov_deg for view in views), size[0])
    return [cut_view(pixels, _yaw(picture, view), view.pitch_deg, view.fov_deg, size) for view in views]


def _yaw(picture: OpenPicture, view: View) -> float:
    if view.heading_deg is None:
        return 90.0 * (view.rotation or 0)
    return view.heading_deg - (picture.heading_deg or 0.0)
