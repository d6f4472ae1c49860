"""`python -m geoloc_dagster.defs.daemon run …`: Dagster's daemon, which does not give up because nobody answers just now.

A run that was lost is retried by the daemon, which asks the code server and the database for that. Where either is away at
that moment, starting again after the same fault as a rule, Dagster notes that the run will not be retried, and its backfill
ends as failed. Here the attempt is repeated for some minutes first. Dagster also writes that a run has failed before the run
gets that state: a daemon that reads the one and looks at the other in between takes the run for one that needs no retry, for
ever. Here it looks until the run has ended. And a backfill that is looked at while the code server starts fails for good,
because its assets cannot be found; Dagster has a switch against that, which is off.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import dagster as dg

PATIENCE_S, PAUSE_S = 300.0, 2.0
SETTLE_S, _LOOK_S = 30.0, 0.2
SWITCHES = {
    "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",  # a backfill waits for a code location that does not load
    "DAGSTER_MAX_BACKFILL_RETRIES": "60",  # of one that met another error, such as a database that is away; half a minute apart
}
_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def patiently(
    function: Callable[_Given, _Answer],
    *,
    patience_s: float = PATIENCE_S,
    pause_s: float = PAUSE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[_Given, _Answer]:
    """A function that is tried again when it raises, until `patience_s` seconds have gone by; then it raises.

    Both functions that this is for may be repeated: what an attempt that was cut short has made is found by the next one.
    """

    @functools.wraps(function)
    def wrapped(*args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        began = clock()
        while True:
            try:
                return function(*args, **kwargs)
            except Exception:
                if clock() - began >= patience_s:
                    raise
                logging.getLogger("dagster.daemon.retries").warning("a retry could not be started yet", exc_info=True)
                sleep(pause_s)

    return wrapped


def settled(
    run: dg.DagsterRun, instance: dg.DagsterInstance, *, wait_s: float = SETTLE_S, sleep: Callable[[float], None] = time.sleep
) -> dg.DagsterRun:
    """A run whose end is in the event log, once its own state says so too, or `wait_s` seconds have gone by."""
    for _ in range(max(1, round(wait_s / _LOOK_S))):
        now = instance.get_run_by_id(run.run_id)
        if now is None:
            return run
        if now.is_finished:
            return now
        sleep(_LOOK_S)
    return now


def main() -> None:
    """Run the daemon."""
    from dagster._daemon.auto_run_reexecution import auto_run_reexecution as retries
    from dagster._daemon.cli import main as daemon_command

    retry_run, should_retry = retries.retry_run, retries.should_retry
    retries.retry_run = patiently(lambda run, workspace: retry_run(settled(run, workspace.instance), workspace))
    retries.should_retry = patiently(lambda run, instance: should_retry(settled(run, instance), instance))
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    sys.argv = ["dagster-daemon", *sys.argv[1:]]
    daemon_command()


if __name__ == "__main__":
    main()
