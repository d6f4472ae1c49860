"""Experts on one grid, their product, its calibration and its regions: on drawn experts whose errors are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import LevelRule, partition
from geoloc_dagster.geo.region_classes import region_classes
from geoloc_dagster.prediction import fusion_fit
from geoloc_dagster.prediction.answers import answer_on_grid
from geoloc_dagster.prediction.calibration import BetaMap, fit_beta_map, fit_familiarity, halves_by_place
from geoloc_dagster.prediction.experts import (
    GridParameters,
    Hits,
    best_classes,
    best_votes,
    classes_on_grid,
    joint,
    log_sum,
    spread_table,
    votes_on_grid,
)
from geoloc_dagster.prediction.fitting import fit_weights
from geoloc_dagster.prediction.fusing import flat_search
from geoloc_dagster.prediction.fusion import Fusion
from geoloc_dagster.prediction.fusion_fit import Truth, fit_fusion, say_all
from geoloc_dagster.prediction.panel import HitsExpert, Photos, PlacesExpert, view_table
from geoloc_dagster.prediction.questions import distances_within_places
from geoloc_dagster.prediction.regions import Inside, conformal_bound, fill_regions, holds, learn_inside, log_areas, true_places
from geoloc_dagster.prediction.signs import signs_of
from geoloc_dagster.retrieval.place_head import learn_place_head

PLACES, PICTURES = 200, 4
RADII = (25, 100, 1_000)


def places(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 45 + rng.uniform(-0.01, 0.01, PLACES), -30 + rng.uniform(-0.01, 0.01, PLACES)


@pytest.fixture(scope="module")
def grid() -> AnswerGrid:
    lat, lng = np.meshgrid(np.linspace(44.99, 45.01, 50), np.linspace(-30.01, -29.99, 50))
    return build_grid(*places(), inside=(lat.ravel(), lng.ravel()), finest_level=20)


def normalised(values: np.ndarray) -> np.ndarray:
    return (values - log_sum(values.astype(np.float32))).astype(np.float32)


class Drawn:
    """A Bayesian with a noisy eye: it sees the true cell through noise of its own, and says how likely each cell is then."""

    def __init__(self, name: str, grid: AnswerGrid, noise: float, seed: int) -> None:
        self.name, self.model_version, self.grid = name, f"{name}-1", grid
        self._noise, self._seed = noise, seed

    def seen(self, cells: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self._seed)
        codes = np.random.default_rng(99).normal(size=(len(self.grid), 16))
        saw = codes[cells] + self._noise * rng.normal(size=(len(cells), 16))
        distance = ((saw[:, None, :] - codes[None]) ** 2).sum(-1)
        return normalised(np.log(self.grid.prior) - distance / (2 * self._noise**2))

    def look(self, photos: Any) -> Any:
        raise NotImplementedError

    def fit(self, found: Any, truth: np.ndarray) -> GridParameters:
        return GridParameters(None, 0.001)

    def say(self, found: Any, fitted: Any) -> np.ndarray:
        return found


def drawn_truth(grid: AnswerGrid, count: int, seed: int) -> tuple[Truth, np.ndarray]:
    lat, lng = places()
    which = np.random.default_rng(seed).integers(0, PLACES, count)
    return Truth(lat[which], lng[which], which.astype(str)), grid.cells_of(lat[which], lng[which])


# --- experts on the grid ----------------------------------------------------------------------------------------------
def test_hits_vote_for_their_cells(grid: AnswerGrid):
    hits = Hits(np.array([[0.9, 0.9, 0.1]]), np.array([[3, 3, 8]]))
    said = np.exp(votes_on_grid(hits, grid, GridParameters(0.05, 0.01)))[0]
    assert said.sum() == pytest.approx(1, abs=1e-5)
    assert said[3] > 0.98
    assert said.argmax() == 3
    assert said[8] < 1e-3 + 0.01 * grid.prior[8] * 2


def test_hits_off_the_grid_have_no_vote(grid: AnswerGrid):
    said = np.exp(votes_on_grid(Hits(np.array([[0.9, 0.5]]), np.array([[-1, 4]])), grid, GridParameters(0.05, 0.01)))[0]
    assert said.argmax() == 4
    nothing = np.exp(votes_on_grid(Hits(np.array([[0.9]]), np.array([[-1]])), grid, GridParameters(0.05, 0.01)))[0]
    assert np.allclose(nothing, grid.prior, rtol=1e-4)


def test_a_class_is_spread_over_its_cells_by_their_places(grid: AnswerGrid):
    level = partition(*places(), [LevelRule("fine", 1, 20)], lvl_min=10, lvl_max=18).levels[0]
    table = spread_table(level, grid)
    assert np.allclose(table.sum(axis=1), 1)
    low, high = s2.ranges(level.ids)
    cell_low, cell_high = s2.ranges(grid.ids)
    for number in range(len(level)):
        columns = table[number].indices
        inside = (cell_low[columns] >= low[number]) & (cell_high[columns] <= high[number])
        around = (cell_low[columns] <= low[number]) & (cell_high[columns] >= high[number])
        assert (inside | around).all()
        assert np.allclose(table[number].data, grid.prior[columns] / grid.prior[columns].sum())
    said = np.full((1, len(level)), -30.0)
    said[0, 2] = 0.0
    on_grid = np.exp(classes_on_grid(said, table, grid, GridParameters(None, 0.001)))[0]
    assert on_grid[table[2].indices].sum() > 0.99


def test_a_class_smaller_than_a_cell_goes_to_the_cell_around_it(grid: AnswerGrid):
    lat, lng = places()
    level = partition(lat, lng, [LevelRule("fine", 1, 1)], lvl_min=22, lvl_max=24).levels[0]
    table = spread_table(level, grid)
    assert np.array_equal(table.argmax(axis=1).A1, grid.cells_of(level.lat_deg, level.lng_deg))


def test_a_polygon_is_spread_over_the_cells_whose_places_it_holds(grid: AnswerGrid):
    west, east = shapely.box(-30.02, 44.98, -30, 45.02), shapely.box(-30, 44.98, -29.98, 45.02)
    nowhere = shapely.box(10, 50, 11, 51)
    cells = gpd.GeoDataFrame({"cell_id": [7, 8, 9]}, geometry=[west, east, nowhere], crs="OGC:CRS84")
    cells["lat_deg"], cells["lng_deg"] = cells.geometry.map(lambda s: s.centroid.y), cells.geometry.map(lambda s: s.centroid.x)
    table = spread_table(region_classes(cells, *places()).levels[0], grid)
    assert np.allclose(table.sum(axis=1).A1, [1, 1, 0])
    for number, inside in ((0, grid.lng_deg < -30), (1, grid.lng_deg > -30)):
        assert np.allclose(table[number].toarray()[0], np.where(inside, grid.prior, 0) / grid.prior[inside].sum())


def test_votes_are_fitted_to_what_comes_true(grid: AnswerGrid):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(grid), 400)
    others = rng.integers(0, len(grid), (400, 20))
    cells = np.concatenate([truth[:, None], others], axis=1)
    similarity = np.concatenate([rng.normal(0.8, 0.02, (400, 1)), rng.normal(0.5, 0.02, (400, 20))], axis=1)
    sure = best_votes(Hits(similarity, cells), grid, truth)
    assert sure.floor == 0.001
    blind = best_votes(Hits(rng.normal(0.5, 0.02, (400, 21)), others[:, :1].repeat(21, 1)), grid, truth)
    assert blind.floor > 0.1


def test_a_classifier_that_is_too_sure_is_made_softer(grid: AnswerGrid):
    """A third of its answers is wrong, and it gives 99.9 % to each; of these its second place is right half of the time."""
    level = partition(*places(), [LevelRule("fine", 1, 20)], lvl_min=10, lvl_max=18).levels[0]
    rng, table = np.random.default_rng(3), spread_table(level, grid)
    truth, cells = drawn_truth(grid, 600, 3)
    right = level.classes(s2.leaf_ids(truth.lat_deg, truth.lng_deg))
    said = np.full((600, len(level)), np.log(1e-5))
    first = np.where(rng.random(600) < 2 / 3, right, rng.integers(0, len(level), 600))
    second = np.where(rng.random(600) < 0.5, right, rng.integers(0, len(level), 600))
    said[np.arange(600), second] = np.log(1e-3)
    said[np.arange(600), first] = np.log(0.999)
    fitted = best_classes(said, table, grid, cells)
    assert fitted.temperature is not None
    assert fitted.temperature > 1.5

    def likelihood(parameters: GridParameters) -> float:
        return float(classes_on_grid(said, table, grid, parameters)[np.arange(600), cells].mean())

    assert likelihood(fitted) > max(likelihood(GridParameters(1.0, floor)) for floor in (0.001, 0.01, 0.1, 0.3))
    sure = best_classes(np.where(np.arange(len(level)) == right[:, None], np.log(0.5), -5.0), table, grid, cells)
    assert sure.temperature == 0.75  # never wrong, and not sure enough


# --- the product ------------------------------------------------------------------------------------------------------
def test_an_expert_that_repeats_the_prior_changes_nothing(grid: AnswerGrid):
    _, cells = drawn_truth(grid, 30, 1)
    eye = Drawn("a", grid, 1.0, 1).seen(cells)
    prior = np.log(np.tile(grid.prior, (30, 1))).astype(np.float32)
    both = joint({"a": eye, "b": normalised(prior)}, grid, {"a": 1.0, "b": 0.7}, 1.0)
    assert np.allclose(both, joint({"a": eye}, grid, {"a": 1.0}, 1.0), atol=1e-4)


def test_independent_experts_together_are_bayes(grid: AnswerGrid):
    _, cells = drawn_truth(grid, 50, 2)
    one, two = Drawn("a", grid, 1.5, 3), Drawn("b", grid, 1.5, 4)
    said = joint({"a": one.seen(cells), "b": two.seen(cells)}, grid, {"a": 1.0, "b": 1.0}, 1.0)
    direct = normalised(one.seen(cells).astype(np.float64) + two.seen(cells) - np.log(grid.prior))
    assert np.allclose(np.exp(said), np.exp(direct), atol=1e-4)


def test_weights_follow_what_experts_are_worth(grid: AnswerGrid):
    _, cells = drawn_truth(grid, 600, 5)
    good, bad = Drawn("good", grid, 1.2, 6), Drawn("bad", grid, 1.2, 7)
    said = {"good": good.seen(cells), "bad": bad.seen(np.random.default_rng(8).permutation(cells))}
    weights, prior_weight = fit_weights(said, grid, cells)
    assert weights["good"] == pytest.approx(1, abs=0.25)
    assert weights["bad"] < 0.1
    assert prior_weight > 0
    swapped, _ = fit_weights({"good": said["bad"], "bad": said["good"]}, grid, cells)
    assert swapped["good"] < 0.1 < swapped["bad"]


def test_an_expert_that_is_too_sure_is_believed_less(grid: AnswerGrid):
    _, cells = drawn_truth(grid, 600, 9)
    eye = Drawn("a", grid, 1.5, 10).seen(cells)
    too_sure = normalised(2 * (eye - np.log(grid.prior)) + np.log(grid.prior))
    weights, _ = fit_weights({"a": too_sure.astype(np.float32)}, grid, cells)
    assert weights["a"] == pytest.approx(0.5, abs=0.12)


# --- answers and regions ----------------------------------------------------------------------------------------------
def test_two_neighbours_outvote_a_single_cell_that_is_a_little_likelier(grid: AnswerGrid):
    lat, lng = grid.lat_deg, grid.lng_deg
    far = great_circle_m(lat[0], lng[0], lat, lng)
    near = np.argsort(far)[1]
    lonely = int(np.argmax(far))
    said = np.full((1, len(grid)), np.log(0.1 / len(grid)), np.float32)
    said[0, [0, near, lonely]] = np.log([0.28, 0.28, 0.34])
    assert answer_on_grid(said, grid, (round(far[near]) + 1,)).cells[0] in (0, near)
    assert answer_on_grid(said, grid, (1,)).cells[0] == lonely


def test_near_is_the_probability_within_each_radius(grid: AnswerGrid):
    _, cells = drawn_truth(grid, 20, 11)
    said = Drawn("a", grid, 1.0, 12).seen(cells)
    answers = answer_on_grid(said, grid, RADII)
    for row in range(20):
        at = answers.cells[row]
        away = great_circle_m(grid.lat_deg[at], grid.lng_deg[at], grid.lat_deg, grid.lng_deg)
        for number, radius in enumerate(RADII):
            assert answers.near[row, number] == pytest.approx(np.exp(said[row])[away <= radius].sum(), abs=2e-3)


# --- calibration ------------------------------------------------------------------------------------------------------
def test_a_probability_that_is_too_sure_is_brought_down():
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.02, 0.98, 4_000)
    true = rng.uniform(size=4_000) < honest
    claimed = honest**3 / (honest**3 + (1 - honest) ** 3)
    fitted = fit_beta_map(claimed, true)
    assert np.abs(fitted(claimed) - honest).mean() < 0.03
    assert (np.diff(fitted(np.linspace(0.01, 0.99, 50))) > 0).all()
    assert fit_beta_map(claimed, np.ones(4_000, bool)) == BetaMap()


def test_halves_keep_places_together():
    names = np.repeat(np.arange(40), 3).astype(str)
    first = halves_by_place(names, 0)
    assert first.sum() == 60
    assert all(len(set(first[names == name])) == 1 for name in names)


def test_the_threshold_refuses_the_share_that_was_chosen():
    rng = np.random.default_rng(0)
    places = np.arange(2_000).astype(str)

    def signs(a: float, b: float, count: int) -> dict[str, np.ndarray]:
        return {"a": rng.normal(a, 0.1, count), "b": rng.normal(b, 2, count), "c": rng.normal(size=count)}

    own = signs(0.6, -3, 2_000)
    known = fit_familiarity(own, signs(0.3, 3, 2_000), places, 0.05)
    assert known.is_outside(own).mean() == pytest.approx(0.05, abs=0.01)
    assert known.weights["a"] > 1 > -1 > known.weights["b"]  # photos of elsewhere have more of it
    assert abs(known.weights["c"]) < 0.3  # says nothing
    strangers = signs(0.3, 3, 500)
    assert known.is_outside(strangers).mean() > 0.95
    assert known.is_outside({**strangers, "b": own["b"][:500]}).mean() < known.is_outside(strangers).mean()


def test_of_what_it_was_fitted_on_a_regression_thinks_too_well():
    """A hundred signs that say nothing tell 60 photos apart that they were fitted on: the threshold is that of others."""
    rng = np.random.default_rng(0)

    def noise(count: int) -> dict[str, np.ndarray]:
        return {str(number): rng.normal(size=count) for number in range(100)}

    own = noise(60)
    known = fit_familiarity(own, noise(60), np.arange(60).astype(str), 0.1)
    assert known.is_outside(own).mean() < 0.02
    assert known.is_outside(noise(2_000)).mean() < 0.45


# --- all together -----------------------------------------------------------------------------------------------------
def fitted(grid: AnswerGrid, away_m: np.ndarray | None = None) -> tuple[Fusion, list[Any]]:
    experts: list[Any] = [Drawn("one", grid, 2.4, 20), Drawn("two", grid, 2.4, 21)]
    truth, cells = drawn_truth(grid, 1_200, 22)
    found = {expert.name: expert.seen(cells) for expert in experts}
    return fit_fusion(experts, found, truth, grid, RADII, refused=0.05, largest_region_km2=None, away_m=away_m), experts


def test_regions_are_as_wide_as_pictures_of_places_lie_apart(grid: AnswerGrid):
    apart = np.random.default_rng(0).uniform(0, 40, 500)
    assert fitted(grid, apart)[0].inside == learn_inside(apart)
    own = fitted(grid)[0].inside
    assert max(own.away_m) < 5  # the photos themselves were taken where the places are, of which two share a cell
    assert fitted(grid, apart[:19])[0].inside == own  # too few to say it


def test_regions_are_calibrated_and_filled_in_one_order(grid: AnswerGrid, monkeypatch: pytest.MonkeyPatch):
    orders: list[np.ndarray] = []
    insides: list[Inside] = []

    def noted(said: np.ndarray, log_area: np.ndarray, cells: np.ndarray, coverage: float, inside: Inside) -> float:
        orders.append(log_area)
        insides.append(inside)
        return conformal_bound(said, log_area, cells, coverage, inside)

    monkeypatch.setattr(fusion_fit, "conformal_bound", noted)
    fusion, _ = fitted(grid)
    assert orders
    assert all(np.array_equal(order, log_areas(grid)) for order in orders)
    assert set(insides) == {fusion.inside}
    anywhere = normalised(np.zeros((1, len(grid))))
    by_area, by_probability = (replace(fusion, by_area=chosen).answers(anywhere, 0.5) for chosen in (fusion.by_area, False))
    for answers, order in ((by_area, log_areas(grid)), (by_probability, np.zeros(1))):
        assert np.array_equal(answers.regions, fill_regions(anywhere, order, fusion.bounds[0.5], fusion.inside))
    assert by_area.area_km2[0] < 0.5 * by_probability.area_km2[0]  # the smallest cells, or all that are as probable


def test_the_fusion_is_better_than_either_and_means_what_it_says(grid: AnswerGrid):
    fusion, _ = fitted(grid)
    later: list[Any] = [Drawn("one", grid, 2.4, 120), Drawn("two", grid, 2.4, 121)]
    truth, cells = drawn_truth(grid, 1_200, 122)
    said = say_all(fusion, later, {expert.name: expert.seen(cells) for expert in later})

    def near(log_probabilities: np.ndarray) -> np.ndarray:
        answers = fusion.answers(log_probabilities, 0.9)
        return great_circle_m(truth.lat_deg, truth.lng_deg, answers.lat_deg, answers.lng_deg) <= 25

    together = fusion.answers(fusion.log_probabilities(said), 0.9)
    right = near(fusion.log_probabilities(said))
    assert right.mean() > max(near(fusion.alone(name, said[name])).mean() for name in said) + 0.1
    assert abs(together.within[:, 0].mean() - right.mean()) < 0.04
    sure = together.within[:, 0] > 0.8
    assert right[sure].mean() > 0.75
    where = true_places(grid, truth.lat_deg, truth.lng_deg)
    assert holds(together.regions, where).mean() == pytest.approx(0.9, abs=0.03)
    assert (np.diff(together.within, axis=1) >= 0).all()


def test_swapping_what_two_experts_say_is_seen(grid: AnswerGrid):
    truth, cells = drawn_truth(grid, 800, 30)
    experts: list[Any] = [Drawn("sharp", grid, 1.5, 31), Drawn("dull", grid, 4.0, 32)]
    found = {expert.name: expert.seen(cells) for expert in experts}
    mistaken = {"sharp": normalised(found["dull"] * 3), "dull": found["sharp"]}
    own, swapped = (
        fit_fusion(experts, said, truth, grid, RADII, refused=0.05, largest_region_km2=None) for said in (found, mistaken)
    )
    assert own.experts["sharp"].weight > 0.7
    assert swapped.experts["sharp"].weight < 0.5
    assert not np.allclose(own.log_probabilities(found), own.log_probabilities({"sharp": found["dull"], "dull": found["sharp"]}))


def test_an_index_of_known_pictures_says_who_is_a_stranger(grid: AnswerGrid):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(PLACES, 32))
    gallery = np.repeat(codes, PICTURES, axis=0) + 0.3 * rng.normal(size=(PLACES * PICTURES, 32))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    lat, lng = places()
    cells = np.repeat(grid.cells_of(lat, lng), PICTURES)
    head = learn_place_head(gallery.astype(np.float32), np.repeat(np.arange(PLACES), PICTURES), PLACES)
    experts: list[Any] = [
        HitsExpert("m-1", flat_search(gallery.astype(np.float32)), cells, grid),
        PlacesExpert("m-1", head, view_table(grid.cells_of(lat, lng), grid), grid),
    ]

    def look(vectors: np.ndarray) -> dict[str, Any]:
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return {expert.name: expert.look(Photos({"m-1": vectors}, lambda size: np.empty(0, np.uint8)), {}) for expert in experts}

    which = rng.integers(0, PLACES, 400)
    found = look(codes[which] + 0.3 * rng.normal(size=(400, 32)))
    truth = Truth(lat[which], lng[which], which.astype(str))
    fusion = fit_fusion(experts, found, truth, grid, RADII, refused=0.05, largest_region_km2=None)
    assert fusion.familiarity is not None
    assert fusion.familiarity.is_outside(signs_of(experts, look(rng.normal(size=(200, 32))))).mean() > 0.95
    others = look(codes[rng.integers(0, PLACES, 2_000)] + 0.3 * rng.normal(size=(2_000, 32)))
    assert fusion.familiarity.is_outside(signs_of(experts, others)).mean() == pytest.approx(0.05, abs=0.03)
    without = signs_of(experts, found, (truth.lat_deg, truth.lng_deg))
    strange = signs_of(experts, look(rng.normal(size=(2_000, 32))))
    for name, values in signs_of(experts, found).items():  # a photo whose place is hidden is seen as one of elsewhere is
        off = abs(without[name].mean() - strange[name].mean())
        assert off < 0.35 * abs(values.mean() - strange[name].mean()) + 0.05, name
    said = say_all(fusion, experts, found)
    right = fusion.answers(fusion.log_probabilities(said), 0.9).cells == grid.cells_of(truth.lat_deg, truth.lng_deg)
    assert right.mean() > 0.9


def test_too_few_places_is_one_clear_error(grid: AnswerGrid):
    eye: Any = Drawn("one", grid, 1.0, 1)
    truth, cells = drawn_truth(grid, 10, 1)
    with pytest.raises(NotEnoughDataError, match="places of the split dev"):
        fit_fusion([eye], {"one": eye.seen(cells)}, truth, grid, RADII, refused=0.05, largest_region_km2=None)


def test_every_place_of_dev_calibrates(grid: AnswerGrid):
    """Half of thirty photos could not promise 95 %: the bound would be infinite, and the region everything."""
    eye: Any = Drawn("one", grid, 1.0, 1)
    lat, lng = places()
    truth = Truth(lat[:30], lng[:30], np.arange(30).astype(str))
    seen = eye.seen(grid.cells_of(truth.lat_deg, truth.lng_deg))
    fusion = fit_fusion([eye], {"one": seen}, truth, grid, RADII, refused=0.05, largest_region_km2=None)
    assert np.isfinite(fusion.bounds[0.95])


def test_how_far_pictures_of_a_place_lie_apart_is_asked_of_places_with_two_dates():
    rows = [
        ("a1", "a", 45.0, -30.0, "2015-01-01"),
        ("a2", "a", 45.00001, -30.0, "2015-01-01"),  # another heading of that day
        ("a3", "a", 45.00009, -30.0, "2019-01-01"),
        ("a4", "a", 45.00002, -30.0, "2017-01-01"),
        ("b1", "b", 45.1, -30.0, "2016-01-01"),
        ("b2", "b", 45.1, -30.0, "2016-01-01"),
        ("c1", "c", 45.2, -30.0, None),
    ]
    gallery = pd.DataFrame(rows, columns=["capture_id", "location_id", "lat_deg", "lng_deg", "captured_on"])
    found = distances_within_places(gallery)
    assert found.tolist() == pytest.approx([10.0], abs=0.01)  # the newest of a, and nothing of b and c
