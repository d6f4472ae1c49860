"""Panorama ids: readable by their service alone, and changing as those of real services do."""

from __future__ import annotations

import base64
import datetime as dt
import random
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from geoloc_dagster.emulator.panoids import PanoramaIdentity, PanoramaIds

TODAY = dt.date(2026, 11, 21)
NIGHT = dt.timedelta(days=1)
IDENTITIES = st.builds(PanoramaIdentity, st.integers(0, 2**56 - 1), st.integers(0, 255), st.integers(0, 2**24 - 1))


@given(IDENTITIES, st.integers())
def test_an_id_is_22_url_safe_characters_and_says_to_its_service_what_it_is(identity: PanoramaIdentity, seed: int):
    ids = PanoramaIds(seed)
    text = ids.encode(identity)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", text)
    assert ids.decode(text) == identity
    assert PanoramaIds(seed + 1).decode(text) is None, "another city knows nothing of it"


@given(IDENTITIES, st.integers(0, 21), st.integers(1, 63))
def test_an_id_with_one_character_changed_is_refused(identity: PanoramaIdentity, position: int, shift: int):
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    ids = PanoramaIds(3)
    text = ids.encode(identity)
    other = alphabet[(alphabet.index(text[position]) + shift) % 64]
    assert ids.decode(text[:position] + other + text[position + 1 :]) is None


def test_random_ids_are_refused():
    ids, rng = PanoramaIds(1), random.Random(0)
    texts = [base64.urlsafe_b64encode(rng.randbytes(16))[:22].decode() for _ in range(20_000)]
    assert [text for text in texts if ids.decode(text) is not None] == []


@given(st.text(max_size=40))
def test_any_text_is_no_error(text: str):
    assert PanoramaIds(1).decode(text) is None


def test_neighbouring_panoramas_have_ids_without_anything_in_common():
    ids = PanoramaIds(1)
    texts = [ids.encode(PanoramaIdentity(place, 0, 37_000)) for place in range(2000)]
    assert len(set(texts)) == 2000
    for position in range(21):
        assert len({text[position] for text in texts}) == 64


def test_one_id_in_twenty_changes_in_a_night():
    """2,000 panoramas: 100 changes, give or take four standard deviations of the binomial distribution (9.75 each)."""
    ids = PanoramaIds(1)
    for first in (TODAY, TODAY + 7 * NIGHT, TODAY + 400 * NIGHT):
        before = [ids.generation(place, place % 12, first) for place in range(2000)]
        after = [ids.generation(place, place % 12, first + NIGHT) for place in range(2000)]
        steps = [later - earlier for earlier, later in zip(before, after, strict=True)]
        assert set(steps) == {0, 1}
        assert 61 <= sum(steps) <= 139


def test_the_nights_on_which_one_id_changes_are_spread_over_the_year():
    ids = PanoramaIds(1)
    generations = [ids.generation(77, 3, TODAY + night * NIGHT) for night in range(20 * 200)]
    changes = [night for night in range(1, len(generations)) if generations[night] != generations[night - 1]]
    gaps = [later - earlier for earlier, later in pairwise(changes)]
    assert 198 <= len(changes) <= 201
    assert len(set(gaps)) > 20, "no calendar that could be guessed"
    assert generations == sorted(generations), "an old generation never comes back"


def test_generations_depend_on_seed_place_number_and_day_alone():
    assert PanoramaIds(5).generation(9, 2, TODAY) == PanoramaIds(5).generation(9, 2, TODAY)
    nights = [TODAY + night * NIGHT for night in range(60)]

    def calendar(seed: int, place: int, number: int) -> list[int]:
        ids = PanoramaIds(seed)
        return [ids.generation(place, number, night) for night in nights]

    assert len({tuple(calendar(*which)) for which in ((5, 9, 2), (6, 9, 2), (5, 10, 2), (5, 9, 3))}) == 4


def test_the_calendar_reaches_from_the_first_to_the_last_year():
    ids = PanoramaIds(2)
    for day in (dt.date.min, dt.date.max):
        assert ids.decode(ids.current(2**56 - 1, 255, day)) is not None
