"""The etiquette towards imagery services, once, for every provider; none of it can be switched off.

Each request waits for its turn (rate, burst, and pauses that the service asked for), has a total deadline and a byte cap, and
is repeated with full-jitter backoff where that may help. Failures in a row open a breaker. A page for people where data were
expected ends everything at once: nothing here tries to get around a block. Keys never leave this module but in the request.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import importlib.metadata
import logging
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote, quote_plus, urlencode

import httpx2

from geoloc_dagster.errors import EgressError, GeolocError, ServiceBlockedError, ServiceKeyError, ServiceUnavailableError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.answers import LOOKED_AT_BYTES, asks_for_proof, is_page, judge_picture, opted_out
from geoloc_dagster.imagery.buckets import Buckets, MemoryBuckets
from geoloc_dagster.imagery.channel import Channel, ChannelError, HttpxChannel
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.pace import Breaker, Clock, Pace, Sleep, retry_after_s
from geoloc_dagster.imagery.provider import CollectionStopped, FailureKind, RequestFailedError
from geoloc_dagster.imagery.purse import Budget, Purse
from geoloc_dagster.imagery.signature import sign
from geoloc_dagster.storage import write_bytes

PROJECT_URL = "https://github.com/geoloc-dagster/geoloc-dagster"
_LONGEST_BACKOFF_S = 60.0
_QUOTA_PAUSE_S = 5.0
_ABOUT_THE_CLIENT = (408, 425, 429)
Expected = Literal["json", "image", "data"]
T = TypeVar("T")

for _name in ("httpx2", "httpcore2", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they would log URLs, and keys with them


@dataclass(frozen=True, slots=True)
class Etiquette:
    """How a service is asked.

    Attributes:
        requests_per_second: on average, of all processes of this host.
        burst: that may leave at once after a quiet time.
        concurrency: in flight at once.
        deadline_s: from sending a request to its last byte.
        max_bytes: of one answer.
        attempts: of one request.
        breaker_failures: in a row, after which nothing is asked for `probe_after_s`, and then once: if that fails as well,
            the service counts as down.
        probe_after_s: of quiet before that one request.
        longest_pause_s: a service that asks for a longer pause is left alone until another run.
        lease_s: requests of so many seconds are set aside at once, as `Pace` says.
    """

    requests_per_second: float = 20
    burst: int = 5
    concurrency: int = 8
    deadline_s: float = 15
    max_bytes: int = 20 << 20
    attempts: int = 5
    breaker_failures: int = 10
    probe_after_s: float = 5
    longest_pause_s: float = 120
    lease_s: float = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `url` is without key and signature; `location` is where a redirect leads, of hosts that may redirect."""

    status: int
    body: bytes
    url: str
    location: str | None = None


class OverQuotaError(Exception):
    """The service says that its quota is spent; raised by `check` functions, and dealt with by the client."""


Check = Callable[[Answer], None]


