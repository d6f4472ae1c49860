"""How requests leave and answers come back, for the one client that knows the etiquette; and the usual way of doing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx2

from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.provider import FailureKind, RequestFailedError

_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Received:
    """One whole answer; names of headers are in lower case, values of repeated ones are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ChannelError(Exception):
    """No whole answer came; another attempt may get one.

    Attributes:
        kind: timeout, truncated or network.
    """

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FailureKind = kind


class Channel(Protocol):
    """Connections of one run. It follows no redirect, keeps no cookie, and knows nothing of rates."""

    def session(self, concurrency: int) -> AbstractAsyncContextManager[None]:
        """Open it, for one event loop and as many requests at once; sessions may be nested."""
        ...

    async def fetch(self, url: str, *, deadline_s: float, max_bytes: int) -> Received:
        """One answer, complete within a time.

        Raises:
            ChannelError: none came.
            RequestFailedError: `too_large`: it is longer than `max_bytes`.
        """
        ...


class HttpxChannel:
    """HTTP/1.1 by httpx2, directly or through any proxy.

    Args:
        user_agent: who asks.
        proxy: through which everything goes.
        transport: replaces the network in tests.
    """

    def __init__(
        self, user_agent: str, proxy: httpx2.Proxy | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._user_agent = user_agent
        self._proxy = proxy
        self._transport = transport
        self._http: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def session(self, concurrency: int) -> AsyncGenerator[None]:
        """As the protocol."""
        if self._http is not None:
            yield
            return
        async with httpx2.AsyncClient(
            headers={"user-agent": self._user_agent},
            timeout=None,
            limits=httpx2.Limits(max_connections=concurrency),
            follow_redirects=False,
            trust_env=False,
            proxy=self._proxy,
            transport=self._transport,
        ) as http:
            self._http = http
            try:
                yield
            finally:
                self._http = None

    async def fetch(self, url: str, *, deadline_s: float, max_bytes: int) -> Received:
        """As the protocol."""
        assert self._http is not None, "the client is used inside its session"
        try:
            async with asyncio.timeout(deadline_s), self._http.stream("GET", url) as response:
                failpoint("client.connected")
                body = await _read(response, max_bytes)
                failpoint("client.received")
        except (TimeoutError, httpx2.TimeoutException):
            raise ChannelError("timeout", f"no complete answer within {deadline_s:g} s") from None
        except httpx2.RemoteProtocolError as error:
            raise ChannelError("truncated" if "complete" in str(error) else "network", str(error)) from None
        except httpx2.DecodingError as error:
            raise ChannelError("truncated", f"packed, and broken: {error}") from None
        except httpx2.TransportError as error:
            raise ChannelError("network", str(error) or type(error).__name__) from None
        self._http.cookies.clear()  # nobody is recognised by what an earlier answer left behind
        return Received(response.status_code, dict(response.headers.items()), body)


async def _read(response: httpx2.Response, cap: int) -> bytes:
    """The body, given up as soon as it is longer than the cap."""
    refuse_announced(response.headers.get("content-length", ""), cap)
    body = bytearray()
    async for chunk in response.aiter_bytes(_CHUNK_BYTES):
        body += chunk
        if len(body) > cap:
            raise longer_than(cap)
    return bytes(body)


def refuse_announced(length: str, cap: int) -> None:
    """Raise `RequestFailedError` where a Content-Length is above the cap."""
    if length.isdecimal() and int(length) > cap:
        raise RequestFailedError("too_large", f"{int(length):,} bytes announced, {cap:,} allowed", retryable=False)


def longer_than(cap: int) -> RequestFailedError:
    """The failure of an answer that has turned out to be longer than allowed."""
    return RequestFailedError("too_large", f"more than {cap:,} bytes", retryable=False)
