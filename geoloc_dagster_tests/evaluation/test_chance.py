"""Baselines that learn nothing: colours, the commonest class, and a random training photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation import chance
from geoloc_dagster.evaluation.chance import largest_class, random_training
from geoloc_dagster.evaluation.colour_histogram import answer_by_colour, colour_histograms, most_similar
from geoloc_dagster.evaluation.geolocation import WORLD, city_scale, errors_m, geo_score, hits
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster_tests.evaluation.test_geolocation import names, positions, scattered


def flat(*colours: tuple[int, int, int], size: int = 8) -> np.ndarray:
    return np.array(colours, np.uint8)[:, :, None, None] * np.ones((1, 1, size, size), np.uint8)


def test_a_histogram_by_hand():
    picture = flat((255, 0, 0))
    picture[0, :, :, 4:] = np.array([0, 0, 64], np.uint8)[:, None, None]
    whole = colour_histograms(picture, bins=4, grid=1)[0]
    assert np.flatnonzero(whole).tolist() == [1, 48]
    assert whole[[1, 48]] == pytest.approx([np.sqrt(0.5)] * 2)
    parts = colour_histograms(picture, bins=4, grid=2)[0].reshape(4, 64)
    assert [np.flatnonzero(part).tolist() for part in parts] == [[48], [1], [48], [1]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), grid=st.integers(1, 5), bins=st.integers(1, 6), size=st.integers(5, 17))
def test_histograms_are_unit_vectors_of_their_own_picture(seed: int, grid: int, bins: int, size: int):
    pictures = np.random.default_rng(seed).integers(0, 256, (3, 3, size, size + 2), np.uint8)
    made = colour_histograms(pictures, bins=bins, grid=grid)
    assert made.shape == (3, grid**2 * bins**3)
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(colour_histograms(pictures[2:], bins=bins, grid=grid)[0], made[2])


def test_a_photo_is_where_the_one_of_its_colours_was_and_of_equal_ones_the_first():
    training = colour_histograms(flat((250, 10, 10), (10, 250, 10), (10, 10, 250), (10, 10, 250)))
    where = positions((1, 1), (2, 2), (3, 3), (4, 4))
    queries = colour_histograms(flat((10, 10, 240), (240, 20, 20)))
    assert most_similar(queries, training).tolist() == [2, 0]
    assert answer_by_colour(queries, training, where).lat_deg.tolist() == [3, 1]


def test_more_pictures_than_a_block_give_the_same_answers(monkeypatch: pytest.MonkeyPatch):
    pictures = np.random.default_rng(0).integers(0, 256, (600, 3, 6, 6), np.uint8)
    made = colour_histograms(pictures)
    found = most_similar(made, made)
    assert found.tolist() == list(range(600))
    monkeypatch.setattr("geoloc_dagster.evaluation.colour_histogram._BLOCK_BYTES", 4 * 600 * 7)
    assert np.array_equal(most_similar(made, made), found)


def test_pictures_that_are_none_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        colour_histograms(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        colour_histograms(np.zeros((1, 3, 2, 2), np.uint8), grid=3)
    with pytest.raises(ValueError, match="cannot compare"):
        most_similar(np.zeros((1, 4), np.float32), np.zeros((0, 4), np.float32))


def test_the_commonest_class_is_always_the_answer():
    level = CellLevel("fine", np.arange(3, dtype=np.uint64), np.array([5, 9, 9]), np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
    answers = largest_class(2, level)
    assert (answers.lat_deg.tolist(), answers.lng_deg.tolist()) == ([2, 2], [5, 5])
    empty = CellLevel("fine", np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    with pytest.raises(NotEnoughDataError):
        largest_class(2, empty)


@pytest.mark.parametrize("scale", [WORLD, city_scale(20_000)], ids=["world", "city"])
def test_the_expected_share_is_that_of_every_pair(scale, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    near = 0.02 if scale is not WORLD else 20
    truth = positions(*rng.uniform(-near, near, (40, 2)))
    training = positions(*rng.uniform(-near, near, (70, 2)))
    training.lat_deg[0], training.lng_deg[0] = truth.lat_deg[0], truth.lng_deg[0]
    monkeypatch.setattr(chance, "_PAIRS_PER_BLOCK", 300)
    result = random_training(truth, training, names(40), scale=scale, bootstrap=20)
    pairs = np.repeat(np.arange(40), 70)
    errors = errors_m(truth.take(pairs), training.take(np.tile(np.arange(70), 40)))
    assert [share.value for share in result.shares.within_m.values()] == pytest.approx(hits(errors, scale).mean(axis=0).tolist())
    assert result.shares.score.value == pytest.approx(geo_score(errors, scale).mean(), rel=1e-6)
    assert (result.n_training, result.n_used) == (70, 70)


def test_too_many_pairs_are_drawn_from_and_said_so():
    truth, training = scattered(50, 0), scattered(2_000, 1)
    whole = random_training(truth, training, names(50), bootstrap=0)
    part = random_training(truth, training, names(50), bootstrap=0, max_pairs=25_000)
    assert (part.n_training, part.n_used) == (2_000, 500)
    far = WORLD.radii_m[-1]
    assert part.shares.within_m[far].value == pytest.approx(whole.shares.within_m[far].value, abs=0.01)
    assert whole.shares.within_m[far].value == pytest.approx((1 - np.cos(far / 6_371_008.8)) / 2, abs=0.005)  # the cap's area
    with pytest.raises(NotEnoughDataError):
        random_training(truth, positions(), names(50))