class ServiceClient:
    """Asks one service, for all tasks of one run.

    Args:
        name: of the service, for people and for the ledger.
        base_url: scheme and host.
        etiquette: how it is asked.
        ledger: counts requests that are charged; needed where there are budgets.
        budgets: of one day.
        buckets: where rate and pauses are kept; those of the host, or this client's own where None.
        allowed: asked before each request, with its URL: whether the host's robots.txt lets us; APIs with a key need none.
        today: the day of the budgets, UTC.
        evidence: folder for answers that end a run.
        purse: pays for requests in place of `ledger` and `budgets`, where several clients share it.
        keyless: whether this is a host that shows pictures to everybody: a status of 300 to 499 speaks of the one picture that
            was asked for, and not of the client; a redirect is an answer, and whoever asked decides whether to follow it.
        channel: carries requests and answers; httpx2, through `proxy`, where None.
        proxy: through which everything goes.
        transport: replaces the network in tests.
        sleep: waits; replaced in tests, as is `clock`.
        clock: seconds; the wall's where the host's buckets are used.
        rng: of the jitter.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        etiquette: Etiquette,
        *,
        ledger: Ledger | None = None,
        budgets: Sequence[Budget] = (),
        buckets: Buckets | None = None,
        allowed: Callable[[str], Awaitable[bool]] | None = None,
        today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.UTC).date(),
        evidence: Path | None = None,
        purse: Purse | None = None,
        keyless: bool = False,
        channel: Channel | None = None,
        proxy: httpx2.Proxy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.etiquette = etiquette
        self._base_url = base_url.rstrip("/")
        self._key: str | None = None
        self._key_parameter = "key"
        self._secret: str | None = None
        own = None if ledger is None else Purse(ledger, name, budgets, today)
        self._purse = purse or own
        self._keyless = keyless
        self.was_asked_for_proof = False
        self._allowed = allowed
        self._today = today
        self._evidence = evidence
        self._channel = channel or HttpxChannel(user_agent(), proxy, transport)
        self._sleep = sleep
        self._clock = clock or (time.monotonic if buckets is None else time.time)
        self._rng = rng or random.Random()
        self.pace = Pace(
            f"{name} {self._base_url}",
            etiquette.requests_per_second,
            etiquette.burst,
            buckets=buckets or MemoryBuckets(),
            clock=self._clock,
            sleep=sleep,
            ahead_s=etiquette.lease_s,
        )

    @property
    def base_url(self) -> str:
        """Scheme and host, without a slash at the end."""
        return self._base_url

    def use_key(self, key: str | None, signing_secret: str | None = None, *, parameter: str = "key") -> None:
        """Send this key with every request to the base URL, as that parameter, and sign requests where there is a secret."""
        self._key, self._secret, self._key_parameter = key, signing_secret, parameter

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Open connections, for one event loop; it can be opened again afterwards."""
        limits = self.etiquette
        self.pace.open()
        self._breaker = Breaker(limits.breaker_failures)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._end: GeolocError | CollectionStopped | None = None
        self._quota_said_at: float | None = None
        async with self._channel.session(limits.concurrency):
            yield

    async def get(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        expect: Expected,
        charge: str | None = None,
        check: Check | None = None,
        refused: Check | None = None,
    ) -> Answer:
        """One answer, after as many attempts as it takes and the etiquette allows.

        Args:
            path: below the base URL; or a whole URL, as services name those of pictures on another host. Such a URL is asked for
                as it is, without the key, and is not repeated in errors with its query, which may hold a signature.
            params: of the query, without key and signature.
            expect: what kind of body an answer has; a page for people is a block.
            charge: taken from the day's budget of that name before each attempt is sent.
            check: looks into each answer; may raise RequestFailedError or OverQuotaError.
            refused: looks into answers with a status of 400 to 499 that ask for no pause; may raise what says more than that.

        Raises:
            RequestFailedError: this request gave nothing; others may.
            CollectionStopped: budget or quota are spent, or the service wants a long pause.
            ServiceKeyError: the key is refused.
            EgressError: the proxy refuses user or password.
            ServiceBlockedError: the service does not want this traffic.
            ServiceUnavailableError: too many failures in a row.
        """

        async def ask() -> Answer:
            answer = await self._send(path, params, expect, refused)
            if check is not None:
                check(answer)
            return answer

        return await self.attempt(path, ask, charge)

    async def attempt(self, path: str, ask: Callable[[], Awaitable[T]], charge: str | None = None) -> T:
        """What `ask` returns, which sends one request in its own way: a browser's load of a page goes through here as well.

        Args:
            path: below the base URL, or a whole URL; robots.txt is asked about it.
            ask: raises RequestFailedError and OverQuotaError as `check` does; any GeolocError ends the run.
            charge: as for `get`, which says what else is raised.
        """
        await self._raise_if_disallowed(path)
        attempt = 0
        while True:
            attempt += 1
            async with self._slots, self._breaker.passage() as probing:
                await self._turn(charge)
                failpoint("client.paid")
                sent_at = self._clock()
                try:
                    answer = await ask()
                    self._breaker.succeeded()
                    failpoint("client.judged")
                    return answer
                except OverQuotaError as error:
                    self._over_quota(sent_at, str(error))
                    attempt -= 1  # the service is asked to wait, not this item
                    continue
                except RequestFailedError as failure:
                    self._count(failure, probing)
                    if not failure.retryable or attempt >= self.etiquette.attempts:
                        raise
                except (GeolocError, CollectionStopped) as end:
                    raise self._ended_by(end) from None
            longest_s = min(_LONGEST_BACKOFF_S, 0.5 * 2**attempt)
            await self._sleep(self._rng.uniform(0, longest_s))

    async def _raise_if_disallowed(self, path: str) -> None:
        if self._allowed is None:
            return
        url = path if path.startswith(("http://", "https://")) else self._base_url + path
        if not await self._allowed(url):
            raise RequestFailedError("disallowed", f"robots.txt does not allow {url.split('?')[0]}", retryable=False)

    async def _turn(self, charge: str | None) -> None:
        """Wait for this request's turn, and pay for it."""
        self._raise_if_ended()
        asked_s = self.pace.paused_s()
        if asked_s > self.etiquette.longest_pause_s:
            raise self._ended_by(self._left_alone(asked_s))
        if not await self.pace.turn(self.etiquette.longest_pause_s):
            raise self._ended_by(self._left_alone(self.pace.paused_s()))
        failpoint("client.turn")
        self._raise_if_ended()
        if self._purse is not None:
            self._pay_or_end(self._purse.pay(charge))

    def pay(self, charge: str) -> None:
        """Take a charge from the day's budgets for what needs no request of its own, such as another look at a loaded page.

        Raises:
            CollectionStopped: a budget is spent.
            GeolocError: the run has ended.
        """
        self._raise_if_ended()
        if self._purse is not None:
            self._pay_or_end(self._purse.pay_without_request(charge))

    def stop(self, end: GeolocError) -> None:
        """Let no later request leave, for a reason that was seen elsewhere than in an answer."""
        self._ended_by(end)

    def count_bytes(self, count: int) -> None:
        """Count what came by another way than `get`."""
        if self._purse is not None and count:
            self._purse.received(count)

    def _pay_or_end(self, spent: str | None) -> None:
        if spent is not None:
            raise self._ended_by(CollectionStopped("budget", f"{spent} are spent"))

    async def _send(self, path: str, params: Mapping[str, str], expect: Expected, refused: Check | None) -> Answer:
        elsewhere = path.startswith(("http://", "https://"))
        target, shown = (path, path.split("?")[0]) if elsewhere else self._address(path, params)
        path = shown if elsewhere else path
        try:
            received = await self._channel.fetch(target, deadline_s=self.etiquette.deadline_s, max_bytes=self.etiquette.max_bytes)
        except ChannelError as error:
            raise _failed(error.kind, str(error), path) from None
        if self._purse is not None:
            self._purse.received(len(received.body))
        answer = Answer(received.status, received.body, shown, received.headers.get("location"))
        if elsewhere and not self._keyless and answer.status in (401, 403, 404, 410):  # no key was sent, so none was refused
            raise RequestFailedError("gone", f"{answer.status} ({path})", retryable=False)
        self._judge(answer, received.headers, expect, path, refused)
        if opted_out(received.headers):
            raise RequestFailedError("opted_out", f"the answer says that it is not for training ({path})", retryable=False)
        return answer

    def _address(self, path: str, params: Mapping[str, str]) -> tuple[str, str]:
        """Of a request to the base URL: with key and signature, and without."""
        query = urlencode(params)
        target = f"{path}?{urlencode({**params, self._key_parameter: self._key})}" if self._key else f"{path}?{query}"
        if self._secret:
            target += f"&signature={sign(target, self._secret)}"
        return self._base_url + target, f"{self._base_url}{path}?{query}"

    def _judge(
        self, answer: Answer, headers: Mapping[str, str], expect: Expected, path: str, refused: Check | None = None
    ) -> None:
        """Whether the status lets the body be looked into."""
        status, said = answer.status, self.without_secrets(answer.body[:200].decode("utf-8", "replace").strip())
        page = is_page(answer.body, headers.get("content-type", ""))
        if status == 407:  # of the way out: it says nothing about what was asked for
            raise EgressError(
                "the proxy refuses user or password", "Correct the environment variable of `egress.credentials_variable`."
            )
        if self._keyless and status >= 300:
            if asks_for_proof(answer.body):
                raise self._blocked(answer, headers, expect)
            page = False  # errors and redirects come with pages for people, which nobody asked for
            if status < 500 and status not in _ABOUT_THE_CLIENT:
                judge_picture(status, path)
                return
        if page or 300 <= status < 400:
            if status >= 500 and not asks_for_proof(answer.body):  # a gateway's own page: the service behind it is away
                raise _failed("server_error", f"{status}", path)
            raise self._blocked(answer, headers, expect)
        if status in (429, 503):
            seconds = retry_after_s(headers.get("retry-after"), dt.datetime.now(dt.UTC))
            if seconds is not None:
                self._pause(seconds)
                raise _failed("rate_limited", f"{status}, asked to wait {seconds:g} s", path)
            if "OVER_QUERY_LIMIT" in said:
                raise OverQuotaError(said)
        if refused is not None and 400 <= status < 500:
            refused(answer)
        if status in (401, 403):
            raise ServiceKeyError(
                f"`{self.name}` refused the key ({status} {said})" if said else f"`{self.name}` refused the key"
            )
        if status == 429:
            raise _failed("rate_limited", "429 without a time to wait", path)
        if status >= 500:
            raise _failed("server_error", f"{status} {said}", path)
        if status == 404:
            raise RequestFailedError("no_imagery", f"404 {said}", retryable=False)
        if status not in (200, 204):
            raise RequestFailedError("invalid_request", f"{status} {said}", retryable=False)

    def _pause(self, seconds: float) -> None:
        self.pace.pause(seconds)  # remembered even where it is too long for this run: the next one finds it
        if seconds > self.etiquette.longest_pause_s:
            raise self._left_alone(seconds)

    def _left_alone(self, seconds: float) -> CollectionStopped:
        return CollectionStopped("pause", f"`{self.name}` asked to be left alone for {seconds:,.0f} s")

    def _over_quota(self, sent_at: float, said: str) -> None:
        """Wait once; a request that was sent after that and hears the same ends the run."""
        if self._quota_said_at is not None and sent_at > self._quota_said_at:
            raise self._ended_by(CollectionStopped("quota", f"`{self.name}` says that its quota is spent ({said})"))
        self._quota_said_at = self._clock() if self._quota_said_at is None else self._quota_said_at
        self.pace.pause(_QUOTA_PAUSE_S)

    def _count(self, failure: RequestFailedError, probing: bool) -> None:
        """An answer that a service has thought about is no sign that it is down; obeyed pauses are none either."""
        if not failure.retryable:
            self._breaker.succeeded()
            return
        if failure.kind == "rate_limited":
            return
        was_open = self._breaker.is_open
        if not self._breaker.failed():
            return
        if probing:
            cause = f"`{self.name}` failed {self._breaker.failures} times in a row; the last was {failure}"
            raise self._ended_by(ServiceUnavailableError(cause)) from None
        if not was_open:
            self.pace.pause(self.etiquette.probe_after_s)

    def _blocked(self, answer: Answer, headers: Mapping[str, str], expect: Expected) -> ServiceBlockedError:
        self.was_asked_for_proof |= asks_for_proof(answer.body)
        kept = self._keep(answer, headers)
        what = "a picture" if expect == "image" else "data"
        came = "a redirect" if 300 <= answer.status < 400 else "a page for people"
        error = ServiceBlockedError(
            f"`{self.name}` answered {answer.status} with {came} where {what} was expected"
            + (f"; it is kept in {kept}" if kept else "")
        )
        error.facts["evidence"] = kept
        return error

    def _keep(self, answer: Answer, headers: Mapping[str, str]) -> Path | None:
        if self._evidence is None:
            return None
        shown = {name: value for name, value in headers.items() if name not in ("set-cookie", "location")}
        lines = [f"{answer.url}", f"{answer.status}", *(f"{name}: {value}" for name, value in shown.items()), "", ""]
        digest = hashlib.sha256(answer.body).hexdigest()[:12]
        page = answer.body[:LOOKED_AT_BYTES].decode("utf-8", "replace")
        path = self._evidence / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)}-{self._today():%Y%m%d}-{digest}.txt"
        return write_bytes(path, self.without_secrets("\n".join(lines) + page).encode())

    def without_secrets(self, text: str) -> str:
        """A service may repeat the URL that it was asked under, and the key with it, as it is or encoded."""
        for secret in (self._key, self._secret):
            for form in {secret, quote(secret, safe=""), quote_plus(secret)} if secret else ():
                text = text.replace(form, "…")
        return re.sub(r"signature=[\w%=-]+", "signature=…", text)

    def _ended_by(self, end: GeolocError | CollectionStopped) -> GeolocError | CollectionStopped:
        """Remember the first reason to end the run; every later request hears it."""
        self._end = self._end or end
        return self._end

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise self._end


def user_agent() -> str:
    """Who asks, with where to complain: the same for every request."""
    contact = os.environ.get("GEOLOC_CONTACT", "").strip()
    version = importlib.metadata.version("geoloc-dagster")
    return f"geoloc_dagster/{version} (+{PROJECT_URL}{f'; contact: {contact}' if contact else ''})"


def _failed(kind: FailureKind, detail: str, path: str) -> RequestFailedError:
    return RequestFailedError(kind, f"{detail} ({path})", retryable=True)
