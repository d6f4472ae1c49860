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

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from shapely.geometry import mapping

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
    view_jpeg,
)
from geoloc_dagster_tests.explorer.fake_places import add_coverage, add_quality, problem

STATIC = Path(geoloc_dagster.__file__).parent / "explorer" / "static"
CSP = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


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
    add_coverage(app, fake.city)
    add_quality(app, fake.city)
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


def _ask(app: FastAPI, fake: Fake) -> None:
    city = fake.city

    @app.get("/samples")
    def samples(n: int = 12) -> dict[str, Any]:
        first = [place.views()[1] for place in city.samples[:n]]
        keys = ("capture_id", "url", "captured_on", "heading_deg", "attribution", "licence")
        return {"samples": [{key: view[key] for key in keys} for view in first]}

    @app.get("/predict/sample/{capture_id}")
    def sample(capture_id: str, coverage: float = 0.9) -> dict[str, Any]:
        i, place = next((i, place) for i, place in enumerate(city.samples) if capture_id.startswith(place.location_id))
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


def _score(away_m: float) -> int:
    return round(5000 * math.exp(-away_m / SCORE_M))


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    many = City(int(sys.argv[2])) if len(sys.argv) > 2 else City()
    config = uvicorn.Config(create_app(Fake(many)), host="127.0.0.1", port=port, log_level="info")
    asyncio.run(uvicorn.Server(config).serve())
