"""How every emulated service answers a request: late, spoiled, or well, and always written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer
from geoloc_dagster.emulator.connections import Connections
from geoloc_dagster.emulator.control import Controls
from geoloc_dagster.emulator.faults import Endpoint, FaultRule
from geoloc_dagster.emulator.hits import Hit
from geoloc_dagster.emulator.mishaps import Wire, instead, spoil

_THREADS_PER_HAND = 2
T = TypeVar("T")


class Desk:
    """What the emulated services of one server share: the log, the faults, the clock, and the threads that draw.

    Args:
        controls: what can be changed and read while the server runs.
        connections: those of the server.
        latency_s: added to every answer.
        hands: processes that draw.

    Attributes:
        closing: called at the end; services add what they have to put away.
    """

    def __init__(self, controls: Controls, connections: Connections, latency_s: float, hands: int = 1) -> None:
        self.controls = controls
        self._connections = connections
        self._latency_s = latency_s
        self.closing: list[Callable[[], None]] = []
        self._renderers = ThreadPoolExecutor(_THREADS_PER_HAND * hands, thread_name_prefix="render")

    def wire(self, scope: Scope, receive: Receive, send: Send) -> Wire:
        """The exchange of one request."""
        peer = scope["client"]
        return Wire(receive, send, lambda: self._connections.close(peer), lambda: self._connections.reset(peer))

    async def serve(
        self,
        wire: Wire,
        endpoint: Endpoint,
        what: str,
        answer: Callable[[], Awaitable[Answer]],
        size_px: tuple[int, int],
        always: FaultRule | None = None,
    ) -> None:
        """Answer one request and write it down.

        Args:
            wire: the exchange.
            endpoint: which one was asked.
            what: it was asked for, in words that stay the same from night to night.
            answer: makes the good answer; not called where a fault comes instead of it.
            size_px: of the picture that was asked for, if it was one.
            always: what befalls it where the script of faults says nothing.
        """
        arrived_s = time.monotonic()
        rule = self.controls.schedule.next(endpoint, what) or always
        given = None if rule is None else instead(rule, endpoint)
        if given is None:
            given = await answer()
            if rule is not None:
                given = spoil(rule, given, size_px)
        length = rule.body_bytes if rule is not None and rule.fault == "huge" else len(given.body)
        self.controls.hits.add(Hit(arrived_s, endpoint, what, given.status, given.outcome, length))
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        await wire.deliver(given, rule)

    async def drawn(self, draw: Callable[[], T]) -> T:
        """What `draw` returns; pictures are made beside the event loop, so that other questions are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._renderers, draw)

    def close(self) -> None:
        """Start no more pictures, and end what the services have begun."""
        self._renderers.shutdown(wait=False, cancel_futures=True)
        for close in self.closing:
            close()
