"""When a training is due, and how the user is told how far it is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from geoloc_dagster.dataset.freshness import retraining_due, usable_rows
from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.storage import write_parquet

SINCE = "new usable rows since the newest checkpoint (trained on 8,310)"


@pytest.mark.parametrize(
    ("usable", "trained_on", "due", "reason"),
    [
        (9_550, 8_310, False, f"1,240 of 2,000 {SINCE}"),
        (10_309, 8_310, False, f"1,999 of 2,000 {SINCE}"),
        (10_310, 8_310, True, f"2,000 of 2,000 {SINCE}"),
        (8_310, 8_310, False, f"0 of 2,000 {SINCE}"),
        (8_300, 8_310, False, f"0 of 2,000 {SINCE}; the catalog now has 10 fewer"),
        (1_240, 0, False, "1,240 of 2,000 usable rows for the first training"),
        (2_000, 0, True, "2,000 of 2,000 usable rows for the first training"),
    ],
)
def test_the_reason_says_how_far_it_is(usable: int, trained_on: int, due: bool, reason: str):
    assert retraining_due(usable, trained_on, 2_000) == (due, reason)


def test_only_rows_that_a_training_may_see_count(tmp_path: Path):
    table = pa.table({"split": ["train", "train", "dev", "test", "none"], "usable": [True, False, True, True, True]})
    assert usable_rows(write_parquet(tmp_path / "catalog.parquet", table)) == 1


def test_no_catalog_means_no_rows(tmp_path: Path):
    assert usable_rows(tmp_path / "catalog.parquet") == 0


def test_a_damaged_catalog_is_an_error_not_zero_rows(tmp_path: Path):
    path = tmp_path / "catalog.parquet"
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(IntegrityError, match=r"catalog\.parquet is damaged"):
        usable_rows(path)
