"""Pictures of many hosts, each asked as its own service: rate, pauses, breaker and robots.txt are those of the host.

A host that answers with a page for people, fails again and again, or wants a long pause is left alone for the rest of the run,
and the others are asked on. What ends everything is the day's budget, which is the list's as a whole.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from geoloc_dagster.errors import ServiceBlockedError, ServiceKeyError, ServiceUnavailableError
from geoloc_dagster.imagery.addresses import Addresses
from geoloc_dagster.imagery.answers import REDIRECTS
from geoloc_dagster.imagery.buckets import Buckets
from geoloc_dagster.imagery.channel import Channel, ChannelError
from geoloc_dagster.imagery.client import Answer, Check, Etiquette, ServiceClient
from geoloc_dagster.imagery.provider import CollectionStopped, RequestFailedError
from geoloc_dagster.imagery.purse import Purse
from geoloc_dagster.imagery.robots import MAX_BYTES, Fetched, Robots

MAX_REDIRECTS = 5
_ORIGIN = re.compile(r"[a-z]+://[^/?#]*", re.IGNORECASE)
ROBOTS_DEADLINE_S = 15.0


class HostStoppedError(RequestFailedError):
    """A host is left alone for the rest of the run, and with it the picture that was asked for.

    Attributes:
        host: which.
        reason: why, for people.
        has_answered: whether it was this picture that it answered with a page for people; asked again it would do so again.
        asked: whether it was this picture that made it so.
    """

    def __init__(self, host: str, reason: str, *, asked: bool = False, has_answered: bool = False) -> None:
        kind = "not_an_image" if has_answered else "disallowed"
        super().__init__(kind, f"{host} is left alone for now: {reason}", retryable=not has_answered, asked=asked)
        self.host = host
        self.reason = reason
        self.has_answered = has_answered


class PictureHosts:
    """Asks any number of hosts for pictures.

    Args:
        name: of the provider.
        etiquette: how each host is asked; `concurrency` is of one host.
        channel: connections to all of them.
        addresses: where redirects may lead.
        buckets: where rates and pauses are kept.
        purse: pays for requests.
        charge: the ledger's word for a picture.
        evidence: folder for pages that stopped a host.
        on_stop: called with the host, the reason, and whether it was a page for people, when one is to be left alone.
        clock: of the buckets, seconds.
    """

    def __init__(
        self,
        name: str,
        etiquette: Etiquette,
        channel: Channel,
        addresses: Addresses,
        *,
        buckets: Buckets,
        purse: Purse | None = None,
        charge: str | None = None,
        evidence: Path | None = None,
        on_stop: Callable[[str, str, bool], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.etiquette = etiquette
        self.addresses = addresses
        self.stopped: dict[str, str] = {}
        self._channel = channel
        self._buckets = buckets
        self._purse = purse
        self._charge = charge
        self._evidence = evidence
        self.on_stop = on_stop
        self._clock = clock
        self._robots = Robots(self._fetch_robots)
        self._clients: dict[str, ServiceClient] = {}
        self._stack: AsyncExitStack | None = None

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Connections for one run; hosts that were left alone are asked again by the next."""
        self.stopped.clear()
        async with self._channel.session(self.etiquette.concurrency), AsyncExitStack() as self._stack:
            try:
                yield
            finally:
                self._clients.clear()
                if self._purse is not None:
                    self._purse.close()
        self._stack = None

    async def get(self, url: str, check: Check) -> Answer:
        """The picture at a URL of the list, after up to five redirects.

        Raises:
            HostStoppedError: the host is left alone.
            RequestFailedError: this picture gave nothing.
            CollectionStopped: the day's budget is spent.
        """
        for hop in range(MAX_REDIRECTS + 1):
            if hop:
                self.addresses.check(url)
            answer = await self._ask(url, check)
            if answer.location is None or answer.status not in REDIRECTS:
                return answer
            url = urljoin(url, answer.location)
        raise RequestFailedError("invalid_answer", f"more than {MAX_REDIRECTS} redirects", retryable=False)

    def leave_alone(self, host: str, reason: str, *, blocked: bool = False) -> None:
        """Ask a host nothing more in this run."""
        if host not in self.stopped:
            self.stopped[host] = reason
            if self.on_stop is not None:
                self.on_stop(host, reason, blocked)

    async def _ask(self, url: str, check: Check) -> Answer:
        host = host_key(url)
        if host in self.stopped:
            raise HostStoppedError(host, self.stopped[host])
        client = await self._client(host)
        if host in self.stopped:
            raise HostStoppedError(host, self.stopped[host])

        def judge(answer: Answer) -> None:
            if answer.status in REDIRECTS:
                if not answer.location:
                    raise RequestFailedError("invalid_answer", "a redirect that leads nowhere", retryable=False)
                return
            check(answer)

        try:
            return await client.get(url, {}, expect="image", charge=self._charge, check=judge)
        except RequestFailedError as failure:
            if failure.kind == "disallowed" and not self._robots.is_known(url):
                raise RequestFailedError("disallowed", f"robots.txt of {host} cannot be had now", retryable=True) from None
            raise
        except CollectionStopped as stop:
            if stop.reason == "budget":
                raise
            first = host not in self.stopped
            self.leave_alone(host, stop.detail)
            raise HostStoppedError(host, stop.detail, asked=first) from None
        except (ServiceBlockedError, ServiceKeyError, ServiceUnavailableError) as error:
            first = host not in self.stopped
            blocked = isinstance(error, ServiceBlockedError)
            self.leave_alone(host, error.cause, blocked=blocked)
            answered = first and blocked and not client.was_asked_for_proof
            raise HostStoppedError(host, error.cause, asked=first, has_answered=answered) from None

    async def _client(self, host: str) -> ServiceClient:
        """The client of one host, which keeps to the pause between requests that its robots.txt wants."""
        client = self._clients.get(host)
        if client is None:
            client = self._clients[host] = ServiceClient(
                f"{self.name} {urlsplit(host).netloc}",
                host,
                self.etiquette,
                purse=self._purse,
                buckets=self._buckets,
                allowed=self._robots.allowed,
                evidence=self._evidence,
                keyless=True,
                channel=self._channel,
                clock=self._clock,
            )
            assert self._stack is not None, "hosts are asked inside the session"
            await self._stack.enter_async_context(client.session())
            paused_s = client.pace.paused_s()
            if paused_s > self.etiquette.longest_pause_s:
                self.leave_alone(host, f"it asked to be left alone for {paused_s:,.0f} s more")
                return client
            with contextlib.suppress(OSError, ValueError):
                client.pace.slow_down(await self._robots.crawl_delay_s(host + "/") or 0.0)
        return client

    async def _fetch_robots(self, url: str) -> Fetched:
        """One answer, in its turn; the beginning of one that is too long does not come, which counts as unreachable."""
        try:
            if host_key(url) not in self._clients:
                self.addresses.check(url)
            elif not await self._clients[host_key(url)].pace.turn(self.etiquette.longest_pause_s):
                raise OSError("the host wants to be left alone")
            received = await self._channel.fetch(url, deadline_s=ROBOTS_DEADLINE_S, max_bytes=MAX_BYTES)
        except (ChannelError, RequestFailedError) as error:
            raise OSError(str(error)) from None
        return Fetched(received.status, received.body, received.headers.get("location"))


def host_key(url: str) -> str:
    """`scheme://host:port` of a URL: what has a robots.txt and a rate of its own."""
    found = _ORIGIN.match(url)
    return found[0].lower() if found else ""


def quick(etiquette: Etiquette, rate: float) -> Etiquette:
    """The etiquette of a list at a rate: bursts of a tenth of a second, and requests set aside for a twentieth."""
    return replace(etiquette, requests_per_second=rate, burst=max(5, round(rate / 10)), lease_s=0.05)
