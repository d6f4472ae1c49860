"""Starts services in order, starts again what has crashed, and ends all of them in the opposite order.

One thread does all of it: the kernel ends a service whose supervisor is gone when the thread that started it is gone.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import StackError
from geoloc_dagster.stack.folder import StackFolder
from geoloc_dagster.stack.programs import as_account
from geoloc_dagster.stack.services import Service
from geoloc_dagster.storage import write_json

MARK = "GEOLOC_STACK"  # in the environment of everything that a stack starts, with its folder
_TICK_S, _ASK_EVERY_S = 0.1, 0.3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.5, 30.0, 60.0
_LOG_BYTES, _TAIL_LINES = 20_000_000, 5


@dataclass(slots=True)
class _Kept:
    """A service and what has become of it so far."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    asked: float = 0.0
    ready: bool = False
    held: bool = False
    starts: int = 0
    crashes: int = 0
    not_before: float = 0.0

    @property
    def state(self) -> str:
        """In a word."""
        if self.held:
            return "held"
        if self.process is None:
            return "waiting"
        return "ready" if self.ready else "starting"


class Supervisor:
    """Keeps services running.

    Args:
        services: in the order of starting.
        folder: of the stack.
        report: gets one line per thing that happens.
        facts: what `status.json` says beside the services.
    """

    def __init__(
        self, services: Sequence[Service], folder: StackFolder, report: Callable[[str], None], facts: Mapping[str, Any]
    ) -> None:
        self._kept = {service.name: _Kept(service) for service in services}
        self._folder = folder
        self._report = report
        self._facts = facts
        self._written: str | None = None

    def start(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Start everything; whether it was, and `stopped` did not become true before.

        Raises:
            StackError: a service ended or was not ready in its time; the others run still, until `stop`.
        """
        while not stopped():
            self.look()
            failed = next((kept for kept in self._kept.values() if kept.crashes or self._overdue(kept)), None)
            if failed is not None:
                raise self._does_not_start(failed)
            if all(kept.ready or kept.held for kept in self._kept.values()):
                return True
            time.sleep(_TICK_S)
        return False

    def run(self, stopped: Callable[[], bool]) -> None:
        """Watch over the services until told to stop."""
        while not stopped():
            self.look()
            time.sleep(_TICK_S)

    def look(self) -> None:
        """One look at every service: notice ends, start what is due, ask what has been started."""
        for kept in self._kept.values():
            self._obey_hold(kept)
            if kept.process is not None and kept.process.poll() is not None:
                self._note_end(kept)
            if kept.process is None and not kept.held and self._is_due(kept):
                self._start(kept)
            elif kept.process is not None and not kept.ready:
                self._ask(kept)
        self._write_status()

    def stop(self) -> None:
        """End every service, in the opposite order of starting; by force what does not end in its time."""
        for kept in reversed(self._kept.values()):
            if kept.process is not None:
                self._end(kept)
                self._report(f"{kept.service.name} ended")
        self._write_status()

    def _is_due(self, kept: _Kept) -> bool:
        """Services that it needs matter for its first start only: later ones come back by themselves."""
        first = kept.starts == 0
        needed = (self._kept[name] for name in kept.service.needs if name in self._kept)
        return time.monotonic() >= kept.not_before and not (first and any(not other.ready for other in needed))

    def _start(self, kept: _Kept) -> None:
        service = kept.service
        command = as_account(service.account, service.command, last_signal=service.stop_signal.name.removeprefix("SIG"))
        with _log(self._folder.log(service.name)) as log:
            kept.process = subprocess.Popen(
                command,
                cwd=service.folder,
                env={**service.environment, MARK: str(self._folder.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C reaches this process only, which ends the others in order
            )
        kept.started, kept.starts, kept.ready = time.monotonic(), kept.starts + 1, False

    def _ask(self, kept: _Kept) -> None:
        now = time.monotonic()
        if now - kept.asked < _ASK_EVERY_S:
            return
        kept.asked = now
        if kept.service.ready():
            kept.ready = True
            self._report(f"{kept.service.name} ready ({now - kept.started:.1f} s)")

    def _note_end(self, kept: _Kept) -> None:
        assert kept.process is not None
        code, lasted = kept.process.returncode, time.monotonic() - kept.started
        _kill_group(kept.process.pid)  # a code server's workers go with it, as they would with a container
        kept.process, kept.ready = None, False
        kept.crashes = 1 if lasted > _STEADY_S else kept.crashes + 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (kept.crashes - 1))
        kept.not_before = time.monotonic() + pause
        log = self._folder.log(kept.service.name)
        self._report(f"{kept.service.name} ended ({_how(code)}) and starts again in {pause:.1f} s; its log: {log}")

    def _obey_hold(self, kept: _Kept) -> None:
        wanted = (self._folder.hold / kept.service.name).exists()
        if wanted and not kept.held:
            if kept.process is not None:
                self._end(kept)
            self._report(f"{kept.service.name} is held: rm {self._folder.hold / kept.service.name} starts it again")
        elif kept.held and not wanted:
            kept.crashes, kept.not_before = 0, 0.0
        kept.held = wanted

    def _end(self, kept: _Kept) -> None:
        assert kept.process is not None
        process = kept.process
        if process.poll() is None:
            process.send_signal(kept.service.stop_signal)
            try:
                process.wait(kept.service.stop_s)
            except subprocess.TimeoutExpired:
                self._report(f"{kept.service.name} has not ended in {kept.service.stop_s:.0f} s and is killed")
        _kill_group(process.pid)
        process.wait()
        kept.process, kept.ready = None, False

    def _overdue(self, kept: _Kept) -> bool:
        return kept.process is not None and not kept.ready and time.monotonic() - kept.started > kept.service.start_s

    def _does_not_start(self, kept: _Kept) -> StackError:
        name, log = kept.service.name, self._folder.log(kept.service.name)
        what = "ends at once" if kept.crashes else f"is not ready after {kept.service.start_s:.0f} s"
        last = " | ".join(_tail(log))
        return StackError(f"the service {name} {what}; its log {log} ends with: {last}")

    def _write_status(self) -> None:
        services = {
            name: {
                "state": kept.state,
                "pid": None if kept.process is None else kept.process.pid,
                "starts": kept.starts,
                "log": str(self._folder.log(name)),
            }
            for name, kept in self._kept.items()
        }
        if repr(services) != self._written:
            since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            write_json(self._folder.status, {**self._facts, "pid": os.getpid(), "changed": since, "services": services})
            self._written = repr(services)


def end_leftovers(folder: StackFolder, patience_s: float = 10.0) -> list[int]:
    """End what an earlier stack of this folder has left running, if it was killed itself; their process ids."""
    mark = f"{MARK}={folder.root}".encode()
    left = _marked(mark)
    for number in (signal.SIGINT, signal.SIGKILL):
        for pid in _marked(mark):
            _signal(pid, number)
        deadline = time.monotonic() + patience_s
        while _marked(mark) and time.monotonic() < deadline:
            time.sleep(_TICK_S)
    return left


def _marked(mark: bytes) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # another account's, or gone
            continue
        if mark in environment and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _log(path: Path) -> Any:
    """A log to append to; a large one is put aside as `.1` first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    path.touch(mode=0o600)
    return path.open("ab")


def _tail(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return [line.strip() for line in lines if line.strip()][-_TAIL_LINES:] or ["(nothing)"]
