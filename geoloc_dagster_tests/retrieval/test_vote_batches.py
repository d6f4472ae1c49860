"""Many queries at once answer as one by one, kernels and headings say who supports whom, dev photos choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.retrieval.headings import Headings, absolute_headings, agreement, view_headings
from geoloc_dagster.retrieval.rerank import VoteSettings, from_local_metres, geographic_vote, geographic_votes
from geoloc_dagster.retrieval.vote_choice import TEMPERATURES, choose_vote, vote_grid

LAT, LNG = 59.32, 18.06


def scattered(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Headings]:
    """Hits in clumps, some at one and the same position, with headings of both kinds."""
    rng = np.random.default_rng(seed)
    clump = rng.integers(0, 6, (n, k))
    lat = LAT + 0.004 * clump + np.round(rng.normal(0, 2e-4, (n, k)), 4)
    lng = LNG + 0.004 * (clump % 3) + np.round(rng.normal(0, 4e-4, (n, k)), 4)
    headings = Headings(rng.integers(0, 4, (n, k)) * 90.0, rng.integers(-1, 3, (n, k)))
    return np.sort(rng.uniform(0.3, 0.9, (n, k)), axis=1)[:, ::-1], lat, lng, headings


@pytest.mark.parametrize("kernel", ["disc", "gaussian"])
@pytest.mark.parametrize("bandwidth", [None, 30.0])
def test_many_queries_answer_as_one_by_one(kernel: Any, bandwidth: float | None) -> None:
    similarity, lat, lng, headings = scattered(40, 30, seed=3)
    photo = np.where(np.arange(40) % 3 == 0, np.nan, np.arange(40) * 9.0)
    settings = VoteSettings(temperature=0.05, radius_m=40, kernel=kernel, heading_bandwidth_deg=bandwidth)
    together = geographic_votes(similarity, lat, lng, settings, headings=headings, photo_heading_deg=photo)
    for i in range(40):
        heading = None if np.isnan(photo[i]) else float(photo[i])
        alone = geographic_vote(similarity[i], lat[i], lng[i], settings, headings=headings[i, :], photo_heading_deg=heading)
        for name in ("lat_deg", "lng_deg", "support", "spread_50_m", "spread_90_m", "winner"):
            assert getattr(together[i], name) == pytest.approx(getattr(alone, name), abs=1e-9), (i, name)
        np.testing.assert_allclose(together.weights[i], alone.weights)


def test_a_query_with_fewer_hits_answers_as_without_the_empty_ones() -> None:
    similarity, lat, lng, _ = scattered(5, 12, seed=1)
    settings = VoteSettings(temperature=0.1)
    padded = (np.pad(similarity, ((0, 0), (0, 4)), constant_values=-np.inf), *(np.pad(a, ((0, 0), (0, 4))) for a in (lat, lng)))
    votes, whole = geographic_votes(*padded, settings), geographic_votes(similarity, lat, lng, settings)
    np.testing.assert_allclose(votes.lat_deg, whole.lat_deg)
    np.testing.assert_allclose(votes.spread_90_m, whole.spread_90_m)
    with pytest.raises(ValueError, match="at least one hit"):
        geographic_votes(np.full((2, 3), -np.inf), lat[:2, :3], lng[:2, :3], settings)


def at(*metres: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (east, north) of the old town, in metres."""
    return from_local_metres(np.array(metres, float), LAT, LNG)


# --- the kernel ------------------------------------------------------------------------------------------------------
def test_a_gaussian_counts_hits_by_how_near_they_are() -> None:
    """Three hits 45 m around a fourth outvote two that coincide within a disc of 50 m, and do not under a Gaussian of 20 m."""
    lat, lng = at((0, 0), (45, 0), (-45, 0), (0, 45), (5000, 0), (5001, 0))
    similarity = np.array([0.5, 0.5, 0.5, 0.5, 0.51, 0.51])
    disc = geographic_vote(similarity, lat, lng, VoteSettings(temperature=0.1, radius_m=50))
    gaussian = geographic_vote(similarity, lat, lng, VoteSettings(temperature=0.1, radius_m=20, kernel="gaussian"))
    assert disc.winner == 0
    assert gaussian.winner in (4, 5)
    assert gaussian.support < disc.support


def test_a_gaussian_of_no_width_is_refused() -> None:
    with pytest.raises(ValueError, match="radius_m above 0"):
        VoteSettings(radius_m=0, kernel="gaussian")
    with pytest.raises(ValueError, match="heading_bandwidth_deg"):
        VoteSettings(heading_bandwidth_deg=0)
    with pytest.raises(ValueError, match="heading_bandwidth_deg"):
        VoteSettings(photo_heading_bandwidth_deg=-1)


