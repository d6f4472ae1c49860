"""Progress of a running asset: a log line now and then in Dagster, and a callback for the command line.

Every log line is a row of an event log that is never purged, so there is at most one line in ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

Listener = Callable[[str, str | None, int, int], None]  # asset, partition, done, total
_listener: Listener | None = None
LOG_INTERVAL_S = 10.0


def set_listener(listener: Listener | None) -> None:
    """Let a headless run hear of progress; the run and its assets share one process."""
    global _listener
    _listener = listener


def reporter(context: dg.AssetExecutionContext) -> Callable[[int, int], None]:
    """A `progress(done, total)` callback for domain functions."""
    asset = context.asset_key.path[-1]
    partition = context.partition_key if context.has_partition_key else None
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if _listener is not None:
            _listener(asset, partition, done, total)
        if time.monotonic() - last >= LOG_INTERVAL_S:
            last = time.monotonic()
            context.log.info("%s of %s", f"{done:,}", f"{total:,}")

    return progress
