"""Which photos of the lists a region collects: those inside its polygon, in the lists' order, in batches that never change."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.registration import Registration
from geoloc_dagster.dataset.schema import PHOTOS
from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.boundary import contains, read_boundary
from geoloc_dagster.geo.buffers import assign_batches
from geoloc_dagster.imagery.photo_sources import read_photos
from geoloc_dagster.imagery.photo_table import Photo, PhotoTable
from geoloc_dagster.storage import read_geoparquet, read_parquet, write_bytes, write_geoparquet, write_parquet

SERIES = "photos"


def register_photos(settings: Settings, layout: Layout) -> Registration:
    """Register the photos of the region's lists, and write down the rows that could not be used.

    A registered photo keeps its place and batch whatever becomes of the list; its URL, licence and author are those that the list
    says now.

    Raises:
        PhotoListError: a list is missing or is none, or none is named; nothing is written then.
        CollectionSourceError, UnsafeArchiveError: a folder or tar file cannot be used; nothing is written then.
    """
    boundary = read_boundary(layout.boundary)
    table = read_photo_table(settings)
    lats, lngs = (np.array([getattr(photo, name) for photo in table.photos], np.float64) for name in ("lat_deg", "lng_deg"))
    inside = contains(boundary, lats, lngs) if table.photos else np.zeros(0, bool)
    photos = [photo for photo, is_inside in zip(table.photos, inside, strict=True) if is_inside]
    registered = pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry")) if layout.locations.is_file() else None
    known: set[str] = set() if registered is None else set(registered["location_id"])
    fresh = _locations([photo for photo in photos if photo.photo_id not in known], first_rank=len(known))
    merged: Any = fresh if registered is None else pd.concat([registered, fresh], ignore_index=True)
    locations = assign_batches(merged, settings.buffers.batch_size, registered)
    failpoint("locations.before_write")
    _write_photos(layout, photos, locations)
    _write_problems(layout, table)
    points = gpd.points_from_xy(locations["lng_deg"], locations["lat_deg"], crs="EPSG:4326")
    write_geoparquet(layout.locations, gpd.GeoDataFrame(locations, geometry=points))
    failpoint("locations.written")
    return Registration(
        boundary=boundary,
        locations=locations,
        new=len(fresh),
        imported=True,
        close_pairs={},
        outside=int(np.count_nonzero(~inside)),
        bad_rows=table.bad_rows,
        bad_scenes=table.bad_scenes,
    )


def read_photo_table(settings: Settings) -> PhotoTable:
    """What the lists, folders and tar files of the configuration hold; raises as `read_photos`."""
    photos = settings.capture.photos
    if not photos.files:
        raise PhotoListError("capture.photos.files names no list")
    return read_photos(
        [settings.resolve(path) for path in photos.files],
        urls=[settings.resolve(path) for path in photos.urls],
        columns={str(what): name for what, name in photos.columns.items()},
        url_template=photos.url_template,
    )


def _locations(photos: list[Photo], first_rank: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "location_id": [photo.photo_id for photo in photos],
            "lat_deg": np.array([photo.lat_deg for photo in photos], np.float64),
            "lng_deg": np.array([photo.lng_deg for photo in photos], np.float64),
            "series": SERIES,
            "rank": np.arange(first_rank, first_rank + len(photos)),
            "pano_id": [photo.photo_id for photo in photos],
            "captured_on": [photo.captured_on for photo in photos],
        }
    )


def _write_photos(layout: Layout, photos: list[Photo], locations: pd.DataFrame) -> None:
    """Every registered photo; what a list says no more stays as it was said last, and places never change."""
    batches: dict[str, str] = dict(zip(locations["location_id"], locations["batch"], strict=True))
    places = dict(zip(locations["location_id"], zip(locations["lat_deg"], locations["lng_deg"], strict=True), strict=True))
    rows: dict[str, dict[str, Any]] = {}
    if layout.photos.is_file():
        rows = {row["location_id"]: row for row in read_parquet(layout.photos).to_pylist()}
    for photo in photos:
        rows[photo.photo_id] = {**asdict(photo), "location_id": photo.photo_id}
    for photo_id, row in rows.items():
        row["batch"] = batches[photo_id]
        row["lat_deg"], row["lng_deg"] = places[photo_id]
    ordered = [{name: rows[photo_id].get(name) for name in PHOTOS.names} for photo_id in batches if photo_id in rows]
    write_parquet(layout.photos, pa.Table.from_pylist(ordered, schema=PHOTOS))


def _write_problems(layout: Layout, table: PhotoTable) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "line", "reason"])
    writer.writerows([problem.file, problem.line or "", problem.reason] for problem in table.problems)
    write_bytes(layout.photo_problems, text.getvalue().encode())
