"""The users that walk the maps site: one per location, each with a window and cookies of its own, and what they did.

A browser that has crashed is started again, a tab that has crashed is replaced, and what was being done begins again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from geoloc_dagster.errors import GeolocError, ServiceBlockedError
from geoloc_dagster.imagery.bidi import BrowserError, BrowserGoneError, BrowserTimeoutError, TabCrashedError
from geoloc_dagster.imagery.browser import Browser
from geoloc_dagster.imagery.client import ServiceClient
from geoloc_dagster.imagery.maps_contract import Kind, Seen
from geoloc_dagster.imagery.maps_page import Keep, MapsPage
from geoloc_dagster.imagery.provider import Location, RequestFailedError
from geoloc_dagster.imagery.tab import Tab

_log = logging.getLogger(__name__)
TRIES = 4  # of one view, of one click, and of one tab
_WINDOW_PX = 1280  # wide enough, in CSS pixels, for the site to show its controls beside each other
_CONSENTS = 2
T = TypeVar("T")


@dataclass
class Walk:
    """One location's user: its window, and what is known of the place.

    Attributes:
        location: where.
        lock: one at a time.
        page: its window; None before the first use and after a crash.
        seen: the scene that is open; None where none is.
        shot: digest of the last picture; None after a page was loaded.
        pano_ids: of the dates that were visited.
        slow: of the window's slow requests, those that were counted.
        received: likewise of its bytes.
        closed: whether somebody else needed its place.
    """

    location: Location
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    page: MapsPage | None = None
    seen: Seen | None = None
    shot: str | None = None
    pano_ids: dict[dt.date | None, str] = field(default_factory=dict[dt.date | None, str])
    slow: int = 0
    received: int = 0
    closed: bool = False

    @property
    def window(self) -> MapsPage:
        """The open window.

        Raises:
            TabCrashedError: there is none.
        """
        if self.page is None:
            raise TabCrashedError("there is no window")
        return self.page

    def arrived(self, seen: Seen) -> Seen:
        """Take note of the scene that is open now."""
        self.seen = seen
        if seen.address is not None:
            self.pano_ids[seen.captured_on] = seen.address.pano_id
        return seen


class Walks:
    """All users of one run.

    Args:
        client: paces page loads and clicks that load something; its budgets and its robots.txt apply.
        launch: starts the browser.
        keep: keeps evidence.
        size: (width, height) of pictures, pixels.
        workers: locations that are walked at once; as many again are opened ahead.
        proxy: way out of each user.
        user_agent: added to the browser's own.
        fresh_circuit: called before each new user, where Tor is the way out.
        blocked: told of a block.

    Attributes:
        incidents: what went wrong on the way and was dealt with, by kind.
    """

    def __init__(
        self,
        client: ServiceClient,
        launch: Callable[[], Browser],
        keep: Keep,
        *,
        size: tuple[int, int] = (640, 640),
        workers: int = 2,
        proxy: Mapping[str, Any] | None = None,
        user_agent: str = "",
        fresh_circuit: Callable[[], None] | None = None,
        blocked: Callable[[str], None] | None = None,
    ) -> None:
        self.client = client
        self.size = size
        self.workers = workers
        self.incidents: Counter[str] = Counter()
        self._launch = launch
        self._keep = keep
        self._proxy = proxy
        self._user_agent = user_agent
        self._fresh_circuit = fresh_circuit
        self._blocked = blocked
        self._browser: Browser | None = None
        self._walks: dict[str, Walk] = {}

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """One browser for one run; it ends with all its processes, however the run ends."""
        self._threads = ThreadPoolExecutor(2 * self.workers + 2, thread_name_prefix="browser")
        self._starting = asyncio.Lock()
        self._walks = {}
        try:
            async with self.client.session():
                yield
        finally:
            if self._browser is not None:
                await self.thread(self._browser.close)
            self._browser = None
            self._threads.shutdown(wait=True, cancel_futures=True)
            if self.incidents:
                _log.info("incidents of the browser: %s", dict(self.incidents))

    @asynccontextmanager
    async def at(self, location: Location) -> AsyncGenerator[Walk]:
        """The walk of a location, for one at a time; the least lately used one ends where there are too many."""
        while True:
            walk = self._walks.pop(location.location_id, None) or Walk(location)
            self._walks[location.location_id] = walk  # now the last in order
            while len(self._walks) > 2 * self.workers:
                idle = next((one for one in self._walks.values() if one is not walk and not one.lock.locked()), None)
                if idle is None:
                    break
                await self.leave(idle.location.location_id)
            async with walk.lock:
                if not walk.closed:
                    yield walk
                    return

    async def leave(self, location_id: str | None) -> None:
        """End the walk of a location; its user is gone with all its cookies."""
        walk = self._walks.get(location_id or "")
        if walk is None:
            return
        async with walk.lock:
            walk.closed = True
            if self._walks.get(walk.location.location_id) is walk:
                del self._walks[walk.location.location_id]
            await self._drop(walk)

    async def _drop(self, walk: Walk) -> None:
        self.count(walk)
        page, walk.page, walk.seen, walk.shot = walk.page, None, None, None
        if page is not None:
            await self.thread(page.tab.close)

    async def steadily(self, walk: Walk, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` returns; a tab or browser that crashes meanwhile is replaced, and `act` begins again."""
        for _ in range(TRIES):
            try:
                return await act()
            except (TabCrashedError, BrowserGoneError):
                self.incidents["tab_crash"] += 1
                await self._drop(walk)
            except BrowserTimeoutError as error:
                await self._drop(walk)
                raise RequestFailedError("timeout", str(error), retryable=True) from None
            except BrowserError as error:
                await self._drop(walk)
                raise RequestFailedError("invalid_answer", str(error), retryable=True) from None
            except RequestFailedError:
                walk.seen = None  # the next view begins with a page that was loaded anew
                raise
            except GeolocError as end:
                self.client.stop(end)
                if isinstance(end, ServiceBlockedError) and self._blocked is not None:
                    self._blocked(end.cause)
                raise
        raise RequestFailedError("tab_crash", f"the tab crashed {TRIES} times", retryable=True)

    async def request(self, walk: Walk, path: str, act: Callable[[], Seen]) -> Seen:
        """One request of a page, at the service's pace."""
        try:
            return await self.client.attempt(path, lambda: self.thread(act))
        finally:
            self.count(walk)

    def count(self, walk: Walk) -> None:
        """Take what came to a walk's window, and its slow requests, into the day's bytes and the incidents; once each."""
        if walk.page is None:
            return
        tab = walk.page.tab
        slow, received = tab.slow, tab.received
        self.incidents["slow_request"] += slow - walk.slow
        self.client.count_bytes(received - walk.received)
        walk.slow, walk.received = slow, received

    async def _tab(self) -> Tab:
        """A window of a new user; the browser is started, or started again, where it is not running."""
        async with self._starting:
            if self._fresh_circuit is not None:
                await self.thread(self._fresh_circuit)
            if self._browser is not None and self._browser.is_gone:
                await self.thread(self._browser.close)
                self._browser = None
            if self._browser is None:
                self._browser = await self.thread(self._launch)
        browser = self._browser
        width, height = self.size
        scale = max(1.0, _WINDOW_PX / width)
        window = (round(width * scale), round(height * scale))
        agent = f"{browser.user_agent} {self._user_agent}".strip()
        return await self.thread(lambda: browser.open_tab(self._proxy, agent, window, 1 / scale))

    async def thread(self, act: Callable[[], T]) -> T:
        """What `act` returns, which waits for the browser, in a thread beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def load(self, walk: Walk, path: str, *wanted: Kind) -> Seen:
        """Load a page of the site, and answer about cookies on the way."""
        walk.seen = walk.shot = None
        if walk.page is None:
            walk.page = MapsPage(await self._tab(), self.client.etiquette.deadline_s, self._keep)
            walk.slow = walk.received = 0
        page = walk.page
        url = self.client.base_url + path
        seen = await self.request(walk, url, lambda: page.go(url, *wanted))
        for _ in range(_CONSENTS):
            if seen.kind != "consent":
                return seen
            seen = await self.request(walk, seen.url, lambda: page.answer_consent(*wanted))
        return seen
