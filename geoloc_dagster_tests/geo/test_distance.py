from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.geo.distance import EARTH_RADIUS_M, WORLD_SCORE_M, ecef_m, geodesic_m, great_circle_m, score_m, unit_vectors

LAT = st.floats(-90, 90)
LNG = st.floats(-180, 180)


def test_a_degree_of_latitude_is_longer_at_the_pole_than_at_the_equator_on_the_ellipsoid():
    equator, pole = geodesic_m([0, 89], 0, [1, 90], 0)
    assert equator == pytest.approx(110_574.4, abs=0.5)
    assert pole == pytest.approx(111_693.9, abs=0.5)


def test_a_degree_of_latitude_is_the_same_everywhere_on_the_sphere():
    degree = np.pi / 180 * EARTH_RADIUS_M
    assert great_circle_m([0, 89], 0, [1, 90], 0) == pytest.approx([degree, degree], rel=1e-12)


def test_antipodes_are_half_a_great_circle_apart():
    assert great_circle_m(12.5, 30, -12.5, -150) == pytest.approx(np.pi * EARTH_RADIUS_M)


def test_arguments_broadcast_and_nothing_gives_nothing():
    assert geodesic_m([[59.0], [60.0]], 18, [59.0, 60.0, 61.0], 18).shape == (2, 3)
    assert geodesic_m([], [], [], []).shape == (0,)


def test_a_view_that_cannot_be_written_to_is_measured_and_left_alone():
    lat = np.broadcast_to(np.float64(59.0), 3)
    assert geodesic_m(lat, 18, lat, 18.001) == pytest.approx([57.47, 57.47, 57.47], abs=0.01)


@settings(max_examples=50, deadline=None)
@given(LAT, LNG, LAT, LNG)
def test_distances_are_symmetric_and_sphere_and_ellipsoid_agree_within_a_percent(
    lat1: float, lng1: float, lat2: float, lng2: float
):
    there, back = geodesic_m(lat1, lng1, lat2, lng2), geodesic_m(lat2, lng2, lat1, lng1)
    assert there == pytest.approx(float(back), rel=1e-12, abs=1e-6)
    assert great_circle_m(lat1, lng1, lat2, lng2) == pytest.approx(float(there), rel=0.01, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(LAT, LNG, st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
def test_the_straight_line_is_never_longer_than_the_geodesic(lat: float, lng: float, north: float, east: float):
    other_lat = float(np.clip(lat + north, -90, 90))
    chord = np.linalg.norm(ecef_m(lat, lng) - ecef_m(other_lat, lng + east))
    geodesic = float(geodesic_m(lat, lng, other_lat, lng + east))
    assert geodesic - 1e-3 <= chord <= geodesic + 1e-7


def test_a_score_falls_over_a_tenth_of_a_region_and_as_the_world_s_where_it_is_wide():
    assert score_m(59.2, 17.8, 59.4, 18.2) == pytest.approx(great_circle_m(59.2, 17.8, 59.4, 18.2) / 10)
    assert score_m(25, -124, 49, -67) == score_m(-10, -179, 10, 179) == WORLD_SCORE_M
    assert score_m(59.3, 18.0, 59.3001, 18.0001) == 50


def test_unit_vectors_point_where_positions_are():
    assert np.allclose(unit_vectors([0, 0, 90, 0], [0, 90, 12, 180]), [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]], atol=1e-15)
