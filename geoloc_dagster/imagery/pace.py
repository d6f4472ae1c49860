"""How fast a service may be asked: a token bucket, pauses that it asks for, and a breaker that gives up on it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

from geoloc_dagster.imagery.buckets import Buckets

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """When the next request to one service may leave.

    In every window of length T at most `rate` * T + `burst` requests leave, of all processes that share the buckets, and none
    leaves inside a pause.

    Args:
        name: of the bucket.
        rate: requests a second.
        burst: requests that may leave at once after a quiet time.
        buckets: where it is kept.
        clock: seconds; that of the buckets.
        sleep: waits.
    """

    def __init__(
        self, name: str, rate: float, burst: int, *, buckets: Buckets, clock: Clock, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._name = name
        self._interval_s = 1.0 / rate
        self._tolerance_s = self._interval_s * (burst - 1)
        self._buckets = buckets
        self._clock = clock
        self._sleep = sleep
        self._order = asyncio.Lock()

    def open(self) -> None:
        """Serve another event loop; rate and pauses go on from where they were."""
        self._order = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until one request may leave."""
        async with self._order:  # first come, first served
            while wait_s := self._buckets.claim(self._name, self._clock(), self._interval_s, self._tolerance_s):
                await self._sleep(wait_s)

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long; a pause that lasts longer already stays."""
        self._buckets.pause(self._name, self._clock() + seconds)

    def paused_s(self) -> float:
        """How long the service still wants to be left alone."""
        return max(0.0, self._buckets.paused_until(self._name) - self._clock())


class Breaker:
    """Counts failures in a row, of whatever request, and says when there were too many.

    Closed, everything passes. `failures` in a row open it: nothing passes but, after a pause that the caller sees to, one
    probe. The probe's answer closes it again; its failure means that the service is down.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self.failures = 0
        self._probing = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether only a probe may pass."""
        return self.failures >= self._limit

    @asynccontextmanager
    async def passage(self) -> AsyncGenerator[bool]:
        """Wait until a request may pass; gives whether it is the probe."""
        if not self.is_open:
            yield False
            return
        async with self._probing:
            yield self.is_open

    def succeeded(self) -> None:
        """The service answered."""
        self.failures = 0

    def failed(self) -> bool:
        """Whether this failure opens it, or was that of a request that left before it opened."""
        self.failures += 1
        return self.is_open


def retry_after_s(value: str | None, now: dt.datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait: a number, or an HTTP date (RFC 9110, 10.2.3); None for anything else.

    Args:
        value: of the header.
        now: aware.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - now).total_seconds())
