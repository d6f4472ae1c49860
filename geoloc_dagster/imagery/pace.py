"""How fast a service may be asked: a token bucket, pauses that it asks for, and a breaker that gives up on it."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

from geoloc_dagster.imagery.buckets import Buckets

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
_MOST_LEASED = 64


class Pace:
    """When the next request to one service may leave.

    In every window of length T at most `rate` * T + `burst` requests leave, of all processes that share the buckets, and none
    leaves inside a pause.

    Where many requests a second are allowed, several are set aside at once (a lease), so that the shared file is not asked for
    each of them. One that has not left when its moment is past by half of the burst is given up, and the other half is how early
    it may leave: what is late and what is early together never exceed the burst. A pause that another process was asked for is
    seen with the next lease, `ahead_s` later at most; a pause of this process at once.

    Args:
        name: of the bucket.
        rate: requests a second.
        burst: requests that may leave at once after a quiet time.
        buckets: where it is kept.
        clock: seconds; that of the buckets.
        sleep: waits.
        ahead_s: set requests of so many seconds aside at once; each is asked for by itself where 0.
    """

    def __init__(
        self,
        name: str,
        rate: float,
        burst: int,
        *,
        buckets: Buckets,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        ahead_s: float = 0.0,
    ) -> None:
        self._name = name
        self._interval_s = 1.0 / rate
        self._tolerance_s = self._interval_s * (burst - 1)
        self._buckets = buckets
        self._clock = clock
        self._sleep = sleep
        self._ahead_s = ahead_s
        self._order = asyncio.Lock()
        self._leased: deque[float] = deque()  # when each may leave, in order
        self._given_up_s = 0.0  # how long after that it is given up
        self._paused_until_s = 0.0

    def open(self) -> None:
        """Serve another event loop; rate and pauses go on from where they were."""
        self._order = asyncio.Lock()
        self._leased.clear()

    def slow_down(self, interval_s: float) -> None:
        """Let at least so many seconds pass between two requests, without a burst; never makes it faster."""
        if interval_s > self._interval_s:
            self._interval_s, self._tolerance_s = interval_s, 0.0
            self._leased.clear()

    async def turn(self, longest_pause_s: float = math.inf) -> bool:
        """Wait until one request may leave; False where a pause has come up meanwhile that is longer than that."""
        async with self._order:  # first come, first served
            leases = self._ahead_s >= 2 * self._interval_s and self._tolerance_s >= 2 * self._interval_s
            while wait_s := self._wait_leased() if leases else self._claim():
                if wait_s > longest_pause_s and self.paused_s() > longest_pause_s:
                    return False
                await self._sleep(wait_s)
        return True

    def _claim(self) -> float:
        return self._buckets.claim(self._name, self._clock(), self._interval_s, self._tolerance_s)

    def _wait_leased(self) -> float:
        """0 and the next of the leased requests is taken, or how long to wait for it."""
        now_s = self._clock()
        while self._leased and self._leased[0] + self._given_up_s < now_s:
            self._leased.popleft()
        if not self._leased:
            self._lease(now_s)
        wait_s = max(self._leased[0], self._paused_until_s) - now_s
        if wait_s <= 0:
            self._leased.popleft()
        return max(0.0, wait_s)

    def _lease(self, now_s: float) -> None:
        half_s = self._tolerance_s / 2
        lease = self._buckets.lease(self._name, now_s, self._interval_s, _MOST_LEASED, self._ahead_s)
        moments = (lease.first_s + index * self._interval_s - half_s for index in range(lease.count))
        self._leased.extend(max(now_s, moment) for moment in moments)
        self._given_up_s = half_s
        self._paused_until_s = max(self._paused_until_s, lease.paused_until_s)

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long; a pause that lasts longer already stays."""
        until_s = self._clock() + seconds
        self._paused_until_s = max(self._paused_until_s, until_s)
        self._buckets.pause(self._name, until_s)

    def paused_s(self) -> float:
        """How long the service still wants to be left alone."""
        known = self._leased and self._ahead_s  # the lease has said it
        until_s = self._paused_until_s if known else self._buckets.paused_until(self._name)
        return max(0.0, until_s - self._clock())


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