# --- headings --------------------------------------------------------------------------------------------------------
def test_hits_that_look_the_same_way_outvote_more_hits_that_look_all_around() -> None:
    """Four pictures of one place in four directions are pictures of four scenes: three of the same scene weigh more."""
    lat, lng = at((0, 0), (0, 0), (0, 0), (0, 0), (900, 0), (900, 0), (910, 0))
    headings = absolute_headings([0, 90, 180, 270, 45, 45, 50])
    similarity = np.full(7, 0.6)
    blind = geographic_vote(similarity, lat, lng, VoteSettings(temperature=0.1), headings=headings)
    seeing = geographic_vote(similarity, lat, lng, VoteSettings(temperature=0.1, heading_bandwidth_deg=30), headings=headings)
    assert blind.winner < 4 <= seeing.winner


def test_the_heading_of_the_photo_decides_between_two_places() -> None:
    lat, lng = at((0, 0), (900, 0))
    headings = absolute_headings([180, 0])
    settings = VoteSettings(temperature=0.1, photo_heading_bandwidth_deg=30)
    for photo, winner in ((170.0, 0), (355.0, 1)):
        vote = geographic_vote([0.6, 0.6], lat, lng, settings, headings=headings, photo_heading_deg=photo)
        assert vote.winner == winner
        assert vote.weights[winner] > 0.99


def test_a_photo_that_looks_where_no_hit_looks_is_answered_all_the_same() -> None:
    lat, lng = at((0, 0), (900, 0))
    settings = VoteSettings(temperature=0.1, photo_heading_bandwidth_deg=2)
    headings = absolute_headings([0, 0])
    vote = geographic_vote([0.6, 0.5], lat, lng, settings, headings=headings, photo_heading_deg=180.0)
    assert vote.winner == 0
    assert np.isfinite([vote.lat_deg, vote.lng_deg, vote.spread_90_m]).all()


def test_headings_agree_across_north_and_only_where_they_can_be_compared() -> None:
    headings = view_headings(["h350", "h010", "r0", "r1", "r1", "v"], ["a", "b", "a", "a", "b", "a"])
    one, other = np.array([0, 2, 2, 0, 0, 5]), np.array([1, 3, 4, 2, 5, 5])
    # Across north; of one location; of two locations; absolute against a rotation; against nothing known.
    expected = [np.exp(-0.5), np.exp(-0.5 * 4.5**2), 1, 1, 1, 1]
    assert agreement(headings[one], headings[other], 20.0) == pytest.approx(expected)


# --- choosing --------------------------------------------------------------------------------------------------------
def town(n: int, seed: int, look_alike: float) -> tuple[np.ndarray, ...]:
    """Photos with three middling hits at their place and, in a share of cases, a better one across town."""
    rng = np.random.default_rng(seed)
    truth_lat, truth_lng = LAT + rng.uniform(0, 0.01, n), LNG + rng.uniform(0, 0.01, n)
    lat, lng = np.repeat(truth_lat[:, None], 4, axis=1), np.repeat(truth_lng[:, None], 4, axis=1)
    fooled = rng.random(n) < look_alike
    lat[fooled, 0] += 0.1
    lat[~fooled, 1:] -= 0.1 + 0.00001 * np.arange(3)
    similarity = np.tile([0.80, 0.79, 0.78, 0.78], (n, 1))
    return similarity, lat, lng, truth_lat, truth_lng


def test_where_neighbours_know_better_a_warm_vote_is_chosen() -> None:
    settings = choose_vote(*town(60, seed=0, look_alike=0.9))
    assert settings.temperature >= 0.02
    assert settings.k == 4


def test_where_the_nearest_picture_knows_best_no_vote_is_chosen() -> None:
    similarity, lat, lng, truth_lat, truth_lng = town(60, seed=0, look_alike=0.0)
    settings = choose_vote(similarity, lat, lng, truth_lat, truth_lng)
    votes = geographic_votes(similarity, lat, lng, settings)
    assert settings.temperature == TEMPERATURES[0]
    assert (great_circle_m(votes.lat_deg, votes.lng_deg, truth_lat, truth_lng) < 1).all()


def test_candidates_with_fewer_hits_vote_with_the_first_ones() -> None:
    data = town(40, seed=0, look_alike=0.9)
    assert choose_vote(*data, candidates=[VoteSettings(k=1, temperature=1.0), VoteSettings(k=4, temperature=1.0)]).k == 4
    assert choose_vote(*town(40, seed=0, look_alike=0.0), candidates=[VoteSettings(4, 1.0), VoteSettings(1, 1.0)]).k == 1


def test_too_few_photos_choose_nothing() -> None:
    with pytest.raises(NotEnoughDataError, match="29 held-out photos"):
        choose_vote(*(values[:29] for values in town(40, seed=0, look_alike=0.5)))


def test_the_grid_keeps_what_it_does_not_vary() -> None:
    grid = vote_grid(VoteSettings(k=20, kernel="gaussian", heading_bandwidth_deg=30))
    assert {(s.k, s.kernel, s.heading_bandwidth_deg) for s in grid} == {(20, "gaussian", 30)}
    assert len(set(grid)) == len(grid)
