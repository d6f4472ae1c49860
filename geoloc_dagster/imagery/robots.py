"""What the robots.txt of a host allows (RFC 9309); for hosts of pages and pictures, not for APIs that are asked with a key.

Fetched before the first request to a host and kept for at most a day. A host without the file allows everything; one that fails,
or cannot be reached, allows nothing for now. Rules are matched by `protego`, the parser of Scrapy: the longest match counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx2
from protego import Protego

PRODUCT = "geoloc_dagster"
"""The word that a robots.txt calls us by."""
MAX_BYTES = 512 << 10
MAX_REDIRECTS = 5
_KEPT_S = 24 * 3600.0
_RETRY_S = 600.0
_DEADLINE_S = 15.0
_FORBID_ALL = "User-agent: *\nDisallow: /"


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer: its status, its first `MAX_BYTES` bytes, and where it redirects to."""

    status: int
    body: bytes = b""
    location: str | None = None


Fetch = Callable[[str], Awaitable[Fetched]]


@dataclass(frozen=True, slots=True)
class _Rules:
    parsed: Protego
    until_s: float
    is_answer: bool  # of the host, and not what counts while there is none


class Robots:
    """The rules of every host that is asked about.

    Args:
        fetch: gets one URL without following redirects; raises OSError or httpx2.HTTPError where nothing comes back.
        clock: seconds.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._rules: dict[str, _Rules] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def allowed(self, url: str) -> bool:
        """Whether we may ask for this URL."""
        return (await self._of_host(url)).can_fetch(url, PRODUCT)

    async def crawl_delay_s(self, url: str) -> float | None:
        """Seconds between requests that the host of this URL wants; None where it says nothing."""
        delay = (await self._of_host(url)).crawl_delay(PRODUCT)
        return None if delay is None else float(delay)

    def is_known(self, url: str) -> bool:
        """False where the host of this URL allows nothing for now, as its rules could not be had."""
        parts = urlsplit(url)
        rules = self._rules.get(f"{parts.scheme}://{parts.netloc}")
        return rules is None or rules.is_answer

    async def _of_host(self, url: str) -> Protego:
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        async with self._locks.setdefault(host, asyncio.Lock()):
            known = self._rules.get(host)
            if known is None or known.until_s <= self._clock():
                text, kept_s = await self._read(f"{host}/robots.txt")
                known = self._rules[host] = _Rules(Protego.parse(text), self._clock() + kept_s, kept_s == _KEPT_S)
            return known.parsed

    async def _read(self, url: str) -> tuple[str, float]:
        """The rules in force, and for how long."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = await self._fetch(url)
            except (OSError, httpx2.HTTPError):
                return _FORBID_ALL, _RETRY_S
            if 300 <= answer.status < 400 and answer.location:
                url = urljoin(url, answer.location)
                continue
            if answer.status == 200:
                return answer.body[:MAX_BYTES].decode("utf-8", "replace"), _KEPT_S
            return ("", _KEPT_S) if 300 <= answer.status < 500 else (_FORBID_ALL, _RETRY_S)
        return "", _KEPT_S  # a loop of redirects is an unavailable file, which allows everything


def http_fetch(user_agent: str, proxy: httpx2.Proxy | None = None) -> Fetch:
    """Over HTTP, with a deadline and no more than `MAX_BYTES` of an answer."""

    async def fetch(url: str) -> Fetched:
        async with (
            httpx2.AsyncClient(headers={"user-agent": user_agent}, trust_env=False, proxy=proxy) as client,
            asyncio.timeout(_DEADLINE_S),
            client.stream("GET", url) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes(64 << 10):
                body += chunk
                if len(body) >= MAX_BYTES:
                    break
            return Fetched(response.status_code, bytes(body), response.headers.get("location"))

    return fetch
