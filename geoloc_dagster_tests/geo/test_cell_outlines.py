"""Outlines of cells tile the map once: across the antimeridian, around the poles, with edges that bend."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import cells_frame, outlines
from geoloc_dagster.geo.partitioning import partition
from geoloc_dagster_tests.geo.test_partitioning import RULES, clustered
from geoloc_dagster_tests.geo.test_s2 import random_positions


def all_cells(level: int) -> s2.U64:
    cells = (np.arange(6, dtype=np.uint64) << np.uint64(61)) | np.uint64(1 << 60)
    for _ in range(level):
        cells = s2.children(cells).ravel()
    return cells


@pytest.mark.parametrize("level", [0, 1, 2, 4])
def test_the_cells_of_a_level_cover_the_map_once(level: int):
    shapes = outlines(all_cells(level))
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) == pytest.approx(360 * 180, rel=1e-9)
    west, south, east, north = shapely.total_bounds(shapes)
    assert (west, south, east, north) == pytest.approx((-180, -90, 180, 90))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_positions_lie_in_the_outline_of_their_cell(level: int):
    """All but those between a bent edge and the line that stands for a piece of it."""
    cells = all_cells(level)
    shapes = dict(zip(cells.tolist(), outlines(cells), strict=True))
    lat, lng = random_positions(3_000, 5)
    own = [shapes[cell] for cell in s2.parents(s2.leaf_ids(lat, lng), level).tolist()]
    inside = shapely.contains_xy(np.array(own), lng, lat)
    assert inside.mean() > 0.998


def test_small_cells_are_their_corners():
    cells = s2.parents(s2.leaf_ids([59.33, -33.9], [18.06, 151.2]), 16)
    lat, lng = s2.corners(cells)
    for place, shape in enumerate(outlines(cells)):
        expected = shapely.Polygon(np.stack([lng[place], lat[place]], axis=1))
        assert shape.equals_exact(expected, 1e-12)


def test_a_face_across_the_antimeridian_is_two_shapes():
    """Smaller cells end at it."""
    (shape,) = outlines(s2.parents(s2.leaf_ids([10.0], [180.0]), 0))
    assert sorted(part.bounds[0] for part in shapely.get_parts(shape)) == pytest.approx([-180, 135])
    assert all(one.geom_type == "Polygon" for one in outlines(all_cells(1)))


def test_a_frame_of_cells_says_what_they_are():
    level = partition(*clustered(3_000, 1), RULES).level("fine")
    frame = cells_frame(level)
    assert frame["hex_id"].tolist() == s2.tokens(level.ids)
    assert frame["imgs_per_cell"].tolist() == level.counts.tolist()
    assert frame["s2_level"].tolist() == s2.levels(level.ids).tolist()
    assert frame["area_km2"].sum() == pytest.approx(s2.areas_m2(level.ids).sum() / 1e6)
