"""Crops with their class maps beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geoloc_dagster.tables import open_table
from geoloc_dagster.viz.encode import MAX_BYTES
from geoloc_dagster.viz.sheets import Tile, contact_sheet

_PAIRS_IN_A_ROW = 3
_NAMED = 2  # classes in the caption of a map
Legend = Sequence[tuple[str, tuple[int, int, int]]]


def segmentation_sheet(
    crops_path: Path, maps_path: Path, batch: str, legend: Legend, *, count: int = 9, max_bytes: int = MAX_BYTES
) -> bytes | None:
    """JPEG of crops of one batch, evenly spread over it, each with its map in the legend's colours.

    Args:
        crops_path: the crops table.
        maps_path: the table of class maps.
        batch: key of the batch.
        legend: names and colours of the classes, RGB, in the order of their numbers.
        count: pictures to show at most.
        max_bytes: cap of the picture.

    Returns:
        None where no picture of the batch has a map.
    """
    crops, maps = open_table(crops_path), open_table(maps_path)
    if crops is None or maps is None:
        return None
    wanted = f"batch = '{batch}' AND class_map IS NOT NULL"
    names = sorted(maps.to_table(columns=["capture_id"], filter=wanted)["capture_id"].to_pylist())
    if not names:
        return None
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, count).astype(int))]
    some = "capture_id IN ({})".format(", ".join(f"'{name}'" for name in chosen))
    shown = crops.to_table(columns=["capture_id", "image", "location_id", "captured_on", "attribution"], filter=some).to_pylist()
    of = {row["capture_id"]: row for row in maps.to_table(columns=["capture_id", "class_map", "source"], filter=some).to_pylist()}
    pairs = [_pair(row, of[row["capture_id"]]["class_map"], legend) for row in sorted(shown, key=lambda row: row["capture_id"])]
    rows = [
        [tile for pair in pairs[first : first + _PAIRS_IN_A_ROW] for tile in pair]
        for first in range(0, len(pairs), _PAIRS_IN_A_ROW)
    ]
    sources = ", ".join(sorted({row["source"] for row in of.values()}))
    credit = " · ".join(sorted({row["attribution"] for row in shown})[:3])
    return contact_sheet(
        rows,
        title=f"{batch}: {len(names):,} class maps",
        subtitle=f"from {sources}",
        attribution=f"Pictures: {credit}",
        first_is_query=False,
        legend=legend,
        max_bytes=max_bytes,
    )


def _pair(crop: dict[str, Any], encoded: bytes, legend: Legend) -> tuple[Tile, Tile]:
    """A picture and its map, coloured by the legend whatever palette the file has."""
    with Image.open(io.BytesIO(encoded)) as image:
        classes = np.asarray(image)
    coloured = io.BytesIO()
    Image.fromarray(np.array([colour for _, colour in legend], np.uint8)[classes]).save(coloured, "PNG")
    shares = np.bincount(classes.ravel(), minlength=len(legend)) / classes.size
    most = np.argsort(-shares, kind="stable")[:_NAMED]
    said = tuple(f"{legend[number][0]} {shares[number]:.0%}" for number in most if shares[number] > 0)
    date = f"{crop['captured_on']:%b %Y}" if crop["captured_on"] else "no date"
    return Tile(crop["image"], (crop["location_id"], date)), Tile(coloured.getvalue(), said)
