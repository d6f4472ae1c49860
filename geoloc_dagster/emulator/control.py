"""The emulator's own endpoints: what it was asked, which faults it has, which day it believes in. They need no key."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from geoloc_dagster.emulator.faults import FaultSchedule, FaultScript
from geoloc_dagster.emulator.hits import HitLog
from geoloc_dagster.emulator.limits import Clock
from geoloc_dagster.emulator.options import EmulatorOptions


class Controls:
    """What can be changed and read while the service runs."""

    def __init__(self, options: EmulatorOptions) -> None:
        self.options = options
        self.clock = Clock(options.today)
        self.hits = HitLog()
        self.schedule = FaultSchedule(options.faults)


class _ClockBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    today: dt.date | None


class _HitsQuery(BaseModel):
    last: Annotated[int, Field(ge=0)] | None = None


def control_routes(controls: Controls) -> Starlette:
    """The application below `/emulator`."""

    async def health(_: Request) -> Response:
        options = controls.options
        today = controls.clock.today().isoformat()
        return JSONResponse({"seed": options.seed, "today": today, "origin": list(options.origin)})

    async def read_hits(request: Request) -> Response:
        return JSONResponse(controls.hits.report(_HitsQuery.model_validate(dict(request.query_params)).last))

    async def clear_hits(_: Request) -> Response:
        controls.hits.clear()
        return Response(status_code=204)

    async def read_faults(_: Request) -> Response:
        return JSONResponse(controls.schedule.script.model_dump(exclude_none=True))

    async def replace_faults(request: Request) -> Response:
        """Start another script from its beginning; the requests before it do not count."""
        controls.schedule = FaultSchedule(FaultScript.model_validate_json(await request.body()))
        return Response(status_code=204)

    async def set_clock(request: Request) -> Response:
        controls.clock.fixed = _ClockBody.model_validate_json(await request.body()).today
        return Response(status_code=204)

    async def explain(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=422)

    return Starlette(
        routes=[
            Route("/emulator/health", health),
            Route("/emulator/hits", read_hits),
            Route("/emulator/hits", clear_hits, methods=["DELETE"]),
            Route("/emulator/faults", read_faults),
            Route("/emulator/faults", replace_faults, methods=["PUT"]),
            Route("/emulator/clock", set_clock, methods=["PUT"]),
        ],
        exception_handlers={ValidationError: explain},
    )
