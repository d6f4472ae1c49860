"""A person at the maps site: goes to a place, answers about cookies, opens the time machine, turns, and takes a picture.

Everything waits for what it needs to see, with a deadline; nothing waits for a fixed time. What a click did is looked at, not
assumed. The methods block, so each walk has a thread of its own.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from geoloc_dagster.errors import GeolocError, PageChangedError, ServiceBlockedError
from geoloc_dagster.imagery.bidi import BrowserError, BrowserGoneError, BrowserTimeoutError, TabCrashedError
from geoloc_dagster.imagery.maps_contract import (
    ANSWER_CONSENT,
    CLOCKWISE,
    COUNTERCLOCKWISE,
    FIND,
    LOOK,
    PLAIN,
    Address,
    Kind,
    Seen,
    label_of,
)
from geoloc_dagster.imagery.provider import RequestFailedError
from geoloc_dagster.imagery.quality import picture_flags
from geoloc_dagster.imagery.tab import Tab

_LOOK_S = 0.5  # the page is asked again at least so often
_QUIET_S = 0.12  # without a request under way, before a scene counts as loaded
_PATIENCE_S = 1.5  # without any effect, before a click counts as lost
_LOST_S = 3.0  # without anything known on a finished page, before it counts as another page
_SHOTS = 20
Keep = Callable[[bytes, bytes], str]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the scene, JPEG, and what proves it.

    Attributes:
        picture: the bytes.
        digest: of them; the same pixels give the same.
        address: what the address bar said when it was taken.
        captured_on: what the title card said.
    """

    picture: bytes
    digest: str
    address: Address
    captured_on: dt.date | None


