"""WebDriver BiDi over one websocket: commands of any thread, answers by their number, events as they come.

Specification: https://w3c.github.io/webdriver-bidi. Selenium starts the browser; its own BiDi connection looks for answers every
so often and starts a thread per event, which is too slow and too disorderly for proof that a picture is the one asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

Handler = Callable[[dict[str, Any]], None]


class BrowserError(Exception):
    """The browser did not do what it was told to."""


class BrowserGoneError(BrowserError):
    """The browser, or the connection to it, has ended."""


class TabCrashedError(BrowserError):
    """The process behind a tab has crashed."""


class BrowserTimeoutError(BrowserError):
    """The browser did not answer in time."""


class Bidi:
    """One connection.

    Args:
        url: what the session calls `webSocketUrl`.
    """

    def __init__(self, url: str) -> None:
        import websocket

        self._socket: Any = websocket.create_connection(url, suppress_origin=True, timeout=None)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[str | None, Future[dict[str, Any]]]] = {}
        self._handlers: dict[str, list[Handler]] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._reader = threading.Thread(target=self._read, name="bidi", daemon=True)
        self._reader.start()

    @property
    def is_gone(self) -> bool:
        """Whether the connection has ended."""
        return self._gone

    def send(self, method: str, params: Mapping[str, Any], timeout_s: float = 15.0, owner: str | None = None) -> dict[str, Any]:
        """The result of one command.

        Args:
            method: of the specification.
            params: likewise.
            timeout_s: until the answer.
            owner: whose command it is; `fail` ends all of an owner's.

        Raises:
            BrowserError: the browser refuses.
            BrowserTimeoutError: it does not answer.
            BrowserGoneError: it has ended.
            TabCrashedError: `fail` was told so.
        """
        number = next(self._numbers)
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._gone:
                raise BrowserGoneError("the connection to the browser is closed")
            self._waiting[number] = (owner, answer)
            try:
                self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
            except (OSError, ValueError) as error:
                del self._waiting[number]
                raise BrowserGoneError(f"the connection to the browser broke: {error}") from None
        try:
            message = answer.result(timeout_s)
        except FutureTimeoutError:
            raise BrowserTimeoutError(f"no answer to {method} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in message:
            raise BrowserError(f"{message['error']}: {message.get('message', '')[:300]}")
        return message["result"]

    def on(self, event: str, handler: Handler) -> None:
        """Call `handler` with the parameters of each such event, in the thread that reads; it must be quick."""
        self._handlers.setdefault(event, []).append(handler)

    def fail(self, owner: str, error: BrowserError) -> None:
        """End what an owner waits for."""
        for of, answer in list(self._waiting.values()):
            if of == owner:
                _end(answer, error)

    def close(self) -> None:
        """Hang up; whoever waits hears that the browser is gone."""
        self._gone = True
        self._socket.close()
        self._reader.join(5)

    def _read(self) -> None:
        import websocket

        try:
            while text := self._socket.recv():
                message: dict[str, Any] = json.loads(text)
                if "id" in message:
                    waiting = self._waiting.get(message["id"])
                    if waiting is not None and not waiting[1].done():
                        waiting[1].set_result(message)
                    continue
                for handler in self._handlers.get(message.get("method", ""), ()):
                    handler(message["params"])
        except (OSError, ValueError, websocket.WebSocketException):
            pass  # closed, by us or by the browser's end
        self._gone = True
        for _, answer in list(self._waiting.values()):
            _end(answer, BrowserGoneError("the browser has ended"))


def _end(answer: Future[dict[str, Any]], error: BrowserError) -> None:
    with contextlib.suppress(InvalidStateError):  # it was answered meanwhile
        answer.set_exception(error)
