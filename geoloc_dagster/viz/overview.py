"""The picture that each materialization carries: a small map or contact sheet of what was just made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.geo.boundary import Boundary
from geoloc_dagster.tables import open_table
from geoloc_dagster.viz import style
from geoloc_dagster.viz.maps import Layer, points_map
from geoloc_dagster.viz.sheets import Tile, contact_sheet

_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.SKY, style.GREY)
_MARKERS = ("o", "^", "s", "D", "v", "P")
_SHEET_COLUMNS, _SHEET_ROWS = 6, 3
_CELL_POINTS = 3_000


def boundary_map(boundary: Boundary) -> bytes:
    """PNG of the region's outline."""
    return points_map(boundary.geometry, [], title=boundary.name, subtitle=f"{boundary.area_km2:,.1f} km², {boundary.metric_crs}")


def categories_map(boundary: Boundary, places: pd.DataFrame, column: str, *, title: str, subtitle: str = "") -> bytes:
    """PNG of places in one colour and marker per category.

    Args:
        boundary: the region.
        places: columns lat_deg, lng_deg and `column`.
        column: the category, e.g. series or split.
        title: what is shown.
        subtitle: figures that belong to it.
    """
    layers: list[Layer] = []
    for i, (name, rows) in enumerate(places.groupby(column, sort=False)):
        lat, lng = rows["lat_deg"].to_numpy(np.float64), rows["lng_deg"].to_numpy(np.float64)
        layers.append(Layer(lat, lng, str(name), _COLOURS[i % 6], _MARKERS[i % 6], size=7))
    return points_map(boundary.geometry, layers, title=title, subtitle=subtitle)


def grid_map(boundary: Boundary, points: pd.DataFrame, spacing_m: float) -> bytes:
    """PNG of the grid points inside the boundary."""
    size = float(np.clip(20_000 / max(len(points), 1), 0.2, 20))  # a coarse grid is seen, a fine one stays a tint
    layer = Layer(points["lat_deg"].to_numpy(), points["lng_deg"].to_numpy(), "grid points", style.SKY, ".", size=size)
    return points_map(
        boundary.geometry, [layer], title=f"{boundary.name}: grid", subtitle=f"{len(points):,} points {spacing_m:g} m apart"
    )


def grid_cells_map(boundary: Boundary, cells: Any, step_deg: float, points: pd.DataFrame | None = None) -> bytes:
    """PNG of a region's cells, and of the points drawn in them where they are given.

    Args:
        boundary: the region.
        cells: a GeoDataFrame with the column area_km2.
        step_deg: of the boxes that the cells are cut from.
        points: columns lat_deg, lng_deg.
    """
    small, large = _km2(cells["area_km2"].min()), _km2(cells["area_km2"].max())
    subtitle = f"{len(cells):,} cells of {step_deg:g}°, {small} to {large} km²"
    layers: list[Layer] = []
    if points is not None:
        shown = points.head(_CELL_POINTS)
        size = float(np.clip(20_000 / max(len(shown), 1), 0.2, 20))
        lat, lng = shown["lat_deg"].to_numpy(), shown["lng_deg"].to_numpy()
        layers.append(Layer(lat, lng, "points of the first rounds", style.VERMILION, ".", size=size))
        subtitle = f"{len(points):,} points in {len(cells):,} cells of {step_deg:g}°"
    return points_map(boundary.geometry, layers, title=f"{boundary.name}: cells", subtitle=subtitle, cells=list(cells.geometry))


def _km2(area: float) -> str:
    return f"{area:,.0f}" if area >= 100 else f"{area:.3g}"


def coverage_map(boundary: Boundary, lookups: pa.Table) -> bytes:
    """PNG of where a street view was found and where not.

    Args:
        boundary: the region.
        lookups: columns requested_lat_deg, requested_lng_deg and status.
    """
    frame = lookups.select(["requested_lat_deg", "requested_lng_deg", "status"]).to_pandas()
    frame.columns = ["lat_deg", "lng_deg", "status"]
    frame["status"] = np.where(frame["status"] == "OK", "street view", "none")
    subtitle = f"{(frame['status'] == 'street view').sum():,} of {len(frame):,} lookups found a street view"
    return categories_map(boundary, frame, "status", title=f"{boundary.name}: coverage", subtitle=subtitle)


