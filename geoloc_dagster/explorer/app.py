"""The web application: security headers, pages, and the API; what it says is made in the modules beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.explorer import asking, looking, playing
from geoloc_dagster.explorer.limits import HeldBytes, RateLimit
from geoloc_dagster.explorer.metrics import Metrics
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.explorer.problems import Problem, problem_of
from geoloc_dagster.explorer.serving import Batches, Served, Serving, load_served
from geoloc_dagster.explorer.state import State

logger = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
_YEAR_S = 31_536_000
_PICTURE_BYTES = 500
_COMPRESSION = 4  # 9 takes three times as long for 3 % less of an answer


def create_app(settings: Settings, layout: Layout, *, load: Callable[[], Served] | None = None) -> FastAPI:
    """The explorer of a region.

    Args:
        settings: of the region.
        layout: of its data root.
        load: what is served, in place of the release.
    """
    places = Places(layout)
    serving = Serving(load or (lambda: load_served(settings, layout, places.held_out)), layout.releases / "CURRENT.json")
    limits = settings.explorer
    held, rate = HeldBytes(limits.held_bytes), RateLimit(limits.photos_per_minute)
    state = State(settings, layout, places, serving, Batches(), rate, held, Metrics())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        watcher = asyncio.create_task(serving.watch(on_change=state.changed))
        yield
        watcher.cancel()
        state.batches.close()

    app = FastAPI(
        title=f"geoloc: {settings.region.name}",
        description="Where photos of a region were taken, what is known of it, and how well.",
        lifespan=lifespan,
        docs_url=None,  # these pages come from other hosts
        redoc_url=None,
    )
    app.state.explorer = state
    for router in (asking.router, looking.router, playing.router):
        app.include_router(router)
    _add_pages(app)
    _add_errors(app)
    app.add_middleware(GZipMiddleware, minimum_size=_PICTURE_BYTES, compresslevel=_COMPRESSION)
    app.add_middleware(Guard, state=state)
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), "static")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(GeolocError)
    async def known(_: Request, error: GeolocError) -> JSONResponse:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path"))
        return Problem(422, f"{where or 'the request'}: {first['msg']}").response()

    @app.exception_handler(HTTPException)  # Starlette's, which FastAPI's is one of: unknown addresses and methods too
    async def told(_: Request, error: HTTPException) -> JSONResponse:
        return Problem(error.status_code, str(error.detail), error.headers).response()


class Guard:
    """Security headers on every answer, refusal of other sites' requests, and counting.

    Args:
        app: what answers.
        state: of the explorer.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state
        self._headers = {
            "Content-Security-Policy": _content_policy(state.settings.explorer.tile_origin),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, began)
                self._add_headers(scope["path"], MutableHeaders(raw=message["headers"]))
            await send(message)

        if _comes_from_elsewhere(scope):
            await Problem(403, "another site sent this request").response()(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception as error:
            if status:  # half of an answer is out, and is cut off there
                raise
            logger.error("a request failed", exc_info=error)
            await Problem(500, "something went wrong here; the log says what").response()(scope, receive, guarded)

    def _count(self, scope: Scope, status: int, began: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._state.metrics.requests.labels(route, str(status)).inc()
        self._state.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _add_headers(self, path: str, headers: MutableHeaders) -> None:
        headers.update(self._headers)
        if path.startswith("/static/vendor/"):
            headers["Cache-Control"] = f"public, max-age={_YEAR_S}, immutable"
        elif "Cache-Control" not in headers:
            headers["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"


def _comes_from_elsewhere(scope: Scope) -> bool:
    """Whether a page of another site sent this."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    return scope["method"] == "POST" and origin is not None and origin.partition("://")[2] != headers.get("host")


def _content_policy(tile_origin: str | None) -> str:
    tiles = "" if tile_origin is None else f" {tile_origin}"
    return (
        f"default-src 'self'; img-src 'self' data: blob:{tiles}; connect-src 'self'{tiles}; style-src 'self'; script-src 'self'; "
        "worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
