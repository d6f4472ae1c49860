from __future__ import annotations

import time

import numpy as np
import pytest

from geoloc_dagster.evaluation.bootstrap import intervals, paired_bootstrap, paired_differences


def clustered(rng, places: int, per_place: int, mean: float = 0.6, spread: float = 2.0):
    """Queries of one place are found or missed together: each place has its own probability."""
    p = rng.beta(mean * spread, (1 - mean) * spread, places)
    return (rng.random((places, per_place)) < p[:, None]).ravel(), np.repeat(np.arange(places), per_place)


def test_the_value_is_the_share_of_queries_not_the_mean_over_places():
    hits = np.array([True, True, True, False])
    [interval] = intervals(hits[:, None], np.array(["a", "a", "a", "b"]), 200, seed=0)
    assert interval.value == 0.75
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_intervals_by_place_cover_the_truth_where_intervals_by_query_do_not():
    rng = np.random.default_rng(0)
    covered_by_place = covered_by_query = 0
    for seed in range(200):
        hits, places = clustered(rng, 60, 8)
        [by_place] = intervals(hits[:, None], places, 300, seed)
        [by_query] = intervals(hits[:, None], np.arange(len(hits)), 300, seed)
        covered_by_place += by_place.low <= 0.6 <= by_place.high
        covered_by_query += by_query.low <= 0.6 <= by_query.high
    assert 0.89 <= covered_by_place / 200 <= 0.99
    assert covered_by_query / 200 < 0.80


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    hits, places = clustered(np.random.default_rng(1), 30, 4)
    first, again, other = (intervals(hits[:, None], places, 200, seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_blocks_of_resamples_add_up(monkeypatch):
    from geoloc_dagster.evaluation import bootstrap

    hits, places = clustered(np.random.default_rng(1), 30, 4)
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_BLOCK", 70)
    assert sum(len(w) for w in bootstrap._weights(30, 101, 0)) == 101
    assert all((w.sum(axis=1) == 30).all() for w in bootstrap._weights(30, 101, 0))
    assert intervals(hits[:, None], places, 101, 0)[0].value == hits.mean()


def test_identical_models_do_not_differ():
    hits, places = clustered(np.random.default_rng(2), 50, 4)
    result = paired_bootstrap(hits, hits, places, 500, seed=0)
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_pairs_compared_together_come_out_as_they_do_alone():
    rng = np.random.default_rng(5)
    models = [clustered(rng, 40, 3)[0] for _ in range(3)]
    places = np.repeat(np.arange(40), 3)
    together = paired_differences(np.stack([models[0] - 1.0 * model for model in models[1:]], axis=1), places, 200, seed=0)
    assert together == [paired_bootstrap(models[0], model, places, 200, seed=0) for model in models[1:]]


def test_weights_make_some_queries_count_for_more():
    hits, places = np.array([True, False, False]), np.array(["a", "b", "c"])
    [heavy] = intervals(hits[:, None], places, 200, 0, np.array([8.0, 1.0, 1.0]))
    assert heavy.value == 0.8
    [alike] = intervals(hits[:, None], places, 200, 0, np.full(3, 7.0))
    [plain] = intervals(hits[:, None], places, 200, 0)
    assert (alike.value, alike.low, alike.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_a_small_steady_gain_is_seen_because_the_queries_are_the_same():
    rng = np.random.default_rng(3)
    worse, places = clustered(rng, 200, 4)
    better = worse | (rng.random(len(worse)) < 0.1)
    result = paired_bootstrap(better, worse, places, 1000, seed=0)
    assert result.low > 0
    assert result.p < 0.01
    [a], [b] = (intervals(hits[:, None], places, 1000, seed=0) for hits in (better, worse))
    assert a.low < b.high  # the separate intervals overlap
    turned = paired_bootstrap(worse, better, places, 1000, seed=0)
    assert turned.difference == -result.difference
    assert turned.high < 0


def test_models_that_do_not_differ_are_rarely_called_different():
    rng = np.random.default_rng(4)
    called = 0
    for seed in range(200):
        a, places = clustered(rng, 60, 4)
        swap = rng.random(60)[places] < 0.5
        b = np.where(swap, rng.permutation(a.reshape(60, 4).T).T.ravel(), a)
        called += paired_bootstrap(a, b, places, 300, seed).p < 0.05
    assert called / 200 < 0.10


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one query"):
        intervals(np.empty((0, 1)), np.empty(0), 10, 0)
    with pytest.raises(ValueError, match="as many hits as places"):
        paired_bootstrap(np.ones(3), np.ones(2), np.ones(3), 10, 0)


@pytest.mark.slow
def test_a_thousand_resamples_of_ten_thousand_places_take_less_than_two_seconds():
    rng = np.random.default_rng(0)
    hits = rng.random((10_000, 12)) < 0.5
    started = time.process_time()
    intervals(hits, rng.permutation(10_000), 1000, seed=0)
    assert time.process_time() - started < 2
