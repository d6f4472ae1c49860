"""S2 cells: the ids that other tools give, one per position."""

from __future__ import annotations

import numpy as np
import pytest
import s2sphere

from geoloc_dagster.retrieval.cells import cell_centre, cell_ids, cell_token


def test_a_position_lies_in_its_cell() -> None:
    rng = np.random.default_rng(0)
    lat, lng = rng.uniform(-90, 90, 200), rng.uniform(-180, 180, 200)
    for level in (4, 13, 16, 20):
        for cell, a, b in zip(cell_ids(lat, lng, level).tolist(), lat, lng, strict=True):
            point = s2sphere.LatLng.from_degrees(a, b).to_point()
            assert s2sphere.Cell(s2sphere.CellId(cell)).contains(point)
            assert s2sphere.CellId(cell).level() == level


def test_a_known_token() -> None:
    """The old town of Stockholm."""
    cell = int(cell_ids(np.array([59.32494]), np.array([18.06936]), 10)[0])
    assert cell_token(cell) == "465f77"
    lat, lng = cell_centre(cell)
    assert abs(lat - 59.32494) < 0.1
    assert abs(lng - 18.06936) < 0.2


def test_repeated_positions_keep_their_order() -> None:
    lat, lng = np.array([59.3, 10.0, 59.3, -5.0]), np.array([18.0, 20.0, 18.0, 30.0])
    ids = cell_ids(lat, lng, 16)
    assert ids[0] == ids[2]
    assert len(set(ids.tolist())) == 3
    assert ids[1] == cell_ids(lat[1:2], lng[1:2], 16)[0]


@pytest.mark.parametrize("level", [-1, 31])
def test_levels_out_of_range_are_refused(level: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 30"):
        cell_ids(np.array([0.0]), np.array([0.0]), level)
