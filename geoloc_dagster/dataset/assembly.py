"""Build the catalog of a region and write it, with what it shares between splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.catalog import build_catalog, summarise_catalog
from geoloc_dagster.dataset.leakage import find_leaks
from geoloc_dagster.errors import LeakageError
from geoloc_dagster.geo.boundary import Boundary, read_boundary
from geoloc_dagster.geo.districts import unnamed_level
from geoloc_dagster.storage import read_geoparquet, write_parquet
from geoloc_dagster.tables import open_table, table_version, verify_table

EXAMPLES = 10


@dataclass(frozen=True)
class Assembly:
    """A catalog that was written.

    Attributes:
        catalog: the table.
        boundary: the region.
        counts: as of `summarise_catalog`.
        leaks: pairs that two splits still share, of usable rows.
        crops_version: of the crops table that it was built from.
    """

    catalog: pa.Table
    boundary: Boundary
    counts: dict[str, Any]
    leaks: pd.DataFrame
    crops_version: int

    @property
    def examples(self) -> list[dict[str, Any]]:
        """The first leaking pairs, JSON-ready."""
        rows: Any = self.leaks.head(EXAMPLES).to_dict("records")
        return rows

    def leak_error(self) -> LeakageError:
        """The leaks as an error that names the first pairs."""
        pairs = "; ".join(
            f"{row['left']} ({row['left_split']}) and {row['right']} ({row['right_split']})" for row in self.examples
        )
        return LeakageError(f"{len(self.leaks):,} pairs are in two splits: {pairs}")


def assemble_catalog(settings: Settings, layout: Layout, progress: Callable[[int, int], None] | None = None) -> Assembly:
    """Build the catalog from the newest crops and write it; the leaks that remain are for the caller to judge.

    Raises:
        IntegrityError: the crops table, or the list of locations, is damaged.
        NotEnoughDataError: there are no crops.
    """
    verify_table(layout.crops, remedy="Materialise `crops` for the batches of that file again.")
    version = table_version(layout.crops)
    boundary = read_boundary(layout.boundary)
    locations = pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry"))
    catalog = build_catalog(
        layout.crops,
        locations,
        settings,
        progress,
        metric_crs=boundary.metric_crs,
        creators=read_creators(layout),
        district_level=unnamed_level(boundary.area_km2),
    )
    write_parquet(layout.catalog, catalog)
    leaks = find_leaks(catalog, creators=settings.splits.by == "creator")
    return Assembly(catalog, boundary, summarise_catalog(catalog), leaks, version)


def read_creators(layout: Layout) -> dict[str, str]:
    """Who took the pictures that say so, by capture id."""
    captures = open_table(layout.panoramas)
    if captures is None:
        return {}
    rows = captures.to_table(columns=["capture_id", "creator"], filter="creator IS NOT NULL")
    return dict(zip(rows["capture_id"].to_pylist(), rows["creator"].to_pylist(), strict=True))
