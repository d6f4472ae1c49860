"""Street views of every date, by a real browser on the maps site: the provider `google_maps`.

Each location is a user of its own: fresh cookies, its own way out. A panorama is opened by its documented address; a location
without a panorama id by the search box, as a person would. Other dates come from the time machine, other headings from the rotate
buttons as long as the address bar confirms them, and from the documented address where it does not.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from geoloc_dagster.errors import ConfigError, ServiceBlockedError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.ahead import ahead
from geoloc_dagster.imagery.bidi import BrowserError, BrowserGoneError, BrowserTimeoutError, TabCrashedError
from geoloc_dagster.imagery.browser import Browser, Tab
from geoloc_dagster.imagery.client import ServiceClient
from geoloc_dagster.imagery.google import SAME_PLACE_M
from geoloc_dagster.imagery.maps_contract import (
    MAP_PATH,
    MAX_FOV_DEG,
    MIN_FOV_DEG,
    Address,
    Kind,
    Seen,
    gap_deg,
    link_to,
    month_of,
)
from geoloc_dagster.imagery.maps_page import Frame, Keep, MapsPage
from geoloc_dagster.imagery.provider import (
    Capture,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.received import failure_of

_log = logging.getLogger(__name__)
_WINDOW_PX = 1280  # wide enough, in CSS pixels, for the site to show its controls beside each other
_TRIES = 4  # of one view, of one click, and of one tab
_CONSENTS = 2
_TURN_TOLERANCE_DEG = 0.25
T = TypeVar("T")


@dataclass
class _Walk:
    """One location's user: its window, and what is known of the place.

    Attributes:
        location: where.
        lock: one at a time.
        page: its window; None before the first use and after a crash.
        seen: the scene that is open; None where none is.
        shot: digest of the last picture; None after a page was loaded.
        pano_ids: of the dates that were visited.
        slow: of the tab's slow requests, those that were counted.
        closed: whether somebody else needed its place.
    """

    location: Location
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    page: MapsPage | None = None
    seen: Seen | None = None
    shot: str | None = None
    pano_ids: dict[dt.date | None, str] = field(default_factory=dict[dt.date | None, str])
    slow: int = 0
    closed: bool = False


class GoogleMaps:
    """The provider `google_maps`.

    Args:
        client: paces page loads and clicks that load something; its budgets and its robots.txt apply.
        terms: under which terms pictures may be kept.
        launch: starts the browser.
        keep: keeps evidence.
        size: (width, height) of pictures, pixels.
        fov_deg: of the views; checked here, because the site knows no other than 10 to 100.
        history: every date of a place, or the one that it opens with.
        workers: locations that are walked at once; as many again are opened ahead.
        proxy: way out of each user.
        user_agent: added to the browser's own.
        fresh_circuit: called before each new user, where Tor is the way out.
        blocked: told of a block.

    Attributes:
        incidents: what went wrong on the way and was dealt with, by kind.

    Raises:
        ConfigError: a field of view that the site does not have.
    """

    def __init__(
        self,
        client: ServiceClient,
        terms: Terms,
        launch: Callable[[], Browser],
        keep: Keep,
        *,
        size: tuple[int, int] = (640, 640),
        fov_deg: float = 90.0,
        history: Literal["all", "newest"] = "all",
        workers: int = 2,
        proxy: Mapping[str, Any] | None = None,
        user_agent: str = "",
        fresh_circuit: Callable[[], None] | None = None,
        blocked: Callable[[str], None] | None = None,
    ) -> None:
        if not MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:
            raise ConfigError(
                f"capture.fov_deg is {fov_deg:g}", f"The maps site shows {MIN_FOV_DEG:g} to {MAX_FOV_DEG:g} degrees."
            )
        self._client = client
        self._terms = terms
        self._launch = launch
        self._keep = keep
        self._size = size
        self._history = history
        self._workers = workers
        self._proxy = proxy
        self._user_agent = user_agent
        self._fresh_circuit = fresh_circuit
        self._blocked = blocked
        self._browser: Browser | None = None
        self._walks: dict[str, _Walk] = {}
        self._walked_by: dict[asyncio.Task[Any] | None, str] = {}
        self.incidents: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """`google_maps`."""
        return "google_maps"

    @property
    def terms(self) -> Terms:
        """The terms of the service, with the permission on record."""
        return self._terms

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """One browser for one run; it ends with all its processes, however the run ends."""
        self._threads = ThreadPoolExecutor(2 * self._workers + 2, thread_name_prefix="browser")
        self._starting = asyncio.Lock()
        self._walks, self._walked_by = {}, {}
        try:
            async with self._client.session():
                yield
        finally:
            if self._browser is not None:
                await self._thread(self._browser.close)
            self._browser = None
            self._threads.shutdown(wait=True, cancel_futures=True)
            _log.info("browser incidents: %s", dict(self.incidents))

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The panorama that each location opens with, some opened ahead; whoever asks for the next is through with the last."""
        answers = ahead(self._find_one, locations, self._workers)
        try:
            while True:
                await self._leave(self._walked_by.pop(asyncio.current_task(), None))
                try:
                    answer = await anext(answers)
                except StopAsyncIteration:
                    return
                if isinstance(answer, Panorama):
                    self._walked_by[asyncio.current_task()] = answer.location.location_id
                yield answer
        finally:
            await answers.aclose()

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every date of the time machine, newest first; only this one where the place has one, or one is wanted."""
        if self._history == "newest":
            return [panorama]
        async with self._walk(panorama.location) as walk:
            labels = await self._steadily(walk, lambda: self._labels(walk))
        months = dict.fromkeys(month for month in map(month_of, labels) if month is not None)
        if panorama.captured_on not in months:
            return [panorama]
        return [self._dated(panorama, month) for month in sorted(months, reverse=True)]

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One answer per view, in their order; taken in the order of the least turning."""
        answers: dict[View, Capture | Failure] = {}
        end: BaseException | None = None
        async with self._walk(panorama.location) as walk:
            for view in _by_turning(walk.seen, views):
                try:
                    self._client.pay("image")
                    frame = await self._steadily(walk, lambda view=view: self._picture(walk, panorama, view))
                    answers[view] = self._captured(panorama, view, frame)
                except RequestFailedError as failure:
                    answers[view] = failure_of(failure, panorama, view)
                except Exception as error:  # noqa: BLE001 (raised again below, after what has been captured)
                    end = error
                    break
        for view in views:
            if view in answers:
                yield answers[view]
        if end is not None:
            raise end

    # --- places ------------------------------------------------------------------------------------------------------
    async def _find_one(self, location: Location) -> Panorama | Negative | RequestFailedError:
        try:
            async with self._walk(location) as walk:
                seen = await self._steadily(walk, lambda: self._scene(walk))
        except RequestFailedError as failure:
            return failure
        address = seen.address
        if address is None:
            return await self._nothing(location, "no imagery")
        away_m = float(geodesic_m(location.lat_deg, location.lng_deg, address.lat_deg, address.lng_deg))
        if away_m > SAME_PLACE_M:
            return await self._nothing(location, f"the nearest panorama is {away_m:.0f} m away")
        month = seen.captured_on
        return Panorama(
            location,
            self.name,
            month,
            "unknown" if month is None else "month",
            f"{self._size[0]}x{self._size[1]}",
            pano_id=address.pano_id,
            lat_deg=address.lat_deg,
            lng_deg=address.lng_deg,
        )

    async def _nothing(self, location: Location, reason: str) -> Negative:
        await self._leave(location.location_id)
        return Negative(location, reason)

    async def _scene(self, walk: _Walk) -> Seen:
        """The open scene; opened where it is not. Where there is no imagery, its address is None."""
        if walk.seen is not None:
            return walk.seen
        location = walk.location
        known = next(iter(walk.pano_ids.values()), location.pano_id)
        seen = None if known is None else await self._link(walk, known, View(0.0, None, 0.0, 90.0))
        if seen is None:  # no id, or one of yesterday
            seen = await self._search(walk)
        return seen

    async def _link(self, walk: _Walk, pano_id: str, view: View) -> Seen | None:
        """Open one view by its documented address; None where there is no such panorama."""
        seen = await self._load(walk, link_to(pano_id, view), "scene", "nothing")
        return self._arrived(walk, seen) if seen.kind == "scene" else None

    async def _search(self, walk: _Walk) -> Seen:
        """Open the location as a person would; a page without an address where there is no imagery."""
        await self._load(walk, MAP_PATH, "map")
        location = walk.location
        page = _page(walk)
        seen = await self._request(walk, MAP_PATH, lambda: page.search(location.lat_deg, location.lng_deg))
        if seen.previews > 0:
            seen = await self._request(walk, MAP_PATH, page.enter_preview)
        return self._arrived(walk, seen) if seen.kind == "scene" else Seen("nothing", "")

    async def _load(self, walk: _Walk, path: str, *wanted: Kind) -> Seen:
        """Load a page of the site, and answer about cookies on the way."""
        walk.seen = walk.shot = None
        if walk.page is None:
            walk.page = MapsPage(await self._tab(), self._client.etiquette.deadline_s, self._keep)
            walk.slow = 0
        page = walk.page
        url = self._client.base_url + path
        seen = await self._request(walk, url, lambda: page.go(url, *wanted))
        for _ in range(_CONSENTS):
            if seen.kind != "consent":
                return seen
            seen = await self._request(walk, seen.url, lambda: page.answer_consent(*wanted))
        return seen

    def _arrived(self, walk: _Walk, seen: Seen) -> Seen:
        walk.seen = seen
        if seen.address is not None:
            walk.pano_ids[seen.captured_on] = seen.address.pano_id
        return seen

    async def _labels(self, walk: _Walk) -> tuple[str, ...]:
        await self._scene(walk)
        return await self._thread(_page(walk).dates)

    def _dated(self, panorama: Panorama, month: dt.date) -> Panorama:
        """The panorama of another date, whose id is known only once it was visited."""
        if month == panorama.captured_on:
            return panorama
        return replace(panorama, captured_on=month, precision="month", pano_id=None, lat_deg=None, lng_deg=None)

    # --- pictures ----------------------------------------------------------------------------------------------------
    def _captured(self, panorama: Panorama, view: View, frame: Frame) -> Capture:
        address = frame.address
        shown = replace(panorama, pano_id=address.pano_id, lat_deg=address.lat_deg, lng_deg=address.lng_deg)
        return Capture(shown, view, frame.picture, source_url=self._client.base_url + link_to(address.pano_id, view))

    async def _picture(self, walk: _Walk, panorama: Panorama, view: View) -> Frame:
        """A picture that is proved to be of that date and view."""
        failure = RequestFailedError("stale_frame", "", retryable=True)
        for attempt in range(_TRIES):
            try:
                seen = await self._date(walk, panorama)
                seen = await self._face(walk, seen, view, afresh=attempt > 0)
                before = walk.shot
                frame = await self._thread(lambda: _page(walk).frame(before))  # noqa: B023 (it is called at once)
                self._check(frame, panorama, view)
                walk.shot = frame.digest
                return frame
            except RequestFailedError as error:
                if error.kind not in ("stale_frame", "black_frame", "wrong_panorama"):
                    raise
                self.incidents[error.kind] += 1
                failure = error
            finally:
                self._count(walk)
        raise failure

    async def _date(self, walk: _Walk, panorama: Panorama) -> Seen:
        """The scene of the panorama's date: as it is, by its address where its id is known, or by the time machine."""
        month = panorama.captured_on
        if walk.seen is None and month in walk.pano_ids:
            seen = await self._link(walk, walk.pano_ids[month], View(0.0, None, 0.0, 90.0))
            if seen is not None:
                return seen
            del walk.pano_ids[month]
        seen = await self._scene(walk)
        if seen.address is None:
            raise RequestFailedError("gone", "there is no imagery any more", retryable=False)
        if month is None or seen.captured_on == month:
            return seen
        page = _page(walk)

        async def click() -> Seen:
            changed = await self._thread(lambda: page.choose(month))
            if changed is None:
                self.incidents["swallowed_click"] += 1
                raise RequestFailedError("swallowed_click", "the click on a date had no effect", retryable=True)
            return changed

        seen = self._arrived(walk, await self._client.attempt(MAP_PATH, click))
        if seen.captured_on != month:
            raise RequestFailedError(
                "wrong_panorama", f"the time machine went to {seen.captured_on}, not {month}", retryable=True
            )
        return seen

    async def _face(self, walk: _Walk, seen: Seen, view: View, *, afresh: bool) -> Seen:
        """The scene at a view: by quarter turns where those lead there, else, or `afresh`, by its address."""
        wanted_deg = view.heading_deg or 0.0
        swallowed = 0
        while not afresh and swallowed < _TRIES:
            address = seen.address
            if address is None or not _same_lens(address, view):
                break
            turn_deg = gap_deg(address.heading_deg, wanted_deg)
            if abs(turn_deg) <= _TURN_TOLERANCE_DEG:
                return seen
            if abs(turn_deg / 90 - round(turn_deg / 90)) > _TURN_TOLERANCE_DEG / 90:
                break
            turned = await self._thread(lambda: _page(walk).turn(clockwise=turn_deg > 0))  # noqa: B023 (it is called at once)
            if turned is None:
                self.incidents["swallowed_click"] += 1
                swallowed += 1
            else:
                seen = walk.seen = turned
        assert seen.address is not None
        linked = await self._link(walk, seen.address.pano_id, view)
        if linked is None:
            raise RequestFailedError("gone", "there is no such panorama any more", retryable=False)
        return linked

    def _check(self, frame: Frame, panorama: Panorama, view: View) -> None:
        """Raise where what the page says of itself is not what was asked for."""
        address = frame.address
        off_deg = abs(gap_deg(address.heading_deg, view.heading_deg or 0.0))
        if off_deg > _TURN_TOLERANCE_DEG or not _same_lens(address, view):
            raise RequestFailedError("wrong_panorama", f"the page looks at {address.heading_deg:g} degrees", retryable=True)
        if panorama.captured_on is not None and frame.captured_on != panorama.captured_on:
            raise RequestFailedError("wrong_panorama", f"the page shows {frame.captured_on}", retryable=True)

    # --- users and windows -------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def _walk(self, location: Location) -> AsyncGenerator[_Walk]:
        """The walk of a location, for one at a time; the least lately used one ends where there are too many."""
        while True:
            walk = self._walks.pop(location.location_id, None) or _Walk(location)
            self._walks[location.location_id] = walk  # now the last in order
            while len(self._walks) > 2 * self._workers:
                idle = next((one for one in self._walks.values() if one is not walk and not one.lock.locked()), None)
                if idle is None:
                    break
                await self._leave(idle.location.location_id)
            async with walk.lock:
                if not walk.closed:
                    yield walk
                    return

    async def _leave(self, location_id: str | None) -> None:
        """End the walk of a location; its user is gone with all its cookies."""
        walk = self._walks.get(location_id or "")
        if walk is None:
            return
        async with walk.lock:
            walk.closed = True
            if self._walks.get(walk.location.location_id) is walk:
                del self._walks[walk.location.location_id]
            await self._drop(walk)

    async def _drop(self, walk: _Walk) -> None:
        page, walk.page, walk.seen, walk.shot = walk.page, None, None, None
        if page is not None:
            self._client.count_bytes(page.tab.received)
            await self._thread(page.tab.close)

    async def _steadily(self, walk: _Walk, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` returns; a tab or browser that crashes meanwhile is replaced, and `act` begins again."""
        for _ in range(_TRIES):
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
            except ServiceBlockedError as block:
                if self._blocked is not None:
                    self._blocked(block.cause)
                raise
        raise RequestFailedError("tab_crash", f"the tab crashed {_TRIES} times", retryable=True)

    async def _request(self, walk: _Walk, path: str, act: Callable[[], Seen]) -> Seen:
        """One request of a page, at the service's pace."""
        try:
            return await self._client.attempt(path, lambda: self._thread(act))
        finally:
            self._count(walk)

    def _count(self, walk: _Walk) -> None:
        if walk.page is not None:
            slow, walk.slow = walk.page.tab.slow - walk.slow, walk.page.tab.slow
            self.incidents["slow_request"] += slow

    async def _tab(self) -> Tab:
        """A window of a new user; the browser is started, or started again, where it is not running."""
        async with self._starting:
            if self._fresh_circuit is not None:
                await self._thread(self._fresh_circuit)
            if self._browser is not None and self._browser.is_gone:
                await self._thread(self._browser.close)
                self._browser = None
            if self._browser is None:
                self._browser = await self._thread(self._launch)
        browser = self._browser
        width, height = self._size
        scale = max(1.0, _WINDOW_PX / width)
        window = (round(width * scale), round(height * scale))
        agent = f"{browser.user_agent} {self._user_agent}".strip()
        return await self._thread(lambda: browser.open_tab(self._proxy, agent, window, 1 / scale))

    async def _thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)


def _page(walk: _Walk) -> MapsPage:
    if walk.page is None:
        raise TabCrashedError("there is no window")
    return walk.page


def _same_lens(address: Address, view: View) -> bool:
    return abs(address.fov_deg - view.fov_deg) < 0.01 and abs(address.pitch_deg - view.pitch_deg) < 0.01


def _by_turning(seen: Seen | None, views: Sequence[View]) -> list[View]:
    """Views in the order of the least turning from where the scene looks now: once round, clockwise."""
    address = None if seen is None else seen.address
    start_deg = 0.0 if address is None else address.heading_deg
    return sorted(views, key=lambda view: ((view.heading_deg or 0.0) - start_deg + 1e-6) % 360)
