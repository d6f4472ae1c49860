"""The classes of one level as one Parquet file, S2 cells or polygons, so that what serves a classifier needs no geopandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.geo.region_classes import RegionLevel
from geoloc_dagster.storage import numbers, read_parquet, write_parquet

_NAME = b"geoloc_level"
_S2 = ["id", "count", "lat_deg", "lng_deg"]
_POLYGONS = ["number", "label", "count", "lat_deg", "lng_deg", "outline"]


def write_level(path: Path, level: CellLevel) -> Path:
    """Write the classes of a level in their order: ids or polygons (WKB in lng, lat), counts, and mean positions."""
    where = {"count": level.counts, "lat_deg": level.lat_deg, "lng_deg": level.lng_deg}
    if isinstance(level, RegionLevel):
        outline = pa.array(list(shapely.to_wkb(level.shapes, byte_order=1)), pa.binary())
        table = pa.table({"number": level.numbers, "label": list(level.labels), **where, "outline": outline})
    else:
        table = pa.table({"id": level.ids, **where})
    return write_parquet(path, table.replace_schema_metadata({_NAME: level.name.encode()}))


def read_level(path: Path) -> CellLevel:
    """What `write_level` wrote.

    Raises:
        IntegrityError: it is missing or damaged, or is another table.
    """
    table = read_parquet(path)
    name = (table.schema.metadata or {}).get(_NAME)
    if name is None or table.column_names not in (_S2, _POLYGONS):
        raise IntegrityError(f"{path} does not hold the classes of a level")
    counts, lat_deg, lng_deg = (numbers(table, column) for column in ("count", "lat_deg", "lng_deg"))
    if table.column_names == _S2:
        return CellLevel(name.decode(), numbers(table, "id"), counts, lat_deg, lng_deg)
    shapes = shapely.from_wkb(np.array(table["outline"].to_pylist(), dtype=object))
    labels, published = tuple(table["label"].to_pylist()), numbers(table, "number")
    return RegionLevel(name.decode(), np.empty(0, np.uint64), counts, lat_deg, lng_deg, published, labels, shapes)
