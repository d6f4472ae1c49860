"""The part of the made-up API that shows what is there: locations and their tiles, models, districts, assets."""

from __future__ import annotations

import math
from typing import Any

import mapbox_vector_tile
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from shapely.geometry import Point, mapping

from geoloc_dagster_tests.explorer.fake_city import EXPERTS, HEADINGS, City, Place, age_on, chart_png

MODELS = (("retrieval", "retrieval", True), ("retrieval-large", "retrieval", False), ("cells", "cells", True))


def problem(status: int, title: str, detail: str) -> JSONResponse:
    """An error as the API states it."""
    content = {"title": title, "status": status, "detail": detail}
    return JSONResponse(content, status, media_type="application/problem+json")


def add_coverage(app: FastAPI, city: City) -> None:
    """Locations and what is collected of them."""

    @app.get("/coverage")
    def coverage() -> dict[str, Any]:
        held = [year for place in city.places for year in place.years]
        series = [
            {
                "series": name,
                "locations": len(own),
                **{s: sum(p.status == s for p in own) for s in ("collected", "empty", "pending", "failed")},
            }
            for name in ("100m", "75m", "60m")
            for own in [[p for p in city.places if p.series == name]]
        ]
        newest = [age_on(p.years[-1]) for p in city.places if p.years]
        return {
            "locations": len(city.places),
            "captures": 4 * len(held),
            "by_series": series,
            "by_year": [{"year": year, "captures": 4 * held.count(year)} for year in sorted(set(held))],
            "by_heading": [{"heading": heading, "captures": len(held)} for heading in HEADINGS],
            "by_age": [{"years": age, "locations": newest.count(age)} for age in range(max(newest) + 1)],
            "nights": [{"date": f"2026-11-{day:02d}", "captures": 120 + 9 * (day % 5) * (day % 3)} for day in range(3, 27)],
        }

    @app.get("/locations")
    def locations(series: str = "", status: str = "", since: int = 0, until: int = 9999, limit: int = 10**9) -> dict[str, Any]:
        found = [
            place
            for place in city.places
            if (not series or place.series == series)
            and (not status or place.status == status)
            and ((since == 0 and until == 9999) or any(since <= year <= until for year in place.years))
        ]
        features = [
            {
                "type": "Feature",
                "properties": _properties(p),
                "geometry": {"type": "Point", "coordinates": [p.lng_deg, p.lat_deg]},
            }
            for p in found[:limit]
        ]
        return {"type": "FeatureCollection", "features": features}

    @app.get("/tiles/{z}/{x}/{y}.mvt")
    def tile(z: int, x: int, y: int) -> Response:
        features = [
            {"geometry": Point(px, py), "properties": {k: v for k, v in _properties(p).items() if v is not None}}
            for p in city.places
            for px, py in [_in_tile(p, z, x, y)]
            if 0 <= px < 4096 and 0 <= py < 4096
        ]
        encoded = mapbox_vector_tile.encode([{"name": "locations", "features": features}], default_options={"y_coord_down": True})
        return Response(encoded, media_type="application/vnd.mapbox-vector-tile")

    @app.get("/locations/{location_id}", response_model=None)
    def location(location_id: str) -> JSONResponse | dict[str, Any]:
        place = next((p for p in city.places if p.location_id == location_id), None)
        if place is None:
            return problem(404, "No such place", f"{location_id} is no place of this region.")
        return {
            "location_id": place.location_id,
            "lat_deg": place.lat_deg,
            "lng_deg": place.lng_deg,
            "series": place.series,
            "batch": f"{place.series}-0000",
            "status": place.status,
            "views": place.views(),
        }


