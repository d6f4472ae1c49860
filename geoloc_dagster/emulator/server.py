"""The emulated street-view service over HTTP, on the loopback interface: one ASGI application and its server."""

from __future__ import annotations

import asyncio
import importlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, text_answer
from geoloc_dagster.emulator.connections import Connections
from geoloc_dagster.emulator.control import Controls, control_routes
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.limits import Gate
from geoloc_dagster.emulator.mishaps import Wire
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.service import Resolved, StreetView

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City
    from geoloc_dagster.emulator.hands import ManyHandedCity

HOST = "127.0.0.1"
ENDPOINTS: dict[str, Endpoint] = {
    "/maps/api/streetview/metadata": "metadata",
    "/maps/api/streetview": "image",
    "/maps/api/streetview/history": "history",
    "/maps/api/streetview/classes": "class_map",
}
# Other services of the same city, below these paths: "module:factory"; factory(city, options, desk) gives an ASGI application.
_MAPS = "geoloc_dagster.emulator.maps_site:maps_site"
PARTS: dict[str, str] = {
    "/api/": "geoloc_dagster.emulator.panoramax:panoramax",
    "/maps/": _MAPS,
    "/consent": _MAPS,
    "/sorry": _MAPS,
    "/robots.txt": "geoloc_dagster.emulator.robots:robots",
    "/photos/": "geoloc_dagster.emulator.photos:photos",
    "/mapillary/": "geoloc_dagster.emulator.mapillary:mapillary",
    "/planet/": "geoloc_dagster.emulator.planet_site:planet",
}
_GRACE_S = 1.0


class EmulatorApp:
    """The ASGI application: the street-view API, the other services by the beginning of their paths, and the control routes.

    Args:
        options: as for the server.
        city: what there is to see.
        connections: those of the server that runs this.
    """

    def __init__(self, options: EmulatorOptions, city: City, connections: Connections) -> None:
        controls = Controls(options)
        self._options = options
        self._city = city
        self._desk = Desk(controls, connections, options.latency_ms / 1000, options.hands)
        self._control_routes = control_routes(controls)
        self._service = StreetView(city, options.seed, controls.clock)
        self._gate = Gate(options.key, options.secret, options.quotas, controls.clock)
        self._parts: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"] if scope["type"] == "http" else ""
        endpoint = ENDPOINTS.get(path)
        if endpoint is not None:
            wire = self._desk.wire(scope, receive, send)
            if scope["method"] != "GET":
                await wire.deliver(text_answer(405, "only GET", "INVALID_REQUEST"), None)
                return
            await self._serve(endpoint, scope, wire)
            return
        prefix = next((prefix for prefix in PARTS if path.startswith(prefix)), None)
        await (self._control_routes if prefix is None else self._part(prefix))(scope, receive, send)

    async def _serve(self, endpoint: Endpoint, scope: Scope, wire: Wire) -> None:
        raw_query = scope["query_string"].decode("latin-1")
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        resolved = self._service.resolve(endpoint, query)

        async def answer() -> Answer:
            refusal = self._gate.refusal(endpoint, scope["path"], raw_query, query)
            if refusal is not None:
                return refusal
            if endpoint not in ("image", "class_map"):
                return self._service.answer(endpoint, query, resolved)
            return await self._desk.drawn(lambda: self._service.answer(endpoint, query, resolved))

        await self._desk.serve(wire, endpoint, resolved.what, answer, _size_px(resolved))

    def _part(self, prefix: str) -> ASGIApp:
        """The application of another service, made when it is first asked."""
        if prefix not in self._parts:
            module, name = PARTS[prefix].split(":")
            make = getattr(importlib.import_module(module), name)
            self._parts[prefix] = make(self._city, self._options, self._desk)
        return self._parts[prefix]

    def close(self) -> None:
        """Start no more pictures."""
        self._desk.close()


class EmulatorServer(uvicorn.Server):
    """The server of one emulated city; `run` blocks until `should_exit` is set or a signal comes.

    Args:
        options: its port is bound at once, so that `port` is known before the server runs.
        city: the one to show; that of the options where None.

    Raises:
        OSError: the port is taken.
        ServiceKeyError: the signing secret cannot be used.
    """

    def __init__(self, options: EmulatorOptions, city: City | None = None) -> None:
        self._own: ManyHandedCity | None = None
        if city is None:
            from geoloc_dagster.emulator.hands import ManyHandedCity

            city = self._own = ManyHandedCity(options.origin, options.seed, options.hands)
        self._open = Connections()
        self._app = EmulatorApp(options, city, self._open)
        self._socket = socket.create_server((options.host, options.port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        super().__init__(
            uvicorn.Config(
                self._app,
                http=self._open.protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets=[self._socket] if sockets is None else sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers under way finish, for a second; those that never would are cut off."""
        asyncio.get_running_loop().call_later(_GRACE_S, self._open.reset_all)
        await super().shutdown(sockets)
        self._app.close()
        if self._own is not None:
            self._own.close()


def _size_px(resolved: Resolved) -> tuple[int, int]:
    return (640, 640) if resolved.view is None else (resolved.view.width, resolved.view.height)
