"""Which locations a region collects: import or build the buffers, cut them into batches, keep what is registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.compute as pc

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import CoverageIncompleteError, IntegrityError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import buffer_series
from geoloc_dagster.geo.boundary import Boundary, contains, read_boundary
from geoloc_dagster.geo.buffer_csv import read_buffer_csv, write_buffer_csv
from geoloc_dagster.geo.buffers import assign_batches, build_buffers
from geoloc_dagster.geo.spacing import close_pairs
from geoloc_dagster.imagery.coverage import covered_locations
from geoloc_dagster.imagery.lookups import unanswered
from geoloc_dagster.imagery.provider import Location
from geoloc_dagster.storage import read_geoparquet, read_parquet, write_geoparquet


@dataclass(frozen=True, slots=True)
class CellCounts:
    """How full grid cells are.

    Attributes:
        cells: of the region.
        cells_short: of these, cells with fewer locations than they want.
        samples_missing: in those.
        samples_renumbered: imported locations that lie in another cell than their name says.
    """

    cells: int
    cells_short: int
    samples_missing: int
    samples_renumbered: int = 0


@dataclass(frozen=True)
class Registration:
    """The registered locations and what was found wrong with them.

    Attributes:
        locations: one row per location with series, rank and batch.
        close_pairs: per series, pairs nearer to each other than its spacing.
        outside: locations outside the polygon; of photo lists, photos that were left out for it.
        bad_rows: rows of photo lists that could not be used.
        bad_scenes: photos that are without a scene because their list says one that cannot be.
        cells: of regions with grid cells.
    """

    boundary: Boundary
    locations: pd.DataFrame
    new: int
    imported: bool
    close_pairs: Mapping[str, int]
    outside: int
    bad_rows: int = 0
    bad_scenes: int = 0
    cells: CellCounts | None = None

    @property
    def batch_keys(self) -> list[str]:
        """The batches in rank order."""
        return list(dict.fromkeys(self.locations["batch"]))

    @property
    def per_series(self) -> dict[str, int]:
        """Locations of each series."""
        return dict(Counter(self.locations["series"].tolist()))


def register_locations(settings: Settings, layout: Layout) -> Registration:
    """Register the locations of the region's buffers, or its photos, and write the CSVs and the GeoParquet.

    Existing CSVs are kept as they are, ids included; without any, buffers are built from the coverage table. What is
    registered already never changes: neither a location's series and rank nor its batch.

    Raises:
        BufferCsvError: an existing CSV cannot be used; nothing is written then.
        PhotoListError: likewise a list of photos.
        CoverageIncompleteError: grid points are still to be looked up at a live service.
    """
    if settings.capture.provider == "photo_list":
        from geoloc_dagster.dataset.photo_registration import register_photos

        return register_photos(settings, layout)
    if settings.grid_cells is not None:
        from geoloc_dagster.dataset.cell_registration import register_samples

        return register_samples(settings, layout, settings.grid_cells)
    boundary = read_boundary(layout.boundary)
    registered = pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry")) if layout.locations.is_file() else None
    files = [settings.resolve(path) for path in settings.buffers.files]
    if settings.coverage.provider != "csv" and not files:
        _require_coverage(layout)
    if files:
        candidates = pd.concat([read_buffer_csv(path) for path in files], ignore_index=True)
    else:
        candidates = build_buffers(
            covered_locations(layout.street_view_metadata),
            settings.region.start_point,
            settings.buffers.spacings_m,
            registered=registered,
        )
    known: set[str] = set() if registered is None else set(registered["location_id"])
    fresh = candidates[~candidates["location_id"].isin(list(known))]
    merged: Any = fresh if registered is None else pd.concat([registered, fresh], ignore_index=True)
    locations = assign_batches(merged, settings.buffers.batch_size, registered)
    failpoint("locations.before_write")
    _write(locations, settings, layout, boundary)
    failpoint("locations.written")
    inside = contains(boundary, locations["lat_deg"].to_numpy(), locations["lng_deg"].to_numpy())
    return Registration(
        boundary=boundary,
        locations=locations,
        new=len(fresh),
        imported=bool(files),
        close_pairs=_count_close_pairs(locations, settings.buffers.spacings_m),
        outside=int(np.count_nonzero(~inside)),
    )


def batch_locations(layout: Layout, batch: str) -> list[Location]:
    """The locations of one batch, in rank order, as a provider takes them.

    Raises:
        IntegrityError: no locations have been registered, or not this batch.
    """
    table = read_parquet(layout.locations)
    rows = table.filter(pc.field("batch") == batch).to_pylist()
    if not rows:
        raise IntegrityError(f"batch {batch} is not in {layout.locations}", "Materialise `buffer_csvs` again.")
    return [Location(row["location_id"], row["lat_deg"], row["lng_deg"], row["pano_id"], row["captured_on"]) for row in rows]


def _require_coverage(layout: Layout) -> None:
    points = read_geoparquet(layout.grid_points)
    missing = unanswered(points, layout.street_view_metadata)
    if missing:
        raise CoverageIncompleteError(f"{missing:,} of {len(points):,} grid points have not been looked up yet")


def _count_close_pairs(locations: pd.DataFrame, spacings_m: list[int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for spacing_m in spacings_m:
        rows: Any = locations[locations["series"] == buffer_series(spacing_m)]
        if len(rows):
            pairs = close_pairs(rows["lat_deg"].to_numpy(), rows["lng_deg"].to_numpy(), float(spacing_m))
            counts[buffer_series(spacing_m)] = len(pairs)
    return counts


def _write(locations: pd.DataFrame, settings: Settings, layout: Layout, boundary: Boundary) -> None:
    for series, rows in locations.groupby("series", sort=False):
        spacing = str(series).removesuffix("m")
        write_buffer_csv(layout.buffers / f"new_order_buffer_{spacing}.csv", rows, metric_crs=boundary.metric_crs)
    points = gpd.points_from_xy(locations["lng_deg"], locations["lat_deg"], crs="EPSG:4326")
    write_geoparquet(layout.locations, gpd.GeoDataFrame(locations, geometry=points))
