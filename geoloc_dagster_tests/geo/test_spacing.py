from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Geod

from geoloc_dagster.geo.spacing import close_pairs, keep_apart

GEOD = Geod(ellps="WGS84")

# Where the coordinates themselves are awkward: a city, the equator, a pole, the antimeridian, the far south.
CENTRES = [(59.32494, 18.06936), (0.0, 0.0), (89.9999, 40.0), (10.0, 179.9999), (-54.8, -68.3)]


@st.composite
def crowds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Up to 60 points within a few hundred metres, some of them coincident."""
    lat0, lng0 = draw(st.sampled_from(CENTRES))
    offsets = draw(st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), max_size=60))
    north = np.array([n for n, _ in offsets], dtype=float) * 1e-4
    east = np.array([e for _, e in offsets], dtype=float) * 1e-4
    lat = np.clip(lat0 + north, -90, 90)
    return lat, (lng0 + east + 180) % 360 - 180


def distances(lat: np.ndarray, lng: np.ndarray) -> np.ndarray:
    n = len(lat)
    a, b = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    return np.asarray(GEOD.inv(lng[a], lat[a], lng[b], lat[b])[2]).reshape(n, n)


def first_come_first_served(metres: np.ndarray, spacing_m: float) -> list[int]:
    """The definition, word for word: two nested loops."""
    kept: list[int] = []
    for i in range(len(metres)):
        if all(metres[i, j] >= spacing_m for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(crowds(), st.sampled_from([5.0, 35.0, 100.0, 700.0]))
@example((np.zeros(40) + 59.3, np.zeros(40) + 18.0), 35.0)
def test_what_is_kept_is_what_two_nested_loops_over_geodesics_would_keep(points: tuple[np.ndarray, np.ndarray], spacing_m: float):
    lat, lng = points
    kept = np.flatnonzero(keep_apart(lat, lng, spacing_m)).tolist()
    assert kept == (first_come_first_served(distances(lat, lng), spacing_m) if len(lat) else [])


@pytest.mark.parametrize("n", [3_000, 9_000])
def test_blocks_do_not_show_in_the_result(n: int):
    """More points than are settled at once, so that choices reach across blocks."""
    rng = np.random.default_rng(7)
    lat, lng = 59.32 + rng.random(n) * 0.02, 18.06 + rng.random(n) * 0.04
    kept = keep_apart(lat, lng, 60)
    assert len(close_pairs(lat[kept], lng[kept], 60)) == 0
    # Maximal: whatever was left out has an earlier kept point within the spacing.
    pairs = close_pairs(lat, lng, 60)
    i, j = pairs["i"].to_numpy(), pairs["j"].to_numpy()
    excused = np.zeros(n, dtype=bool)
    excused[j[kept[i]]] = True
    assert (kept | excused).all()
    assert not excused[kept].any()


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("spacing_m", [35.0, 100.0, 10_000.0])
def test_a_nanometre_of_geodesic_decides(centre: tuple[float, float], spacing_m: float):
    """Chords differ from geodesics by more than this at 10 km: only measuring along the ellipsoid gets it right."""
    lat0, lng0 = centre
    for azimuth in (0.0, 37.0, 90.0):
        lng1, lat1, _ = GEOD.fwd(lng0, lat0, azimuth, spacing_m)
        metres = GEOD.inv(lng0, lat0, lng1, lat1)[2]
        pair = np.array([lat0, lat1]), np.array([lng0, lng1])
        assert keep_apart(*pair, metres).tolist() == [True, True]  # "at least" includes equal
        assert keep_apart(*pair, float(np.nextafter(metres, np.inf))).tolist() == [True, False]


def test_registered_points_keep_newcomers_away_but_not_each_other():
    registered = np.array([59.32, 59.32001]), np.array([18.06, 18.06])  # 1 m apart, and both stay
    lat, lng = np.array([59.3201, 59.33]), np.array([18.06, 18.06])
    assert keep_apart(lat, lng, 35, *registered).tolist() == [False, True]


def test_a_crowd_at_one_spot_keeps_one_although_its_pairs_would_not_fit_in_memory():
    lat, lng = np.full(200_000, 59.32), np.full(200_000, 18.06)
    kept = keep_apart(lat, lng, 35)
    assert kept.sum() == 1
    assert kept[0]


@settings(max_examples=40, deadline=None)
@given(crowds(), st.sampled_from([5.0, 35.0, 100.0]))
def test_close_pairs_are_exactly_those_below_the_spacing(points: tuple[np.ndarray, np.ndarray], spacing_m: float):
    lat, lng = points
    found = close_pairs(lat, lng, spacing_m)
    below = np.argwhere(np.triu(distances(lat, lng) < spacing_m, k=1)).tolist() if len(lat) else []
    assert sorted(found[["i", "j"]].to_numpy().tolist()) == below
    assert found["distance_m"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("lat", "lng", "spacing_m"),
    [
        ([1.0], [1.0, 2.0], 35),
        ([float("nan")], [1.0], 35),
        ([1.0], [float("inf")], 35),
        ([1.0], [1.0], 0),
        ([1.0], [1.0], float("nan")),
    ],
)
def test_nonsense_is_refused(lat: list[float], lng: list[float], spacing_m: float):
    with pytest.raises(ValueError, match=r"length|finite|spacing"):
        keep_apart(np.array(lat), np.array(lng), spacing_m)
