"""Cells of a country: boxes cut by its polygon, nothing lost, small pieces with a neighbour, the published ones again."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.grid_cells import grid_cells

USA = Path(os.environ.get("GEOLOC_SHARED_DATA", "../shared/data")) / "usa"


def test_the_published_cells_of_the_usa_come_out_again():
    if not USA.is_dir():
        pytest.skip("GEOLOC_SHARED_DATA has no usa/")
    nation = gpd.read_file(USA / "boundary" / "cb_2018_us_nation_5m.shp").geometry
    mainland = max(nation.explode(index_parts=False), key=lambda part: part.area)
    ours = grid_cells(mainland, 2.0, merge_below=0.1).geometry.to_numpy()
    published = gpd.read_file(USA / "grid_cells.geojson").geometry.to_numpy()
    assert len(ours) == len(published) == 243
    here, there = shapely.STRtree(ours).query(published)
    overlap = shapely.area(shapely.intersection(published[here], ours[there]))
    union = shapely.area(published[here]) + shapely.area(ours[there]) - overlap
    assert len(set(here[overlap / union >= 0.99])) == 243


def test_small_pieces_go_to_the_first_neighbour_and_islands_stay():
    polygon = MultiPolygon([box(0, 0, 4.1, 2), box(8.1, 0.1, 8.2, 0.2)])
    cells = grid_cells(polygon, 2.0, merge_below=0.1)
    assert [cell.bounds for cell in cells.geometry] == [(0, 0, 2, 2), (2, 0, 4.1, 2), (8.1, 0.1, 8.2, 0.2)]
    assert cells["cell_id"].tolist() == [0, 1, 2]


def test_small_pieces_that_touch_at_a_corner_alone_are_no_neighbours():
    polygon = MultiPolygon([box(0, 0, 2, 2), box(2, 2, 2.1, 2.1)])
    assert len(grid_cells(polygon, 2.0, merge_below=0.5)) == 2


def test_several_small_pieces_become_one_where_they_are_all_there_is():
    polygon = Polygon([(1.9, 0.0), (2.1, 0.0), (2.1, 6.0), (1.9, 6.0)])  # a strip along an edge of boxes
    assert len(grid_cells(polygon, 2.0, merge_below=0.0)) == 6
    cells = grid_cells(polygon, 2.0, merge_below=1.5)
    assert shapely.area(cells.geometry.to_numpy()).min() >= 1.5 * 0.2 * 0.99


@settings(max_examples=40, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=3, max_size=12),
    step_deg=st.sampled_from([1.0, 2.0, 5.0]),
    merge_below=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_cells_are_the_polygon_and_none_is_small_that_has_a_neighbour(
    corners: list[tuple[float, float]], step_deg: float, merge_below: float
):
    polygon = shapely.convex_hull(shapely.MultiPoint(corners))
    if not isinstance(polygon, Polygon) or polygon.area < 1e-3:
        return
    cells = grid_cells(polygon, step_deg, merge_below=merge_below).geometry.to_numpy()
    areas = shapely.area(cells)
    assert areas.sum() == pytest.approx(polygon.area, rel=1e-9)
    assert shapely.area(shapely.union_all(cells)) == pytest.approx(polygon.area, rel=1e-9)
    if len(cells) > 1:  # a convex polygon has no islands
        largest = max(
            shapely.area(shapely.intersection(polygon, box(x, y, x + step_deg, y + step_deg)))
            for x in np.arange(-20, 20, step_deg)
            for y in np.arange(-20, 20, step_deg)
        )
        assert areas.min() >= merge_below * largest * (1 - 1e-9)


def test_too_many_boxes_are_refused_before_they_are_made():
    with pytest.raises(BoundaryError, match="Take larger ones"):
        grid_cells(box(-180, -90, 180, 90), 0.01, merge_below=0.1)
