"""An endless procedural city with street views of every date from 2009 to 2030.

Everything is a pure function of the seed and of integer coordinates, so that two cities of one seed show the same bytes,
in whatever order they are asked. Pictures come with the class of every pixel, drawn from the same geometry.
"""

from __future__ import annotations

import datetime as dt

from geoloc_dagster.emulator.places import Place, PlaceBook, Snapshot
from geoloc_dagster.emulator.plane import Plane
from geoloc_dagster.emulator.renderer import CLASSES, Camera, Renderer, View

__all__ = ["CLASSES", "City", "Place", "Snapshot", "View"]


class City:
    """One city; may be shared by threads.

    Args:
        origin: (lat, lng), degrees: the centre, from which the city goes on for ever.
        seed: another one gives another city.

    Raises:
        ConfigError: the origin is no position, or too near a pole.
    """

    def __init__(self, origin: tuple[float, float], seed: int = 0) -> None:
        self._plane = Plane(origin)
        self._book = PlaceBook(self._plane, seed)
        self._renderer = Renderer(self._book, seed, southern=origin[0] < 0)

    def nearest(self, lat_deg: float, lng_deg: float, radius_m: float) -> Place | None:
        """The place nearest to a position, or None where the camera car has been nowhere within the radius."""
        return self._book.nearest(*self._plane.metres(lat_deg, lng_deg), radius_m)

    def within(self, west_deg: float, south_deg: float, east_deg: float, north_deg: float) -> list[Place]:
        """Every place inside a box, in the order of their ids; boxes do not cross the antimeridian."""
        centre = self._plane.metres((south_deg + north_deg) / 2, (west_deg + east_deg) / 2)
        corner = self._plane.metres(north_deg, east_deg)
        near = self._book.around(*centre, max(abs(corner[0] - centre[0]), abs(corner[1] - centre[1])))
        places = [self._book.place(place_id) for place_id in sorted(place_id for place_id, _, _ in near)]
        return [
            place
            for place in places
            if place is not None and south_deg <= place.lat_deg <= north_deg and west_deg <= place.lng_deg <= east_deg
        ]

    def place(self, place_id: int) -> Place | None:
        """The place of an id, or None where there is none."""
        return self._book.place(place_id)

    def render(
        self,
        lat_deg: float,
        lng_deg: float,
        *,
        heading_deg: float,
        pitch_deg: float = 0.0,
        fov_deg: float = 90.0,
        width: int = 640,
        height: int = 640,
        date: dt.date,
    ) -> View:
        """What a camera sees from a position, normally that of a snapshot.

        Args:
            lat_deg: position of the camera.
            lng_deg: likewise.
            heading_deg: clockwise from north.
            pitch_deg: upwards; shifts the horizon instead of tilting the picture, and counts as 60 degrees at most.
            fov_deg: horizontal field of view, 10 to 120 degrees.
            width: pixels, 16 to 1024.
            height: likewise.
            date: decides on light, weather, season, passers-by and the state of the buildings.
        """
        x_m, y_m = self._plane.metres(lat_deg, lng_deg)
        return self.draw(Camera(x_m, y_m, heading_deg, pitch_deg, fov_deg, width, height), date)

    def draw(self, camera: Camera, date: dt.date) -> View:
        """What a camera sees that stands in the city's plane, metres east and north of its origin."""
        return self._renderer.render(camera, date)
