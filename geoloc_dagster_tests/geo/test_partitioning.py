"""Adaptive cells: every photo in one cell of a level unless its cell was dropped, every fine cell in one coarse cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, Partitioning, partition

RULES = (LevelRule("coarse", 5, 100), LevelRule("middle", 5, 40), LevelRule("fine", 5, 15))


def clustered(count: int, seed: int, places: int = 30) -> tuple[s2.F64, s2.F64]:
    """As photos lie: many at few places, a few everywhere, also at the antimeridian and at a pole."""
    rng = np.random.default_rng(seed)
    lat = np.concatenate([[90.0, 0.0], np.degrees(np.arcsin(rng.uniform(-1, 1, places)))])
    lng = np.concatenate([[0.0, 180.0], rng.uniform(-180, 180, places)])
    chosen = rng.integers(0, lat.size, count)
    spread = 10 ** rng.uniform(-4, 1, count)
    lat_deg = np.clip(lat[chosen] + rng.normal(0, spread), -90, 90)
    return lat_deg, (lng[chosen] + rng.normal(0, spread) + 180) % 360 - 180


def slow_cells(leaves: s2.U64, rule: LevelRule, lvl_min: int, lvl_max: int) -> dict[int, int]:
    """The same by the letter of the paper: one cell at a time, its photos counted anew. Photos by cell."""
    kept: dict[int, int] = {}
    stack = [int(one) for one in np.unique(s2.parents(leaves, 0))]
    while stack:
        cell = stack.pop()
        first, last = (int(one) for one in s2.ranges(cell))
        inside = int(np.count_nonzero((leaves >= np.uint64(first)) & (leaves <= np.uint64(last))))
        level = int(s2.levels(cell))
        if level < lvl_min or (inside > rule.img_max and level < lvl_max):
            stack += s2.children(cell).tolist()
        elif inside >= rule.img_min:
            kept[cell] = inside
    return kept


@pytest.mark.parametrize(("lvl_min", "lvl_max"), [(0, 30), (2, 30), (3, 6), (4, 4)])
def test_cells_are_those_of_the_published_description(lvl_min: int, lvl_max: int):
    lat, lng = clustered(3_000, 1)
    made = partition(lat, lng, RULES, lvl_min=lvl_min, lvl_max=lvl_max)
    leaves = s2.leaf_ids(lat, lng)
    for level, rule in zip(made.levels, RULES, strict=True):
        expected = slow_cells(leaves, rule, lvl_min, lvl_max)
        assert dict(zip(level.ids.tolist(), level.counts.tolist(), strict=True)) == expected
        assert np.all(np.diff(level.ids.astype(object)) > 0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(30, 600),
    img_min=st.integers(1, 6),
    steps=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True),
    lvl_max=st.integers(2, 30),
)
def test_every_photo_is_in_one_cell_of_each_level_unless_its_cell_was_dropped(
    seed: int, count: int, img_min: int, steps: list[int], lvl_max: int
):
    lat, lng = clustered(count, seed)
    rules = [LevelRule(f"level{n}", img_min, img_min + step) for n, step in enumerate(sorted(steps, reverse=True))]
    try:
        made = partition(lat, lng, rules, lvl_max=lvl_max)
    except PartitioningError:
        assert np.unique(s2.leaf_ids(lat, lng)).size < count or img_min > 1  # one photo alone would be a cell
        return
    leaves = s2.leaf_ids(lat, lng)
    for level in made.levels:
        classes = level.classes(leaves)
        first, last = s2.ranges(level.ids)
        holders = (leaves[:, None] >= first) & (leaves[:, None] <= last)
        assert np.array_equal(holders.sum(1), (classes != DROPPED).astype(int))
        assert np.array_equal(np.bincount(classes[classes != DROPPED], minlength=len(level)), level.counts)
        assert level.counts.min() >= img_min
    fine = made.levels[-1].ids
    assert made.parents.shape == (fine.size, len(rules))
    for column, level in enumerate(made.levels):
        first, last = s2.ranges(level.ids[made.parents[:, column]])
        assert np.all((first <= fine) & (fine <= last))
    known = made.levels[-1].classes(leaves)
    for column, level in enumerate(made.levels):  # who is in a fine cell is in its parents
        inside = known != DROPPED
        assert np.array_equal(level.classes(leaves)[inside], made.parents[known[inside], column])


def test_the_order_of_photos_does_not_show():
    lat, lng = clustered(2_000, 3)
    order = np.random.default_rng(4).permutation(lat.size)
    first, second = partition(lat, lng, RULES), partition(lat[order], lng[order], RULES)
    assert first.fingerprint == second.fingerprint
    for one, other in zip(first.levels, second.levels, strict=True):
        for name in ("ids", "counts", "lat_deg", "lng_deg"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    assert np.array_equal(first.parents, second.parents)


def test_another_photo_or_another_rule_is_another_fingerprint():
    lat, lng = clustered(2_000, 3)
    prints = {
        partition(lat, lng, RULES).fingerprint,
        partition(lat[:-1], lng[:-1], RULES).fingerprint,
        partition(lat, lng, RULES, lvl_max=29).fingerprint,
        partition(lat, lng, (RULES[0], RULES[1], LevelRule("fine", 5, 14))).fingerprint,
    }
    assert len(prints) == 4


def test_centres_are_means_on_the_sphere_also_across_the_antimeridian():
    lat, lng = np.array([10.0, 10.0, 10.2]), np.array([179.9, -179.9, 180.0])
    made = partition(lat, lng, [LevelRule("all", 1, 100)], lvl_min=0, lvl_max=0)
    assert len(made.levels[0]) == 1
    assert great_circle_m(made.levels[0].lat_deg, made.levels[0].lng_deg, 10.0667, 180.0)[0] < 100


def test_centres_are_the_means_of_their_photos():
    lat, lng = clustered(3_000, 5)
    level = partition(lat, lng, RULES).level("fine")
    classes = level.classes(s2.leaf_ids(lat, lng))
    for name in range(0, len(level), 7):
        inside = classes == name
        points = np.stack([np.cos(np.radians(lat)) * f(np.radians(lng)) for f in (np.cos, np.sin)] + [np.sin(np.radians(lat))])
        x, y, z = points[:, inside].mean(1)
        mean = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
        assert great_circle_m(level.lat_deg[name], level.lng_deg[name], *mean) < 0.02  # centres of leaf cells stand for photos


@pytest.mark.parametrize(
    ("rules", "levels", "said"),
    [
        ((LevelRule("a", 5, 100), LevelRule("b", 6, 50)), (2, 30), "one img_min"),
        ((LevelRule("a", 5, 100), LevelRule("b", 5, 100)), (2, 30), "gets smaller"),
        ((LevelRule("a", 5, 50), LevelRule("b", 5, 100)), (2, 30), "gets smaller"),
        ((LevelRule("a", 5, 100), LevelRule("a", 5, 50)), (2, 30), "name of its own"),
        ((LevelRule("a", 0, 100),), (2, 30), "is 0; it is at least 1"),
        ((LevelRule("a", 9, 8),), (2, 30), r"is 9; .* at most img_max"),
        ((LevelRule("a", 5, 100),), (9, 8), "from 9 to 8"),
        ((LevelRule("a", 5, 100),), (2, 31), "from 2 to 31"),
        ((LevelRule("a", 2_000, 2_000),), (2, 30), "has no cells"),
        ((), (2, 30), "at least one level"),
    ],
)
def test_rules_that_do_not_fit_are_one_clear_error(rules: tuple[LevelRule, ...], levels: tuple[int, int], said: str):
    lat, lng = clustered(1_000, 6)
    with pytest.raises(PartitioningError, match=said):
        partition(lat, lng, rules, lvl_min=levels[0], lvl_max=levels[1])


def test_no_photos_at_all_is_said():
    with pytest.raises(PartitioningError, match="of the 0 positions"):
        partition([], [], RULES)


def test_a_level_is_found_by_its_name():
    made: Partitioning = partition(*clustered(1_000, 6), RULES)
    assert made.level("middle") is made.levels[1]
    with pytest.raises(PartitioningError, match="coarse, middle, fine"):
        made.level("finest")
