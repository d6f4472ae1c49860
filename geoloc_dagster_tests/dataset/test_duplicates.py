"""Which rows show one and the same picture, and which defects of collection follow from it."""

from __future__ import annotations

import io
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoloc_dagster.dataset.duplicates import (
    byte_identical_groups,
    frozen_rotations,
    hamming_pairs,
    near_duplicates,
    picture_numbers,
    repeated_dates,
    same_picture,
    shared_panoramas,
)
from geoloc_dagster.imagery.quality import phash64
from geoloc_dagster_tests.dataset.conftest import jpeg, scene


def all_pairs_within(hashes: np.ndarray, threshold: int) -> set[tuple[int, int]]:
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    i, j = np.nonzero(bits <= threshold)
    return {(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < b}


def grey(picture: bytes, side: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L").resize((side, side), Image.Resampling.BOX))


@settings(deadline=None, max_examples=40)
@given(
    base=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=10)), max_size=30),
    threshold=st.integers(0, 10),
    many=st.sampled_from([0, 10**9]),
)
def test_no_pair_of_near_hashes_is_missed_and_none_invented(base, flips, threshold, many):
    hashes = [*base]
    for which, bits in flips:
        value = base[which % len(base)]
        for bit in bits:
            value ^= 1 << bit
        hashes.append(value)
    array = np.array(hashes, dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geoloc_dagster.dataset.duplicates._MANY", many)  # both ways of joining
        found = hamming_pairs(array, threshold)
    assert {(int(a), int(b)) for a, b in found} == all_pairs_within(array, threshold)
    assert len(found) == len(all_pairs_within(array, threshold))


def test_thirty_thousand_hashes_are_joined_without_comparing_all_pairs():
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 30_000, dtype=np.uint64)
    hashes[29_990:] = hashes[:10] ^ np.uint64(0b111111)
    assert hamming_pairs(hashes, 6).tolist() == [[i, 29_990 + i] for i in range(10)]


@pytest.mark.parametrize("threshold", [-1, 17])
def test_thresholds_that_would_join_everything_are_refused(threshold):
    with pytest.raises(ValueError, match="0 to 16 bits"):
        hamming_pairs(np.zeros(2, np.uint64), threshold)


def test_reencoded_and_resized_copies_are_found_and_other_scenes_are_not():
    originals = [jpeg(scene(seed, 224)) for seed in range(40)]
    copies = [jpeg(scene(seed, 224), quality=60, scale=0.9) for seed in range(20)]
    pictures = originals + copies
    hashes = np.array([phash64(np.asarray(Image.open(io.BytesIO(p)).convert("L"))) for p in pictures], dtype=np.uint64)
    pairs = near_duplicates(hashes, lambda rows: np.stack([grey(pictures[row], 16) for row in rows]))
    assert pairs.tolist() == [[i, 40 + i] for i in range(20)]


def test_equal_hashes_of_different_pictures_are_no_duplicates():
    pictures = np.stack([np.asarray(Image.fromarray(scene(seed)).convert("L").resize((16, 16))) for seed in range(3)])
    assert near_duplicates(np.full(3, 77, np.uint64), lambda rows: pictures[rows]).tolist() == []


def test_dark_frames_that_differ_by_little_more_than_noise_are_told_apart():
    dark = np.full((2, 16, 16), 40, dtype=np.uint8)
    dark[0, 3, 4:8] = dark[1, 9, 2:6] = 90  # a lamp, elsewhere in each
    assert abs(dark[0].astype(int) - dark[1]).mean() < 2
    assert same_picture(dark[:1], dark[1:]).tolist() == [False]
    assert same_picture(dark[:1], dark[:1] + 1).tolist() == [True]


def test_plain_frames_are_never_the_same_picture():
    plain = np.full((1, 16, 16), 127, dtype=np.uint8)
    assert same_picture(plain, plain).tolist() == [False]


