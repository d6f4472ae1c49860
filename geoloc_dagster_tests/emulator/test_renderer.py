import datetime as dt
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from geoloc_dagster.emulator.city import CLASSES, City, Place, Snapshot, View

ORIGIN = (59.33, 18.06)
SKY, BUILDING, ROAD, VEGETATION, VEHICLE = (CLASSES.index(name) for name in ("sky", "building", "road", "vegetation", "vehicle"))


@pytest.fixture(scope="module")
def city() -> City:
    return City(ORIGIN)


@pytest.fixture(scope="module")
def places(city: City) -> list[Place]:
    """Six places within a few streets, so that they share what has to be set up."""
    chance = random.Random(2)
    found: dict[int, Place] = {}
    while len(found) < 6:
        place = city.nearest(ORIGIN[0] + chance.uniform(-0.001, 0.001), ORIGIN[1] + chance.uniform(-0.002, 0.002), 60.0)
        if place and len(place.snapshots) > 3:
            found[place.place_id] = place
    return list(found.values())


def shoot(
    city: City, snapshot: Snapshot, heading_deg: float, *, size: int = 160, fov_deg: float = 90.0, pitch_deg: float = 0.0
) -> View:
    return city.render(
        snapshot.lat_deg,
        snapshot.lng_deg,
        heading_deg=heading_deg,
        pitch_deg=pitch_deg,
        fov_deg=fov_deg,
        width=size,
        height=size,
        date=snapshot.captured_on,
    )


def views(city: City, places: list[Place]) -> Iterator[View]:
    for k, place in enumerate(places):
        for heading_deg in (0.0, 130.0):
            yield shoot(city, place.snapshots[k % len(place.snapshots)], heading_deg)


def test_two_cities_of_one_seed_show_the_same_bytes(city: City, places: list[Place]) -> None:
    other = City(ORIGIN)
    for place in reversed(places[:2]):
        mine, theirs = shoot(city, place.snapshots[0], 33.0), shoot(other, place.snapshots[0], 33.0)
        assert np.array_equal(mine.rgb, theirs.rgb)
        assert np.array_equal(mine.classes, theirs.classes)


def test_what_was_drawn_before_changes_nothing(places: list[Place]) -> None:
    """The skyline far away once had a colour of whatever sky was drawn first."""

    def seen_after(first: Snapshot) -> list[View]:
        city = City(ORIGIN)
        shoot(city, first, 0.0, size=64)
        return [shoot(city, places[0].snapshots[0], heading, size=96) for heading in range(0, 360, 30)]

    known, *others = (seen_after(snapshot) for snapshot in places[0].snapshots[:4])
    for seen in others:
        assert all(np.array_equal(mine.rgb, theirs.rgb) for mine, theirs in zip(known, seen, strict=True))


def test_threads_see_what_one_would(city: City, places: list[Place]) -> None:
    headings = [20.0 * k for k in range(12)]
    alone = [shoot(city, places[0].snapshots[1], heading).rgb for heading in headings]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda heading: shoot(city, places[0].snapshots[1], heading).rgb, headings))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(("width", "height"), [(640, 640), (320, 200), (17, 64)])
def test_pictures_have_the_size_that_was_asked_for(city: City, places: list[Place], width: int, height: int) -> None:
    snapshot = places[0].snapshots[0]
    view = city.render(snapshot.lat_deg, snapshot.lng_deg, heading_deg=10, width=width, height=height, date=snapshot.captured_on)
    assert view.rgb.shape == (height, width, 3)
    assert view.classes.shape == (height, width)
    assert view.rgb.dtype == view.classes.dtype == np.uint8
    assert view.classes.max() < len(CLASSES)


def test_turning_by_the_field_of_view_goes_on_where_the_picture_ended(city: City, places: list[Place]) -> None:
    agreeing: list[float] = []
    for place in places[:4]:
        for heading_deg in range(0, 360, 90):
            left, right = (shoot(city, place.snapshots[0], heading_deg + turn, size=320) for turn in (0.0, 90.0))
            agreeing.append(float((left.classes[:, -1] == right.classes[:, 0]).mean()))
    # The last and the first column are neighbours, not the same.
    assert np.mean(agreeing) > 0.95
    assert min(agreeing) > 0.8


def test_a_full_turn_comes_back(city: City, places: list[Place]) -> None:
    snapshot = places[0].snapshots[0]
    assert np.array_equal(shoot(city, snapshot, 12.0).classes, shoot(city, snapshot, 372.0).classes)