class MapsPage:
    """One window on the site.

    Args:
        tab: the window.
        deadline_s: for everything that is waited for.
        keep: keeps a screenshot (PNG) and the page (HTML) as evidence; returns where, for people.
    """

    def __init__(self, tab: Tab, deadline_s: float, keep: Keep) -> None:
        self.tab = tab
        self._deadline_s = deadline_s
        self._keep = keep

    def go(self, url: str, *wanted: Kind) -> Seen:
        """Load an address; what is there then: one of the wanted kinds of page, or the question about cookies.

        Raises:
            RequestFailedError: nothing came, or not in time.
            ServiceBlockedError: the site takes us for a robot, rightly.
            PageChangedError: nothing is known there.
            TabCrashedError, BrowserGoneError: start again in another tab.
        """
        try:
            self.tab.navigate(url, self._deadline_s)
        except BrowserTimeoutError:
            raise _failed("timeout", f"the page did not come within {self._deadline_s:g} s") from None
        except (TabCrashedError, BrowserGoneError):
            raise
        except BrowserError as error:
            raise _failed("network", str(error)) from None
        return self._await("consent", *wanted)

    def answer_consent(self, *wanted: Kind) -> Seen:
        """Reject cookies and go on; what is there then. Raises as `go`."""
        if not self.tab.call(ANSWER_CONSENT):
            raise PageChangedError(f"the question about cookies has no known answer{self._evidence()}")
        return self._await(*wanted)

    def search(self, lat_deg: float, lng_deg: float) -> Seen:
        """Type a position into the search box; the place's panel, with a preview or without. Raises as `go`."""
        self._click("#searchboxinput")
        self.tab.write(f"{lat_deg:.7f}, {lng_deg:.7f}")
        self._click("#searchbox-searchbutton")
        self._await("place")
        self._idle()
        return self.look()

    def enter_preview(self) -> Seen:
        """From the place's panel into the street view. Raises as `go`."""
        self._click('button[aria-label=""]')
        return self._await("scene", "nothing")

    def dates(self) -> tuple[str, ...]:
        """The labels of the time machine, opened where it is closed; the card's where the place has one date. Raises as `go`."""
        seen = self.look()
        if not seen.has_dates:
            return (label_of(seen.captured_on),) if seen.captured_on else ()
        deadline_s = time.monotonic() + self._deadline_s
        while not seen.dates:
            if time.monotonic() > deadline_s:
                raise PageChangedError(f"the time machine shows no dates{self._evidence()}")
            self._click('button[jsaction*="titlecard.timemachineClick"]')
            seen = self._until(lambda now: bool(now.dates), _PATIENCE_S) or self.look()
        return seen.dates

    def choose(self, month: dt.date) -> Seen | None:
        """Click a date of the time machine; the scene of that date, or None where the click had no effect. Raises as `go`."""
        if label_of(month) not in self.dates():
            raise RequestFailedError("gone", f"the time machine has no {label_of(month)} any more", retryable=False)
        return self._act(f'button[aria-label="{label_of(month)}"]')

    def turn(self, *, clockwise: bool) -> Seen | None:
        """Click for a quarter turn; the scene after it, or None where the click had no effect. Raises as `go`."""
        selector = f'button[aria-label="{CLOCKWISE if clockwise else COUNTERCLOCKWISE}"]'
        return self._act(selector) if self.tab.call(FIND, selector, 1000 * _LOOK_S) else None  # it may be absent or covered

    def look(self) -> Seen:
        """What is there now."""
        return self._look((), None, 0.0)

    def frame(self, before: str | None) -> Frame:
        """A picture of the scene alone, once everything of it has come.

        Args:
            before: digest of the picture that was taken before a click, which this one must differ from.

        Raises:
            RequestFailedError: `timeout` where tiles do not come, `black_frame`, `stale_frame`.
            TabCrashedError, BrowserGoneError: start again in another tab.
        """
        self._idle()
        seen = self._look(("scene",), None, self._deadline_s)
        if seen.kind != "scene" or seen.address is None:
            raise _failed("wrong_panorama", f"there is no scene at {seen.url.split('?')[0]}")
        if seen.ready is False:
            raise _failed("timeout", f"the scene was not drawn within {self._deadline_s:g} s")
        if seen.pano_id is not None and seen.pano_id != seen.address.pano_id:
            raise _failed("stale_frame", f"the scene shows {seen.pano_id}, not {seen.address.pano_id}")
        picture = self._shoot(seen)
        digest = _digest(picture)
        if digest == before:
            raise _failed("stale_frame", "the scene shows what it showed before")
        if picture_flags(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))):
            raise _failed("black_frame", "the scene is black or empty")
        return Frame(picture, digest, seen.address, seen.captured_on)

    def _shoot(self, seen: Seen) -> bytes:
        """The scene without what lies over it; the second of two equal ones where it does not say that it is drawn."""
        self.tab.call(PLAIN, True)
        try:
            picture = self.tab.picture(seen.box_px)
            for _ in range(_SHOTS if seen.ready is None else 0):
                self._idle()
                again = self.tab.picture(seen.box_px)
                if again == picture:
                    break
                picture = again
            return picture
        finally:
            if not self.tab.crashed:
                self.tab.call(PLAIN, False)

    def _act(self, selector: str) -> Seen | None:
        """Click and wait until the address has changed, or for nothing to happen; None where nothing did."""
        url = self.look().url
        self._click(selector)
        clicked_s = time.monotonic()
        while time.monotonic() < clicked_s + self._deadline_s:
            seen = self._look(("scene", "robots"), url, _LOOK_S)
            self._raise_if_robots(seen)
            if seen.url != url and seen.ready is not False:
                return seen
            lost = time.monotonic() > clicked_s + _PATIENCE_S and self.tab.wait_idle(_PATIENCE_S, 0)
            if lost and seen.url == url and seen.ready is not False:
                return None
        raise _failed("timeout", f"a click took longer than {self._deadline_s:g} s")

    def _click(self, selector: str) -> None:
        spot = self.tab.call(FIND, selector, 1000 * self._deadline_s, timeout_s=self._deadline_s + 5)
        if spot is None:
            raise PageChangedError(f"there is nothing to click at `{selector}`{self._evidence()}")
        self.tab.click(*spot)

    def _await(self, *wanted: Kind) -> Seen:
        """Wait for one of the wanted kinds of page; raises as `go`."""
        deadline_s = time.monotonic() + self._deadline_s
        while True:
            seen = self._look(("robots", *wanted), None, _LOOK_S)
            self._raise_if_robots(seen)
            if seen.kind in wanted:
                return seen
            if self.tab.failed:
                raise _failed("server_error", f"{self.tab.failed} requests of the page failed")
            if seen.complete and self.tab.wait_idle(_LOST_S, 0):
                raise PageChangedError(f"the page shows none of {', '.join(wanted)}{self._evidence()}")
            if time.monotonic() > deadline_s:
                raise _failed("timeout", f"the page was not there within {self._deadline_s:g} s")

    def _until(self, condition: Callable[[Seen], bool], timeout_s: float) -> Seen | None:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            seen = self._look((), None, 0.02)
            if condition(seen):
                return seen
        return None

    def _look(self, wanted: tuple[Kind, ...], other_than: str | None, wait_s: float) -> Seen:
        """What is there; waits until it is of a wanted kind, drawn, and under another address."""
        try:
            return Seen.read(self.tab.call(LOOK, wanted, other_than, 1000 * wait_s, timeout_s=wait_s + 15))
        except (TabCrashedError, BrowserGoneError, BrowserTimeoutError):
            raise
        except BrowserError:  # the page went away under the question: whoever waits asks again
            return Seen("unknown", "")

    def _idle(self) -> None:
        if not self.tab.wait_idle(_QUIET_S, self._deadline_s):
            raise _failed("timeout", f"not everything had come within {self._deadline_s:g} s")

    def _raise_if_robots(self, seen: Seen) -> None:
        if seen.kind == "robots" or self.tab.status == 429:
            raise ServiceBlockedError(f"the site takes us for a robot{self._evidence()}")

    def _evidence(self) -> str:
        """Keep what is on the screen; where, as the end of a sentence."""
        try:
            page = self.tab.call("() => document.documentElement.outerHTML").encode()
            return f"; it is kept in {self._keep(self.tab.picture(form='image/png'), page)}"
        except (BrowserError, GeolocError) as error:
            return f"; it could not be kept: {error}"


def _failed(kind: str, detail: str) -> RequestFailedError:
    return RequestFailedError(kind, detail, retryable=True)  # type: ignore[arg-type]


def _digest(picture: bytes) -> str:
    return hashlib.sha256(picture).hexdigest()
