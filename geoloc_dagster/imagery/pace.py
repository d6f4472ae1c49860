"""How fast a service may be asked: a token bucket, pauses that it asks for, and a breaker that gives up on it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime

Monotonic = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """When the next request may leave, for all tasks of one client.

    In every window of length T at most `rate` * T + `burst` requests leave, and none leaves inside a pause.

    Args:
        rate: requests a second.
        burst: requests that may leave at once after a quiet time.
        monotonic: seconds.
        sleep: waits.
    """

    def __init__(self, rate: float, burst: int, *, monotonic: Monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._interval_s = 1.0 / rate
        self._tolerance_s = self._interval_s * (burst - 1)
        self._monotonic = monotonic
        self._sleep = sleep
        self._next = 0.0  # when the bucket would be full again: the generic cell rate algorithm
        self._paused_until = 0.0
        self._order = asyncio.Lock()

    def open(self) -> None:
        """Serve another event loop; rate and pauses go on from where they were."""
        self._order = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until one request may leave."""
        async with self._order:  # first come, first served
            while True:
                now = self._monotonic()
                wait_s = max(self._paused_until - now, self._next - self._tolerance_s - now)
                if wait_s <= 0:
                    self._next = max(self._next, now) + self._interval_s
                    return
                await self._sleep(wait_s)

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long; a pause that lasts longer already stays."""
        self._paused_until = max(self._paused_until, self._monotonic() + seconds)


class Breaker:
    """Counts failures in a row, of whatever request, and says when there were too many."""

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self.failures = 0

    def succeeded(self) -> None:
        """The service answered."""
        self.failures = 0

    def failed(self) -> bool:
        """Whether this failure was one too many."""
        self.failures += 1
        return self.failures >= self._limit


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
