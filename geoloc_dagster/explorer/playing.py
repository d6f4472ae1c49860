"""Routes of the game."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from geoloc_dagster.errors import GeolocError
from geoloc_dagster.explorer.asking import ask
from geoloc_dagster.explorer.game import judged, new_game, read_code, round_of, rounds_of, together
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster.explorer.state import State, state_of, take
from geoloc_dagster.explorer.uploads import Upload

router = APIRouter(prefix="/games")


class NewGame(BaseModel):
    """What a game is to be like."""

    model_config = ConfigDict(extra="forbid")
    seed: int | None = None
    rounds: int = 10
    views: int = 1


class Guess(BaseModel):
    """A position, degrees WGS84."""

    model_config = ConfigDict(extra="forbid")
    lat_deg: Annotated[float, Field(ge=-90, le=90)]
    lng_deg: Annotated[float, Field(ge=-180, le=180)]


@router.post("", status_code=201, summary="Make a game")
def make(request: Request, wanted: NewGame) -> dict[str, Any]:
    """Its code is all there is of it: the same code is the same game for everybody."""
    return _described(state_of(request), new_game(wanted.seed, wanted.rounds, wanted.views).code)


@router.get("/{code}", summary="What a code stands for")
def described(request: Request, code: str) -> dict[str, Any]:
    """Seed, rounds and views."""
    return _described(state_of(request), code)


@router.get("/{code}/rounds/{number}", summary="What a round shows")
def shown(request: Request, code: str, number: int) -> dict[str, Any]:
    """Pictures and their headings; not where they were taken."""
    state, game = state_of(request), read_code(code)
    rows = round_of(game, number, state.places)
    views = [
        {
            "url": f"games/{code}/rounds/{number}/views/{place}",
            "heading_deg": None if row["heading_deg"] is None else round(row["heading_deg"], 1),
        }
        for place, row in enumerate(rows)
    ]
    return {"round": number, "of": len(rounds_of(game, state.places)), "views": views}


@router.get("/{code}/rounds/{number}/views/{view}", summary="A picture of a round")
def view(request: Request, code: str, number: int, view: int) -> Response:
    """The picture alone: neither its name nor its headers say whose it is."""
    state = state_of(request)
    rows = round_of(read_code(code), number, state.places)
    if not 0 <= view < len(rows):
        raise Problem(404, f"the round shows {len(rows)} views, from 0")
    return Response(_bytes(state, rows[view]), media_type="image/jpeg")


@router.post("/{code}/rounds/{number}/guess", summary="Guess, and learn where it was")
async def guess(request: Request, code: str, number: int, guess: Guess) -> dict[str, Any]:
    """The truth, your score and the model's."""
    state = state_of(request)
    take(request)
    rows = await asyncio.to_thread(round_of, read_code(code), number, state.places)
    first, score_m = rows[0], state.score_m
    truth = {"lat_deg": first["lat_deg"], "lng_deg": first["lng_deg"], "district": first["district"]}
    truth |= {"attribution": first["attribution"], "licence": first["licence"], "location_id": first["location_id"]}
    truth |= {"captured_on": None if first["captured_on"] is None else first["captured_on"].isoformat()}
    said = {"truth": truth, "you": judged(guess.lat_deg, guess.lng_deg, first, score_m)}
    try:
        model, experts = await _model(state, rows, score_m)
    except (GeolocError, Problem) as error:
        return said | {"model": None, "experts": {}, "no_model": str(error)}
    return said | {"model": model, "experts": experts}


async def _model(state: State, rows: list[dict[str, Any]], score_m: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model, and each expert of it, says of all views of a round together."""
    served = state.serving.served
    contents = await asyncio.to_thread(lambda: [_bytes(state, row) for row in rows])
    asked = (
        ask(state, served, Upload(row["capture_id"], content), state.settings.fusion.coverage, None, held_out=True)
        for row, content in zip(rows, contents, strict=True)
    )
    said = together(await asyncio.gather(*asked), served.fused)
    model = judged(said["lat_deg"], said["lng_deg"], rows[0], score_m) | {"refusal": said["refusal"]}
    experts = {name: judged(one["lat_deg"], one["lng_deg"], rows[0], score_m) for name, one in said["experts"].items()}
    return model, experts


def _described(state: State, code: str) -> dict[str, Any]:
    game = read_code(code)
    found = rounds_of(game, state.places)
    held = len({row["location_id"] for rows in found for row in rows})
    return {"code": game.code, "seed": game.seed, "rounds": len(found), "views": game.views, "places": held}


def _bytes(state: State, row: dict[str, Any]) -> bytes:
    content = state.places.encoded(row["capture_id"])
    if content is None:
        raise Problem(404, "that picture is not there any more")
    return content
