from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.evaluation import ranking
from geoloc_dagster.evaluation.ranking import Side, normalise, rank


def random_sides(seed: int, queries: int = 37, gallery: int = 90, places: int = 12, dimension: int = 16):
    rng = np.random.default_rng(seed)
    q = Side(normalise(rng.standard_normal((queries, dimension))), rng.integers(0, places, queries))
    g = Side(normalise(rng.standard_normal((gallery, dimension))), rng.integers(0, places, gallery))
    return q, g


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block_bytes", [1, 64 * 2**20])
def test_agrees_with_sorting_everything(seed, block_bytes, monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", block_bytes)
    q, g = random_sides(seed)
    result = rank(q, g, 10)
    for i in range(len(q.place)):
        order = np.argsort(-(g.vectors @ q.vectors[i]))
        assert result.neighbours[i].tolist() == order[:10].tolist()
        hits = np.flatnonzero(g.place[order] == q.place[i])
        assert result.first_hit[i] == (hits[0] + 1 if len(hits) else 0)
        np.testing.assert_allclose(result.similarities[i], (g.vectors @ q.vectors[i])[order[:10]], atol=1e-6)


def test_a_model_that_maps_everything_to_one_vector_finds_nothing():
    q, g = random_sides(0)
    same = rank(Side(np.full_like(q.vectors, 0.25), q.place), Side(np.full_like(g.vectors, 0.25), g.place), 10)
    assert not same.hit_at(10).any()


def test_pictures_without_contrast_find_nothing():
    q, g = random_sides(0)
    zero = normalise(np.zeros_like(q.vectors))
    assert not rank(Side(zero, q.place), g, 10).hit_at(1).any()


def test_a_place_without_another_picture_is_never_hit():
    q, g = random_sides(1)
    result = rank(Side(q.vectors, np.full_like(q.place, 99)), g, 5)
    assert (result.first_hit == 0).all()
    assert not result.hit_at(5).any()


def test_own_place_on_the_own_day_is_left_out_but_other_places_of_that_day_are_not():
    vectors = normalise(np.array([[1.0, 0.0]]))
    gallery = normalise(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]]))
    q = Side(vectors, np.array([7]), np.array([1]))
    g = Side(gallery, np.array([7, 8, 7]), np.array([1, 1, 2]))
    result = rank(q, g, 3)
    assert result.neighbours.tolist() == [[1, 2, -1]]
    assert result.first_hit.tolist() == [2]


def test_a_gallery_smaller_than_k_is_padded():
    q, g = random_sides(2, gallery=3)
    result = rank(q, g, 10)
    assert (result.neighbours[:, 3:] == -1).all()
    assert np.isnan(result.similarities[:, 3:]).all()
    assert (np.sort(result.neighbours[:, :3], axis=1) == [0, 1, 2]).all()
