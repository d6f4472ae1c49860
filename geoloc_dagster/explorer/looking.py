"""Routes that show what is there: the region, locations and views, quality, lineage, and the explorer itself."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from geoloc_dagster.config.settings import COVERAGES
from geoloc_dagster.explorer import lineage as assets
from geoloc_dagster.explorer import metrics, quality, tiles
from geoloc_dagster.explorer.places import Location, Status
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster.explorer.region import region_json
from geoloc_dagster.explorer.state import state_of

router = APIRouter()
_STARTED = time.monotonic()
_BLOCK = 500
GEOJSON = "application/geo+json"


@router.get("/health", summary="Whether it can answer")
def health(request: Request) -> dict[str, Any]:
    """`no release` while nothing is served."""
    serving = state_of(request).serving
    status = "no release" if serving.release is None else "ok"
    return {
        "status": status,
        "release": serving.release,
        "problem": serving.problem,
        "seconds_up": round(time.monotonic() - _STARTED, 1),
    }


@router.get("/metrics", summary="Counters for Prometheus")
def counted(request: Request) -> Response:
    """Requests, photos, times."""
    return Response(state_of(request).metrics.text(), media_type=metrics.MEDIA_TYPE)


@router.get("/region", summary="The place, its outline, and what can be asked of it")
def region(request: Request) -> dict[str, Any]:
    """What a page needs first."""
    state = state_of(request)
    return region_json(state.settings, state.layout, state.places, state.serving) | {"coverages": list(COVERAGES)}


@router.get("/coverage", summary="What is collected, counted")
def coverage(request: Request) -> dict[str, Any]:
    """By series, year, heading, age and night."""
    return state_of(request).places.summary()


@router.get("/locations", summary="Locations as GeoJSON, streamed")
def locations(
    request: Request,
    series: str | None = None,
    status: Status | None = None,
    since: Annotated[int | None, Query(description="Year of the newest picture, or later.")] = None,
    until: Annotated[int | None, Query(description="Year of the oldest picture, or earlier.")] = None,
    bbox: Annotated[str | None, Query(description="west,south,east,north in degrees")] = None,
    limit: Annotated[int | None, Query(ge=1, description="At most so many.")] = None,
) -> Response:
    """All of them, or those that the filters leave."""
    box = None if bbox is None else _box(bbox)
    chosen = (
        place
        for place in state_of(request).places.locations().values()
        if (series is None or place.series == series)
        and (status is None or place.status == status)
        and _of_years(place, since, until)
        and (box is None or (box[0] <= place.lng_deg <= box[2] and box[1] <= place.lat_deg <= box[3]))
    )
    return StreamingResponse(_collection(itertools.islice(chosen, limit)), media_type=GEOJSON)


@router.get("/locations/{location_id}", summary="A location and its views through the years")
def location(request: Request, location_id: str) -> dict[str, Any]:
    """Oldest first."""
    places = state_of(request).places
    found = places.locations().get(location_id)
    if found is None:
        raise Problem(404, "there is no such location")
    where = {"lat_deg": round(found.lat_deg, 7), "lng_deg": round(found.lng_deg, 7), "batch": found.batch}
    return found.properties() | where | {"views": places.views_of(location_id)}


@router.get("/tiles/{zoom}/{x}/{y}.mvt", summary="Locations as vector tiles")
def tile(request: Request, zoom: int, x: int, y: int) -> Response:
    """Layer `locations`, with the properties of `/locations`."""
    return Response(tiles.location_tile(state_of(request).places.locations().values(), zoom, x, y), media_type=tiles.MEDIA_TYPE)


@router.get("/views/{capture_id}", summary="A picture")
def view(request: Request, capture_id: str) -> Response:
    """The crop, as models see it."""
    places = state_of(request).places
    content = places.encoded(capture_id)
    if content is None:
        raise Problem(404, "there is no such picture")
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/quality", summary="How good models and fusion are")
def qualities(request: Request) -> dict[str, Any]:
    """Headline figures with intervals, and pictures."""
    return quality.quality(state_of(request).layout)


@router.get("/quality/compare", summary="Two models side by side")
def compared(request: Request, a: str, b: str) -> dict[str, Any]:
    """What A gains over B on the queries of both."""
    return quality.compare(state_of(request).layout, a, b)


@router.get("/quality/fusion/pictures/{name}", summary="A picture of the fusion's report")
def fusion_picture(request: Request, name: str) -> Response:
    """Reliability, coverage, searched area, atlas."""
    content, media = quality.picture_of(state_of(request).layout, "fusion", "", name)
    return Response(content, media_type=media)


@router.get("/quality/{recipe}/{model_version}/pictures/{name}", summary="A picture of an evaluation")
def evaluation_picture(request: Request, recipe: str, model_version: str, name: str) -> Response:
    """By its name in `/quality`."""
    content, media = quality.picture_of(state_of(request).layout, recipe, model_version, name)
    return Response(content, media_type=media)


@router.get("/quality/{recipe}/{model_version}/queries", summary="Hits or misses of a model")
def queries(
    request: Request, recipe: str, model_version: str, hits: bool = False, n: Annotated[int, Query(ge=1, le=200)] = 24
) -> dict[str, Any]:
    """The farthest off first among the misses."""
    return {"queries": quality.hits_and_misses(state_of(request).layout, recipe, model_version, hit=hits, count=n)}


@router.get("/atlas", summary="Districts with what is known of them")
def atlas(request: Request, of: str = "fusion") -> Response:
    """GeoJSON, of the fusion or of a model version."""
    return Response(json.dumps(quality.atlas(state_of(request).layout, of)), media_type=GEOJSON)


@router.get("/lineage", summary="The asset behind every page")
def lineage(request: Request) -> dict[str, Any]:
    """Where it lies, how much it is, of when, and links to Dagster and MLflow."""
    state = state_of(request)
    return assets.lineage(state.settings, state.layout)


def _collection(places: Iterator[Location]) -> Iterator[str]:
    yield '{"type": "FeatureCollection", "features": ['
    block: list[str] = []
    first = True
    for place in places:
        block.append(("" if first else ",\n") + json.dumps(place.feature()))
        first = False
        if len(block) >= _BLOCK:
            yield "".join(block)
            block.clear()
    yield "".join(block) + "]}"


def _of_years(place: Location, since: int | None, until: int | None) -> bool:
    if since is None and until is None:
        return True
    if place.first_on is None or place.last_on is None:
        return False
    return (since is None or place.last_on.year >= since) and (until is None or place.first_on.year <= until)


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise Problem(422, "bbox: four numbers, west,south,east,north") from error
    return west, south, east, north
