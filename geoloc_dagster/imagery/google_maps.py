"""Street views of every date, by a real browser on the maps site: the provider `google_maps`.

Each location is a user of its own: fresh cookies, its own way out. A panorama is opened by its documented address; a location
without a panorama id by the search box, as a person would. Other dates come from the time machine, other headings from the rotate
buttons as long as the address bar confirms them, and from the documented address where it does not.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal

from geoloc_dagster.errors import ConfigError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.ahead import ahead
from geoloc_dagster.imagery.google import SAME_PLACE_M
from geoloc_dagster.imagery.maps_contract import (
    MAP_PATH,
    MAX_FOV_DEG,
    MIN_FOV_DEG,
    Address,
    Seen,
    gap_deg,
    link_to,
    month_of,
)
from geoloc_dagster.imagery.maps_page import Frame
from geoloc_dagster.imagery.maps_walks import TRIES, Walk, Walks
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

_TURN_TOLERANCE_DEG = 0.25
_NORTH = View(0.0, None, 0.0, 90.0)


class GoogleMaps:
    """The provider `google_maps`.

    Args:
        walks: the users of the site.
        terms: under which terms pictures may be kept.
        fov_deg: of the views; checked here, because the site knows no other than 10 to 100.
        history: every date of a place, or the one that it opens with.

    Raises:
        ConfigError: a field of view that the site does not have.
    """

    def __init__(self, walks: Walks, terms: Terms, *, fov_deg: float = 90.0, history: Literal["all", "newest"] = "all") -> None:
        if not MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:
            remedy = f"The maps site shows {MIN_FOV_DEG:g} to {MAX_FOV_DEG:g} degrees."
            raise ConfigError(f"capture.fov_deg is {fov_deg:g}", remedy)
        self._walks = walks
        self._terms = terms
        self._history = history
        self._walked_by: dict[asyncio.Task[Any] | None, str] = {}

    @property
    def name(self) -> str:
        """`google_maps`."""
        return "google_maps"

    @property
    def terms(self) -> Terms:
        """The terms of the service, with the permission on record."""
        return self._terms

    def session(self) -> AbstractAsyncContextManager[None]:
        """One browser for one run."""
        self._walked_by = {}
        return self._walks.session()

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The panorama that each location opens with, some opened ahead; whoever asks for the next is through with the last."""
        answers = ahead(self._find_one, locations, self._walks.workers)
        try:
            while True:
                await self._walks.leave(self._walked_by.pop(asyncio.current_task(), None))
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
        async with self._walks.at(panorama.location) as walk:
            labels = await self._walks.steadily(walk, lambda: self._labels(walk))
        months = dict.fromkeys(month for month in map(month_of, labels) if month is not None)
        if panorama.captured_on not in months:
            return [panorama]
        return [self._dated(panorama, month) for month in sorted(months, reverse=True)]

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One answer per view, in their order; taken in the order of the least turning."""
        answers: dict[View, Capture | Failure] = {}
        end: BaseException | None = None
        async with self._walks.at(panorama.location) as walk:
            for view in _by_turning(walk.seen, views):
                try:
                    self._walks.client.pay("image")
                    frame = await self._walks.steadily(walk, lambda view=view: self._picture(walk, panorama, view))
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
            async with self._walks.at(location) as walk:
                seen = await self._walks.steadily(walk, lambda: self._scene(walk))
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
            f"{self._walks.size[0]}x{self._walks.size[1]}",
            pano_id=address.pano_id,
            lat_deg=address.lat_deg,
            lng_deg=address.lng_deg,
        )

    async def _nothing(self, location: Location, reason: str) -> Negative:
        await self._walks.leave(location.location_id)
        return Negative(location, reason)

    async def _scene(self, walk: Walk) -> Seen:
        """The open scene; opened where it is not. Where there is no imagery, its address is None."""
        if walk.seen is not None:
            return walk.seen
        location = walk.location
        known = next(iter(walk.pano_ids.values()), location.pano_id)
        seen = None if known is None else await self._link(walk, known, _NORTH)
        if seen is None:  # no id, or one of yesterday
            seen = await self._search(walk)
        return seen

    async def _link(self, walk: Walk, pano_id: str, view: View) -> Seen | None:
        """Open one view by its documented address; None where there is no such panorama."""
        seen = await self._walks.load(walk, link_to(pano_id, view), "scene", "nothing")
        return walk.arrived(seen) if seen.kind == "scene" else None

    async def _search(self, walk: Walk) -> Seen:
        """Open the location as a person would; a page without an address where there is no imagery."""
        await self._walks.load(walk, MAP_PATH, "map")
        location = walk.location
        page = walk.window
        seen = await self._walks.request(walk, MAP_PATH, lambda: page.search(location.lat_deg, location.lng_deg))
        if seen.previews > 0:
            seen = await self._walks.request(walk, MAP_PATH, page.enter_preview)
        return walk.arrived(seen) if seen.kind == "scene" else Seen("nothing", "")

    async def _labels(self, walk: Walk) -> tuple[str, ...]:
        await self._scene(walk)
        return await self._walks.thread(walk.window.dates)

    def _dated(self, panorama: Panorama, month: dt.date) -> Panorama:
        """The panorama of another date, whose id is known only once it was visited."""
        if month == panorama.captured_on:
            return panorama
        return replace(panorama, captured_on=month, precision="month", pano_id=None, lat_deg=None, lng_deg=None)

    # --- pictures ----------------------------------------------------------------------------------------------------
    def _captured(self, panorama: Panorama, view: View, frame: Frame) -> Capture:
        address = frame.address
        shown = replace(panorama, pano_id=address.pano_id, lat_deg=address.lat_deg, lng_deg=address.lng_deg)
        return Capture(shown, view, frame.picture, source_url=self._walks.client.base_url + link_to(address.pano_id, view))

    async def _picture(self, walk: Walk, panorama: Panorama, view: View) -> Frame:
        """A picture that is proved to be of that date and view."""
        failure = RequestFailedError("stale_frame", "", retryable=True)
        for attempt in range(TRIES):
            try:
                seen = await self._date(walk, panorama)
                seen = await self._face(walk, seen, view, afresh=attempt > 0)
                before = walk.shot
                frame = await self._walks.thread(lambda: walk.window.frame(before))  # noqa: B023 (it is called at once)
                _check(frame, walk, panorama, view)
                walk.shot = frame.digest
                return frame
            except RequestFailedError as error:
                if error.kind not in ("stale_frame", "black_frame", "wrong_panorama"):
                    raise
                self._walks.incidents[error.kind] += 1
                failure = error
            finally:
                self._walks.count(walk)
        raise failure

    async def _date(self, walk: Walk, panorama: Panorama) -> Seen:
        """The scene of the panorama's date: as it is, by its address where its id is known, or by the time machine."""
        month = panorama.captured_on
        if walk.seen is None and month in walk.pano_ids:
            seen = await self._link(walk, walk.pano_ids[month], _NORTH)
            if seen is not None:
                return seen
            del walk.pano_ids[month]
        seen = await self._scene(walk)
        if seen.address is None:
            raise RequestFailedError("gone", "there is no imagery any more", retryable=False)
        if month is None or seen.captured_on == month:
            return seen
        page = walk.window

        async def click() -> Seen:
            changed = await self._walks.thread(lambda: page.choose(month))
            if changed is None:
                self._walks.incidents["swallowed_click"] += 1
                raise RequestFailedError("swallowed_click", "the click on a date had no effect", retryable=True)
            return changed

        seen = walk.arrived(await self._walks.client.attempt(MAP_PATH, click))
        if seen.captured_on != month:
            raise RequestFailedError(
                "wrong_panorama", f"the time machine went to {seen.captured_on}, not {month}", retryable=True
            )
        return seen

    async def _face(self, walk: Walk, seen: Seen, view: View, *, afresh: bool) -> Seen:
        """The scene at a view: by quarter turns where those lead there, else, or `afresh`, by its address."""
        wanted_deg = view.heading_deg or 0.0
        swallowed = 0
        while not afresh and swallowed < TRIES:
            address = seen.address
            if address is None or not _same_lens(address, view):
                break
            turn_deg = gap_deg(address.heading_deg, wanted_deg)
            if abs(turn_deg) <= _TURN_TOLERANCE_DEG:
                return seen
            if abs(turn_deg / 90 - round(turn_deg / 90)) > _TURN_TOLERANCE_DEG / 90:
                break
            turned = await self._walks.thread(lambda: walk.window.turn(clockwise=turn_deg > 0))  # noqa: B023 (it is called at once)
            if turned is None:
                self._walks.incidents["swallowed_click"] += 1
                swallowed += 1
            else:
                seen = walk.seen = turned
        assert seen.address is not None
        linked = await self._link(walk, seen.address.pano_id, view)
        if linked is None:
            raise RequestFailedError("gone", "there is no such panorama any more", retryable=False)
        return linked


