"""How the cores of a machine are shared: between the processes of one piece of work, and with other work."""

from __future__ import annotations

import os

_MOST = 4  # each takes some 200 MB


def processes_by_default() -> int:
    """As many as there are cores for this process, four at most."""
    return min(_MOST, cores())


def share_cores() -> None:
    """Let OpenMP threads of this process and of those that it starts give their core away soon when they wait for each other.

    To be called before torch is loaded; what the environment says already is kept. By default they spin 300,000 times first, as
    if nobody else were there: of two trainings at once each then gets a fraction of half the machine. A thousand times is what
    GNU's library takes by itself where it has more threads than cores (manual of libgomp, GOMP_SPINCOUNT).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def cores() -> int:
    """How many there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
