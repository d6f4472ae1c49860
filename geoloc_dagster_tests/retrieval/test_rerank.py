"""Votes: hits that agree outweigh a lone look-alike, and the answer minimises the weighted distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.retrieval.geometric_median import geometric_median
from geoloc_dagster.retrieval.rerank import (
    VoteSettings,
    from_local_metres,
    geographic_vote,
    local_metres,
    weighted_quantile,
)

COORDINATES = st.floats(-500, 500, allow_subnormal=False).map(lambda value: round(value, 2))


def clouds() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    def of_size(n: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
        weights = st.integers(1, 100).map(lambda value: value / 10)
        return st.tuples(arrays(np.float64, (n, 2), elements=COORDINATES), arrays(np.float64, n, elements=weights))

    return st.integers(1, 12).flatmap(of_size)


def total(point: np.ndarray, points: np.ndarray, weights: np.ndarray) -> float:
    return float(np.linalg.norm(points - point, axis=1) @ weights)


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_no_point_nearby_has_a_smaller_sum_of_distances(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    points, weights = cloud
    median = geometric_median(points, weights)
    reached = total(median, points, weights)
    slack = 1e-3 * weights.sum()
    for radius in (0.1, 5.0, 100.0):
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            other = median + radius * np.array([np.cos(angle), np.sin(angle)])
            assert reached <= total(other, points, weights) + slack
    assert all(reached <= total(point, points, weights) + 1e-9 for point in points)


@pytest.mark.parametrize(
    ("points", "weights", "expected"),
    [
        ([(0, 0)], [1], (0, 0)),
        ([(0, 0), (10, 0), (0, 10), (10, 10)], [1, 1, 1, 1], (5, 5)),
        ([(0, 0), (100, 0), (0, 100)], [3, 1, 1], (0, 0)),  # a majority holds the answer
        ([(0, 0), (0, 0), (0, 0), (50, 0), (80, 0)], [1, 1, 1, 1, 1], (0, 0)),  # coinciding points count together
        ([(0, 0), (1, 0), (2, 0), (1000, 0), (1, 0)], [1, 1, 1, 1, 1], (1, 0)),  # as the median on a line
        ([(0, 0), (2, 0), (1, 3**0.5)], [1, 1, 1], (1, 1 / 3**0.5)),  # the Fermat point of an equilateral triangle
    ],
)
def test_known_medians(points: list, weights: list, expected: tuple[float, float]) -> None:
    median = geometric_median(np.array(points, float), np.array(weights, float))
    np.testing.assert_allclose(median, expected, atol=1e-3)


def test_three_hits_of_one_crossing_outvote_a_better_look_alike_across_town() -> None:
    lat = np.array([59.40, 59.3200, 59.3201, 59.3202])
    lng = np.array([18.20, 18.0600, 18.0600, 18.0600])
    vote = geographic_vote([0.90, 0.88, 0.88, 0.87], lat, lng, VoteSettings(temperature=0.05, radius_m=50))
    assert great_circle_m(vote.lat_deg, vote.lng_deg, 59.3201, 18.06) < 15
    assert 0.5 < vote.support < 1
    assert vote.spread_50_m < 50 < vote.spread_90_m  # the look-alike is one of the votes


def test_with_a_low_temperature_the_best_hit_decides_alone() -> None:
    lat, lng = np.array([59.40, 59.32, 59.32, 59.32]), np.array([18.2, 18.06, 18.06, 18.06])
    vote = geographic_vote([0.90, 0.88, 0.88, 0.87], lat, lng, VoteSettings(temperature=0.001))
    assert (vote.lat_deg, vote.lng_deg) == pytest.approx((59.40, 18.2))


def test_a_single_hit_is_the_answer_with_no_spread() -> None:
    vote = geographic_vote([0.3], np.array([59.3]), np.array([18.0]), VoteSettings())
    assert (vote.lat_deg, vote.lng_deg) == pytest.approx((59.3, 18.0))
    assert (vote.support, vote.spread_50_m, vote.spread_90_m) == pytest.approx((1, 0, 0))


def test_hits_on_both_sides_of_the_antimeridian_are_neighbours() -> None:
    vote = geographic_vote([0.9, 0.9], np.array([-17.0, -17.0]), np.array([179.9999, -179.9999]), VoteSettings(radius_m=50))
    assert vote.support == pytest.approx(1)
    assert abs(vote.lng_deg) > 179.99


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_spreads_hold_the_share_of_votes_that_they_name(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lng = 59.3 + rng.normal(0, 0.002, 20), 18.0 + rng.normal(0, 0.004, 20)
    vote = geographic_vote(rng.uniform(0.2, 0.9, 20), lat, lng, VoteSettings())
    away = great_circle_m(vote.lat_deg, vote.lng_deg, lat, lng)
    for share, radius in ((0.5, vote.spread_50_m), (0.9, vote.spread_90_m)):
        assert vote.weights[away <= radius * 1.005 + 0.01].sum() >= share - 1e-9
        assert vote.weights[away < radius * 0.995 - 0.01].sum() < share


@pytest.mark.parametrize("similarity", [[], [np.nan], [np.inf]])
def test_nothing_to_vote_on_is_refused(similarity: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one hit"):
        geographic_vote(similarity, np.zeros(len(similarity)), np.zeros(len(similarity)), VoteSettings())


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"k": 0}, {"temperature": 0.0}, {"radius_m": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            VoteSettings(**bad)  # type: ignore[arg-type]


@given(st.floats(-60, 60), st.floats(-180, 179.9), st.floats(-2000, 2000), st.floats(-2000, 2000))
def test_local_metres_and_back(lat: float, lng: float, east: float, north: float) -> None:
    there = from_local_metres(np.array([east, north]), lat, lng)
    back = local_metres(np.array([there[0]]), np.array([there[1]]), lat, lng)[0]
    np.testing.assert_allclose(back, (east, north), atol=1e-3)


def test_local_metres_agree_with_the_great_circle() -> None:
    east, north = local_metres(np.array([59.33]), np.array([18.08]), 59.32, 18.06)[0]
    assert np.hypot(east, north) == pytest.approx(float(great_circle_m(59.32, 18.06, 59.33, 18.08)), rel=1e-3)


def test_weighted_quantile_of_known_values() -> None:
    values, weights = np.array([30.0, 10.0, 20.0]), np.array([0.5, 0.2, 0.3])
    assert [weighted_quantile(values, weights, share) for share in (0.2, 0.21, 0.5, 0.51, 1.0)] == [10, 20, 20, 30, 30]
