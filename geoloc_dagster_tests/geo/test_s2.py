"""S2 cells by the array are s2sphere's, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from s2sphere import Cell, CellId, LatLng

from geoloc_dagster.geo import s2


def reference(lat_deg: float, lng_deg: float) -> CellId:
    return CellId.from_lat_lng(LatLng.from_degrees(lat_deg, lng_deg))


def random_positions(count: int, seed: int) -> tuple[s2.F64, s2.F64]:
    """Even on the sphere."""
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)


def awkward_positions() -> tuple[s2.F64, s2.F64]:
    """Poles, the antimeridian, middles, edges and corners of faces, and the floating-point numbers next to each."""
    corner = np.degrees(np.arctan(1 / np.sqrt(2)))
    values = [0.0, 45.0, -45.0, 90.0, -90.0, 135.0, -135.0, 180.0, -180.0, corner, -corner]
    near = [step for value in values for step in (value, np.nextafter(value, 400), np.nextafter(value, -400), value + 1e-9)]
    pairs = [(lat, lng) for lat, lng in itertools.product(near, near) if abs(lat) <= 90 and abs(lng) <= 180]
    return np.array([lat for lat, _ in pairs]), np.array([lng for _, lng in pairs])


def cells_of_every_level(count: int, seed: int) -> s2.U64:
    leaves = s2.leaf_ids(*random_positions(count, seed))
    return np.concatenate([s2.parents(leaves, level) for level in range(31)])


@pytest.mark.parametrize("positions", [random_positions(20_000, 1), awkward_positions()], ids=["random", "awkward"])
def test_leaf_cells_are_those_of_s2sphere(positions: tuple[s2.F64, s2.F64]):
    lat, lng = positions
    expected = [reference(*pair).id() for pair in zip(lat.tolist(), lng.tolist(), strict=True)]
    assert s2.leaf_ids(lat, lng).tolist() == expected


def test_positions_on_edges_of_leaf_cells_are_those_of_s2sphere():
    """Corners of leaf cells, as exact as degrees are: a rounding error decides there."""
    lat, lng = s2.corners(s2.leaf_ids(*random_positions(2_000, 2)))
    expected = [reference(*pair).id() for pair in zip(lat.ravel().tolist(), lng.ravel().tolist(), strict=True)]
    assert s2.leaf_ids(lat, lng).ravel().tolist() == expected


def test_many_positions_in_several_threads_are_those_of_one():
    lat, lng = random_positions(300_000, 3)
    parts = [s2.leaf_ids(lat[at : at + 1_000], lng[at : at + 1_000]) for at in range(0, lat.size, 1_000)]
    assert np.array_equal(s2.leaf_ids(lat, lng), np.concatenate(parts))


def test_shapes_broadcast_and_nothing_is_nothing():
    assert s2.leaf_ids(np.zeros((3, 1)), np.zeros((1, 4))).shape == (3, 4)
    assert s2.leaf_ids([], []).shape == (0,)
    assert s2.leaf_ids(59.3, 18.0).shape == ()
    assert s2.neighbours([]).shape == (0, 4)


@pytest.mark.parametrize(("lat", "lng"), [(90.1, 0), (0, 180.1), (float("nan"), 0), (0, float("inf"))])
def test_a_position_that_is_not_on_the_globe_is_named(lat: float, lng: float):
    with pytest.raises(ValueError, match=r"position 1 .* not on the globe"):
        s2.leaf_ids([0.0, lat], [0.0, lng])


def test_everything_else_is_that_of_s2sphere_too():
    cells = cells_of_every_level(60, 4)
    names = s2.tokens(cells)
    first, last = s2.ranges(cells)
    lat, lng = s2.centres(cells)
    around = s2.neighbours(cells)
    for index, cell in enumerate(map(CellId, cells.tolist())):
        assert s2.levels(cells)[index] == cell.level()
        assert names[index] == cell.to_token()
        assert (first[index], last[index]) == (cell.range_min().id(), cell.range_max().id())
        assert around[index].tolist() == [one.id() for one in cell.get_edge_neighbors()]
        centre = cell.to_lat_lng()
        assert lat[index] == pytest.approx(centre.lat().degrees, abs=1e-13)
        assert lng[index] == pytest.approx(centre.lng().degrees, abs=1e-13)
    assert np.array_equal(s2.from_tokens(names), cells)


def test_parents_and_children_are_those_of_s2sphere():
    leaves = s2.leaf_ids(*random_positions(40, 5))
    for level in range(31):
        ids = s2.parents(leaves, level)
        assert ids.tolist() == [CellId(leaf).parent(level).id() for leaf in leaves.tolist()]
        if level < 30:
            assert s2.children(ids).tolist() == [[one.id() for one in CellId(id_).children()] for id_ in ids.tolist()]
            assert np.array_equal(s2.parents(s2.children(ids), level), np.repeat(ids[:, None], 4, axis=1))


def test_corners_and_areas_are_those_of_s2sphere():
    cells = cells_of_every_level(10, 6)
    lat, lng = s2.corners(cells)
    for index, one in enumerate(cells.tolist()):
        cell = Cell(CellId(one))
        for corner in range(4):
            vertex = LatLng.from_point(cell.get_vertex(corner))
            expected = (vertex.lat().degrees, vertex.lng().degrees)
            assert (lat[index, corner], lng[index, corner]) == pytest.approx(expected, abs=1e-12)
        area = s2.areas_m2(cells[index]) / s2.EARTH_RADIUS_M**2
        assert area == pytest.approx(cell.exact_area(), rel=1e-6)


def test_the_cells_of_a_level_cover_the_globe_once():
    cells = s2.parents(s2.leaf_ids(*random_positions(200_000, 7)), 4)
    whole = np.unique(cells)
    assert whole.size == 6 * 4**4
    assert s2.areas_m2(whole).sum() == pytest.approx(4 * np.pi * s2.EARTH_RADIUS_M**2, rel=1e-12)
    first, last = s2.ranges(whole)
    assert np.all(last[:-1] < first[1:])


def test_what_is_no_cell_is_refused():
    for name in ("", "x", "1g", "47a1cbd595522b39f", "f", "47a1cbd595522b38", " 4", "-4", "0x4"):
        with pytest.raises(ValueError, match="no token"):
            s2.from_tokens([name])
    for id_ in (0, 2, 7 << 61 | 1):
        with pytest.raises(ValueError, match="no id"):
            s2.levels([id_])
    leaves = s2.leaf_ids([0.0], [0.0])
    with pytest.raises(ValueError, match="leaf cells have no children"):
        s2.children(leaves)
    with pytest.raises(ValueError, match="larger than those of level 12"):
        s2.parents(s2.parents(leaves, 11), 12)
    with pytest.raises(ValueError, match="no level 31"):
        s2.parents(leaves, 31)
