"""A million positions: leaf cells are s2sphere's, and every photo is in one cell of each level unless that was dropped."""

from __future__ import annotations

import functools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from s2sphere import CellId, LatLng

from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, partition
from geoloc_dagster_tests.geo.test_partitioning import RULES, clustered
from geoloc_dagster_tests.geo.test_s2 import awkward_positions, random_positions

COUNT = 1_000_000


def near(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by nothing, by a rounding error, or by up to a degree."""
    step = np.where(rng.random(values.size) < 0.2, 0.0, 10 ** rng.uniform(-16, 0, values.size))
    return values + rng.choice([-1.0, 1.0], values.size) * step


def a_million_positions() -> tuple[s2.F64, s2.F64]:
    """Even on the sphere; at poles, the antimeridian, edges and corners of the faces of the cube; and next to all of these."""
    rng = np.random.default_rng(11)
    awkward = awkward_positions()
    each = 100_000
    uniform = random_positions(COUNT - 4 * each - awkward[0].size, 12)
    poles = near(rng.choice([-90.0, 90.0], each), rng), rng.uniform(-180, 180, each)
    antimeridian = np.degrees(np.arcsin(rng.uniform(-1, 1, each))), near(rng.choice([-180.0, 180.0], each), rng)
    between = near(rng.choice([-135.0, -45.0, 45.0, 135.0], each), rng)  # upright edges, and corners where latitude fits
    corner = np.degrees(np.arctan(np.sqrt(0.5)))
    upright = np.where(rng.random(each) < 0.5, rng.uniform(-corner, corner, each), near(rng.choice([-corner, corner], each), rng))
    lng = rng.uniform(-180, 180, each)
    off = np.radians((lng + 45) % 90 - 45)
    lying = near(np.degrees(np.arctan(np.cos(off))) * rng.choice([-1.0, 1.0], each), rng)  # edges of the faces at the poles
    parts = [uniform, awkward, poles, antimeridian, (upright, between), (lying, lng)]
    lat = np.clip(np.concatenate([part[0] for part in parts]), -90, 90)
    return lat, np.clip(np.concatenate([part[1] for part in parts]), -180, 180)


def ids_one_by_one(lat: s2.F64, lng: s2.F64) -> list[int]:
    return [CellId.from_lat_lng(LatLng.from_degrees(*pair)).id() for pair in zip(lat.tolist(), lng.tolist(), strict=True)]


@functools.cache
def photos() -> tuple[s2.F64, s2.F64]:
    return clustered(COUNT, 21, places=3_000)


RULES_OF_MANY = (LevelRule("coarse", 50, 5_000), LevelRule("middle", 50, 2_000), LevelRule("fine", 50, 1_000))


def test_leaf_cells_of_a_million_positions_are_those_of_s2sphere():
    lat, lng = a_million_positions()
    assert lat.size == COUNT
    parts = np.array_split(np.arange(COUNT), 20)
    with ProcessPoolExecutor(processes_by_default(), get_context("forkserver")) as pool:
        expected = pool.map(ids_one_by_one, [lat[part] for part in parts], [lng[part] for part in parts])
        ours = s2.leaf_ids(lat, lng)
        differing = np.flatnonzero(ours != np.concatenate([np.array(ids, np.uint64) for ids in expected]))
    assert differing.size == 0, [(lat[n], lng[n]) for n in differing[:5]]


def test_parents_ranges_and_tokens_of_many_cells_are_those_of_s2sphere():
    lat, lng = a_million_positions()
    chosen = np.random.default_rng(13).permutation(COUNT)[:62_000]
    leaves = s2.leaf_ids(lat[chosen], lng[chosen])
    for level in range(31):
        some = leaves[level::31]
        cells = s2.parents(some, level)
        reference = [CellId(leaf).parent(level) for leaf in some.tolist()]
        assert cells.tolist() == [cell.id() for cell in reference]
        assert s2.tokens(cells) == [cell.to_token() for cell in reference]
        first, last = s2.ranges(cells)
        assert first.tolist() == [cell.range_min().id() for cell in reference]
        assert last.tolist() == [cell.range_max().id() for cell in reference]
        assert np.array_equal(s2.from_tokens([cell.to_token() for cell in reference]), cells)


def test_each_of_a_million_photos_is_in_one_cell_of_each_level_unless_its_cell_was_dropped():
    """Held against all ancestors of each photo: the largest with no more than img_max photos is its cell, or has too few."""
    made = partition(*photos(), RULES_OF_MANY)
    leaves = s2.leaf_ids(*photos())
    ancestors = [s2.parents(leaves, level) for level in range(31)]
    counted = [np.unique(cells, return_inverse=True, return_counts=True) for cells in ancestors]
    inside = [counts[inverse] for _, inverse, counts in counted]
    for level, rule in zip(made.levels, RULES_OF_MANY, strict=True):
        classes = level.classes(leaves)
        holders = sum(np.isin(cells, level.ids) for cells in ancestors)
        assert np.array_equal(holders, (classes != DROPPED).astype(int))
        stops = np.argmax([(n >= 2) & ((inside[n] <= rule.img_max) | (n == 30)) for n in range(31)], axis=0)
        own, photos_there = np.choose(stops, ancestors), np.choose(stops, inside)
        kept = classes != DROPPED
        assert np.array_equal(photos_there >= rule.img_min, kept)
        assert np.array_equal(level.ids[classes[kept]], own[kept])
        assert np.array_equal(level.counts[classes[kept]], photos_there[kept])
    assert made.parents.min() >= 0


def test_the_order_of_a_million_photos_does_not_show():
    lat, lng = photos()
    order = np.random.default_rng(22).permutation(COUNT)
    first, second = partition(lat, lng, RULES_OF_MANY), partition(lat[order], lng[order], RULES_OF_MANY)
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.parents, second.parents)
    assert all(np.array_equal(one.lat_deg, other.lat_deg) for one, other in zip(first.levels, second.levels, strict=True))


def cut(cell: CellId, inside: list[CellId], rule: LevelRule, lvl_min: int, lvl_max: int) -> dict[int, int]:
    """The paper's description word by word, on s2sphere alone: photos by kept cell."""
    if cell.level() < lvl_min or (len(inside) > rule.img_max and cell.level() < lvl_max):
        kept: dict[int, int] = {}
        for child in cell.children():
            below = [leaf for leaf in inside if child.contains(leaf)]
            if below:
                kept |= cut(child, below, rule, lvl_min, lvl_max)
        return kept
    return {cell.id(): len(inside)} if len(inside) >= rule.img_min else {}


@pytest.mark.parametrize(("lvl_min", "lvl_max"), [(2, 30), (0, 9)])
def test_cells_are_those_of_the_paper_by_recursion_with_s2sphere(lvl_min: int, lvl_max: int):
    lat, lng = clustered(4_000, 31)
    made = partition(lat, lng, RULES, lvl_min=lvl_min, lvl_max=lvl_max)
    leaves = [CellId.from_lat_lng(LatLng.from_degrees(*pair)) for pair in zip(lat.tolist(), lng.tolist(), strict=True)]
    for level, rule in zip(made.levels, RULES, strict=True):
        expected: dict[int, int] = {}
        for face in range(6):
            cell = CellId.from_face_pos_level(face, 0, 0)
            expected |= cut(cell, [leaf for leaf in leaves if cell.contains(leaf)], rule, lvl_min, lvl_max)
        assert dict(zip(level.ids.tolist(), level.counts.tolist(), strict=True)) == expected
