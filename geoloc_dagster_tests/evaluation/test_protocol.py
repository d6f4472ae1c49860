from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.evaluation.protocol import Vectors, divide, divide_all, select_queries, split_rows
from geoloc_dagster_tests.evaluation.builders import catalog, row

ROWS = [
    row("a1", "1", date(2011, 5, 1)),
    row("a2", "1", date(2022, 5, 1), is_query=True),
    row("a3", "1", date(2022, 5, 1), view="r1"),  # the only date of its view
    row("b1", "2", None),
    row("b2", "2", date(2020, 1, 1)),
]


def frame_of(rows):
    return catalog(rows).to_pandas()


def test_the_newest_picture_of_a_view_with_two_dates_asks():
    frame = frame_of(ROWS)
    chosen = select_queries(frame, np.ones(len(frame), bool))
    assert frame["capture_id"][chosen].tolist() == ["a2"]


def test_a_picture_without_a_date_is_neither_a_query_nor_a_second_date():
    frame = frame_of([row("a", "1", None), row("b", "1", date(2020, 1, 1))])
    assert not select_queries(frame, np.ones(2, bool)).any()


def test_one_date_is_enough_where_the_settings_say_so():
    frame = frame_of(ROWS)
    chosen = select_queries(frame, np.ones(len(frame), bool), min_dates=1)
    assert sorted(frame["capture_id"][chosen]) == ["a2", "a3", "b2"]


def test_two_scrapes_of_the_newest_date_give_one_query_in_any_row_order():
    rows = [row("a1", "1", date(2011, 1, 1)), row("x", "1", date(2022, 1, 1)), row("y", "1", date(2022, 1, 1))]
    for order in ([0, 1, 2], [2, 1, 0]):
        frame = frame_of([rows[i] for i in order])
        assert frame["capture_id"][select_queries(frame, np.ones(3, bool))].tolist() == ["y"]


def test_the_gallery_is_every_other_usable_row():
    frame = frame_of([*ROWS, row("flagged", "3", date(2019, 1, 1), usable=False)])
    division = divide(frame, np.ones(len(frame), bool))
    assert frame["capture_id"][division.query].tolist() == ["a2"]
    assert frame["capture_id"][division.gallery].tolist() == ["a1", "a3", "b1", "b2"]


def test_all_rows_chooses_a_flagged_picture_as_query_where_it_is_the_newest():
    frame = frame_of([*ROWS, row("a9", "1", date(2023, 1, 1), usable=False)])
    division = divide_all(frame, np.ones(len(frame), bool))
    assert frame["capture_id"][division.query].tolist() == ["a9"]
    assert "a2" in frame["capture_id"][division.gallery].tolist()


def test_a_usable_row_without_a_vector_is_named():
    frame = frame_of(ROWS)
    has_vector = np.array([True, True, False, True, True])
    with pytest.raises(IntegrityError, match=r"1 usable rows .* capture a3"):
        divide(frame, has_vector)


def test_a_split_without_queries_is_refused():
    with pytest.raises(NotEnoughDataError, match="0 queries and 1 gallery"):
        divide(frame_of([ROWS[0]]), np.ones(1, bool))


def test_rows_of_another_split_are_left_out_and_order_does_not_matter():
    rows = [*ROWS, row("t", "9", date(2020, 1, 1), split="train")]
    assert split_rows(catalog(rows[::-1]), "test")["capture_id"].to_pylist() == ["a1", "a2", "a3", "b1", "b2"]
    with pytest.raises(NotEnoughDataError, match="no rows in the split `dev`"):
        split_rows(catalog(rows), "dev")


def test_vectors_are_found_by_capture_and_missing_ones_are_nan():
    vectors = Vectors.from_mapping({"x": np.array([1.0, 2.0]), "y": np.array([3.0, 4.0])})
    aligned = vectors.aligned(["y", "absent", "x"])
    assert aligned[0].tolist() == [3, 4]
    assert np.isnan(aligned[1]).all()
    assert aligned[2].tolist() == [1, 2]


def test_vectors_need_one_row_per_capture():
    with pytest.raises(ValueError, match="2 capture ids"):
        Vectors(("a", "b"), np.zeros((3, 4)))
