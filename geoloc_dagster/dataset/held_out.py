"""Which pictures of the catalog are asked where they were taken; light, because serving needs it too."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SPLITS = ("dev", "test")
_compute: Any = pc


def asked(catalog: pa.Table) -> pa.ChunkedArray:
    """Whether each row is a question, (rows,) bool.

    Of views with several dates the newest picture asks (`is_query`); where no view of dev and test has several dates, all of
    their usable photos do.

    Args:
        catalog: with `split`, `usable` and `is_query`.
    """
    held = _compute.and_(_compute.is_in(catalog["split"], pa.array(SPLITS)), catalog["usable"])
    newest = _compute.and_(held, catalog["is_query"])
    return newest if _compute.any(newest).as_py() else held
