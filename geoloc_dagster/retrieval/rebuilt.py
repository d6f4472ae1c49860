"""Tables that can always be computed again from the crops: one that is damaged is started afresh, and said so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.tables import open_table, remove_table, table_exists, verify_table

logger = logging.getLogger(__name__)


def sound_table(path: Path, wrong: Callable[[Any], str]) -> Any | None:
    """The table; None where there is none, or after discarding one that is damaged or of another shape.

    Args:
        path: of the Lance table.
        wrong: why a table is of another shape; empty where it is not.
    """
    if not (path.exists() or table_exists(path)):
        return None
    try:
        verify_table(path)
        table = open_table(path)
        reason = "it is gone" if table is None else wrong(table)
        if not reason:
            return table
    except (IntegrityError, OSError, ValueError, pa.ArrowException) as error:  # ValueError: what Lance says of damage
        reason = str(error)
    logger.warning("Starting %s afresh, every batch must be made again: %s", path, reason)
    remove_table(path)
    return None
