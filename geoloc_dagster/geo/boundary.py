"""The polygon of a region: reading, checking, asking what lies inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.polygon import orient

from geoloc_dagster.errors import BoundaryError, IntegrityError
from geoloc_dagster.geo.distance import wgs84
from geoloc_dagster.geo.features import PolygonFeature, goes_round, read_polygons
from geoloc_dagster.storage import read_geoparquet, write_geoparquet

_UTM_ZONE_DEG = 6.0
_START_MARGIN_DEG = 0.5  # a start point this near the boundary's box is a start point of this boundary


@dataclass(frozen=True)
class Boundary:
    """A valid polygon in (lng, lat) degrees on WGS84, the metric CRS to draw and measure it in, and its geodesic area."""

    name: str
    geometry: Polygon | MultiPolygon
    metric_crs: str
    area_km2: float


def load_boundary(
    path: Path,
    *,
    name: str,
    feature: int | None = None,
    part: Literal["all", "largest"] = "all",
    metric_crs: str | None = None,
    max_area_km2: float,
    start_point: tuple[float, float] | None = None,
) -> Boundary:
    """Read a region's polygon from GeoJSON, TopoJSON or a shapefile and check that it can be used.

    Args:
        path: the file.
        name: of the region.
        feature: use only the polygon of this number, counted from 0; all polygons are united without it.
        part: keep all of it, or the polygon of the largest area alone; what is left out is not checked against longitude ±180.
        metric_crs: a projected CRS in metres, e.g. "EPSG:3006"; without it the UTM zone of the polygon's middle, or where the
            polygon is wider than a zone an equal-area projection around its middle.
        max_area_km2: a larger polygon is refused.
        start_point: (lat, lng) degrees; where given, tells axes in (lat, lng) order apart from a polygon elsewhere.

    Raises:
        BoundaryError: one clear cause; see `features.read_polygons`, and area, feature number, CRS and axes here.
        UnsafeFileError: the file is a pickle.
    """
    geometry = _choose(path, read_polygons(path, parts=part == "largest"), feature, part)
    _check_axes(path, geometry, start_point)
    area_km2 = geodesic_area_km2(geometry)
    if area_km2 > max_area_km2:
        remedy = "Draw a smaller polygon, or raise region.max_area_km2 if this is meant."
        raise BoundaryError(f"{path} covers {area_km2:,.0f} km², more than the {max_area_km2:,.0f} km² allowed", remedy)
    return Boundary(name, geometry, _checked_crs(metric_crs, geometry), area_km2)


def contains(boundary: Boundary, lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which positions lie inside the boundary; its edge is outside, and so is a position that is not a number."""
    lat, lng = np.broadcast_arrays(np.asarray(lat_deg, dtype=np.float64), np.asarray(lng_deg, dtype=np.float64))
    shapely.prepare(boundary.geometry)
    return np.asarray(shapely.contains_xy(boundary.geometry, lng, lat), dtype=np.bool_)


