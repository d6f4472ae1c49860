"""Small polygons and files for the tests of geography."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import Polygon

from geoloc_dagster.geo.boundary import Boundary

OLD_TOWN = [[18.060, 59.322], [18.080, 59.322], [18.080, 59.330], [18.060, 59.330], [18.060, 59.322]]  # (lng, lat)
COURTYARD = [[18.065, 59.324], [18.065, 59.326], [18.070, 59.326], [18.070, 59.324], [18.065, 59.324]]


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: dict[str, Any] | None, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def collection(*features: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **members}


def saved(folder: Path, document: Any, name: str = "place.geojson") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def square(lat_deg: float, lng_deg: float, side_deg: float, name: str = "square") -> Boundary:
    box = shapely.box(lng_deg, lat_deg, lng_deg + side_deg, lat_deg + side_deg)
    assert isinstance(box, Polygon)
    return Boundary(name, box, "EPSG:32634", 1.0)
