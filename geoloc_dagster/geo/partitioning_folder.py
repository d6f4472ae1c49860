"""A partitioning as a folder: a CSV per level in the published columns, and `partitioning.json` for what they share.

The outlines of all levels are in `cells.parquet`, a GeoParquet that QGIS and geopandas open; nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import IntegrityError, PartitioningError
from geoloc_dagster.geo.cell_csv import read_cells_csv, write_cells_csv
from geoloc_dagster.geo.cell_outlines import cells_frame
from geoloc_dagster.geo.partitioning import LevelRule, Partitioning, fingerprint_of_levels, parent_table
from geoloc_dagster.storage import atomic_folder, read_json, verify_manifest, write_geoparquet, write_json, write_manifest

FILE = "partitioning.json"
OUTLINES = "cells.parquet"
_REMEDY = "Make it again: `geoloc cells create`, or materialise `s2_partitions`."


def write_partitioning(
    folder: Path,
    partitioning: Partitioning,
    *,
    rules: Sequence[LevelRule] = (),
    lvl_min: int | None = None,
    lvl_max: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a partitioning in place of what the folder holds, in one rename.

    Args:
        folder: gets `{level}.csv` of each level, `cells.parquet`, `partitioning.json` and a manifest.
        partitioning: what is written.
        rules: it was made by, where known.
        lvl_min: likewise.
        lvl_max: likewise.
        facts: JSON values to keep with it, e.g. what it was made of.

    Raises:
        PartitioningError: the folder holds something else.
    """
    refuse_other_folder(folder)
    said = {
        "levels": [level.name for level in partitioning.levels],
        "cells": {level.name: len(level) for level in partitioning.levels},
        "fingerprint": partitioning.fingerprint,
        "cells_fingerprint": fingerprint_of_levels(partitioning.levels),
        "rules": {rule.name: [rule.img_min, rule.img_max] for rule in rules},
        "lvl_min": lvl_min,
        "lvl_max": lvl_max,
        "facts": dict(facts or {}),
    }
    import pandas as pd

    with atomic_folder(folder) as made:
        for level in partitioning.levels:
            write_cells_csv(made / f"{level.name}.csv", level)
        write_geoparquet(made / OUTLINES, pd.concat([cells_frame(level) for level in partitioning.levels], ignore_index=True))
        write_json(made / FILE, said)
        write_manifest(made, fingerprint=partitioning.fingerprint)
    return folder


def refuse_other_folder(folder: Path) -> None:
    """Raise PartitioningError where writing cells would delete something that is none."""
    if folder.exists() and not (folder / FILE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PartitioningError(f"{folder} holds something that is no partitioning", "Choose another folder, or an empty one.")


def read_partitioning(folder: Path) -> Partitioning:
    """Read what `write_partitioning` wrote, every byte of it checked.

    Raises:
        PartitioningError: there is none.
        IntegrityError: a file has changed since.
    """
    if not (folder / FILE).is_file():
        raise PartitioningError(f"{folder} holds no partitioning", _REMEDY)
    verify_manifest(folder, remedy=_REMEDY)
    said: dict[str, Any] = read_json(folder / FILE)
    levels = tuple(read_cells_csv(folder / f"{name}.csv", name, believed=True).level for name in said["levels"])
    if fingerprint_of_levels(levels) != said["cells_fingerprint"]:
        raise IntegrityError(f"the cells of {folder} are not those that {FILE} tells of", _REMEDY)
    return Partitioning(levels, parent_table(levels), said["fingerprint"])
