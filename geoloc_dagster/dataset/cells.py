"""The S2 cells of a region's photos, and the class of each photo at each level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import CellSettings
from geoloc_dagster.dataset.scenes import PROBABILITIES
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, Partitioning, partition
from geoloc_dagster.geo.partitioning_folder import read_partitioning, write_partitioning
from geoloc_dagster.storage import read_parquet, sha256_file, write_parquet
from geoloc_dagster.tables import open_table

FINGERPRINT = b"geoloc_cells_fingerprint"
"""Metadata of the table of cell labels: the partitioning that they are of."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What photos are labelled with.

    Attributes:
        partitioning: the cells.
        cells: capture_id and a class per level; None where photos have none yet.
        scenes: capture_id and probabilities; None where no photo has any.
    """

    partitioning: Partitioning
    cells: pa.Table | None
    scenes: pa.Table | None = None


@dataclass(frozen=True, slots=True)
class CellCounts:
    """What a partitioning or its labels hold.

    Attributes:
        rows: photos that were partitioned or labelled.
        cells: of each level.
        dropped: photos of each level whose cell was dropped.
        fingerprint: of the partitioning.
    """

    rows: int
    cells: dict[str, int]
    dropped: dict[str, int]
    fingerprint: str


def make_partitions(settings: CellSettings, layout: Layout) -> CellCounts:
    """Make the cells of the usable photos of the split train, and of no others, and write them.

    Raises:
        NotEnoughDataError: the split train has no usable photos.
        PartitioningError: no cell is left of a level.
    """
    catalog = read_parquet(layout.catalog, ["lat_deg", "lng_deg", "split", "usable"])
    train = catalog.filter((pc.field("split") == "train") & pc.field("usable"))
    if not train.num_rows:
        raise NotEnoughDataError("the split train has no usable photos to make cells of")
    rules = [LevelRule(name, *bounds) for name, bounds in settings.levels.items()]
    lat_deg, lng_deg = train["lat_deg"].to_numpy(), train["lng_deg"].to_numpy()
    made = partition(lat_deg, lng_deg, rules, lvl_min=settings.min_level, lvl_max=settings.max_level)
    write_partitioning(
        layout.s2_partitions,
        made,
        rules=rules,
        lvl_min=settings.min_level,
        lvl_max=settings.max_level,
        facts={"photos": train.num_rows, "catalog_sha256": sha256_file(layout.catalog)},
    )
    kept = {level.name: int(level.counts.sum()) for level in made.levels}
    return CellCounts(
        train.num_rows,
        {level.name: len(level) for level in made.levels},
        {name: train.num_rows - count for name, count in kept.items()},
        made.fingerprint,
    )


def label_cells(layout: Layout) -> CellCounts:
    """Write the class of every row of the catalog at every level.

    Raises:
        PartitioningError: there are no cells yet.
        IntegrityError: they are damaged.
    """
    cells = read_partitioning(layout.s2_partitions)
    catalog = read_parquet(layout.catalog, ["capture_id", "lat_deg", "lng_deg"])
    leaves = s2.leaf_ids(catalog["lat_deg"].to_numpy(), catalog["lng_deg"].to_numpy())
    columns: dict[str, Any] = {level.name: level.classes(leaves) for level in cells.levels}
    table = pa.table({"capture_id": catalog["capture_id"], **columns})
    write_parquet(layout.cell_labels, table.replace_schema_metadata({FINGERPRINT: cells.fingerprint.encode()}))
    return CellCounts(
        table.num_rows,
        {level.name: len(level) for level in cells.levels},
        {name: int(np.count_nonzero(column == DROPPED)) for name, column in columns.items()},
        cells.fingerprint,
    )


def read_labels(layout: Layout) -> Labels:
    """The cells, and the classes and scenes of the region's photos as far as there are any.

    Raises:
        PartitioningError: there are no cells yet.
        IntegrityError: they are damaged.
    """
    cells: Partitioning = read_partitioning(layout.s2_partitions)
    cell_labels = read_parquet(layout.cell_labels) if layout.cell_labels.is_file() else None
    return Labels(cells, cell_labels, _read_scenes(layout))


def _read_scenes(layout: Layout) -> pa.Table | None:
    """Probabilities of scenes by capture; where only the likeliest is known, that one is certain."""
    table = open_table(layout.scene_labels)
    if table is None:
        return None
    rows: Any = table.to_table(columns=["capture_id", "scene", *PROBABILITIES]).to_pandas()
    for number, name in enumerate(PROBABILITIES):
        certain = (rows["scene"] == number).astype("float32").where(rows["scene"].notna())
        rows[name] = rows[name].fillna(certain)
    return pa.Table.from_pandas(rows[["capture_id", *PROBABILITIES]], preserve_index=False)
