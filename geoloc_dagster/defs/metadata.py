"""What a materialization says of itself: counts that plot over time, table versions, and one picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

MAX_PICTURE_BYTES = 50_000  # stored about five times in the instance's database


def picture(content: bytes) -> dg.MetadataValue:
    """An inline picture; raises ValueError above the cap, which is a bug of the caller and not of the data."""
    if len(content) > MAX_PICTURE_BYTES:
        raise ValueError(f"a picture of {len(content):,} bytes for the event log; the cap is {MAX_PICTURE_BYTES:,}")
    kind = "png" if content[:4] == b"\x89PNG" else "webp" if content[8:12] == b"WEBP" else "jpeg"
    return dg.MetadataValue.md(f"![picture](data:image/{kind};base64,{base64.b64encode(content).decode()})")


def facts(
    rows: int, path: Path, *, image: bytes | None = None, partitioned: bool = False, **numbers: Any
) -> dict[str, dg.MetadataValue | Any]:
    """The metadata of one materialization.

    Args:
        rows: rows of this asset, or of this partition of it.
        path: where the data lie.
        image: a PNG, JPEG or WebP of at most 50 kB.
        partitioned: whether `rows` counts one partition only.
        numbers: further counts and versions; None values are left out.
    """
    count = "dagster/partition_row_count" if partitioned else "dagster/row_count"
    entries: dict[str, Any] = {} if image is None else {"picture": picture(image)}
    entries |= {count: rows, "path": dg.MetadataValue.path(path)}
    return entries | {name: _readable(value) for name, value in numbers.items() if value is not None}


def _readable(value: Any) -> Any:
    """Four places are enough for eyes and plots; every place is in the files."""
    return round(value, 4) if isinstance(value, float) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float | int | str]:
    """Nested results as flat names (`test.same_place.recall@1`), so that each number plots over time."""
    flat: dict[str, float | int | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = value
    return flat
