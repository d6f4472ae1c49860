"""The square tiles of web maps: spherical Mercator, 2^zoom columns from the antimeridian and rows from the north.

Source: https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
HIGHEST_LAT_DEG = 85.0511287798066  # where the square ends


def tile_position(lat_deg: float, lng_deg: float, zoom: int) -> tuple[float, float]:
    """(column, row) of a position, in tiles: the integer parts name the tile, the rest says where in it.

    Args:
        lat_deg: degrees; beyond the square's edge it counts as on the edge.
        lng_deg: degrees; a column beyond the antimeridian is one of the other side, less or more 2^zoom.
        zoom: 0 to 22.
    """
    lat = math.radians(max(-HIGHEST_LAT_DEG, min(HIGHEST_LAT_DEG, lat_deg)))
    count = 2.0**zoom
    return (lng_deg / 360 + 0.5) * count, (0.5 - math.asinh(math.tan(lat)) / (2 * math.pi)) * count


def tile_degrees(column: F64, row: F64, zoom: int) -> tuple[F64, F64]:
    """(lat, lng) in degrees of positions in tiles; the inverse of `tile_position`."""
    count = 2.0**zoom
    lat = np.degrees(np.arctan(np.sinh((0.5 - np.asarray(row) / count) * 2 * np.pi)))
    return lat, (np.asarray(column) / count - 0.5) * 360