def _check(frame: Frame, walk: Walk, panorama: Panorama, view: View) -> None:
    """Raise where what the page says of itself is not what was asked for: panorama, month, heading, lens."""
    address = frame.address
    wrong = None
    if abs(gap_deg(address.heading_deg, view.heading_deg or 0.0)) > _TURN_TOLERANCE_DEG or not _same_lens(address, view):
        wrong = f"looks at {address.heading_deg:g} degrees"
    elif panorama.captured_on is not None and frame.captured_on != panorama.captured_on:
        wrong = f"shows {frame.captured_on}"
    elif walk.pano_ids.get(frame.captured_on) != address.pano_id:
        wrong = f"shows the panorama {address.pano_id}"
    if wrong is not None:
        raise RequestFailedError("wrong_panorama", f"the page {wrong}", retryable=True)


def _same_lens(address: Address, view: View) -> bool:
    return abs(address.fov_deg - view.fov_deg) < 0.01 and abs(address.pitch_deg - view.pitch_deg) < 0.01


def _by_turning(seen: Seen | None, views: Sequence[View]) -> list[View]:
    """Views in the order of the least turning from where the scene looks now: once round, clockwise."""
    address = None if seen is None else seen.address
    start_deg = 0.0 if address is None else address.heading_deg
    return sorted(views, key=lambda view: ((view.heading_deg or 0.0) - start_deg + 1e-6) % 360)
