"""The part of a cell that lies near a position, and covers of as few cells as there can be."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_caps import cap_areas_m2, cap_outlines
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.distance import EARTH_RADIUS_M, great_circle_m

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


def some_cells(levels: tuple[int, int], count: int = 60, seed: int = 0) -> Cells:
    """Cells all over the globe, and a position in each."""
    rng = np.random.default_rng(seed)
    lat, lng = np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)
    leaves = s2.leaf_ids(lat, lng)
    return np.array([s2.parents(leaf, level) for leaf, level in zip(leaves, rng.integers(*levels, count), strict=True)]), lat, lng


@pytest.mark.parametrize("levels", [(0, 5), (5, 15), (15, 24), (24, 30)])
def test_as_far_as_its_corners_it_is_the_whole_cell(levels: tuple[int, int]):
    ids, lat, lng = some_cells(levels)
    far = great_circle_m(lat[:, None], lng[:, None], *s2.corners(ids)).max(axis=1)
    assert np.allclose(cap_areas_m2(ids, lat, lng, 1.001 * far), s2.areas_m2(ids), rtol=1e-3 if levels[1] == 30 else 1e-5)


@pytest.mark.parametrize("levels", [(0, 5), (5, 15), (15, 22)])
def test_as_far_as_the_nearest_edge_it_is_a_circle(levels: tuple[int, int]):
    ids, _, _ = some_cells(levels)
    lat, lng = s2.centres(ids)
    radius = np.sqrt(s2.areas_m2(ids)) / 5
    circle = 2 * np.pi * EARTH_RADIUS_M**2 * (1 - np.cos(radius / EARTH_RADIUS_M))
    exact = np.where(radius < 1e5, np.pi * radius**2, circle)
    assert np.allclose(cap_areas_m2(ids, lat, lng, radius), exact, rtol=0.004)


def test_in_between_it_holds_the_positions_that_are_near_and_in_the_cell():
    ids, lat, lng = some_cells((3, 20), 40, 1)
    radius = np.sqrt(s2.areas_m2(ids)) * 0.6
    shapes = cap_outlines(ids, lat, lng, radius)
    rng = np.random.default_rng(2)
    agree = 0
    for cell, here_lat, here_lng, far, shape in zip(ids, lat, lng, radius, shapes, strict=True):
        assert shape.is_valid
        spread = np.degrees(far / EARTH_RADIUS_M)
        lats = np.clip(here_lat + rng.normal(0, spread, 200), -89.9, 89.9)
        lngs = (here_lng + rng.normal(0, spread, 200) / np.cos(np.radians(here_lat)) + 180) % 360 - 180
        low, high = s2.ranges(cell)
        leaves = s2.leaf_ids(lats, lngs)
        inside = (low <= leaves) & (leaves <= high) & (great_circle_m(here_lat, here_lng, lats, lngs) <= far)
        agree += (shapely.contains_xy(shape, lngs, lats) == inside).sum()
    assert agree / (40 * 200) > 0.985  # straight edges on the map


def test_across_the_antimeridian_it_is_drawn_in_two_parts():
    lat, lng = np.array([0.5, 65.0]), np.array([179.9999, -179.99])
    ids = s2.parents(s2.leaf_ids(lat, lng), 3)
    radius = np.array([30_000.0, 60_000.0])
    for shape, whole in zip(cap_outlines(ids, lat, lng, radius), outlines(ids), strict=True):
        west, _, east, _ = shape.bounds
        assert west >= -180
        assert east <= 180
        assert shape.area < whole.area / 20


def test_a_cover_of_few_cells_covers_the_same():
    whole = s2.parents(s2.leaf_ids([59.3, 10.0], [18.0, 20.0]), 12)
    small = s2.children(s2.children(whole[:1])).ravel()
    cells = np.concatenate([small, s2.children(whole[1:]).ravel()[:3]])
    few = s2.fewest(np.random.default_rng(0).permutation(cells))
    assert few.tolist() == sorted([int(whole[0]), *s2.children(whole[1]).tolist()[:3]])
    assert np.isclose(s2.areas_m2(few).sum(), s2.areas_m2(cells).sum())
    assert s2.fewest(np.empty(0, np.uint64)).size == 0
    faces = s2.parents(s2.leaf_ids([0.0], [0.0]), 0)
    assert s2.fewest(s2.children(s2.children(faces)).ravel()).tolist() == faces.tolist()
