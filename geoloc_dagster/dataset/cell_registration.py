"""Which locations a region with grid cells collects: the sample of each cell, in batches that never change."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.collection import GridCellSettings
from geoloc_dagster.dataset.registration import CellCounts, Registration
from geoloc_dagster.errors import CoverageIncompleteError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.boundary import contains, read_boundary
from geoloc_dagster.geo.buffers import LOCATION_COLUMNS, assign_batches, next_id, next_rank
from geoloc_dagster.geo.cell_sampling import missing_samples
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.geo.grid_cells import cell_of, read_grid_cells
from geoloc_dagster.geo.spacing import close_pairs
from geoloc_dagster.imagery.cell_lookups import CellTask, check_registered_cells, registered_samples
from geoloc_dagster.imagery.sampled_folder import SampledLocation, read_sampled_locations
from geoloc_dagster.storage import write_bytes, write_geoparquet

_TABLE = ["location_id", "grid_cell", "batch", "rank", "lat_deg", "lng_deg", "pano_id", "captured_on"]


def register_samples(settings: Settings, layout: Layout, rules: GridCellSettings) -> Registration:
    """Register the locations that cells took since, or those of a folder that was sampled before, and write GeoParquet and CSV.

    What is registered never changes. A folder's locations are taken as published: neither their number nor their spacing is
    judged, and each belongs to the cell that it lies in, whatever number its name gives.

    Raises:
        CoverageIncompleteError: a cell is neither full, nor are its points used up.
        ConfigError: the cells are others than those of the registered locations.
        CollectionSourceError: the folder is not laid out as expected; every bad name is named.
    """
    boundary, cells = read_boundary(layout.boundary), read_grid_cells(layout.grid_cells)
    registered = registered_samples(layout)
    check_registered_cells(registered, cells, rules)
    imported = settings.capture.provider == "folder"
    renumbered = 0
    if imported:
        fresh, renumbered = _imported(settings, cells, registered, rules.series)
    else:
        fresh = _sampled(CellTask.load(settings, layout), rules.series, len(cells))
    lat, lng = fresh["lat_deg"].to_numpy(np.float64), fresh["lng_deg"].to_numpy(np.float64)
    fresh = fresh.assign(dist_to_start_m=geodesic_m(*settings.region.start_point, lat, lng))
    frames = [frame for frame in (registered, fresh) if len(frame)]
    merged: Any = pd.concat(frames, ignore_index=True) if frames else fresh
    merged = merged.astype({"grid_cell": "Int64", "rank": np.int64})
    locations = assign_batches(merged, settings.buffers.batch_size, registered if len(registered) else None)
    failpoint("locations.before_write")
    _write(locations, layout, rules.series)
    failpoint("locations.written")
    missing = missing_samples(cells, locations, locations.iloc[:0], series=rules.series, per_cell=rules.samples_per_cell)
    own: Any = locations[locations["series"] == rules.series]
    near = close_pairs(own["lat_deg"].to_numpy(np.float64), own["lng_deg"].to_numpy(np.float64), float(rules.apart_m))
    return Registration(
        boundary=boundary,
        locations=locations,
        new=len(fresh),
        imported=imported,
        close_pairs={rules.series: len(near)},
        outside=int(np.count_nonzero(~contains(boundary, locations["lat_deg"], locations["lng_deg"]))),
        cells=CellCounts(len(cells), int((missing > 0).sum()), int(missing.sum()), renumbered),
    )


def _sampled(task: CellTask, series: str, cells: int) -> pd.DataFrame:
    """What the cells take of the lookups and is not registered yet, ranked in rounds over the cells."""
    survey = task.survey()
    if survey.left:
        raise CoverageIncompleteError(
            f"{survey.unfinished_cells:,} of {cells:,} cells are neither full, nor are their {survey.left:,} points looked up"
        )
    rows, known = survey.taken, task.registered
    return _numbered(rows, known, series).assign(
        location_id=[str(number) for number in range(next_id(_ids(known)), next_id(_ids(known)) + len(rows))]
    )


def _imported(settings: Settings, cells: gpd.GeoDataFrame, registered: pd.DataFrame, series: str) -> tuple[pd.DataFrame, int]:
    """The locations of a sampled folder that are not registered yet, and how many lie in another cell than their name says."""
    found = read_sampled_locations([settings.resolve(source) for source in settings.capture.sources])
    known: set[str] = set(_ids(registered)["location_id"])
    fresh = [location for location in found if location.location_id not in known]
    own = cell_of(cells, *_positions(fresh))
    rows = pd.DataFrame(
        {
            "location_id": [location.location_id for location in fresh],
            "lookup_id": [location.location_id for location in fresh],
            "lat_deg": _positions(fresh)[0],
            "lng_deg": _positions(fresh)[1],
            "captured_on": [location.newest for location in fresh],
            "grid_cell": pd.Series(own, dtype="Int64").where(own >= 0),
        }
    )
    renumbered = cell_of(cells, *_positions(found)) != np.array([location.cell for location in found], np.int64)
    return _numbered(rows, registered, series), int(np.count_nonzero(renumbered))


def _numbered(rows: pd.DataFrame, known: pd.DataFrame, series: str) -> pd.DataFrame:
    """In the columns of locations, with series and rank."""
    first = next_rank(known, series) if len(known) else 0
    ranks = np.arange(first, first + len(rows), dtype=np.int64)
    return rows.reindex(columns=[*LOCATION_COLUMNS, "grid_cell"]).assign(series=series, rank=ranks)


def _ids(registered: pd.DataFrame) -> pd.DataFrame:
    return registered if len(registered) else pd.DataFrame({"location_id": pd.Series(dtype=str)})


def _positions(locations: list[SampledLocation]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    lat = np.array([location.lat_deg for location in locations], np.float64)
    return lat, np.array([location.lng_deg for location in locations], np.float64)


def _write(locations: pd.DataFrame, layout: Layout, series: str) -> None:
    own: Any = locations.loc[locations["series"] == series, _TABLE]
    write_bytes(layout.buffers / f"{series}.csv", own.to_csv(index=False, lineterminator="\n").encode())
    points = gpd.points_from_xy(locations["lng_deg"], locations["lat_deg"], crs="EPSG:4326")
    write_geoparquet(layout.locations, gpd.GeoDataFrame(locations, geometry=points))
