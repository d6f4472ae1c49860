"""Starting and stopping an emulated city: in a process of its own, or in a thread for tests."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from geoloc_dagster.emulator.faults import FaultScript
from geoloc_dagster.emulator.limits import Quota
from geoloc_dagster.emulator.options import EmulatorOptions

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City
    from geoloc_dagster.emulator.server import EmulatorServer

_START_S = 60.0
_STOP_S = 10.0


class RunningEmulator(ABC):
    """An emulated city that answers at `url` (`http://127.0.0.1:PORT`) until `stop`; also a context manager."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    @abstractmethod
    def stop(self) -> None:
        """End it and wait until it has ended; once is enough, twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def hits(self, last: int | None = None) -> dict[str, Any]:
        """The totals and the newest requests, all that are kept or `last` of them."""
        return self._control("GET", "/emulator/hits" + ("" if last is None else f"?last={last}"))

    def clear_hits(self) -> None:
        """Begin a new log."""
        self._control("DELETE", "/emulator/hits")

    def set_faults(self, script: FaultScript | Mapping[str, Any]) -> None:
        """Replace the script of faults and start it from its beginning."""
        self._control("PUT", "/emulator/faults", _script(script).model_dump_json(exclude_none=True))

    def set_today(self, today: dt.date | None) -> None:
        """Set the date in the city; None for the real one."""
        self._control("PUT", "/emulator/clock", json.dumps({"today": None if today is None else today.isoformat()}))

    def _control(self, method: str, path: str, body: str | None = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        if response.status >= 400:
            raise ValueError(f"{method} {path}: {response.status} {content.decode()}")
        return json.loads(content) if content else None


class EmulatorProcess(RunningEmulator):
    """An emulated city in a child process, which ends with this one however this one ends."""

    def __init__(self, child: subprocess.Popen[bytes], url: str) -> None:
        super().__init__(url, child.pid)
        self._child = child

    @classmethod
    def start(
        cls,
        origin: tuple[float, float],
        seed: int = 0,
        today: dt.date | None = None,
        port: int = 0,
        latency_ms: float = 0,
        key: str | None = None,
        faults: FaultScript | Mapping[str, Any] | None = None,
        *,
        secret: str | None = None,
        quotas: Sequence[str] = (),
        hands: int = 1,
    ) -> EmulatorProcess:
        """Start one and wait until it answers.

        Args:
            origin: (lat, lng) of the city, degrees.
            seed: which city.
            today: the date in it; the real one where None.
            port: on the loopback interface; a free one where 0.
            latency_ms: added to every answer.
            key: the only valid key; none is needed where None.
            faults: the script to begin with.
            secret: what requests have to be signed with, URL-safe base64.
            quotas: as `image=30000/minute` or `metadata=500/day`.
            hands: processes that draw pictures.

        Raises:
            RuntimeError: it ended, or said nothing for a minute, instead of starting.
        """
        limits = tuple(map(Quota.parse, quotas))
        script = FaultScript() if faults is None else _script(faults)
        options = EmulatorOptions(origin, seed, today, port, latency_ms, key, secret, limits, hands=hands)
        command = [sys.executable, "-m", "geoloc_dagster.emulator", "--with-parent", *options.arguments()]
        # A session of its own, so that Ctrl+C reaches only this process, which may still have things to finish with the child.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            emulator = cls(child, json.loads(_first_line(child))["url"])
            if script.rules:
                emulator.set_faults(script)
        except BaseException:
            child.kill()
            _reap(child)
            raise
        return emulator

    def outlive_exec(self) -> None:
        """Keep the child when this process becomes another program (`os.exec…`): it ends with that one instead."""
        assert self._child.stdin is not None
        os.set_inheritable(self._child.stdin.fileno(), True)

    def stop(self) -> None:
        """End the child and wait for it; by force where it does not end by itself."""
        if self._child.poll() is None:
            self._child.terminate()
        _reap(self._child)


class EmulatorThread(RunningEmulator):
    """An emulated city in a thread of this process."""

    def __init__(self, server: EmulatorServer) -> None:
        super().__init__(f"http://127.0.0.1:{server.port}", os.getpid())
        self._server = server
        self._thread = threading.Thread(target=server.run, name="emulator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the server and its thread."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)


def serve_in_thread(
    origin: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    today: dt.date | None = None,
    port: int = 0,
    latency_ms: float = 0,
    key: str | None = None,
    faults: FaultScript | Mapping[str, Any] | None = None,
    *,
    secret: str | None = None,
    quotas: Sequence[str] = (),
    city: City | None = None,
) -> EmulatorThread:
    """The same in a thread, for tests: `city` can be any object that behaves like one.

    Raises:
        OSError: the port is taken.
        ServiceKeyError: the secret cannot be used.
    """
    from geoloc_dagster.emulator.server import EmulatorServer

    limits = tuple(map(Quota.parse, quotas))
    script = FaultScript() if faults is None else _script(faults)
    options = EmulatorOptions(origin, seed, today, port, latency_ms, key, secret, limits, script)
    return EmulatorThread(EmulatorServer(options, city))


def _script(faults: FaultScript | Mapping[str, Any]) -> FaultScript:
    return faults if isinstance(faults, FaultScript) else FaultScript.model_validate(faults)


def _first_line(child: subprocess.Popen[bytes]) -> bytes:
    """What the child says once it serves."""
    assert child.stdout is not None
    deadline = time.monotonic() + _START_S
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise RuntimeError(f"the emulated city said nothing for {_START_S:.0f} seconds")
            piece = os.read(child.stdout.fileno(), 4096)
            if not piece:
                raise RuntimeError(f"the emulated city ended before it served anything (exit code {child.wait(_STOP_S)})")
            line += piece
    return line


def _reap(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
