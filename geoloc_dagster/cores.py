"""How many processes share a piece of work where nobody says how many."""

from __future__ import annotations

import os

_MOST = 4  # each takes some 200 MB


def processes_by_default() -> int:
    """As many as there are cores for this process, four at most."""
    return min(_MOST, cores())


def cores() -> int:
    """How many there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
