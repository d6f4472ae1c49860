"""S2 cells of positions: the common grid on which predictors state their probabilities.

Source: https://s2geometry.io/devguide/s2cell_hierarchy (a cell of level 16 is about 140 m wide, of level 13 about 1.1 km).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import s2sphere

Floats = npt.NDArray[np.float64]
CellIds = npt.NDArray[np.uint64]


def cell_ids(lat_deg: Floats, lng_deg: Floats, level: int) -> CellIds:
    """The id of the S2 cell of `level` (0 to 30) around each position; shape as the input, one look-up per distinct position."""
    if not 0 <= level <= 30:
        raise ValueError(f"S2 levels go from 0 to 30, got {level}")
    positions, inverse = np.unique(np.column_stack([lat_deg, lng_deg]), axis=0, return_inverse=True)
    ids = np.array([_cell_at(lat, lng, level) for lat, lng in positions.tolist()], dtype=np.uint64)
    return ids[inverse.reshape(-1)]


def _cell_at(lat_deg: float, lng_deg: float, level: int) -> int:
    leaf: Any = s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(lat_deg, lng_deg))
    return int(leaf.parent(level).id())


def cell_centre(cell: int) -> tuple[float, float]:
    """(lat, lng) in degrees of a cell's centre."""
    centre = s2sphere.CellId(cell).to_lat_lng()
    return float(centre.lat().degrees), float(centre.lng().degrees)


def cell_token(cell: int) -> str:
    """The short text of a cell id, as other S2 tools print it."""
    return str(s2sphere.CellId(cell).to_token())
