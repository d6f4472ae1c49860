"""Routes that ask the model about photos."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from geoloc_dagster.config.settings import COVERAGES
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.explorer.answers import answer_json
from geoloc_dagster.explorer.game import judged
from geoloc_dagster.explorer.problems import Problem, problem_of
from geoloc_dagster.explorer.serving import Answer, Served
from geoloc_dagster.explorer.state import State, state_of, take
from geoloc_dagster.explorer.uploads import FIELD, Upload, decoded, read_uploads

router = APIRouter()
LINES = "application/x-ndjson"
_AHEAD = 32
Coverage = Annotated[float | None, Query(description="Share of photos whose place the region is to hold.")]
Expert = Annotated[str | None, Query(description="Ask this expert alone.")]
Heat = Annotated[bool, Query(description="With the heat map, as GeoJSON.")]
Top = Annotated[int, Query(ge=1, le=100, description="Candidates.")]
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                "required": [FIELD],
            }
        }
    },
}


@router.post("/predict", openapi_extra={"requestBody": _BODY}, summary="Where were these photos taken?")
async def predict(
    request: Request, coverage: Coverage = None, expert: Expert = None, heat: Heat = False, top: Top = 10
) -> Response:
    """Answers in the order of the photos; a line each as soon as it is there, where the request accepts application/x-ndjson.

    Nothing of a photo is kept, and of its EXIF nothing but the orientation is used.
    """
    state, began = state_of(request), time.perf_counter()
    served, asked = state.serving.served, _coverage(state, coverage)
    take(request)  # before anything is read: an address that asks too often costs nothing
    holding = ExitStack()
    try:
        uploads = await read_uploads(request, state.settings.explorer, holding.enter_context(state.held.counting()))
        take(request, len(uploads), counted=1)
        said = _answers(state, served, uploads, asked, expert, heat=heat, top=top, began=began)
        if LINES in request.headers.get("accept", ""):
            return StreamingResponse(_lines(said, holding.pop_all()), media_type=LINES)
        answers = [one async for one in said]
    finally:
        holding.close()
    if len(answers) == 1 and "error" in answers[0]:
        raise Problem(answers[0]["error"]["status"], answers[0]["error"]["detail"])
    return Response(json.dumps({"answers": answers}), media_type="application/json")


@router.get("/samples", summary="Held-out pictures to ask about, without their positions")
def samples(request: Request, n: Annotated[int, Query(ge=1, le=100)] = 12, seed: int = 0) -> dict[str, Any]:
    """Each of another place."""
    return {"samples": state_of(request).places.samples(n, seed)}


@router.get("/predict/sample/{capture_id}", summary="Where was this held-out picture taken, and how far off is the answer?")
async def predict_sample(
    request: Request,
    capture_id: str,
    coverage: Coverage = None,
    expert: Expert = None,
    heat: Heat = False,
    top: Top = 10,
) -> dict[str, Any]:
    """The answer of a model to which no picture that is asked about is a neighbour."""
    state, began = state_of(request), time.perf_counter()
    take(request)
    served = state.serving.served
    row, content = await asyncio.to_thread(held_out_picture, state, capture_id)
    answer = await ask(state, served, Upload(capture_id, content), _coverage(state, coverage), expert, held_out=True)
    shown: dict[str, Any] = {"name": capture_id, "top": top, "heat": heat, "seconds": time.perf_counter() - began}
    said = await asyncio.to_thread(answer_json, answer, served, state.places, **shown)
    mine = judged(answer.lat_deg, answer.lng_deg, row, state.score_m)
    truth = {"lat_deg": row["lat_deg"], "lng_deg": row["lng_deg"], "distance_m": mine["distance_m"], "score": mine["score"]}
    return said | {"truth": truth}


async def _lines(said: AsyncIterator[dict[str, Any]], holding: ExitStack) -> AsyncIterator[str]:
    with holding:
        async for one in said:
            yield json.dumps(one) + "\n"


async def ask(
    state: State, served: Served, upload: Upload, coverage: float, expert: str | None, *, held_out: bool = False
) -> Answer:
    """The answer to one photo; raises Problem."""
    pictures = await asyncio.to_thread(decoded, upload, served, state.settings.explorer)
    return await state.batches.ask(served, pictures, coverage, expert, held_out=held_out)


def held_out_picture(state: State, capture_id: str) -> tuple[dict[str, Any], bytes]:
    """Row and bytes of a picture that may be asked about; raises Problem (404)."""
    row = state.places.question(capture_id)
    if row is None:
        raise Problem(404, "there is no such held-out picture")
    content = state.places.encoded(capture_id)
    if content is None:
        raise Problem(404, "that picture is not there any more")
    return row, content


async def _answers(
    state: State,
    served: Served,
    uploads: list[Upload],
    coverage: float,
    expert: str | None,
    *,
    heat: bool,
    top: int,
    began: float,
) -> AsyncIterator[dict[str, Any]]:
    """In the order of the uploads; some are asked about ahead, so that batches fill."""
    gate = asyncio.Semaphore(_AHEAD)

    async def one(upload: Upload) -> dict[str, Any]:
        async with gate:
            try:
                answer = await ask(state, served, upload, coverage, expert)
            except Problem as problem:
                return _counted(state, "refused", {"photo": upload.name, "error": problem.to_json()})
            except GeolocError as error:
                return _counted(state, "refused", {"photo": upload.name, "error": problem_of(error).to_json()})
            shown: dict[str, Any] = {"name": upload.name, "top": top, "heat": heat, "seconds": time.perf_counter() - began}
            said = await asyncio.to_thread(answer_json, answer, served, state.places, **shown)
            return _counted(state, "answered" if said["answered"] else "outside", said)

    tasks = [asyncio.create_task(one(upload)) for upload in uploads]
    uploads.clear()  # a photo goes as soon as it is answered
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()


def _counted(state: State, outcome: Literal["answered", "outside", "refused"], said: dict[str, Any]) -> dict[str, Any]:
    state.metrics.photos.labels(outcome).inc()
    return said


def _coverage(state: State, asked: float | None) -> float:
    chosen = state.settings.fusion.coverage if asked is None else asked
    if chosen not in COVERAGES:
        raise Problem(422, f"coverage: one of {', '.join(map(str, COVERAGES))}, for which regions are calibrated")
    return chosen
