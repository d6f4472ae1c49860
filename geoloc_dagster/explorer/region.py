"""The region as pages draw it, and what of the explorer it has data for."""

from __future__ import annotations

from typing import Any

import shapely
from shapely.geometry import mapping

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.explorer.serving import Serving
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.storage import read_json

_SIMPLER = 2_000  # of the diagonal: finer than a screen shows


def region_json(settings: Settings, layout: Layout, places: Places, serving: Serving) -> dict[str, Any]:
    """What `/region` says; all but the start point where the boundary has not been made yet."""
    explorer, region = settings.explorer, settings.region
    said: dict[str, Any] = {
        "name": region.name,
        "start": list(region.start_point),
        "tile_url": explorer.tile_url,
        "tile_attribution": explorer.tile_attribution,
        "coverage": settings.fusion.coverage,
        "limits": {
            "bytes": explorer.photo_bytes,
            "pixels": explorer.photo_pixels,
            "photos": explorer.photos_per_request,
        },
        "has": _has(layout, places, serving),
    }
    return said | _model(layout, serving) | _shape(settings, layout)


def _model(layout: Layout, serving: Serving) -> dict[str, Any]:
    if serving.release is None:
        return {"release": None, "calibrated": False, "experts": [], "radii_m": []}
    served = serving.served
    manifest = read_json(layout.releases / served.release / "manifest.json") if layout.releases.exists() else {}
    facts = {name: manifest.get(name) for name in ("model_version", "recipe")}
    fused = served.fused
    return {
        "release": {"id": served.release, **facts, "activated_at": served.activated_at.isoformat()},
        "calibrated": fused is not None,
        "experts": [] if fused is None else [expert.name for expert in fused.experts],
        "radii_m": [] if fused is None else list(fused.fusion.radii_m),
    }


def _shape(settings: Settings, layout: Layout) -> dict[str, Any]:
    if not layout.boundary.is_file():
        lat, lng = settings.region.start_point
        return {
            "bounds": [lng - 0.01, lat - 0.01, lng + 0.01, lat + 0.01],
            "area_km2": None,
            "boundary": None,
            "districts": {"type": "FeatureCollection", "features": []},
            "score_m": None,
        }
    boundary = read_boundary(layout.boundary)
    west, south, east, north = boundary.geometry.bounds
    tolerance = ((east - west) ** 2 + (north - south) ** 2) ** 0.5 / _SIMPLER
    return {
        "bounds": [west, south, east, north],
        "area_km2": round(boundary.area_km2, 4),
        "boundary": mapping(shapely.simplify(boundary.geometry, tolerance)),
        "districts": _districts(settings, tolerance),
        "score_m": round(score_m(south, west, north, east), 1),
    }


def _districts(settings: Settings, tolerance: float) -> dict[str, Any]:
    from geoloc_dagster.geo.features import read_polygons

    region = settings.region
    found = [] if region.districts is None else read_polygons(settings.resolve(region.districts))
    features = [
        {
            "type": "Feature",
            "geometry": mapping(shapely.simplify(one.geometry, tolerance)),
            "properties": {"name": str(one.properties.get(region.district_property, ""))},
        }
        for one in found
    ]
    return {"type": "FeatureCollection", "features": features}


def _has(layout: Layout, places: Places, serving: Serving) -> dict[str, bool | str]:
    """What there is to see, or why there is not."""
    predict: bool | str = serving.release is not None or (
        serving.problem or "Nothing has been released yet: `geoloc run` makes a release."
    )
    held_out = places.has_catalog and places.questions().num_rows > 0
    play: bool | str = held_out or "No picture is held out for a game yet: `geoloc run` makes the catalog."
    coverage: bool | str = bool(places.locations()) or "No location is registered yet: `geoloc run` looks for them."
    evaluated = next(layout.evaluations.glob("*/*/report.json"), None) is not None
    quality: bool | str = evaluated or "No model has been evaluated yet: `geoloc run` trains and measures one."
    return {"predict": predict, "play": play, "coverage": coverage, "quality": quality}