def gallery_map(boundary: Boundary, rows: pa.Table) -> bytes:
    """PNG of the places that a photo can be matched to."""
    places = rows.select(["location_id", "lat_deg", "lng_deg"]).to_pandas().drop_duplicates("location_id")
    subtitle = f"{rows.num_rows:,} vectors at {len(places):,} places"
    return categories_map(
        boundary, places.assign(kind="place"), "kind", title=f"{boundary.name}: what can be found", subtitle=subtitle
    )


def locations_map(boundary: Boundary, locations: pd.DataFrame) -> bytes:
    """PNG of the registered locations by series."""
    subtitle = f"{len(locations):,} locations in {locations['batch'].nunique()} batches"
    return categories_map(boundary, locations, "series", title=f"{boundary.name}: locations by buffer", subtitle=subtitle)


def splits_map(boundary: Boundary, catalog: pa.Table) -> bytes:
    """PNG of the catalog's places by split."""
    places = catalog.select(["location_id", "lat_deg", "lng_deg", "split"]).to_pandas().drop_duplicates("location_id")
    subtitle = f"{len(places):,} places, {catalog.num_rows:,} crops"
    return categories_map(boundary, places, "split", title=f"{boundary.name}: places by split", subtitle=subtitle)


def batch_sheet(table_path: Path, batch: str) -> bytes | None:
    """JPEG of a few pictures of one batch, evenly spread over its rows; None where the batch has no picture."""
    dataset = open_table(table_path)
    if dataset is None:
        return None
    wanted = f"batch = '{batch}' AND image IS NOT NULL"
    names = dataset.to_table(columns=["capture_id"], filter=wanted)["capture_id"].to_pylist()
    if not names:
        return None
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, _SHEET_COLUMNS * _SHEET_ROWS).astype(int))]
    quoted = ", ".join(f"'{name}'" for name in chosen)
    columns = ["image", "location_id", "captured_on", "attribution"]
    rows = dataset.to_table(columns=columns, filter=f"capture_id IN ({quoted})").to_pylist()
    tiles = [
        Tile(row["image"], (row["location_id"], f"{row['captured_on']:%b %Y}" if row["captured_on"] else "no date"))
        for row in rows
    ]
    grid = [tiles[i : i + _SHEET_COLUMNS] for i in range(0, len(tiles), _SHEET_COLUMNS)]
    credit = " · ".join(sorted({row["attribution"] for row in rows})[:3])
    return contact_sheet(
        grid, title=f"{batch}: {len(names):,} pictures", attribution=f"Street views: {credit}", first_is_query=False
    )


def scene_sheet(crops_path: Path, labels_path: Path, batch: str, names: Sequence[str]) -> bytes | None:
    """JPEG of the surest pictures of each scene in one batch, one scene a row; None where no picture of it has a scene.

    Args:
        crops_path: the crops table.
        labels_path: the scene labels table.
        batch: key of the batch.
        names: of the scenes, by number.
    """
    crops, labels = open_table(crops_path), open_table(labels_path)
    if crops is None or labels is None:
        return None
    frame = labels.to_table(filter=f"batch = '{batch}' AND scene IS NOT NULL").to_pandas()
    frame["sure"] = frame[["prob_indoor", "prob_natural", "prob_urban"]].max(axis=1)
    order = frame.sort_values(["scene", "sure", "capture_id"], ascending=[True, False, True])
    chosen = order.groupby("scene").head(_SHEET_COLUMNS)
    quoted = ", ".join(f"'{name}'" for name in chosen["capture_id"])
    if not quoted:
        return None
    columns = ["capture_id", "image", "location_id", "attribution"]
    found = crops.to_table(columns=columns, filter=f"capture_id IN ({quoted})").to_pandas()
    counts, rows = frame["scene"].value_counts(), list[list[Tile]]()
    for scene, members in chosen.merge(found, on="capture_id").groupby("scene"):
        kind = f"{names[int(str(scene))]} ({counts[scene]:,})"
        said = ["by its label" if np.isnan(sure) else f"{sure:.0%}" for sure in members["sure"]]
        parts = zip(members["image"], members["location_id"], said, strict=True)
        rows.append([Tile(image, (kind, f"{location_id}, {text}")) for image, location_id, text in parts])
    credit = " · ".join(sorted(set(found["attribution"]))[:3])
    title = f"{batch}: scenes of {len(frame):,} pictures"
    return contact_sheet(
        rows, title=title, subtitle="the surest of each", attribution=f"Pictures: {credit}", first_is_query=False
    )
