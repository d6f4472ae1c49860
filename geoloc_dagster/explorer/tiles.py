"""Locations as vector tiles, for regions with more of them than one answer should hold.

Source: Mapbox Vector Tile Specification 2.1, encoded by mapbox-vector-tile; slippy-map numbering as OpenStreetMap documents it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import mapbox_vector_tile

from geoloc_dagster.explorer.places import Location
from geoloc_dagster.explorer.problems import Problem

LAYER = "locations"
MEDIA_TYPE = "application/vnd.mapbox-vector-tile"
EXTENT = 4096
MOST_ZOOM = 20
_MARGIN = 64  # of the extent: a circle at the edge is drawn by both tiles
_MOST_POINTS = 20_000
_MERCATOR_DEG = 85.0511287798


def location_tile(locations: Iterable[Location], zoom: int, x: int, y: int) -> bytes:
    """The locations of one tile; of more than 20,000 every n-th.

    Raises:
        Problem: there is no such tile (404).
    """
    count = 1 << zoom if 0 <= zoom <= MOST_ZOOM else 0
    if not (0 <= x < count and 0 <= y < count):
        raise Problem(404, "there is no such tile")
    inside: list[tuple[Location, float, float]] = []
    for place in locations:
        across, down = _on_tile(place.lat_deg, place.lng_deg, count, x, y)
        if -_MARGIN <= across <= EXTENT + _MARGIN and -_MARGIN <= down <= EXTENT + _MARGIN:
            inside.append((place, across, down))
    kept = inside[:: max(1, math.ceil(len(inside) / _MOST_POINTS))]
    features = [{"geometry": f"POINT({across:.0f} {down:.0f})", "properties": _known(place)} for place, across, down in kept]
    options = {"y_coord_down": True, "extents": EXTENT}
    return mapbox_vector_tile.encode([{"name": LAYER, "features": features}], default_options=options)


def _on_tile(lat_deg: float, lng_deg: float, count: int, x: int, y: int) -> tuple[float, float]:
    """Where a position lies on a tile, in units of its extent from the upper left."""
    lat = math.radians(max(-_MERCATOR_DEG, min(_MERCATOR_DEG, lat_deg)))
    across = (lng_deg + 180) / 360 * count - x
    down = (1 - math.asinh(math.tan(lat)) / math.pi) / 2 * count - y
    return across * EXTENT, down * EXTENT


def _known(place: Location) -> dict[str, str | int]:
    return {name: value for name, value in place.properties().items() if value is not None}
