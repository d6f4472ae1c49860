"""Collecting and cropping in a process of their own, so that it can be killed.

`python -m geoloc_dagster_tests.imagery.processes collect|crop SOURCE TABLES BATCHES LOCATIONS_PER_BATCH`
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import subprocess
import sys
import time
from pathlib import Path

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster_tests.imagery.pictures import TERMS, places

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
CROPS = CropSettings(size=64)


def batch_key(number: int) -> str:
    return f"100m-{number:04d}"


def collect_all(source: Path, tables: Path, batches: int, per_batch: int) -> None:
    provider = FolderProvider([source], TERMS)
    for number in range(batches):
        asyncio.run(
            collect_batch(
                provider,
                places(per_batch, first=number * per_batch),
                batch_key(number),
                tables / "captures.lance",
                visits_path=tables / "visits.lance",
                run_id="one",
                now=NOW,
                commit_rows=5,
            )
        )


def crop_all(tables: Path, batches: int) -> None:
    for number in range(batches):
        write_crops(tables / "captures.lance", tables / "crops.lance", batch_key(number), CROPS)


def versions(table: Path) -> int:
    """Commits of a table so far, counted from outside."""
    return len(list((table / "_versions").glob("*.manifest")))


def kill_after(arguments: list[str], table: Path, commits: int, delay_s: float) -> bool:
    """Run a process, kill -9 it `delay_s` after `table` has `commits` more commits; False where it had finished before."""
    target = versions(table) + commits
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, *arguments])  # type: ignore[union-attr]
    try:
        deadline = time.monotonic() + 120
        while versions(table) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)  # the interval of the watch, not a guess at how long something takes
        until = time.monotonic() + delay_s
        while time.monotonic() < until and process.poll() is None:
            pass
    finally:
        process.kill()
    return process.wait() == -9


def instants(seed: int, count: int, most_commits: int) -> list[tuple[int, float]]:
    """Commits and seconds after them at which to kill; the first one right at the birth of the table."""
    rng = random.Random(seed)
    return [(1, 0.0), *((rng.randint(1, most_commits), rng.uniform(0, 0.03)) for _ in range(count - 1))]


if __name__ == "__main__":
    what, source, tables, batches, per_batch = sys.argv[1:]
    if what == "collect":
        collect_all(Path(source), Path(tables), int(batches), int(per_batch))
    else:
        crop_all(Path(tables), int(batches))
