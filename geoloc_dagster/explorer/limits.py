"""How often one address may ask, and how many bytes of photos are held at one time."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager

from geoloc_dagster.explorer.problems import Problem

_MOST_ADDRESSES = 10_000


class HeldBytes:
    """Bytes of photos in memory, of all requests together.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self._most, self.held = most, 0

    @contextmanager
    def counting(self) -> Generator[Callable[[int], None]]:
        """What a request calls with the bytes that it holds as they come; they are let go at the end.

        It raises Problem (503) where the explorer holds too many, with when to come again.
        """
        mine = 0

        def count(more: int) -> None:
            nonlocal mine
            if self.held + more > self._most:
                raise Problem(503, "too many photos are being asked about; come again in a moment", {"Retry-After": "2"})
            self.held += more
            mine += more

        try:
            yield count
        finally:
            self.held -= mine


class RateLimit:
    """`per_minute` photos for each address, all of them at once if need be.

    Args:
        per_minute: photos.
        clock: seconds, ascending.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, photos: int = 1, counted: int = 0) -> None:
        """Count photos of an address, of which some have been counted already.

        Raises:
            Problem: it has asked too often (429), which says when to come again; or for more than a minute allows (413).
        """
        if photos > self._most:
            raise Problem(
                413, f"more than the {self._most:,} photos that one address may ask about in a minute; send fewer at once"
            )
        now = self._clock()
        left, since = self._buckets.pop(address, (float(self._most), now))
        left = min(self._most, left + (now - since) * self._most / 60)
        due = photos - counted
        if due > left:
            self._keep(address, left, now)
            wait = math.ceil((due - left) * 60 / self._most)
            raise Problem(429, f"more than {self._most:,} photos a minute; come again in {wait} s", {"Retry-After": str(wait)})
        self._keep(address, left - due, now)

    def _keep(self, address: str, left: float, now: float) -> None:
        self._buckets[address] = (left, now)
        while len(self._buckets) > _MOST_ADDRESSES:  # the one that was quiet longest
            self._buckets.popitem(last=False)
