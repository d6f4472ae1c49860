"""Is there enough new data for another training?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from geoloc_dagster.storage import read_parquet


def usable_rows(catalog_path: Path, splits: Sequence[str] = ("train",)) -> int:
    """Usable rows of the catalog in the splits that a recipe learns from; 0 before there is a catalog.

    Only these can be compared with what an earlier training found: the rows of other splits never reach one.

    Raises:
        IntegrityError: the catalog is damaged.
    """
    if not catalog_path.is_file():
        return 0
    table = read_parquet(catalog_path, columns=["split", "usable"])
    return table.filter(pc.field("usable") & pc.field("split").isin(list(splits))).num_rows


def retraining_due(usable_rows: int, trained_on_rows: int, threshold: int) -> tuple[bool, str]:
    """Whether a training should be asked for, and how far it is.

    Args:
        usable_rows: of the catalog now, as `usable_rows` counts them.
        trained_on_rows: of the newest checkpoint; 0 where there is none.
        threshold: new rows that ask for a training, above 0.

    Returns:
        The decision and a sentence for the user, e.g. "1,240 of 2,000 new usable rows since the newest checkpoint (trained on
        8,310)".
    """
    new = usable_rows - trained_on_rows
    if trained_on_rows == 0:
        return new >= threshold, f"{new:,} of {threshold:,} usable rows for the first training"
    text = f"{max(new, 0):,} of {threshold:,} new usable rows since the newest checkpoint (trained on {trained_on_rows:,})"
    if new < 0:
        text += f"; the catalog now has {-new:,} fewer"
    return new >= threshold, text
