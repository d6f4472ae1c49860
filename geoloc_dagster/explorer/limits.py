"""How often one address may ask: a bucket of tokens each, in memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from geoloc_dagster.explorer.problems import Problem

_MOST_ADDRESSES = 10_000


class RateLimit:
    """`per_minute` photos for each address, all of them at once if need be.

    Args:
        per_minute: photos.
        clock: seconds, ascending.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, photos: int = 1) -> None:
        """Count photos of an address.

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
        if photos > left:
            self._keep(address, left, now)
            wait = math.ceil((photos - left) * 60 / self._most)
            raise Problem(429, f"more than {self._most:,} photos a minute; come again in {wait} s", {"Retry-After": str(wait)})
        self._keep(address, left - photos, now)

    def _keep(self, address: str, left: float, now: float) -> None:
        self._buckets[address] = (left, now)
        while len(self._buckets) > _MOST_ADDRESSES:  # the one that was quiet longest
            self._buckets.popitem(last=False)
