"""What two pictures share: much of one facade whatever the day, hardly anything of two."""

from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.retrieval.local_features import MOST, SIDE, WIDTH, inliers, local_features
from geoloc_dagster_tests.retrieval.facades import facade


def seen(place: int, day: int = 0) -> np.ndarray:
    return np.asarray(facade(place, day).resize((SIDE, SIDE)))


def test_pictures_of_one_facade_share_what_those_of_two_do_not() -> None:
    features = {(place, day): local_features(seen(place, day)) for place in range(8) for day in range(3)}
    same = [inliers(features[place, 0], features[place, day]) for place in range(8) for day in (1, 2)]
    other = [inliers(features[place, 0], features[(place + step) % 8, 1]) for place in range(8) for step in range(1, 8)]
    assert min(same) > 2 * max(other), (sorted(same), sorted(other))


def test_features_are_few_whole_and_always_the_same() -> None:
    features = local_features(seen(3))
    assert features.dtype == np.uint8
    assert 50 < len(features) <= MOST
    assert features.shape[1] == WIDTH
    assert features[:, :2].max() < SIDE
    np.testing.assert_array_equal(features, local_features(seen(3).copy()))
    assert inliers(features, features) > 0.9 * len(features)


def test_a_step_nearer_is_the_same_facade_and_upside_down_is_not() -> None:
    picture = facade(5)
    nearer = picture.crop((20, 20, 140, 140)).resize((SIDE, SIDE))
    known = local_features(seen(5, 1))
    assert inliers(local_features(np.asarray(nearer)), known) > 15
    upside_down = np.ascontiguousarray(seen(5)[::-1, ::-1])
    assert inliers(local_features(upside_down), known) < 8


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_even_picture_has_no_features_and_shares_nothing(grey: int) -> None:
    nothing = local_features(np.full((SIDE, SIDE, 3), grey, np.uint8))
    assert nothing.shape == (0, WIDTH)
    assert inliers(nothing, nothing) == inliers(nothing, local_features(seen(0))) == 0


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        local_features(np.zeros((SIDE, SIDE + 1, 3), np.uint8))
