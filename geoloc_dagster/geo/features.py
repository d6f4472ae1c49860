"""Reading polygons with their properties from GeoJSON, TopoJSON and shapefiles, whatever state the file is in.

Everything here answers one question: is this a file of WGS84 polygons? What is wrong with it is a `BoundaryError` that names
the file, the feature and, where there is one, the place as (lat, lng).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon, Polygon, shape

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo import topojson
from geoloc_dagster.storage import refuse_pickles

MAX_FILE_BYTES = 256 * 2**20
_WGS84_NAMES = {
    "urn:ogc:def:crs:OGC:1.3:CRS84",
    "urn:ogc:def:crs:OGC::CRS84",
    "OGC:CRS84",
    "EPSG:4326",
    "urn:ogc:def:crs:EPSG::4326",
}
_VALIDITY = re.compile(r"(?P<reason>[^\[]+)(\[(?P<lng>\S+) (?P<lat>\S+)\])?")


@dataclass(frozen=True)
class PolygonFeature:
    """One polygon of a file: valid, two-dimensional, (lng, lat) degrees on WGS84, with its properties."""

    number: int
    geometry: Polygon | MultiPolygon
    properties: dict[str, Any]


def read_polygons(path: Path, *, parts: bool = False) -> list[PolygonFeature]:
    """Read every polygon of a file (.geojson, .json, .topojson or .shp).

    Args:
        path: the file.
        parts: give each part of a feature by itself, under the feature's number.

    Raises:
        BoundaryError: the file is missing, empty, too large or broken, has no polygons, or one of them has coordinates that
            are not finite, out of range, self-intersecting or spread over more than half the globe.
        UnsafeFileError: the file is a pickle.
    """
    _check_file(path)
    raw = _read_shapefile(path) if path.suffix.lower() == ".shp" else _read_json(path)
    features: list[PolygonFeature] = []
    for number, (geometry, properties) in enumerate(raw):
        for piece in shapely.get_parts(geometry) if parts else [geometry]:
            if isinstance(piece, Polygon | MultiPolygon) and not piece.is_empty:
                _check_polygon(path, number, piece)
                features.append(PolygonFeature(number, piece, properties))
    if not features:
        raise BoundaryError(f"{path} holds no polygons", "Export an area (Polygon or MultiPolygon), not points or lines.")
    return features


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BoundaryError(f"{path} does not exist or is not a file", "Correct the path; it is relative to geoloc.yaml.")
    refuse_pickles(path)
    size = path.stat().st_size
    if size == 0:
        raise BoundaryError(f"{path} is empty")
    if size > MAX_FILE_BYTES:
        remedy = "Simplify the polygon or keep only the area that is wanted."
        raise BoundaryError(f"{path} is too large: {size / 2**20:,.0f} MiB, at most {MAX_FILE_BYTES >> 20} are read", remedy)


# --- GeoJSON and TopoJSON ----------------------------------------------------------------------------------------------
def _read_json(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    document = _parse_json(path)
    try:
        features = list(_flatten(topojson.to_features(document) if document.get("type") == "Topology" else [document]))
        to_wgs84 = _transformer(path, _named_crs(document))
        for feature in features:
            geometry = shapely.force_2d(shape(feature["geometry"]))
            yield (to_wgs84(geometry) if to_wgs84 else geometry), dict(feature.get("properties") or {})
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError, shapely.errors.ShapelyError) as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BoundaryError(f"{path} is JSON but not well-formed GeoJSON or TopoJSON ({detail})") from error


def _parse_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise BoundaryError(f"{path} holds the coordinate {constant}, which is not a number")

    try:
        document = json.loads(path.read_bytes(), parse_constant=refuse)
    except RecursionError as error:
        raise BoundaryError(f"{path} is nested too deeply to be GeoJSON or TopoJSON") from error
    except ValueError as error:
        remedy = "Export it again as GeoJSON (a .shp file is read together with its .shx and .dbf)."
        raise BoundaryError(f"{path} is not valid JSON: {error}", remedy) from error
    if not isinstance(document, dict):
        raise BoundaryError(f"{path} is JSON but not GeoJSON or TopoJSON: it holds a {type(document).__name__}, not an object")
    return document


def _flatten(objects: list[Any]) -> Iterator[dict[str, Any]]:
    """Features out of collections of features and of geometries; features without a geometry are passed over."""
    for item in objects:
        kind = item.get("type")
        if kind == "FeatureCollection":
            yield from _flatten(item["features"])
        elif kind == "GeometryCollection":
            yield from _flatten(item["geometries"])
        elif kind == "Feature":
            geometry = item.get("geometry")
            if geometry is not None:
                for part in _flatten([geometry]):
                    yield {"geometry": part["geometry"], "properties": item.get("properties")}
        elif "coordinates" in item:
            yield {"geometry": item, "properties": None}
        else:
            raise ValueError(f"type {kind!r} is not a feature or a geometry")


def _named_crs(document: dict[str, Any]) -> str | None:
    """The `crs` member of GeoJSON before RFC 7946, which many exports still write."""
    crs = document.get("crs")
    return None if crs is None else str(crs["properties"]["name"])


# --- shapefiles ----------------------------------------------------------------------------------------------------------
def _read_shapefile(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    from pyogrio import read_dataframe
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        frame: Any = read_dataframe(path)
        to_wgs84 = _transformer(path, frame.crs)
        for geometry, properties in zip(frame.geometry, frame.drop(columns=frame.geometry.name).to_dict("records"), strict=True):
            if geometry is not None:
                flat = shapely.force_2d(geometry)
                yield (to_wgs84(flat) if to_wgs84 else flat), dict(properties)
    except (ValueError, AttributeError, DataSourceError, DataLayerError) as error:
        remedy = "Keep the .shp together with its .shx, .dbf and .prj, or export GeoJSON."
        raise BoundaryError(f"{path} cannot be read as a shapefile: {str(error).splitlines()[0]}", remedy) from error


# --- coordinates -----------------------------------------------------------------------------------------------------------
def _transformer(path: Path, crs: Any) -> Any:
    """A function from that CRS to WGS84, or None where nothing is to be done (no CRS is taken for WGS84, as GeoJSON says)."""
    if crs is None or str(crs) in _WGS84_NAMES:
        return None
    try:
        source = CRS.from_user_input(crs)
    except CRSError as error:
        raise BoundaryError(f"{path} names an unknown coordinate reference system: {str(crs)[:80]}") from error
    transform = Transformer.from_crs(source, "OGC:CRS84", always_xy=True)

    def to_wgs84(geometry: Any) -> Any:
        return shapely.transform(geometry, lambda xy: np.stack(transform.transform(xy[:, 0], xy[:, 1]), axis=1))

    return to_wgs84


def _check_polygon(path: Path, number: int, geometry: Polygon | MultiPolygon) -> None:
    name = f"feature {number} of {path}"
    lng, lat = shapely.get_coordinates(geometry).T
    if not (np.isfinite(lng).all() and np.isfinite(lat).all()):
        raise BoundaryError(f"{name} has a coordinate that is not a finite number")
    _check_range(name, lng, lat)
    if lng.max() - lng.min() > 180 and not goes_round(geometry):
        remedy = "Cut it at longitude ±180 and keep one side, or use one region per side."
        raise BoundaryError(f"{name} spans {lng.max() - lng.min():.0f}° of longitude: it crosses the antimeridian", remedy)
    if not geometry.is_valid:
        found = _VALIDITY.fullmatch(shapely.is_valid_reason(geometry))
        reason = found["reason"].strip().lower() if found else "invalid"
        place = f" at (lat, lng) = ({float(found['lat']):.6f}, {float(found['lng']):.6f})" if found and found["lat"] else ""
        raise BoundaryError(
            f"{name} is not a valid polygon: {reason}{place}", "Repair the polygon at that place, then try again."
        )


def goes_round(geometry: Polygon | MultiPolygon) -> bool:
    """Whether a polygon goes round the Earth, from longitude -180 to 180 without a gap; what crosses 180 only seems to."""
    parts = geometry.geoms if isinstance(geometry, MultiPolygon) else [geometry]
    return any(part.bounds[0] == -180 and part.bounds[2] == 180 for part in parts)


def _check_range(name: str, lng: Any, lat: Any) -> None:
    if np.abs(lng).max() <= 180 and np.abs(lat).max() <= 90:
        return
    worst = int(np.argmax(np.maximum(np.abs(lng) - 180, np.abs(lat) - 90)))
    if np.abs(lng).max() <= 90 and np.abs(lat).max() <= 180:
        raise BoundaryError(
            f"{name} has latitude {lat[worst]:.6g}: its coordinates seem to be in (lat, lng) order",
            "Swap them: GeoJSON, TopoJSON and shapefiles hold (longitude, latitude).",
        )
    raise BoundaryError(
        f"{name} has the position longitude {lng[worst]:.6g}, latitude {lat[worst]:.6g}, which is outside ±180, ±90",
        "Export it in WGS84 degrees (EPSG:4326), in (longitude, latitude) order.",
    )
