"""A partitioning comes back from its folder as it was, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.errors import IntegrityError, PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import LevelRule, partition
from geoloc_dagster.geo.partitioning_folder import read_partitioning, write_partitioning
from geoloc_dagster_tests.geo.test_partitioning import RULES, clustered


def test_what_is_read_is_what_was_written(tmp_path: Path):
    made = partition(*clustered(3_000, 1), RULES)
    back = read_partitioning(write_partitioning(tmp_path / "cells", made, rules=RULES, lvl_min=2, lvl_max=30))
    assert back.fingerprint == made.fingerprint
    assert np.array_equal(back.parents, made.parents)
    for ours, theirs in zip(made.levels, back.levels, strict=True):
        assert ours.name == theirs.name
        for column in ("ids", "counts", "lat_deg", "lng_deg"):
            assert np.array_equal(getattr(ours, column), getattr(theirs, column))


def test_a_folder_without_one_says_how_to_make_it(tmp_path: Path):
    with pytest.raises(PartitioningError, match="geoloc cells create"):
        read_partitioning(tmp_path)


def test_a_changed_file_is_refused(tmp_path: Path):
    folder = write_partitioning(tmp_path / "cells", partition(*clustered(3_000, 1), RULES))
    (folder / "fine.csv").write_text((folder / "fine.csv").read_text().replace("1,", "2,", 1))
    with pytest.raises(IntegrityError, match=r"fine\.csv"):
        read_partitioning(folder)


def test_whole_faces_come_back_too(tmp_path: Path):
    """`1` is the token of a face, and what a spreadsheet makes of `01`; in a folder of ours it is the face."""
    lat, lng = clustered(3_000, 1)
    made = partition(lat, lng, [LevelRule("all", 1, 600)], lvl_min=0)
    assert "1" in s2.tokens(made.levels[0].ids)
    assert np.array_equal(read_partitioning(write_partitioning(tmp_path / "cells", made)).levels[0].ids, made.levels[0].ids)
