"""Finding and ending processes that another one left behind (Linux: what /proc says)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_PROC = Path("/proc")
_GRACE_S = 5.0
_LOOK_S = 0.01


def start_ticks(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since boot; None where there is none. A pid with this names one process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def is_running(pid: int, started: int | None) -> bool:
    """Whether that very process runs, and not another one that got its number."""
    return started is not None and start_ticks(pid) == started


def marked_processes(name: str, value: str) -> list[int]:
    """Living processes that were started with this environment variable."""
    wanted = f"{name}={value}".encode()
    found: list[int] = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def session_members(leader: int) -> list[int]:
    """Living processes of the session that a process leads or led; its number is not given away while it has members."""
    members: list[int] = []
    for folder in _PROC.glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None and fields[0] != "Z" and int(fields[3]) == leader:
            members.append(int(folder.name))
    return members


def end_session_of(pid: int) -> None:
    """Kill every process of the session that a process belongs to, or led; never one of our own session."""
    fields = _stat(pid)
    session = pid if fields is None else int(fields[3])
    if session == os.getsid(0):
        return
    deadline_s = time.monotonic() + _GRACE_S
    while (members := session_members(session)) and time.monotonic() < deadline_s:
        for member in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(_LOOK_S)  # the interval of the look, not a guess at how long dying takes


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, group, session, …, start time as the twentieth."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
