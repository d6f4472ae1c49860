from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.boundary import contains, load_boundary
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.geo.grid import grid_points, grid_shape, write_grid
from geoloc_dagster_tests.geo.shapes import square


def test_the_real_region_has_287_055_points_ten_metres_apart(shared_data: Path):
    region = load_boundary(shared_data / "stockholm" / "region.geojson", name="stockholm", feature=0, max_area_km2=20_000)
    assert grid_shape(region, 10) == (794, 1072)
    points = grid_points(region, 10, max_points=851_168)
    assert len(points) == 287_055
    assert points["point_id"].is_monotonic_increasing
    assert points["point_id"].is_unique
    assert contains(region, points["lat_deg"].to_numpy(), points["lng_deg"].to_numpy()).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(-75, 75), st.floats(-179, 178), st.sampled_from([20.0, 33.3, 50.0]))
def test_neighbours_are_the_spacing_apart_and_ids_say_where_a_point_lies(lat: float, lng: float, spacing_m: float):
    boundary = square(lat, lng, 0.01)  # at least five columns of 50 m
    points = grid_points(boundary, spacing_m, max_points=100_000)
    rows, columns = grid_shape(boundary, spacing_m)
    west, south, east, north = boundary.geometry.bounds
    column, row = np.divmod(points["point_id"].to_numpy(), rows)
    assert points["lat_deg"].to_numpy() == pytest.approx(south + row * (north - south) / rows, abs=1e-12)
    assert points["lng_deg"].to_numpy() == pytest.approx(west + column * (east - west) / columns, abs=1e-12)
    step_north = geodesic_m(south, west, south + (north - south) / rows, west)
    step_east = geodesic_m(north, west, north, west + (east - west) / columns)
    for step, steps in ((step_north, rows), (step_east, columns)):
        assert spacing_m * (1 - 1e-5) <= step < spacing_m * (1 + 1.01 / steps)


def test_it_keeps_what_a_loop_over_the_points_keeps():
    ring = shapely.Point(18.07, 59.326).buffer(0.003).difference(shapely.Point(18.07, 59.326).buffer(0.001))
    boundary = square(59.32, 18.06, 0.01).__class__("ring", ring, "EPSG:32634", 0.1)
    points = grid_points(boundary, 10, max_points=100_000)
    rows, columns = grid_shape(boundary, 10)
    west, south, east, north = ring.bounds
    lats, lngs = np.linspace(south, north, rows, endpoint=False), np.linspace(west, east, columns, endpoint=False)
    looped = [c * rows + r for c in range(columns) for r in range(rows) if ring.contains(Point(lngs[c], lats[r]))]
    assert points["point_id"].tolist() == looped


def test_blocks_of_columns_do_not_show_in_the_result(monkeypatch: pytest.MonkeyPatch):
    boundary = square(59.32, 18.06, 0.01)
    whole = grid_points(boundary, 10, max_points=100_000)
    monkeypatch.setattr("geoloc_dagster.geo.grid._POINTS_AT_ONCE", 1)
    assert grid_points(boundary, 10, max_points=100_000).equals(whole)


def test_a_grid_too_fine_is_refused_before_it_is_allocated():
    with pytest.raises(BoundaryError, match=r"0\.001 m grid over square has [\d,]{15,} points, at most 20,000,000"):
        grid_points(square(59, 18, 1), 0.001, max_points=20_000_000)


@pytest.mark.parametrize("spacing_m", [600.0, 1_000_000.0])
def test_a_grid_too_coarse_to_hit_the_region_is_refused(spacing_m: float):
    # The only point that a 600 m grid has is the corner, which is on the edge.
    with pytest.raises(BoundaryError, match=r"no point of a .* m grid lies inside square"):
        grid_points(square(0, 18, 0.006), spacing_m, max_points=1000)


def test_a_spacing_that_is_no_length_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        grid_points(square(59, 18, 1), float("nan"), max_points=1000)


def test_the_stored_grid_has_its_points_where_it_says(tmp_path: Path):
    points = grid_points(square(59.32, 18.06, 0.005), 50, max_points=1000)
    stored = gpd.read_parquet(write_grid(tmp_path / "grid.parquet", points))
    assert stored.crs == "OGC:CRS84"
    assert (stored.geometry.y == points["lat_deg"]).all()
    assert (stored.geometry.x == points["lng_deg"]).all()
    assert stored["point_id"].tolist() == points["point_id"].tolist()
