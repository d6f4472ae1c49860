import datetime as dt
import itertools
import math
import random
from collections import Counter

import pytest

from geoloc_dagster.emulator.city import City, Place
from geoloc_dagster.emulator.plane import Plane
from geoloc_dagster.errors import ConfigError
from geoloc_dagster.geo.distance import great_circle_m

ORIGIN = (59.33, 18.06)


@pytest.fixture(scope="module")
def city() -> City:
    return City(ORIGIN)


def scattered(city: City, count: int, *, seed: int = 0, radius_m: float = 50.0) -> list[Place | None]:
    chance = random.Random(seed)
    return [
        city.nearest(ORIGIN[0] + chance.uniform(-0.01, 0.01), ORIGIN[1] + chance.uniform(-0.02, 0.02), radius_m)
        for _ in range(count)
    ]


def test_two_cities_of_one_seed_know_the_same_places_whatever_they_were_asked_before(city: City) -> None:
    other = City(ORIGIN)
    other.nearest(59.4, 18.2, 500.0)
    assert scattered(city, 50) == scattered(other, 50)


def test_another_seed_is_another_city(city: City) -> None:
    assert scattered(city, 20) != scattered(City(ORIGIN, seed=1), 20)


def test_a_place_is_found_again_by_its_id(city: City) -> None:
    places = [place for place in scattered(city, 40) if place]
    assert places
    for place in places:
        assert city.place(place.place_id) == place
        assert city.nearest(place.lat_deg, place.lng_deg, 1.0) == place
        assert 0 <= place.place_id < 2**56


@pytest.mark.parametrize("place_id", [-1, 2**56, 2**56 + 5, 2**70, (32768 << 40) | (32768 << 24) | (4000 << 12)])
def test_ids_of_nothing_have_no_place(city: City, place_id: int) -> None:
    assert city.place(place_id) is None


@pytest.mark.parametrize("radius_m", [5.0, 50.0, 180.0])
def test_nearest_agrees_with_looking_at_every_place(city: City, radius_m: float) -> None:
    chance = random.Random(7)
    plane = Plane(ORIGIN)
    found = 0
    for _ in range(60):
        x, y = chance.uniform(-900, 900), chance.uniform(-900, 900)
        candidates = [(math.hypot(px - x, py - y), place_id) for place_id, px, py in city._book.around(x, y, radius_m)]
        best = min((c for c in candidates if c[0] <= radius_m), default=None)
        place = city.nearest(*plane.degrees(x, y), radius_m)
        if best is None:
            assert place is None
        else:
            found += 1
            assert place is not None
            px, py = plane.metres(place.lat_deg, place.lng_deg)
            assert math.hypot(px - x, py - y) == pytest.approx(best[0], abs=1e-6)
    assert found


def test_streets_and_stretches_without_coverage_exist(city: City) -> None:
    missing = sum(place is None for place in scattered(city, 1500, radius_m=12.0))
    near = sum(place is None for place in scattered(city, 1500, radius_m=50.0))
    assert near < missing
    assert 0.01 < near / 1500 < 0.2


def test_most_places_have_two_to_six_dates_and_some_have_one(city: City) -> None:
    places = [place for place in scattered(city, 1500) if place]
    counts = Counter(sum(s.captured_on < dt.date(2026, 11, 1) for s in place.snapshots) for place in places)
    assert 0.05 < sum(len(place.snapshots) == 1 for place in places) / len(places) < 0.2
    assert sum(counts[n] for n in range(2, 7)) / len(places) > 0.75
    assert any(snapshot.captured_on > dt.date(2026, 11, 1) for place in places for snapshot in place.snapshots)


def test_snapshots_are_numbered_in_the_order_of_their_months(city: City) -> None:
    for place in filter(None, scattered(city, 300)):
        dates = [snapshot.captured_on for snapshot in place.snapshots]
        assert dates == sorted(set(dates))
        assert [snapshot.number for snapshot in place.snapshots] == list(range(len(dates)))
        assert all(date.day == 1 and 2009 <= date.year <= 2030 for date in dates)
        assert all(snapshot.place_id == place.place_id for snapshot in place.snapshots)


def test_the_camera_stood_near_the_place_but_not_always_at_one_spot(city: City) -> None:
    for place in filter(None, scattered(city, 100)):
        for snapshot in place.snapshots:
            assert great_circle_m(place.lat_deg, place.lng_deg, snapshot.lat_deg, snapshot.lng_deg) < 2.5
        if len(place.snapshots) > 1:
            assert len({(snapshot.lat_deg, snapshot.lng_deg) for snapshot in place.snapshots}) == len(place.snapshots)


def test_places_follow_each_other_along_a_street_at_about_ten_metres(city: City) -> None:
    pairs = [
        (city.place(p.place_id), city.place(p.place_id + 1))
        for p in filter(None, scattered(city, 200))
        if p.place_id & 0xFFF < 4095
    ]
    gaps = [float(great_circle_m(a.lat_deg, a.lng_deg, b.lat_deg, b.lng_deg)) for a, b in pairs if b]
    assert len(gaps) > 50
    assert all(8.0 < gap < 13.0 for gap in gaps)


@pytest.mark.parametrize("origin", [(0.0, 0.0), (59.33, 18.06), (-54.8, -68.3), (78.22, 15.65), (52.0, 179.999), (52.0, -180.0)])
def test_positions_come_back_from_the_plane(origin: tuple[float, float]) -> None:
    plane = Plane(origin)
    for x, y in itertools.product((-20_000.0, -3.25, 0.0, 15_000.0), repeat=2):
        lat_deg, lng_deg = plane.degrees(x, y)
        assert -180.0 <= lng_deg < 180.0
        assert plane.metres(lat_deg, lng_deg) == pytest.approx((x, y), abs=1e-5)


def test_a_city_goes_on_across_the_antimeridian() -> None:
    city = City((52.0, 179.9999))
    beyond = [city.nearest(52.0, lng, 300.0) for lng in (-179.999, 179.998)]
    assert all(beyond)
    assert beyond[0] is not None
    assert beyond[0].lng_deg < 0


@pytest.mark.parametrize("origin", [(86.0, 0.0), (-90.0, 0.0), (0.0, 181.0), (math.nan, 0.0), (0.0, math.inf)])
def test_no_city_is_built_where_there_is_no_plane(origin: tuple[float, float]) -> None:
    with pytest.raises(ConfigError):
        City(origin)
