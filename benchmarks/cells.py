"""S2 cells by the array against s2sphere and the native bindings, and what partitioning of millions of photos takes.

    pip install --target /tmp/s2geometry s2geometry
    PYTHONPATH=/tmp/s2geometry python benchmarks/cells.py

Positions are clustered as photos are: those of YFCC25600 where GEOLOC_SHARED_DATA has them, drawn with replacement and moved by
metres to tens of kilometres; made-up clusters without. Times are medians of turns, each contender once a turn. The last table is
of `geoloc cells` on a CSV of as many photos in the ten columns of MP-16, with all that the process loads and writes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RULES = (("coarse", 50, 5_000), ("middle", 50, 2_000), ("fine", 50, 1_000))
PHOTOS = 4_653_000


def positions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(lat, lng), degrees, clustered."""
    rng = np.random.default_rng(seed)
    path = Path(os.environ.get("GEOLOC_SHARED_DATA", "../shared/data")) / "photos" / "yfcc25600_places365.csv"
    if path.is_file():
        real = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(2, 3))
    else:
        centres = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 2_000))), rng.uniform(-180, 180, 2_000)], axis=1)
        real = centres[rng.zipf(1.3, 25_600) % 2_000]
    chosen = real[rng.integers(0, len(real), count)]
    spread_deg = 10 ** rng.uniform(-4.5, -0.5, count)
    lat = np.clip(chosen[:, 0] + rng.normal(0, 1, count) * spread_deg, -90, 90)
    return lat, (chosen[:, 1] + rng.normal(0, 1, count) * spread_deg + 180) % 360 - 180


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_ids(count: int, rounds: int) -> None:
    """Nanoseconds per leaf id of each contender."""
    from s2sphere import CellId, LatLng

    from geoloc_dagster.geo import s2

    rng = np.random.default_rng(1)
    lat, lng = np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)
    few = [(float(a), float(b)) for a, b in zip(lat[:20_000], lng[:20_000], strict=True)]
    some = [(float(a), float(b)) for a, b in zip(lat[:200_000], lng[:200_000], strict=True)]

    def by_s2sphere() -> list[int]:
        return [CellId.from_lat_lng(LatLng.from_degrees(a, b)).id() for a, b in few]

    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "arrays": (lambda: s2.leaf_ids(lat, lng), count),
        "s2sphere": (by_s2sphere, len(few)),
    }
    try:
        import s2geometry as native

        contenders["s2geometry"] = (
            lambda: [native.S2CellId(native.S2LatLng.FromDegrees(a, b)).id() for a, b in some],
            len(some),
        )
    except ImportError:
        print("s2geometry is not here; see the top of this file")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (work, size) in contenders.items():
            times[name].append(timed(work) / size * 1e9)
    ours = statistics.median(times["arrays"])
    print("| leaf ids | ns per position | times ours |\n|---|---:|---:|")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.0f} ({min(values):.0f}–{max(values):.0f}) | {middle / ours:.1f} |")
    differing = np.count_nonzero(s2.leaf_ids(lat[: len(few)], lng[: len(few)]) != np.array(by_s2sphere(), np.uint64))
    print(f"ids that differ from s2sphere's: {differing} of {len(few):,}")


def measure(count: int) -> None:
    """In a process of its own, so that the memory is that of this alone."""
    from geoloc_dagster.geo import s2
    from geoloc_dagster.geo.partitioning import LevelRule, partition

    lat, lng = positions(count, 2)
    scale = count / PHOTOS
    rules = [LevelRule(name, max(1, round(low * scale)), max(2, round(high * scale))) for name, low, high in RULES]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = partition(lat, lng, rules)
    built = time.perf_counter() - began
    began = time.perf_counter()
    leaves = s2.leaf_ids(lat, lng)
    classes = [level.classes(leaves) for level in made.levels]
    assigned = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cells = " / ".join(f"{len(level):,}" for level in made.levels)
    inside = np.mean(classes[-1] >= 0)
    memories = f"{memory / 1024:,.0f} ({before / 1024:,.0f} before)"
    print(f"| {count:,} | {cells} | {built:.2f} | {assigned:.2f} | {memories} | {inside:.1%} |")


def write_photos(path: Path) -> None:
    """A CSV in the columns in which MP-16 is passed on."""
    import pyarrow as pa
    from pyarrow import csv

    lat, lng = positions(PHOTOS, 2)
    numbers, rng = np.arange(PHOTOS), np.random.default_rng(3)
    columns = {
        "IMG_ID": [f"{n % 256:02x}/{n // 256 % 256:02x}/{n}.jpg" for n in numbers.tolist()],
        "AUTHOR": [f"{n % 90_001}@N00" for n in numbers.tolist()],
        "LAT": lat,
        "LON": lng,
        "S3_Label": numbers % 3,
        "S16_Label": numbers % 16,
        "S365_Label": numbers % 365,
    }
    columns |= {f"Prob_{scene}": rng.random(PHOTOS) for scene in ("indoor", "natural", "urban")}
    csv.write_csv(pa.table(columns), path)


def measure_files(folder: Path) -> None:
    """Seconds and memory of the commands, each a process."""
    photos = folder / "mp16.csv"
    subprocess.run([sys.executable, __file__, "--write", str(photos)], check=True)  # a child begins with its parent's memory
    print(f"\n| on a CSV of {photos.stat().st_size / 1e6:,.0f} MB | s | greatest memory, MB |\n|---|---:|---:|", flush=True)
    for name, *options in (
        ("create", "--output", folder / "cells"),
        ("assign", "--cells", folder / "cells", "--output", folder / "classes.csv"),
        ("filter", "--cells", folder / "cells", "--output", folder / "filtered.parquet"),
    ):
        command = [sys.executable, "-m", "geoloc_dagster", "cells", name, "--dataset", photos, *options]
        began = time.perf_counter()
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        print(f"| geoloc cells {name} | {time.perf_counter() - began:.1f} | {used.ru_maxrss / 1024:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", type=int)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.write:
        write_photos(options.write)
        return
    if options.measure:
        measure(options.measure)
        return
    print(f"{len(os.sched_getaffinity(0))} cores, load average {' '.join(f'{load:.1f}' for load in os.getloadavg())}\n")
    compare_ids(options.ids, options.rounds)
    print("\n| photos | cells | three levels, s | assigned, s | greatest memory, MB | in a fine cell |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for count in (10_000, 100_000, 1_000_000, PHOTOS, 10_000_000):
        subprocess.run([sys.executable, __file__, "--measure", str(count)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        measure_files(Path(folder))


if __name__ == "__main__":
    main()
