"""Published cells come back as written; tokens that a spreadsheet took for numbers are named, and repaired where certain."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import PartitioningError, UnsafeFileError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_csv import COLUMNS, read_cells_csv, write_cells_csv
from geoloc_dagster.geo.partitioning import CellLevel, partition
from geoloc_dagster_tests.geo.test_partitioning import RULES, clustered

HEADER = ",".join(COLUMNS)


def written(folder: Path, *rows: str) -> Path:
    path = folder / "cells.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def row(label: int, written_token: str, token: str | None = None) -> str:
    """A row whose mean position is the middle of the cell of `token`."""
    (lat,), (lng,) = s2.centres(s2.from_tokens([token or written_token]))
    return f"{label},{written_token},100,{lat!r},{lng!r}".replace("np.float64(", "").replace(")", "")


def test_a_level_comes_back_as_it_was_written(tmp_path: Path):
    level = partition(*clustered(3_000, 1), RULES).level("fine")
    back = read_cells_csv(write_cells_csv(tmp_path / "fine.csv", level), "fine")
    assert back.defects == ()
    assert np.array_equal(back.published, np.arange(len(level)))
    for name in ("ids", "counts", "lat_deg", "lng_deg"):
        assert np.array_equal(getattr(back.level, name), getattr(level, name))


def test_the_labels_of_others_are_kept_beside_our_order(tmp_path: Path):
    back = read_cells_csv(written(tmp_path, row(7, "89c6c74"), row(3, "364"), row(5, "8744")), "coarse")
    assert s2.tokens(back.level.ids) == ["364", "8744", "89c6c74"]
    assert back.published.tolist() == [3, 5, 7]


@pytest.mark.parametrize(
    ("spoilt", "token"),
    [
        ("4.7E+064", "47e63"),
        ("8E+095", "8e95"),
        ("4780000", "478e4"),
        ("4.867E+088", "4867e85"),
        ("4.7E+64", "47e63"),
        ("64", "064"),
    ],
)
def test_a_token_that_became_a_number_is_named_and_repaired(tmp_path: Path, spoilt: str, token: str):
    back = read_cells_csv(written(tmp_path, row(0, spoilt, token), row(1, "89c6c74")), "coarse")
    (defect,) = back.defects
    assert (defect.line, defect.written, defect.repaired) == (2, spoilt, token)
    assert f"line 2: '{spoilt}'" in str(defect)
    assert f"read as {token}" in str(defect)
    assert token in s2.tokens(back.level.ids)


def test_a_token_that_cannot_be_made_out_is_left_out_and_named(tmp_path: Path):
    (lat,), (lng,) = s2.centres(s2.from_tokens(["8744"]))
    back = read_cells_csv(written(tmp_path, f"0,364,5,{lat},{lng}", row(1, "89c6c74"), f"2,zz,5,{lat},{lng}"), "coarse")
    assert [(defect.line, defect.repaired) for defect in back.defects] == [(2, None), (4, None)]
    assert "does not hold its mean position" in str(back.defects[0])
    assert "write the token as text" in str(back.defects[1])
    assert back.published.tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.integers(0, 30))
def test_no_repair_ever_gives_a_cell_that_does_not_hold_the_position(seed: int, level: int, tmp_path_factory: Any):
    rng = np.random.default_rng(seed)
    leaf = s2.leaf_ids([np.degrees(np.arcsin(rng.uniform(-1, 1)))], [rng.uniform(-180, 180)])
    token = s2.tokens(s2.parents(leaf, level))[0]
    try:
        number = float(token)
    except ValueError:
        return
    if number in (float("inf"), 0.0):
        return
    spoilt = f"{number:.14G}" if number >= 1e11 else str(int(number))
    path = written(tmp_path_factory.mktemp("cells"), row(0, spoilt, token), row(1, "89c6c74"))
    try:
        back = read_cells_csv(path, "any")
    except PartitioningError:
        return  # it lies in the other cell, or the other in it
    if spoilt != token:
        assert [defect.repaired for defect in back.defects] in ([token], [None])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0,89c6c74,many,39.9,-75.2"], "line 2 is no cell"),
        (["0,89c6c74,5,99.9,-75.2"], r"line 2: .* not on the globe"),
        (["0,89c6c74,5,nan,-75.2"], r"line 2: .* not on the globe"),
        (["0,89c6c74"], "line 2 is no cell"),
        ([row(0, "89c6c74"), row(1, "89c6c74")], "lines 2 and 3 lie in each other"),
        ([], "no cell with a right token"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, rows: list[str], said: str):
    with pytest.raises(PartitioningError, match=said):
        read_cells_csv(written(tmp_path, *rows), "coarse")


def test_other_columns_and_pickles_are_refused(tmp_path: Path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(PartitioningError, match="no column class_label"):
        read_cells_csv(other, "coarse")
    with pytest.raises(PartitioningError, match="cannot be read"):
        read_cells_csv(tmp_path / "none.csv", "coarse")
    pickled = tmp_path / "cells.pkl"
    pickled.write_bytes(pickle.dumps([1]))
    with pytest.raises(UnsafeFileError):
        read_cells_csv(pickled, "coarse")


def test_an_empty_level_can_be_asked(tmp_path: Path):
    empty = CellLevel("none", np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    assert empty.classes(s2.leaf_ids([1.0, 2.0], [3.0, 4.0])).tolist() == [-1, -1]
