"""What production does when parts of it fail: how long until it goes on, beside how long that may take.

    python benchmarks/faults.py [--only worker,daemon]

Each trial starts a stack of its own (PostgreSQL, code server, daemon, webserver, proxy) over a region whose one asset takes 16 s
a partition, asks for a backfill of three partitions through the proxy, two at once, and breaks something while two are under way.
The control plane has the times that `geoloc stack` has by itself. Where a trial ends, everything that was asked for is there
once, no two runs were at one partition at a time, and no place of the pool is held; otherwise the trial fails.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from geoloc_dagster_tests.stack.driver import LIMIT, RunningStack, open_folder, running_stack, write_slow_region

PARTITIONS, TICKS, TICK_S = ("oslo", "bergen", "tromso"), 40, 0.4
MOST_S = 900.0


@dataclass(frozen=True)
class Fault:
    """Something that breaks.

    Attributes:
        what: in words.
        strike: breaks it, and mends what does not mend itself.
        noticed_s: a lost run has to be known as lost by then, where a run is lost; in an outage nobody can know.
        complete_s: the backfill has to be complete by then.
    """

    what: str
    strike: Callable[[RunningStack], None]
    noticed_s: float | None
    complete_s: float


@dataclass(frozen=True)
class Outcome:
    """What a trial showed, in seconds from the fault on.

    Attributes:
        noticed_s: until the first lost run was known as lost; None where none was.
        resumed_s: until a partition that had been cut short was taken up again.
        slots_s: until no lost run held a place of the pool.
        complete_s: until the backfill was complete.
        runs: how many runs the three partitions took.
    """

    noticed_s: float | None
    resumed_s: float | None
    slots_s: float | None
    complete_s: float
    runs: int


def kill_worker(stack: RunningStack) -> None:
    """Of a partition that is under way."""
    os.kill(stack.worker(stack.working(PARTITIONS, TICKS)[0]), signal.SIGKILL)


def kill_code_server(stack: RunningStack) -> None:
    """With all its workers, as when a container is out of memory."""
    workers = [stack.worker(name) for name in stack.working(PARTITIONS, TICKS)]
    stack.kill("code")
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def stop_daemon(stack: RunningStack) -> None:
    """Killed, and away for 15 s."""
    stack.kill("daemon")
    _away(stack, "daemon", 15.0)


def _away(stack: RunningStack, service: str, seconds: float) -> None:
    stack.hold(service)
    time.sleep(seconds)
    stack.release(service)


FAULTS = {
    "worker": Fault("a run's worker is killed", kill_worker, 15.0, 150.0),
    "daemon": Fault("the daemon is killed and away for 15 s", stop_daemon, None, 150.0),
    "code": Fault("code server and workers are killed", kill_code_server, 45.0, 240.0),
    "postgres15": Fault("PostgreSQL is away for 15 s", lambda stack: _away(stack, "postgres", 15.0), 75.0, 210.0),
    "postgres75": Fault("PostgreSQL is away for 75 s", lambda stack: _away(stack, "postgres", 75.0), 135.0, 300.0),
}


def trial(fault: Fault) -> Outcome:
    """Break one thing and watch until everything is done.

    Raises:
        AssertionError: something was lost, repeated, done by two at once, held for ever, or not done in a quarter of an hour.
    """
    with open_folder() as folder:
        region = write_slow_region(folder)
        quiet = ["--no-mlflow", "--no-explorer"]
        with running_stack(region, *quiet, TRIAL_TICKS=str(TICKS), TRIAL_TICK_S=str(TICK_S)) as stack:
            stack.graphql(LIMIT, n=2)
            backfill = stack.backfill(*PARTITIONS)
            stack.wait_for(lambda: len(stack.working(PARTITIONS, TICKS)) == 2, "two partitions under way", 180)
            began = time.monotonic()
            fault.strike(stack)
            outcome = _watch(stack, backfill, began)
            _require_sound(stack)
            return outcome


def _watch(stack: RunningStack, backfill: str, began: float) -> Outcome:
    seen: dict[str, float] = {}

    def note(name: str, happened: bool) -> None:
        if happened and name not in seen:
            seen[name] = time.monotonic() - began

    def look() -> bool:
        runs = stack.runs()
        lost = {run["runId"] for run in runs if run["status"] == "FAILURE"}
        note("noticed", bool(lost))
        note("resumed", any(len({run for _, _, run in stack.steps(name)}) > 1 for name in PARTITIONS))
        held = {slot["runId"] for slot in stack.slots()}
        if lost & held:
            seen.pop("slots", None)
        else:
            note("slots", bool(lost))
        note("complete", stack.backfill_status(backfill) == "COMPLETED_SUCCESS")
        return "complete" in seen and ("slots" in seen or not lost)

    stack.wait_for(look, "backfill complete, and no place held by a lost run", MOST_S)
    return Outcome(seen.get("noticed"), seen.get("resumed"), seen.get("slots"), seen["complete"], len(stack.runs()))


def _require_sound(stack: RunningStack) -> None:
    for name in PARTITIONS:
        done = [number for number, _, _ in stack.steps(name)]
        assert done == list(range(TICKS)), f"{name}: lost or repeated: {done}"
        spans = sorted(
            (run["startTime"], run["endTime"]) for run in stack.runs() if run["partition"] == name and run["startTime"]
        )
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), f"{name}: two at once: {spans}"
    assert not list((stack.region / "progress").glob("*.two-at-once"))
    stack.wait_for(lambda: stack.claimed_slots() == 0, "no place of the pool held", 90)


def _line(fault: Fault, outcome: Outcome) -> str:
    def told(seconds: float | None, budget: float | None = None) -> str:
        allowed = "" if budget is None else f" ({budget:.0f})"
        return "–" if seconds is None else f"{seconds:.0f}{allowed}"

    cells = [
        fault.what,
        told(outcome.noticed_s, fault.noticed_s),
        told(outcome.resumed_s),
        told(outcome.slots_s),
        told(outcome.complete_s, fault.complete_s),
        str(outcome.runs),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the trials and print a table; exit code 1 where one took longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FAULTS), help="which, comma separated")
    names = parser.parse_args().only.split(",")
    print("| fault | known as lost after s (budget) | taken up again | pool free | backfill complete (budget) | runs |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    late = []
    for name in names:
        fault, outcome = FAULTS[name], trial(FAULTS[name])
        print(_line(fault, outcome), flush=True)
        noticed_late = None not in (fault.noticed_s, outcome.noticed_s) and outcome.noticed_s > fault.noticed_s  # type: ignore[operator]
        if noticed_late or outcome.complete_s > fault.complete_s:
            late.append(name)
    if late:
        sys.exit(f"over budget: {', '.join(late)}")


if __name__ == "__main__":
    main()
