"""The explorer's API as the pages know it, with made-up data: the pages are tested without a region having been made.

Run it to look at the pages: `python -m geoloc_dagster_tests.explorer.fake_api 8000`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from shapely.geometry import Point, mapping

import geoloc_dagster
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster_tests.explorer.fake_city import (
    CREDIT,
    EXPERTS,
    HEADINGS,
    RADII_M,
    SCORE_M,
    City,
    Place,
    age_on,
    chart_png,
    view_jpeg,
)

STATIC = Path(geoloc_dagster.__file__).parent / "explorer" / "static"
CSP = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
MODELS = (("retrieval", "retrieval", True), ("retrieval-large", "retrieval", False), ("cells", "cells", True))


@dataclass
class Fake:
    """What the fake has been asked, and what it shall not have.

    Attributes:
        missing: views that are not there -> the sentence that says why.
        asked: method and path of every request, in order.
        guesses: answers to guesses, in order.
        uploads: names of the photos that came.
    """

    city: City = field(default_factory=City)
    missing: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    guesses: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    region_name: str = "Kvarnstad"


def create_app(fake: Fake) -> FastAPI:
    """The whole API over one fake town."""
    app = FastAPI()
    _frame(app, fake)
    _ask(app, fake)
    _play(app, fake)
    _coverage(app, fake)
    _quality(app, fake)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


@contextlib.contextmanager
def serve(fake: Fake) -> Generator[str]:
    """The fake on a free port of this machine, in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(fake), host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    started = threading.Event()
    startup = server.startup

    async def and_say_so(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = and_say_so  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def problem(status: int, title: str, detail: str) -> JSONResponse:
    """An error as the API states it."""
    content = {"title": title, "status": status, "detail": detail}
    return JSONResponse(content, status, media_type="application/problem+json")


def _frame(app: FastAPI, fake: Fake) -> None:
    city = fake.city

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Response:
        fake.asked.append(f"{request.method} {request.url.path}")
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = CSP
        return response

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/region")
    def region() -> dict[str, Any]:
        features = [{"type": "Feature", "properties": {"name": name}, "geometry": mapping(part)} for name, part in city.districts]
        return {
            "name": fake.region_name,
            "bounds": list(city.outline.bounds),
            "start": [59.312, 18.058],
            "area_km2": 13.8,
            "boundary": mapping(city.outline),
            "districts": {"type": "FeatureCollection", "features": features},
            "tile_url": None,
            "tile_attribution": None,
            "radii_m": list(RADII_M),
            "coverages": [0.5, 0.8, 0.9, 0.95],
            "coverage": 0.9,
            "experts": list(EXPERTS),
            "score_m": SCORE_M,
            "release": {
                "id": "2026-11-28-8a03c9f1ac8d",
                "model_version": "retrieval-0",
                "recipe": "retrieval",
                "activated_at": "2026-11-28T22:10:00Z",
            },
            "calibrated": city.calibrated,
            "limits": {"bytes": 10_000_000, "pixels": 40_000_000, "photos": 4},
            "has": {name: fake.missing.get(name, True) for name in ("predict", "play", "coverage", "quality")},
        }

    @app.get("/views/{capture_id}")
    def view(capture_id: str) -> Response:
        return Response(view_jpeg(capture_id), media_type="image/jpeg")


def _samples(city: City) -> list[Place]:
    return [place for place in city.places if place.years][:12]


def _ask(app: FastAPI, fake: Fake) -> None:
    city = fake.city

    @app.get("/samples")
    def samples(n: int = 12) -> dict[str, Any]:
        first = [place.views()[1] for place in _samples(city)[:n]]
        keys = ("capture_id", "url", "captured_on", "heading_deg", "attribution", "licence")
        return {"samples": [{key: view[key] for key in keys} for view in first]}

    @app.get("/predict/sample/{capture_id}")
    def sample(capture_id: str, coverage: float = 0.9) -> dict[str, Any]:
        i, place = next((i, place) for i, place in enumerate(_samples(city)) if capture_id.startswith(place.location_id))
        answer = city.answer(i, coverage=coverage, at=(place.lat_deg, place.lng_deg))
        away = float(great_circle_m(answer["lat_deg"], answer["lng_deg"], place.lat_deg, place.lng_deg))
        truth = {"lat_deg": place.lat_deg, "lng_deg": place.lng_deg, "distance_m": away, "score": _score(away)}
        return {**answer, "truth": truth}

    @app.post("/predict", response_model=None)
    async def predict(request: Request, photos: list[UploadFile], coverage: float = 0.9) -> Response | dict[str, Any]:
        answers: list[dict[str, Any]] = []
        for photo in photos:
            held = await photo.read()
            fake.uploads.append(photo.filename or "")
            if held[:2] not in (b"\xff\xd8", b"\x89P"):
                error = {"title": "Not a photo", "status": 422, "detail": "The file holds neither JPEG nor PNG."}
                answers.append({"photo": photo.filename, "error": error})
            else:
                answers.append({**city.answer(len(fake.uploads), coverage=coverage), "photo": photo.filename})
        if "ndjson" not in request.headers.get("accept", ""):
            return {"answers": answers}
        lines = (f"{json.dumps(answer)}\n" for answer in answers)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def _play(app: FastAPI, fake: Fake) -> None:
    city = fake.city

    def place_of(code: str, k: int) -> tuple[Place, int]:
        seed, rounds, views = (int(part) for part in code.split("-"))
        if not 1 <= k <= rounds:
            raise LookupError(k)
        held = [place for place in city.places if place.years]
        return held[(seed * 31 + k * 7) % len(held)], views

    @app.exception_handler(LookupError)
    @app.exception_handler(ValueError)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return problem(
            404, "No such game", f"There is no game {request.url.path.split('/')[2]!r} here. Start one on the page Play."
        )

    @app.post("/games")
    async def games(request: Request) -> dict[str, Any]:
        body = await request.json()
        seed = 7 if body["seed"] is None else body["seed"]
        return {
            "code": f"{seed}-{body['rounds']}-{body['views']}",
            "rounds": body["rounds"],
            "views": body["views"],
            "places": 280,
        }

    @app.get("/games/{code}")
    def game(code: str) -> dict[str, Any]:
        seed, rounds, views = (int(part) for part in code.split("-"))
        return {"code": code, "seed": seed, "rounds": rounds, "views": views, "places": 280}

    @app.get("/games/{code}/rounds/{k}")
    def one_round(code: str, k: int) -> dict[str, Any]:
        _, views = place_of(code, k)
        found = [{"url": f"/games/{code}/rounds/{k}/views/{i}", "heading_deg": HEADINGS[i]} for i in range(views)]
        return {"round": k, "of": int(code.split("-")[1]), "views": found}

    @app.get("/games/{code}/rounds/{k}/views/{i}")
    def game_view(code: str, k: int, i: int) -> Response:
        place, _ = place_of(code, k)
        return Response(view_jpeg(place.views()[i]["capture_id"]), media_type="image/jpeg")

    @app.post("/games/{code}/rounds/{k}/guess")
    async def guess(request: Request, code: str, k: int) -> dict[str, Any]:
        place, _ = place_of(code, k)
        body = await request.json()
        answer = city.answer(k, coverage=0.9, at=(place.lat_deg, place.lng_deg))

        def judged(lat: float, lng: float) -> dict[str, Any]:
            away = float(great_circle_m(lat, lng, place.lat_deg, place.lng_deg))
            return {"lat_deg": lat, "lng_deg": lng, "distance_m": away, "score": _score(away)}

        result = {
            "truth": {
                "lat_deg": place.lat_deg,
                "lng_deg": place.lng_deg,
                "district": city.district_of(place.lat_deg, place.lng_deg),
                "captured_on": f"{place.years[0]}-07-07",
                **CREDIT,
            },
            "you": judged(body["lat_deg"], body["lng_deg"]),
            "model": {**judged(answer["lat_deg"], answer["lng_deg"]), "refusal": None},
            "experts": {name: judged(one["lat_deg"], one["lng_deg"]) for name, one in (answer["experts"] or {}).items()},
        }
        fake.guesses.append(result)
        return result


def _coverage(app: FastAPI, fake: Fake) -> None:
    city = fake.city

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


def _quality(app: FastAPI, fake: Fake) -> None:
    city = fake.city

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
        held = _samples(city)
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


def _score(away_m: float) -> int:
    return round(5000 * math.exp(-away_m / SCORE_M))


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


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    many = City(int(sys.argv[2])) if len(sys.argv) > 2 else City()
    config = uvicorn.Config(create_app(Fake(many)), host="127.0.0.1", port=port, log_level="info")
    asyncio.run(uvicorn.Server(config).serve())
