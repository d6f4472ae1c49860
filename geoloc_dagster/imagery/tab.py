"""One window of one user of the browser: what it is told, what it shows, and which of its requests are under way."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from geoloc_dagster.imagery.bidi import Bidi, BrowserError, TabCrashedError

JPEG_QUALITY = 0.92


class Tab:
    """One window of one user.

    Args:
        bidi: the connection to the browser.
        user: of its user.
        context: its name in the protocol.
        forget: closes it, with its user.

    Attributes:
        context: its name in the protocol.
        user: of its user.
        crashed: whether its process has.
        status: of the last page that came, 0 before the first.
        received: bytes that came in answers.
        slow: requests that took longer than `SLOW_S`, since the tab was opened.
        failed: requests that failed since the last page was asked for.
    """

    SLOW_S = 2.0

    def __init__(self, bidi: Bidi, user: str, context: str, forget: Callable[[Tab], None]) -> None:
        self.context = context
        self.user = user
        self.crashed = False
        self.status = 0
        self.received = 0
        self.slow = 0
        self.failed = 0
        self._forget = forget
        self._bidi = bidi
        self._under_way: dict[str, tuple[float, bool]] = {}
        self._changed = threading.Condition()
        self._last_event_s = 0.0

    def send(self, method: str, timeout_s: float = 15.0, **params: Any) -> dict[str, Any]:
        """A command about this window; raises as `Bidi.send`."""
        if self.crashed:
            raise TabCrashedError("the tab has crashed")
        return self._bidi.send(method, {"context": self.context, **params}, timeout_s, self.context)

    def navigate(self, url: str, timeout_s: float) -> None:
        """Go to a page and wait until its scripts have run.

        Raises:
            BrowserError: nothing came from there.
            BrowserTimeoutError, BrowserGoneError, TabCrashedError: as `Bidi.send`.
        """
        with self._changed:
            self._under_way.clear()
            self.status = self.failed = 0
        self.send("browsingContext.navigate", timeout_s, url=url, wait="interactive")

    def call(self, function: str, *arguments: Any, timeout_s: float = 15.0) -> Any:
        """What a function of the page returns, in JSON; promises are waited for. Raises as `Bidi.send`."""
        declaration = f"async (...given) => JSON.stringify(await ({function})(...given.map(JSON.parse)) ?? null)"
        result = self.send_script(declaration, [json.dumps(argument) for argument in arguments], timeout_s)
        if result.get("type") == "exception":
            raise BrowserError(str(result["exceptionDetails"].get("text", ""))[:300])
        return json.loads(result["result"]["value"])

    def send_script(self, declaration: str, arguments: list[str], timeout_s: float) -> dict[str, Any]:
        """One `script.callFunction` with arguments that are strings."""
        if self.crashed:
            raise TabCrashedError("the tab has crashed")
        params = {
            "functionDeclaration": declaration,
            "arguments": [{"type": "string", "value": argument} for argument in arguments],
            "target": {"context": self.context},
            "awaitPromise": True,
        }
        return self._bidi.send("script.callFunction", params, timeout_s, self.context)

    def click(self, x_px: float, y_px: float) -> None:
        """Press the mouse button at a place of the window, CSS pixels."""
        move = {"type": "pointerMove", "x": round(x_px), "y": round(y_px), "origin": "viewport"}
        press = [move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.send("input.performActions", actions=[{"type": "pointer", "id": "mouse", "actions": press}])

    def write(self, text: str) -> None:
        """Press the keys of a text."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.send("input.performActions", actions=[{"type": "key", "id": "keyboard", "actions": keys}])

    def picture(self, box_px: Sequence[float] | None = None, form: str = "image/jpeg") -> bytes:
        """What the window shows, or a box of it: (left, top, width, height), CSS pixels."""
        params: dict[str, Any] = {"origin": "viewport", "format": {"type": form}}
        if form == "image/jpeg":
            params["format"]["quality"] = JPEG_QUALITY
        if box_px is not None:
            params["clip"] = {"type": "box", **dict(zip(("x", "y", "width", "height"), box_px, strict=True))}
        shot = self.send("browsingContext.captureScreenshot", **params)
        return base64.b64decode(shot["data"])

    def wait_idle(self, quiet_s: float, timeout_s: float) -> bool:
        """Wait until no request has been under way for so long; whether that came."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now_s = time.monotonic()
                left_s = self._last_event_s + quiet_s - now_s
                if self.crashed:
                    raise TabCrashedError("the tab has crashed")
                if not self._under_way and left_s <= 0:
                    return True
                if now_s >= deadline_s:
                    return False
                self._changed.wait(min(deadline_s - now_s, left_s if not self._under_way else 1.0))

    def heard(self, event: str, params: dict[str, Any]) -> None:
        """Take note of a request that begins or ends."""
        request, now_s = params["request"]["request"], time.monotonic()
        page = params.get("navigation") is not None
        with self._changed:
            self._last_event_s = now_s
            if event == "network.beforeRequestSent":
                self._under_way.setdefault(request, (now_s, page))
            else:
                began_s, was_page = self._under_way.pop(request, (now_s, page))
                self.slow += not was_page and now_s - began_s > self.SLOW_S
                answer = params.get("response", {})
                self.received += int(answer.get("bytesReceived") or 0)
                status = int(answer.get("status") or 0)
                self.failed += event == "network.fetchError" or status >= 500
                if page and status:
                    self.status = status
            self._changed.notify_all()

    def close(self) -> None:
        """Close it, with its user."""
        self._forget(self)
