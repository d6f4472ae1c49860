"""SIGKILL at every named point and at random instants: is the dataset the same, and is nothing asked for twice?

`python benchmarks/chaos.py [--instants 120] [--jobs 2]`
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from geoloc_dagster.failpoints import NAMES
from geoloc_dagster_tests.end_to_end import chaos

PASSES = (1, 3, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instants", type=int, default=120)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        template = chaos.prepare(folder / "template")
        expected, calm_s = chaos.undisturbed(template, folder / "calm")
        named = [(f"{name}:{count}", 0.0) for name in NAMES for count in PASSES]
        random_ones = [(None, dice.uniform(0.3, 1.0) * calm_s) for _ in range(arguments.instants)]
        started = time.monotonic()

        def one(job: tuple[int, tuple[str | None, float]]) -> tuple[str | None, float, chaos.Trial]:
            number, (point, delay_s) = job
            trial = chaos.run_trial(template, folder / f"trial{number}", expected, point=point, delay_s=delay_s)
            if trial.problems:
                print(point or f"after {delay_s:.2f} s", trial.problems, flush=True)
            return point, delay_s, trial

        with ThreadPoolExecutor(arguments.jobs) as pool:
            trials = list(pool.map(one, enumerate([*named, *random_ones])))
    report(trials, calm_s, time.monotonic() - started)


def report(trials: list[tuple[str | None, float, chaos.Trial]], calm_s: float, took_s: float) -> None:
    at_points = [(point, trial) for point, _, trial in trials if point is not None]
    at_instants = [trial for point, _, trial in trials if point is None]
    reached = {point.split(":")[0] for point, trial in at_points if trial.killed}
    bad = sum(bool(trial.problems) for _, _, trial in trials)
    print(f"undisturbed: {calm_s:.1f} s")
    print(f"named points: {len(reached)} of {len(NAMES)} reached, {sum(t.killed for _, t in at_points)} kills")
    print(f"never reached: {sorted(set(NAMES) - reached) or 'none'}")
    print(f"random instants: {sum(t.killed for t in at_instants)} kills of {len(at_instants)}")
    print(f"trials with a problem: {bad} of {len(trials)}; {took_s / 60:.1f} minutes")


if __name__ == "__main__":
    main()