def add_quality(app: FastAPI, city: City) -> None:
    """Models, districts, assets."""

    @app.get("/quality")
    def quality() -> dict[str, Any]:
        models = [
            {
                "model_version": f"{recipe}-0e0257b99d27",
                "recipe": recipe,
                "kind": kind,
                "champion": champion,
                "evaluated_at": "2026-11-28T20:15:00Z",
                "mlflow_run_id": "bcb604e235814286a9c7871e322896d7",
                "n_queries": 960,
                "headline": [
                    {"name": "R@1", "value": 0.71 - 0.08 * i, "low": 0.68 - 0.08 * i, "high": 0.74 - 0.08 * i, "unit": "share"},
                    {
                        "name": "within 100 m",
                        "value": 0.78 - 0.08 * i,
                        "low": 0.75 - 0.08 * i,
                        "high": 0.81 - 0.08 * i,
                        "unit": "share",
                    },
                    {"name": "median error", "value": 48 + 60 * i, "low": 40 + 60 * i, "high": 58 + 60 * i, "unit": "m"},
                ],
                "pictures": [
                    {"name": name, "title": title, "url": f"/quality/{recipe}/{recipe}-0e0257b99d27/pictures/{name}"}
                    for name, title in (("recall", "Recall at k"), ("years", "Recall by year of query and of gallery"))
                ],
            }
            for i, (recipe, kind, champion) in enumerate(MODELS)
        ]
        figures = [
            {"name": "within 100 m", "value": 0.83, "low": 0.8, "high": 0.86, "unit": "share"},
            {"name": "GeoScore", "value": 4321, "low": 4250, "high": 4390, "unit": ""},
        ]
        fusion = {
            "headline": figures,
            "experts": [
                {"name": name, "figures": [{**figures[0], "value": 0.8 - 0.1 * i, "low": 0.77 - 0.1 * i, "high": 0.83 - 0.1 * i}]}
                for i, name in enumerate(EXPERTS)
            ],
            "pictures": [{"name": "calibration", "title": "Calibration", "url": "/quality/fusion/pictures/calibration"}],
            "ece": 0.021,
            "coverage": {"asked": 0.9, "held": 0.913, "low": 0.894, "high": 0.93},
        }
        return {"fusion": fusion, "models": models}

    @app.get("/quality/fusion/pictures/{name}")
    def fusion_picture(name: str) -> Response:
        return Response(chart_png(name), media_type="image/png")

    @app.get("/quality/{recipe}/{version}/pictures/{name}")
    def model_picture(recipe: str, version: str, name: str) -> Response:
        return Response(chart_png(f"{recipe}: {name}"), media_type="image/png")

    @app.get("/quality/{recipe}/{version}/queries")
    def queries(recipe: str, version: str, hits: int = 1, n: int = 24) -> dict[str, Any]:
        held = city.samples
        found = [
            {
                "capture_id": v["capture_id"],
                "url": v["url"],
                "hit": bool(hits),
                "distance_m": 20 if hits else 830 + 97 * i,
                "found_url": held[(i + (0 if hits else 3)) % len(held)].views()[2]["url"],
                "captured_on": v["captured_on"],
            }
            for i, v in enumerate(place.views()[0] for place in held)
        ]
        return {"queries": found[:n]}

    @app.get("/quality/compare")
    def compare(a: str, b: str) -> dict[str, Any]:
        return {
            "a": a,
            "b": b,
            "metric": "R@1",
            "n_queries": 960,
            "a_value": 0.71,
            "b_value": 0.63,
            "difference": 0.08,
            "low": 0.05,
            "high": 0.11,
            "verdict": f"{a} finds more",
            "by_district": [
                {"name": name, "n": 90 + i, "a": 0.7 - i / 50, "b": 0.6 + i / 80} for i, (name, _) in enumerate(city.districts)
            ],
            "by_year": [
                {"year": year, "n": 120, "a": 0.6 + (year - 2010) / 60, "b": 0.55 + (year - 2010) / 90}
                for year in range(2010, 2024, 2)
            ],
        }

    @app.get("/atlas")
    def atlas(of: str = "fusion") -> dict[str, Any]:
        def row(i: int, name: str) -> dict[str, Any]:
            recall = None if i == 7 else 0.45 + 0.06 * i
            near = (
                {"recall_low": None, "recall_high": None}
                if recall is None
                else {"recall_low": recall - 0.05, "recall_high": recall + 0.05}
            )
            return {
                "name": name,
                "n_places": 40 + i,
                "n_pictures": 800 + 30 * i,
                "n_queries": 100 + i,
                "n_query_places": 0 if recall is None else 20,
                "as_of": "2026-06-30",
                "recall": recall,
                **near,
                "coverage": recall and 0.88 + 0.01 * i,
                "age_years": 3.0 + i,
                "region_km2": recall and 0.2 + 0.1 * i,
            }

        features = [
            {"type": "Feature", "properties": row(i, name), "geometry": mapping(part)}
            for i, (name, part) in enumerate(city.districts)
        ]
        return {"type": "FeatureCollection", "features": features}

    @app.get("/lineage")
    def lineage() -> dict[str, Any]:
        names = (
            ("region", "region_boundary"),
            ("coverage", "street_view_metadata"),
            ("buffers", "buffer_csvs"),
            ("collection", "panoramas"),
            ("imagery", "crops"),
            ("dataset", "catalog"),
            ("training", "checkpoints"),
            ("evaluation", "evaluations"),
            ("release", "champion"),
            ("release", "embeddings"),
            ("release", "faiss_index"),
            ("release", "fusion"),
            ("release", "release"),
        )
        assets = [
            {
                "asset": name,
                "group": group,
                "path": f"data/{name}",
                "kind": "Lance table",
                "rows": None if group == "release" else 400 * (i + 1),
                "bytes": 10 ** (i % 8 + 2),
                "updated_at": None if name == "fusion" else "2026-11-28T20:15:00Z",
                "dagster_url": f"http://127.0.0.1:3000/assets/kvarnstad/{name}",
                "mlflow_url": "http://127.0.0.1:5000/#/runs/x" if group == "training" else None,
                "note": "not made yet" if name == "fusion" else "",
            }
            for i, (group, name) in enumerate(names)
        ]
        return {"dagster_url": "http://127.0.0.1:3000", "mlflow_url": "http://127.0.0.1:5000", "assets": assets}


def _properties(place: Place) -> dict[str, Any]:
    first, last = (place.years[0], place.years[-1]) if place.years else (None, None)
    return {
        "location_id": place.location_id,
        "series": place.series,
        "status": place.status,
        "captures": 4 * len(place.years),
        "first_on": first and f"{first}-07-07",
        "last_on": last and f"{last}-07-07",
        "first_year": first,
        "last_year": last,
    }


def _in_tile(place: Place, z: int, x: int, y: int) -> tuple[float, float]:
    """Position in a Web Mercator tile of 4096 units."""
    n = 2**z
    lat = math.radians(place.lat_deg)
    px = (place.lng_deg + 180) / 360 * n - x
    py = (1 - math.asinh(math.tan(lat)) / math.pi) / 2 * n - y
    return px * 4096, py * 4096
