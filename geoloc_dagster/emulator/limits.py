"""What the emulated service lets in: its clock, keys, signatures and quotas."""

from __future__ import annotations

import datetime as dt
import hmac
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from geoloc_dagster.emulator.answers import Answer, status_answer
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.imagery.signature import sign

Period = Literal["day", "minute"]
_QUOTA = re.compile(r"(metadata|image|history|mapillary_tile|mapillary_images|mapillary_search)=([0-9]{1,12})/(day|minute)")


@dataclass
class Clock:
    """The service's calendar: a fixed date, or the real one (UTC) where `fixed` is None."""

    fixed: dt.date | None = None

    def today(self) -> dt.date:
        """The date that the service believes in."""
        return self.fixed or dt.datetime.now(dt.UTC).date()


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `limit` requests of one endpoint in a calendar day of the service, or in a real minute."""

    endpoint: Endpoint
    limit: int
    per: Period

    @classmethod
    def parse(cls, text: str) -> Quota:
        """Read `image=30000/minute`.

        Raises:
            ValueError: it is written otherwise.
        """
        match = _QUOTA.fullmatch(text)
        if match is None:
            raise ValueError(f"a quota is written like image=30000/minute or metadata=500/day, not {text!r}")
        return cls(cast("Endpoint", match[1]), int(match[2]), cast("Period", match[3]))

    def __str__(self) -> str:
        return f"{self.endpoint}={self.limit}/{self.per}"


class QuotaMeter:
    """Counts requests against quotas; a request that is over one of them counts against none.

    Args:
        quotas: all of them; several may hold for one endpoint.
        monotonic: seconds; minutes are cut from it.
    """

    def __init__(self, quotas: tuple[Quota, ...], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._monotonic = monotonic
        self._used: Counter[Quota] = Counter()
        self._period: dict[Quota, dt.date | int] = {}

    def spend(self, endpoint: Endpoint, today: dt.date) -> Quota | None:
        """Take one request from what is left; the quota that has nothing left, if any."""
        mine = [quota for quota in self._quotas if quota.endpoint == endpoint]
        for quota in mine:
            period = today if quota.per == "day" else int(self._monotonic() // 60)
            if self._period.get(quota) != period:
                self._period[quota] = period
                self._used[quota] = 0
        spent = next((quota for quota in mine if self._used[quota] >= quota.limit), None)
        if spent is None:
            self._used.update(mine)
        return spent

    def seconds_left(self, quota: Quota) -> int | None:
        """How long a minute's quota stays spent; None for a day's, which ends when the service's calendar says so."""
        return max(1, math.ceil(60 - self._monotonic() % 60)) if quota.per == "minute" else None


class Gate:
    """Refuses requests without the right key or signature, and those that are over a quota.

    Args:
        key: the only one that is valid; any request may do without where None.
        secret: what requests have to be signed with, URL-safe base64; no signature is asked for where None.
        quotas: for requests that pass the rest.

    Raises:
        ServiceKeyError: the secret cannot be used.
    """

    def __init__(self, key: str | None, secret: str | None, quotas: tuple[Quota, ...], clock: Clock) -> None:
        self._key = key
        self._secret = secret
        self._clock = clock
        self._meter = QuotaMeter(quotas)
        if secret is not None:
            sign("/", secret)

    def refusal(self, endpoint: Endpoint, path: str, raw_query: str, query: Mapping[str, str]) -> Answer | None:
        """The answer to a request that is not let in; None for one that is, which then counts against the quotas."""
        problem = self._key_problem(query) or self._signature_problem(path, raw_query, query)
        if problem is not None:
            return status_answer(endpoint, "REQUEST_DENIED", problem)
        spent = self._meter.spend(endpoint, self._clock.today())
        if spent is None:
            return None
        answer = status_answer(endpoint, "OVER_QUERY_LIMIT", f"the quota of {spent.limit} requests per {spent.per} is spent")
        seconds = self._meter.seconds_left(spent)
        return answer if seconds is None or endpoint != "image" else answer.with_retry_after(str(seconds))

    def _key_problem(self, query: Mapping[str, str]) -> str | None:
        if self._key is None:
            return None
        given = query.get("key")
        if not given:
            return "the request has no key"
        return None if hmac.compare_digest(given.encode(), self._key.encode()) else "the key is not valid"

    def _signature_problem(self, path: str, raw_query: str, query: Mapping[str, str]) -> str | None:
        if self._secret is None:
            return None
        given = query.get("signature")
        if not given:
            return "the request has no signature"
        signed = "&".join(part for part in raw_query.split("&") if not part.startswith("signature="))
        right = sign(f"{path}?{signed}", self._secret)
        return None if hmac.compare_digest(given.encode(), right.encode()) else "the signature does not fit the request"
