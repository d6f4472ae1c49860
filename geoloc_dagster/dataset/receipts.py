"""What the last run that finished a batch of a derived table noted: of which inputs it was made, and what it was then."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.storage import read_json


def receipt_path(table_path: Path, batch: str) -> Path:
    """Where the note on a batch of a table lies."""
    return table_path.with_name(table_path.name + ".receipts") / f"{batch}.json"


def read_receipt(path: Path) -> Any:
    """The note; None where it is missing or damaged, which only costs making the batch again."""
    try:
        return read_json(path)
    except IntegrityError:
        return None


def fingerprint(head: list[str], *columns: Iterable[Any]) -> str:
    """Of rows, whatever their order, given as columns."""
    lines = head + sorted(" ".join(map(str, row)) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
