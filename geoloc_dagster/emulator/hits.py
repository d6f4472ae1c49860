"""The log of what the emulated service was asked, for those who count afterwards."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, NamedTuple

from geoloc_dagster.emulator.faults import Endpoint

MAX_ENTRIES = 200_000


class Hit(NamedTuple):
    """One request.

    Attributes:
        t: when it came in, seconds of the monotonic clock, which all processes of a machine share.
        endpoint: which one.
        what: what it asked for, in words that stay the same when panorama ids change.
        status: HTTP status code of the answer.
        outcome: `OK` or another status of the service, or the name of the fault that it met.
        bytes: length of the body that it was meant to get.
    """

    t: float
    endpoint: Endpoint
    what: str
    status: int
    outcome: str
    bytes: int


class HitLog:
    """The last `max_entries` requests, and totals of all of them since it was last cleared."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._hits: deque[Hit] = deque(maxlen=max_entries)
        self._bytes = 0
        self._outcomes: dict[str, Counter[str]] = {}
        self.clear()

    def add(self, hit: Hit) -> None:
        """Count and keep one request; the oldest is dropped where there are too many."""
        self._hits.append(hit)
        self._bytes += hit.bytes
        self._outcomes.setdefault(hit.endpoint, Counter())[hit.outcome] += 1

    def clear(self) -> None:
        """Forget everything."""
        self._hits.clear()
        self._bytes = 0
        self._outcomes = {"metadata": Counter(), "image": Counter(), "history": Counter()}

    def report(self, last: int | None = None) -> dict[str, Any]:
        """`totals` (requests, bytes and, per endpoint, outcomes) and `requests`, oldest first.

        Args:
            last: only so many of the newest requests.
        """
        hits = list(self._hits)
        if last is not None:
            hits = hits[len(hits) - min(last, len(hits)) :]
        requests = sum(counts.total() for counts in self._outcomes.values())
        outcomes = {endpoint: dict(counts) for endpoint, counts in self._outcomes.items()}
        return {"totals": {"requests": requests, "bytes": self._bytes, **outcomes}, "requests": [hit._asdict() for hit in hits]}