def test_pictures_are_numbered_by_bytes_and_by_likeness_and_missing_ones_equal_nothing():
    looks = np.stack([np.asarray(Image.fromarray(scene(seed)).convert("L").resize((16, 16))) for seed in (1, 1, 1, 2, 3, 3)])
    sha256 = pd.Series(["a", "a", "b", "c", None, None])
    phash = np.array([5, 5, 7, 2**60 - 1, 0, 0], dtype=np.uint64)
    asked: list[int] = []

    def thumbnails(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return looks[rows]

    numbers = picture_numbers(sha256, phash, np.ones(6, bool), thumbnails)
    assert numbers.tolist() == [0, 0, 0, 1, 2, 3]
    assert sorted(asked) == [0, 2], "only candidates are looked at, and equal bytes once"


def test_rows_that_are_not_comparable_are_equal_by_bytes_alone():
    look = np.stack([np.asarray(Image.fromarray(scene(1)).convert("L").resize((16, 16)))] * 3)
    comparable = np.array([True, False, False])
    numbers = picture_numbers(pd.Series(["a", "b", "b"]), np.zeros(3, np.uint64), comparable, lambda rows: look[rows])
    assert numbers.tolist() == [0, 1, 1]


def frame_of(*rows: tuple[str, str, int, str, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["capture_id", "location_id", "year", "view", "picture"])
    return frame.assign(captured_on=[date(year, 6, 1) for year in frame["year"]], pano_id=None)


def test_frozen_rotations_are_the_views_of_one_date_that_show_one_picture():
    frame = frame_of(
        ("a0", "1", 2020, "r0", 0),
        ("a1", "1", 2020, "r1", 1),
        ("a2", "1", 2020, "r2", 1),
        ("again", "1", 2020, "r0", 0),  # the same view, collected twice
        ("b1", "1", 2021, "r1", 2),
        ("elsewhere", "2", 2020, "r3", 1),
    )
    assert frozen_rotations(frame) == {"a1", "a2"}


def test_repeated_dates_are_one_picture_under_two_dates_of_a_place():
    frame = frame_of(("old", "1", 2009, "r0", 0), ("new", "1", 2023, "r0", 0), ("other", "2", 2011, "r0", 0))
    assert repeated_dates(frame) == {"old", "new"}


def test_one_shared_picture_makes_the_whole_panorama_of_that_date_shared():
    frame = frame_of(
        ("a0", "1", 2020, "r0", 0),
        ("a1", "1", 2020, "r1", 1),
        ("a-later", "1", 2021, "r0", 2),
        ("b0", "2", 2020, "r3", 0),
        ("c0", "3", 2020, "r0", 3),
    )
    assert shared_panoramas(frame) == {"a0", "a1", "b0"}


def test_one_panorama_id_under_two_locations_is_shared_though_the_pictures_differ():
    frame = frame_of(("a", "1", 2020, "r0", 0), ("b", "2", 2020, "r0", 1), ("c", "2", 2021, "r0", 2))
    assert shared_panoramas(frame.assign(pano_id=["P", "P", "Q"])) == {"a", "b"}


def test_groups_of_equal_bytes_name_their_captures():
    frame = pd.DataFrame({"capture_id": ["c", "b", "a", "d", "e"], "sha256": ["x", "x", "y", None, None]})
    assert byte_identical_groups(frame) == [["b", "c"]]


def test_each_of_many_pictures_that_are_alike_is_looked_at_once():
    """Skies and seas have equal hashes; a collection from all over the world has thousands of them."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (400, 16, 16), dtype=np.uint8)
    pictures[7] = pictures[399]
    seen: list[int] = []

    def thumbnails(rows: np.ndarray) -> np.ndarray:
        seen.extend(rows.tolist())
        return pictures[rows]

    pairs = near_duplicates(np.full(400, 12_345, np.uint64), thumbnails)
    assert pairs.tolist() == [[7, 399]]
    assert sorted(seen) == list(range(400))