def utm_crs(lat_deg: float, lng_deg: float) -> str:
    """EPSG code of the UTM zone of a position, e.g. "EPSG:32634" for Stockholm (six-degree zones, no exceptions)."""
    zone = min(int((lng_deg + 180) // 6) + 1, 60)
    return f"EPSG:{(32600 if lat_deg >= 0 else 32700) + zone}"


def equal_area_crs(lat_deg: float, lng_deg: float) -> str:
    """A Lambert azimuthal equal-area projection around a position, as a PROJ string; metres."""
    return f"+proj=laea +lat_0={lat_deg:.1f} +lon_0={lng_deg:.1f} +datum=WGS84 +units=m +no_defs"


def geodesic_area_km2(geometry: Polygon | MultiPolygon) -> float:
    """Area on the ellipsoid; rings are turned first because their direction gives the sign.

    What goes round the Earth is measured in quarters whose sides follow their parallels: the shortest way from longitude -180 to
    180 is none at all, and the whole Earth has no outside.
    """
    measured = [geometry]
    if goes_round(geometry):
        quarters = [shapely.intersection(geometry, shapely.box(west, -90, west + 90, 90)) for west in (-180, -90, 0, 90)]
        measured = [shapely.segmentize(quarter, 1.0) for quarter in quarters]
    parts = [part for one in measured for part in shapely.get_parts(one).tolist() if isinstance(part, Polygon)]
    return sum(abs(wgs84().geometry_area_perimeter(orient(part))[0]) for part in parts) / 1e6


def write_boundary(path: Path, boundary: Boundary) -> Path:
    """Write a boundary as GeoParquet of one row, atomically."""
    import geopandas as gpd

    columns = {"name": [boundary.name], "metric_crs": [boundary.metric_crs], "area_km2": [boundary.area_km2]}
    return write_geoparquet(path, gpd.GeoDataFrame(columns, geometry=[boundary.geometry], crs="OGC:CRS84"))


def read_boundary(path: Path) -> Boundary:
    """Read a boundary that `write_boundary` wrote; a damaged or missing file is an `IntegrityError`."""
    frame: Any = read_geoparquet(path)
    if len(frame) != 1 or not {"name", "metric_crs", "area_km2"} <= set(frame.columns):
        raise IntegrityError(f"{path} is not a boundary: it has {len(frame)} rows and the columns {list(frame.columns)}")
    row = frame.iloc[0]
    return Boundary(str(row["name"]), row.geometry, str(row["metric_crs"]), float(row["area_km2"]))


def _choose(path: Path, features: list[PolygonFeature], number: int | None, part: str) -> Polygon | MultiPolygon:
    if number is not None:
        chosen = [feature for feature in features if feature.number == number]
        if not chosen:
            numbers = ", ".join(map(str, list(dict.fromkeys(feature.number for feature in features))[:10]))
            remedy = f"Set region.boundary_feature to one of: {numbers}."
            raise BoundaryError(f"{path} has no polygon with the number {number}", remedy)
        features = chosen
    if part == "largest":
        return max((feature.geometry for feature in features), key=geodesic_area_km2)
    if len(features) == 1:
        return features[0].geometry
    united = shapely.union_all([feature.geometry for feature in features])
    west, _, east, _ = united.bounds
    if not isinstance(united, Polygon | MultiPolygon) or (east - west > 180 and not goes_round(united)):
        remedy = "Keep the features of one side, or name one with region.boundary_feature."
        raise BoundaryError(f"the features of {path} together span more than 180° of longitude", remedy)
    return united


def _check_axes(path: Path, geometry: Polygon | MultiPolygon, start_point: tuple[float, float] | None) -> None:
    if start_point is None:
        return
    box = shapely.box(*geometry.bounds).buffer(_START_MARGIN_DEG, join_style="mitre")
    lat, lng = start_point
    if not shapely.contains_xy(box, lng, lat) and shapely.contains_xy(box, lat, lng):
        west, south, east, north = geometry.bounds
        raise BoundaryError(
            f"{path} lies at latitudes {south:.2f} to {north:.2f} and longitudes {west:.2f} to {east:.2f}, "
            f"the start point at latitude {lat}, longitude {lng}: one of them has its axes swapped",
            "Polygons hold (longitude, latitude); region.start_point is (lat, lng).",
        )


def _checked_crs(metric_crs: str | None, geometry: Polygon | MultiPolygon) -> str:
    west, south, east, north = geometry.bounds
    if metric_crs is None:
        choose = equal_area_crs if east - west > _UTM_ZONE_DEG else utm_crs
        return choose((south + north) / 2, (west + east) / 2)
    remedy = "Name a projected system in metres, e.g. EPSG:3006, or leave region.metric_crs out."
    try:
        crs = CRS.from_user_input(metric_crs)
    except CRSError as error:
        raise BoundaryError(f"{metric_crs!r} is not a known coordinate reference system", remedy) from error
    if not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
        raise BoundaryError(f"{metric_crs} ({crs.name}) is not a projected system in metres", remedy)
    area = crs.area_of_use
    if area is not None and (south > area.north or north < area.south or west > area.east or east < area.west):
        raise BoundaryError(f"{metric_crs} is made for {area.name[:60]}, where this polygon does not lie", remedy)
    return metric_crs