def test_sky_is_above_and_road_below(city: City, places: list[Place]) -> None:
    for view in views(city, places):
        rows = np.arange(160)[:, None]
        assert not ((view.classes == SKY) & (rows > 90)).any()
        assert not ((view.classes == ROAD) & (rows < 70)).any()
        assert (view.classes == BUILDING).mean() > 0.02


def test_the_class_map_lies_on_the_picture(city: City, places: list[Place]) -> None:
    """Edges of the class map are edges of the picture: pixels on both sides differ more than elsewhere."""
    steps: dict[bool, list[float]] = {True: [], False: []}
    for view in views(city, places):
        change = np.abs(np.diff(view.rgb.astype(int), axis=1)).sum(axis=2)
        border = np.diff(view.classes.astype(int), axis=1) != 0
        steps[True].append(float(change[border].mean()))
        steps[False].append(float(change[~border].mean()))
    assert np.mean(steps[True]) > 3 * np.mean(steps[False])


def test_a_vehicle_hides_the_building_behind_it(city: City, places: list[Place]) -> None:
    """Somewhere on two dates of one place a vehicle stands where the other date shows the facade."""
    for place in places:
        first, second = (shoot(city, snapshot, 90.0) for snapshot in place.snapshots[:2])
        if ((first.classes == VEHICLE) & (second.classes == BUILDING)).sum() > 20:
            return
    pytest.fail("no vehicle in front of a building in any view")


def test_dates_differ_in_light_but_buildings_stay(city: City, places: list[Place]) -> None:
    overlaps: list[float] = []
    changes: list[float] = []
    for place in places:
        first, last = (shoot(city, snapshot, 45.0) for snapshot in (place.snapshots[0], place.snapshots[-1]))
        a, b = first.classes == BUILDING, last.classes == BUILDING
        overlaps.append(float((a & b).sum() / (a | b).sum()))
        changes.append(float(np.abs(first.rgb.astype(int) - last.rgb).mean()))
    assert np.median(overlaps) > 0.6
    assert np.median(changes) > 15


def test_walking_along_the_street_shifts_what_is_near(city: City, places: list[Place]) -> None:
    place = places[0]
    onwards = city.place(place.place_id + 1) or city.place(place.place_id - 1)
    assert onwards is not None
    here = city.render(place.lat_deg, place.lng_deg, heading_deg=0, width=160, height=160, date=dt.date(2020, 6, 1))
    there = city.render(onwards.lat_deg, onwards.lng_deg, heading_deg=0, width=160, height=160, date=dt.date(2020, 6, 1))
    assert 0.02 < (here.classes != there.classes).mean() < 0.95


def test_looking_up_shows_more_sky_and_down_more_road(city: City, places: list[Place]) -> None:
    for place in places[:3]:
        up, level, down = (shoot(city, place.snapshots[0], 200.0, pitch_deg=pitch).classes for pitch in (35.0, 0.0, -35.0))
        assert (up == ROAD).mean() < (level == ROAD).mean() < (down == ROAD).mean()
        assert (up == SKY).mean() >= (level == SKY).mean() >= (down == SKY).mean()


@pytest.mark.parametrize("pitch_deg", [-90.0, 90.0])
@pytest.mark.parametrize("fov_deg", [10.0, 120.0])
def test_extreme_lenses_are_drawn(city: City, places: list[Place], pitch_deg: float, fov_deg: float) -> None:
    view = shoot(city, places[0].snapshots[0], 77.0, fov_deg=fov_deg, pitch_deg=pitch_deg)
    assert view.rgb.std() >= 0
    assert len(np.unique(view.classes)) >= 1


def test_a_narrower_lens_magnifies(city: City, places: list[Place]) -> None:
    """The middle of a wide picture is the whole of a narrow one: their classes agree at matching pixels."""
    snapshot = places[1].snapshots[0]
    wide, narrow = (shoot(city, snapshot, 45.0, size=320, fov_deg=fov).classes for fov in (90.0, 53.1301))
    agreeing = (wide[80:240, 80:240] == narrow[1::2, 1::2]).mean()
    assert agreeing > 0.93


def test_summer_has_leaves_and_no_city_is_empty(city: City, places: list[Place]) -> None:
    shares = np.zeros(len(CLASSES))
    for place in places:
        for heading_deg in range(0, 360, 45):
            view = city.render(
                place.lat_deg, place.lng_deg, heading_deg=heading_deg, width=96, height=96, date=dt.date(2019, 7, 1)
            )
            shares += np.bincount(view.classes.ravel(), minlength=len(CLASSES))
    assert (shares > 0).all(), dict(zip(CLASSES, shares, strict=True))
