"""The emulated street-view service over HTTP, on the loopback interface: one ASGI application and its server."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import uvicorn
from starlette.types import Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, text_answer
from geoloc_dagster.emulator.connections import Connections
from geoloc_dagster.emulator.control import Controls, control_routes
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.hits import Hit
from geoloc_dagster.emulator.limits import Gate
from geoloc_dagster.emulator.mishaps import Wire, instead, spoil
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.service import Resolved, StreetView

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City

HOST = "127.0.0.1"
ENDPOINTS: dict[str, Endpoint] = {
    "/maps/api/streetview/metadata": "metadata",
    "/maps/api/streetview": "image",
    "/maps/api/streetview/history": "history",
}
_RENDER_THREADS = 2
_GRACE_S = 1.0


class EmulatorApp:
    """The ASGI application; everything but the street-view API is left to the control routes.

    Args:
        options: as for the server.
        city: what there is to see.
        connections: those of the server that runs this.
    """

    def __init__(self, options: EmulatorOptions, city: City, connections: Connections) -> None:
        self._controls = Controls(options)
        self._control_routes = control_routes(self._controls)
        self._service = StreetView(city, options.seed, self._controls.clock)
        self._gate = Gate(options.key, options.secret, options.quotas, self._controls.clock)
        self._latency_s = options.latency_ms / 1000
        self._connections = connections
        self._renderers = ThreadPoolExecutor(_RENDER_THREADS, thread_name_prefix="render")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = ENDPOINTS.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._control_routes(scope, receive, send)
            return
        peer = scope["client"]
        wire = Wire(receive, send, lambda: self._connections.close(peer), lambda: self._connections.reset(peer))
        if scope["method"] != "GET":
            await wire.deliver(text_answer(405, "only GET", "INVALID_REQUEST"), None)
            return
        await self._serve(endpoint, scope, wire)

    async def _serve(self, endpoint: Endpoint, scope: Scope, wire: Wire) -> None:
        arrived_s = time.monotonic()
        raw_query = scope["query_string"].decode("latin-1")
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        resolved = self._service.resolve(endpoint, query)
        rule = self._controls.schedule.next(endpoint, resolved.what)
        answer = None if rule is None else instead(rule, endpoint)
        if answer is None:
            answer = self._gate.refusal(endpoint, scope["path"], raw_query, query)
            if answer is None:
                answer = await self._answer(endpoint, query, resolved)
            if rule is not None:
                answer = spoil(rule, answer, _size_px(resolved))
        length = rule.body_bytes if rule is not None and rule.fault == "huge" else len(answer.body)
        self._controls.hits.add(Hit(arrived_s, endpoint, resolved.what, answer.status, answer.outcome, length))
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        await wire.deliver(answer, rule)

    async def _answer(self, endpoint: Endpoint, query: dict[str, str], resolved: Resolved) -> Answer:
        if endpoint != "image":
            return self._service.answer(endpoint, query, resolved)
        # Pictures are made beside the event loop, so that questions about metadata are answered meanwhile.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._renderers, self._service.answer, endpoint, query, resolved)

    def close(self) -> None:
        """Start no more pictures."""
        self._renderers.shutdown(wait=False, cancel_futures=True)


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
        if city is None:
            from geoloc_dagster.emulator.city import City

            city = City(options.origin, options.seed)
        self._open = Connections()
        self._app = EmulatorApp(options, city, self._open)
        self._socket = socket.create_server((HOST, options.port), backlog=1024)
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


def _size_px(resolved: Resolved) -> tuple[int, int]:
    return (640, 640) if resolved.view is None else (resolved.view.width, resolved.view.height)
