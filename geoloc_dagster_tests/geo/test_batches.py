from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.geo.batches import BatchKey, buffer_series, chunk, select_series

KEYS = st.builds(BatchKey, st.text("abz019", min_size=1, max_size=24), st.integers(0, 999_999))


@settings(max_examples=40, deadline=None)
@given(KEYS)
def test_a_key_is_read_back_from_its_text(key: BatchKey):
    assert BatchKey.parse(str(key)) == key


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.text("a0-\n٠ ", max_size=12), st.from_regex(r"[a-z0-9]{0,3}-?\d{0,7}\n?", fullmatch=True)))
def test_a_text_that_parses_is_the_text_that_the_key_writes(text: str):
    try:
        key = BatchKey.parse(text)
    except ValueError:
        return
    assert str(key) == text


@pytest.mark.parametrize(
    "text", ["", "100m", "100m-12", "100m-00012", "100M-0001", "100m-0001\n", "a-b-0001", "100m-٠٠٠١", "../x-0001"]
)
def test_what_is_not_a_key_is_refused(text: str):
    with pytest.raises(ValueError, match="not a batch key"):
        BatchKey.parse(text)


@pytest.mark.parametrize(("series", "number"), [("", 0), ("100 m", 0), ("x" * 25, 0), ("100m", -1), ("100m", 10**6)])
def test_a_key_that_could_not_be_read_back_cannot_be_made(series: str, number: int):
    with pytest.raises(ValueError, match="not a batch key"):
        BatchKey(series, number)


def test_keys_sort_by_number_beyond_four_digits():
    assert sorted([BatchKey("35m", 10_000), BatchKey("35m", 9_999)]) == [BatchKey("35m", 9_999), BatchKey("35m", 10_000)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abc", max_size=5), max_size=50), st.integers(1, 9), st.integers(0, 100))
def test_chunks_are_the_input_in_order_in_consecutive_batches(ids: list[str], batch_size: int, first: int):
    chunks = list(chunk(ids, buffer_series(50), batch_size, first_number=first))
    assert [location for _, part in chunks for location in part] == ids
    assert [key.number for key, _ in chunks] == list(range(first, first + len(chunks)))
    assert all(len(part) == batch_size for _, part in chunks[:-1])


def test_a_series_is_selected_in_order_and_by_its_whole_name():
    assert select_series(["100m-0010", "10m-0000", "100m-0002"], "100m") == ["100m-0002", "100m-0010"]
