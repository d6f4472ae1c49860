"""The grid of answers: every place of a region in one cell, alone where it can be; nothing impossible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.answer_grid import AREA_SHARE, AnswerGrid, build_grid, read_grid, write_grid


def city(places: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 45 + rng.uniform(-0.01, 0.01, places), -30 + rng.uniform(-0.01, 0.01, places)


def lattice(side: int = 60) -> tuple[np.ndarray, np.ndarray]:
    lat, lng = np.meshgrid(np.linspace(44.99, 45.01, side), np.linspace(-30.01, -29.99, side))
    return lat.ravel(), lng.ravel()


@pytest.fixture(scope="module")
def grid() -> AnswerGrid:
    return build_grid(*city(), inside=lattice(), finest_level=24)


def test_every_place_has_a_cell_of_its_own_and_its_position_is_the_answer(grid: AnswerGrid):
    lat, lng = city()
    cells = grid.cells_of(lat, lng)
    assert np.unique(cells).size == len(lat)
    assert np.allclose(grid.lat_deg[cells], lat, atol=1e-9)
    assert np.allclose(grid.lng_deg[cells], lng, atol=1e-9)
    assert grid.places.sum() == len(lat)


def test_cells_are_disjoint_and_hold_all_of_the_region(grid: AnswerGrid):
    low, high = s2.ranges(grid.ids)
    assert (low[1:] > high[:-1]).all()
    assert (grid.cells_of(*lattice()) >= 0).all()
    assert (grid.cells_of([0.0, 60.0], [0.0, 10.0]) == -1).all()


def test_between_the_places_every_position_has_a_cell(grid: AnswerGrid):
    """Cells around a place are smaller than what the points that outline the region tell apart."""
    rng = np.random.default_rng(5)
    lat, lng = city()
    near = lat + rng.normal(0, 2e-5, len(lat)), lng + rng.normal(0, 2e-5, len(lat))  # metres
    assert (grid.cells_of(*near) >= 0).all()
    assert (grid.cells_of(45 + rng.uniform(-0.01, 0.01, 5_000), -30 + rng.uniform(-0.01, 0.01, 5_000)) >= 0).all()


def test_the_prior_of_empty_cells_goes_by_their_area(grid: AnswerGrid):
    """From the largest to those of a few metres around a place, which hold none of the points that outline the region."""
    empty = (grid.places == 0) & (np.abs(grid.lat_deg - 45) < 0.009) & (np.abs(grid.lng_deg + 30) < 0.009)
    areas_km2 = grid.areas_km2[empty]
    assert areas_km2.max() > 1_000 * areas_km2.min()
    share = grid.prior[empty] / areas_km2
    assert share.max() < 2 * share.min()


def test_the_prior_goes_by_places_and_a_little_by_area(grid: AnswerGrid):
    assert grid.prior.sum() == pytest.approx(1)
    assert grid.prior.min() > 0
    assert grid.prior[grid.places > 0].sum() > 1 - AREA_SHARE
    assert 0 < grid.prior[grid.places == 0].sum() < AREA_SHARE


def test_the_order_of_places_is_of_no_account(grid: AnswerGrid):
    lat, lng = city()
    order = np.random.default_rng(3).permutation(len(lat))
    assert build_grid(lat[order], lng[order], inside=lattice(), finest_level=24).fingerprint() == grid.fingerprint()


def test_places_share_cells_where_there_would_be_too_many():
    small = build_grid(*city(), inside=lattice(10), finest_level=24, most_cells=200)
    assert 50 < len(small) <= 200
    assert small.places.max() > 1
    assert (small.cells_of(*city()) >= 0).all()


def test_places_at_one_position_share_a_cell():
    lat, lng = np.full(5, 45.0), np.full(5, -30.0)
    grid = build_grid(lat, lng, inside=lattice(), finest_level=14)
    assert grid.places.max() == 5
    assert s2.levels(grid.ids).max() == 14


def test_a_planet_has_cells_of_all_sizes():
    rng = np.random.default_rng(1)
    lat = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 500))), 48.85 + rng.normal(0, 0.02, 500)])
    lng = np.concatenate([rng.uniform(-180, 180, 500), 2.35 + rng.normal(0, 0.02, 500)])
    world = np.degrees(np.arcsin(np.linspace(-1, 1, 2000))), (np.arange(2000) * 137.508) % 360 - 180
    grid = build_grid(lat, lng, inside=world, finest_level=13)
    assert s2.levels(grid.ids).min() <= 4
    assert s2.levels(grid.ids).max() == 13
    assert (grid.cells_of(lat, lng) >= 0).all()
    anywhere = np.degrees(np.arcsin(rng.uniform(-1, 1, 2_000))), rng.uniform(-180, 180, 2_000)
    assert (grid.cells_of(*anywhere) >= 0).all()
    assert (grid.cells_of(48.85 + rng.normal(0, 0.02, 500), 2.35 + rng.normal(0, 0.02, 500)) >= 0).all()
    assert grid.areas_km2.sum() == pytest.approx(510e6, rel=0.01)


def test_it_comes_back_from_its_file_and_damage_is_seen(grid: AnswerGrid, tmp_path: Path):
    write_grid(tmp_path / "grid.parquet", grid)
    assert read_grid(tmp_path / "grid.parquet").fingerprint() == grid.fingerprint()
    with pytest.raises(IntegrityError):
        read_grid(tmp_path / "none.parquet")


def test_no_place_is_one_clear_error():
    with pytest.raises(NotEnoughDataError, match="no places"):
        build_grid(np.empty(0), np.empty(0), inside=lattice(), finest_level=24)
