"""5,000 views collected from the emulated service, quality-checked, exported to every format, and read back by its own reader.

`python benchmarks/exports.py [--views 5000]`
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import tempfile
import time
from pathlib import Path

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.dataset.exports.run import export
from geoloc_dagster.dataset.exports.selection import Selection
from geoloc_dagster.emulator.process import serve_in_thread
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.google import GoogleStreetView
from geoloc_dagster.imagery.provider import Location, Terms, View
from geoloc_dagster_tests.dataset.exported import READERS
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, STEP_DEG, TODAY, StubCity

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
HEADINGS = (0, 90, 180, 270)


def collect(layout: Layout, views: int) -> int:
    places = -(-views // (len(HEADINGS) * len(EXISTING)))
    across = 40
    where = [(ORIGIN[0] + n // across * STEP_DEG, ORIGIN[1] + n % across * STEP_DEG) for n in range(places)]
    locations = [Location(f"{lat:.6f},{lng:.6f}", lat, lng) for lat, lng in where]
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        client = ServiceClient("emulator", emulator.url, Etiquette(requests_per_second=500, burst=50, concurrency=16))
        provider = GoogleStreetView(client, Terms("CC0-1.0", "emulated city"), name="emulator", has_history=True)
        result = asyncio.run(
            collect_batch(
                provider,
                locations,
                "100m-0000",
                layout.panoramas,
                visits_path=layout.visits,
                run_id="one",
                now=NOW,
                commit_rows=256,
                views=[View(float(heading), None, 0.0, 90.0) for heading in HEADINGS],
                concurrency=16,
            )
        )
    assert result.pending == 0
    return result.rows_total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=5000)
    views = parser.parse_args().views
    with tempfile.TemporaryDirectory() as scratch:
        layout = Layout(Path(scratch) / "data")
        started = time.perf_counter()
        rows = collect(layout, views)
        print(f"collected {rows:,} views in {time.perf_counter() - started:.1f} s", flush=True)
        started = time.perf_counter()
        crops = write_crops(layout.panoramas, layout.crops, "100m-0000", CropSettings())
        print(f"checked {crops.rows:,} in {time.perf_counter() - started:.1f} s, flags {dict(crops.flags)}", flush=True)
        for name, read in READERS.items():
            started = time.perf_counter()
            result = export(layout, "town", name, Path(scratch) / name, Selection())
            wrote_s = time.perf_counter() - started
            started = time.perf_counter()
            found = read(Path(scratch) / name)
            read_s = time.perf_counter() - started
            size = sum(path.stat().st_size for path in (Path(scratch) / name).rglob("*") if path.is_file())
            assert len(found) == result.rows == rows, (name, len(found), result.rows)
            print(f"{name}: {rows:,} written in {wrote_s:.1f} s ({size / wrote_s / 1e6:.0f} MB/s), read back in {read_s:.1f} s")


if __name__ == "__main__":
    main()
