"""Regions hold as many places as was asked for, by being smaller than a cell where the place is all but certain."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import shapely

from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid
from geoloc_dagster.prediction.regions import (
    WHOLE,
    Inside,
    TruePlaces,
    areas_km2,
    away_where_right,
    conformal_bound,
    fill_regions,
    holds,
    learn_inside,
    log_areas,
    outline_of,
    true_places,
)

METRES = Inside((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0))  # a tenth of the photos between any two
FINELY = Inside(tuple(np.linspace(1.0, 9.0, 20_000).tolist()))
ALL, NONE = float("inf"), -1.0
EQUAL = np.zeros(1)
"""The logarithm of all areas."""
PLACES = 300


@pytest.fixture(scope="module")
def grid() -> AnswerGrid:
    rng = np.random.default_rng(0)
    lat, lng = np.meshgrid(np.linspace(44.99, 45.01, 50), np.linspace(-30.01, -29.99, 50))
    places = 45 + rng.uniform(-0.01, 0.01, PLACES), -30 + rng.uniform(-0.01, 0.01, PLACES)
    return build_grid(*places, inside=(lat.ravel(), lng.ravel()), finest_level=20)


def drawn(grid: AnswerGrid, count: int, sure: Any, seed: int, metres: float = 2.0) -> tuple[np.ndarray, TruePlaces]:
    """Photos near the positions of cells, and what somebody says of them who is right as often as `sure` of it."""
    rng = np.random.default_rng(seed)
    sure = np.broadcast_to(sure, count)
    cells = rng.choice(np.flatnonzero(grid.places), count)
    said = np.log(rng.uniform(0.9, 1.1, (count, len(grid))) * np.where(grid.places, 1.0, 1e-3) * (1 - sure)[:, None] / PLACES)
    named = np.where(rng.random(count) < sure, cells, rng.choice(np.flatnonzero(grid.places), count))
    said[np.arange(count), named] = np.log(sure)
    said -= np.log(np.exp(said).sum(1, keepdims=True))
    away = rng.normal(0, metres / 111_000, (2, count))
    lat_deg, lng_deg = grid.lat_deg[cells] + away[0], grid.lng_deg[cells] + away[1] / np.cos(np.radians(45))
    return said.astype(np.float32), true_places(grid, lat_deg, lng_deg)


def part(truth: TruePlaces, chosen: np.ndarray) -> TruePlaces:
    return TruePlaces(truth.cells[chosen], truth.away_m[chosen])


def bound_and_inside(said: np.ndarray, areas: np.ndarray, truth: TruePlaces, coverage: float) -> tuple[float, Inside]:
    inside = learn_inside(away_where_right(said, areas, truth))
    return conformal_bound(said, areas, truth.cells, coverage, inside), inside


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
def test_regions_hold_as_many_places_as_was_asked_for_where_the_likeliest_cell_alone_holds_more(
    grid: AnswerGrid, coverage: float
):
    said, truth = drawn(grid, 3_000, 0.97, 1, metres=1.0)
    right = truth.cells == said.argmax(1)
    assert right.mean() > 0.9
    early, late = np.arange(3_000) < 1_500, np.arange(3_000) >= 1_500
    bound, inside = bound_and_inside(said[early], log_areas(grid), part(truth, early), coverage)
    regions = fill_regions(said[late], log_areas(grid), bound, inside)
    assert holds(regions, part(truth, late)).mean() == pytest.approx(coverage, abs=0.03)
    if coverage <= 0.9:  # within the likeliest cell alone
        assert (areas_km2(regions, grid) < grid.areas_km2[said[late].argmax(1)]).mean() > 0.9


def test_a_photo_in_doubt_has_a_larger_region_than_one_that_is_certain(grid: AnswerGrid):
    """Somebody who knows what he is worth: most photos are all but certain, one in ten is a guess."""
    sure = np.where(np.arange(2_000) % 10 > 0, 0.99, 0.15)
    said, truth = drawn(grid, 2_000, sure, 2)
    regions = fill_regions(said, log_areas(grid), *bound_and_inside(said, log_areas(grid), truth, 0.9))
    kept = holds(regions, truth)
    assert kept.mean() == pytest.approx(0.9, abs=0.015)
    assert kept[sure < 0.5].mean() > 0.75  # where one cell would hold 15 %
    area = areas_km2(regions, grid)
    assert np.median(area[sure < 0.5]) > 20 * np.median(area[sure > 0.5])


def test_few_places_to_calibrate_on_are_enough_where_many_say_how_far_pictures_lie_apart(grid: AnswerGrid):
    """Where every photo is recognised all depends on the metres, and a quantile of forty of them would be a matter of luck."""
    areas = log_areas(grid)
    many, later = drawn(grid, 3_000, 0.999, 8, 0.5), drawn(grid, 3_000, 0.999, 9, 0.5)
    inside = learn_inside(away_where_right(many[0], areas, many[1]))
    for seed in range(10):
        said, truth = drawn(grid, 40, 0.999, seed, 0.5)
        bound = conformal_bound(said, areas, truth.cells, 0.8, inside)
        kept = holds(fill_regions(later[0], areas, bound, inside), later[1]).mean()
        assert kept == pytest.approx(0.82, abs=0.05)  # 33 of 40 are promised where 32 were asked for


def test_the_bound_is_the_least_that_fills_enough():
    """Nine photos in two cells of 0.7 and 0.3: the true cell is the likelier one in six."""
    said = np.log(np.tile([0.7, 0.3], (9, 1))).astype(np.float32)
    cells = np.array([0] * 6 + [1] * 3)
    bound = partial(conformal_bound, log_area=EQUAL, inside=FINELY)
    assert bound(said, cells=cells, coverage=0.3) == pytest.approx(0.35, abs=1e-4)  # half of the likelier cell: three of six
    assert bound(said, cells=cells, coverage=0.6) == pytest.approx(0.7, abs=1e-4)
    assert bound(said, cells=cells, coverage=0.75) == pytest.approx(0.7 + 0.3 * 2 / 3, abs=1e-4)  # eight of nine
    assert bound(said, cells=cells, coverage=0.95) == float("inf")  # ten of nine
    lost = np.array([0] * 6 + [1, 1, -1])
    assert bound(said, cells=lost, coverage=0.9) == float("inf")
    flat = np.log(np.full((9, 10), 0.1)).astype(np.float32)
    assert bound(flat, cells=np.arange(9), coverage=0.5) == pytest.approx(0, abs=1e-6)  # many equal cells: all at once


def test_photos_that_lie_equally_far_are_held_together():
    """Where every date of a place is on record at one position the least part of its cell holds all photos of it."""
    assert METRES.held(np.array([0.0, 0.35, 0.9, 1.0])) == pytest.approx([0.1, 0.4, 1.0, 1.0])
    at_once = learn_inside(np.zeros(400))
    assert at_once.held(np.array([0.0, 0.5])) == pytest.approx([1, 1], abs=0.005)
    some = learn_inside(np.repeat([0.0, 50.0], 200))
    assert some.held(np.array([0.0, 0.4, 0.6])) == pytest.approx([0.5, 0.5, 1.0], abs=0.005)
    assert learn_inside(np.empty(0)).held(np.array([0.0])).tolist() == [1]  # cells as a whole


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_regions_keep_their_promise_where_all_dates_of_a_place_are_on_record_at_one_position(grid: AnswerGrid, coverage: float):
    """Three photos of four are recognised, which no part of their cell can hold in part; the doubtful ones need no more then."""
    sure = np.where(np.arange(3_000) % 4 > 0, 0.99, 0.1)
    said, truth = drawn(grid, 3_000, sure, 10, metres=0.0)
    early, late = np.arange(3_000) < 1_500, np.arange(3_000) >= 1_500
    bound, inside = bound_and_inside(said[early], log_areas(grid), part(truth, early), coverage)
    kept = holds(fill_regions(said[late], log_areas(grid), bound, inside), part(truth, late))
    assert kept.mean() == pytest.approx(coverage, abs=0.025)


def test_the_likeliest_cell_is_filled_from_its_position_outwards():
    said = np.log(np.array([[0.2, 0.7, 0.1]], np.float32))
    assert fill_regions(said, EQUAL, 0.36, METRES).tolist() == [[NONE, 6, NONE]]
    assert fill_regions(said, EQUAL, 0.7001, METRES).tolist() == [[1, ALL, NONE]]
    assert fill_regions(said, EQUAL, 0.801, METRES).tolist() == [[6, ALL, NONE]]
    assert fill_regions(said, EQUAL, 0.0, METRES).tolist() == [[NONE, 1, NONE]]  # never empty
    assert fill_regions(said, EQUAL, float("inf"), METRES).tolist() == [[ALL, ALL, ALL]]


def test_cells_that_are_equally_probable_are_filled_together():
    said = np.log(np.array([[0.2, 0.3, 0.2, 0.1, 0.2]], np.float32))
    assert fill_regions(said, EQUAL, 0.2, METRES).tolist() == [[NONE, 7, NONE, NONE, NONE]]
    assert fill_regions(said, EQUAL, 0.601, METRES).tolist() == [[6, ALL, 6, NONE, 6]]
    blind = np.full((1, 7), np.log(1 / 7), np.float32)
    assert (fill_regions(blind, EQUAL, 0.0, METRES) == WHOLE).all()  # many: in or out as a whole


def test_the_densest_cells_are_filled_first():
    said = np.log(np.array([[0.6, 0.3, 0.1]], np.float32))
    areas = np.log([10, 1, 0.1])
    assert fill_regions(said, areas, 0.15, METRES).tolist() == [[NONE, 2, ALL]]
    assert fill_regions(said, areas, 0.41, METRES).tolist() == [[1, ALL, ALL]]
    assert fill_regions(said, EQUAL, 0.15, METRES).tolist() == [[3, NONE, NONE]]
    as_dense = np.log(np.array([[0.3, 0.6, 0.1]], np.float32))
    assert fill_regions(as_dense, np.log([1, 2, 1]), 0.46, METRES).tolist() == [[6, 6, NONE]]  # together, whatever is rounded
    cells = np.array([2] * 3 + [1] * 3 + [0] * 3)
    assert conformal_bound(np.repeat(said, 9, 0), areas, cells, 0.6, FINELY) == pytest.approx(0.4, abs=1e-4)


def test_no_region_that_holds_as_much_is_smaller(grid: AnswerGrid):
    said, truth = drawn(grid, 2_000, 0.6, 7)
    by_area, by_probability = (
        fill_regions(said, areas, *bound_and_inside(said, areas, truth, 0.9)) for areas in (log_areas(grid), EQUAL)
    )
    assert holds(by_area, truth).mean() == pytest.approx(0.9, abs=0.01)
    assert holds(by_probability, truth).mean() == pytest.approx(0.9, abs=0.01)
    assert areas_km2(by_area, grid).mean() < 0.9 * areas_km2(by_probability, grid).mean()


def test_how_cells_are_filled_is_learned_from_distances():
    inside = learn_inside(np.array([0.2, 20, 3, 7.5]))
    assert inside.away_m == (1.0, 3.0, 7.5, 20.0)
    assert inside.reach_m(np.array([0.0, 0.2, 0.39, 0.8, 1.0])).tolist() == [1, 3, 3, ALL, ALL]
    said = np.log(np.array([[0.9, 0.1]] * 6, np.float32))
    assert fill_regions(said[:1], EQUAL, 0.1, learn_inside(np.empty(0))).tolist() == [[ALL, NONE]]  # the whole cell or nothing
    truth = TruePlaces(np.array([0, 0, 0, 0, 1, -1]), np.array([0.2, 3, 7.5, 20, 400, 1]))
    assert away_where_right(said, EQUAL, truth).tolist() == [0.2, 3, 7.5, 20]  # photos of the likeliest cell alone


def test_off_the_grid_is_in_no_region(grid: AnswerGrid):
    said, _ = drawn(grid, 1, 0.9, 4)
    nowhere = true_places(grid, np.array([0.0]), np.array([0.0]))
    assert nowhere.cells.tolist() == [-1]
    assert not holds(fill_regions(said, EQUAL, float("inf"), METRES), nowhere)[0]


def test_what_is_drawn_is_what_holds_and_as_large_as_is_said(grid: AnswerGrid):
    said, truth = drawn(grid, 40, 0.5, 5)
    regions = fill_regions(said, EQUAL, 0.8, learn_inside(away_where_right(said, log_areas(grid), truth)))
    areas = areas_km2(regions, grid)
    rng = np.random.default_rng(6)
    for row in range(40):
        shape = outline_of(regions[row], grid)
        km2_per_deg2 = 111.1949**2 * np.cos(np.radians(45))
        assert shape.is_valid
        assert shape.area * km2_per_deg2 == pytest.approx(areas[row], rel=2e-3)
        near = rng.choice(np.flatnonzero(grid.places), 30)
        near[:10] = truth.cells[row]
        lat_deg, lng_deg = grid.lat_deg[near] + rng.normal(0, 5e-5, 30), grid.lng_deg[near] + rng.normal(0, 5e-5, 30)
        held = holds(np.repeat(regions[row : row + 1], 30, 0), true_places(grid, lat_deg, lng_deg))
        drawn_in = shapely.contains_xy(shape, lng_deg, lat_deg)
        assert (held == drawn_in).mean() > 0.95  # a circle is drawn with 52 corners
        assert held.sum() > 0
