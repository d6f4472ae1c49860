"""What the tables and the catalog of a region take as its pictures become a million.

    python benchmarks/catalog_growth.py [--rows 10000 100000 1000000] [--picture-bytes 1000]

Crops are made, 18 of each place (three dates, six views) on a grid of 30 m, 7,200 of a batch and of a commit, with a picture of
noise each (only the last two columns depend on how many). Each size is a process of its own: seconds
of one more commit, of assembling the catalog (duplicates, splits, districts, leaks) with the most memory that it held, of reading
the catalog, of counting its usable rows (as the sensor does every five minutes), of verifying the table, of replacing one batch,
and of forgetting one panorama everywhere. Writes the growth curves to `benchmarks/figures/catalog_growth.png`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from PIL import Image

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.assembly import assemble_catalog
from geoloc_dagster.dataset.forget import Request, forget
from geoloc_dagster.dataset.freshness import usable_rows
from geoloc_dagster.dataset.schema import CAPTURES, CROPS
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster.tables import append_rows, open_table, replace_batch, verify_table

DATES = (dt.date(2018, 6, 1), dt.date(2021, 6, 1), dt.date(2024, 6, 1))
VIEWS = 6
BATCH_ROWS = 400 * len(DATES) * VIEWS
SPACING_DEG = 0.00027  # 30 m
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STEPS = ("commit", "catalog", "read", "count", "verify", "replace", "forget")
FIGURE = Path(__file__).resolve().parent / "figures" / "catalog_growth.png"


@functools.cache
def drawn() -> list[bytes]:
    """Some JPEGs of noise, which what compares pictures can read."""
    files = list[bytes]()
    for noise in np.random.default_rng(0).integers(0, 256, (256, 24, 24), np.uint8):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def made(first: int, count: int, side: int, picture_bytes: int) -> dict[str, Any]:
    """Columns that crops and captures share, of rows `first` and on, in a city of `side` x `side` places."""
    rng = np.random.default_rng(first)
    pictures = drawn()
    rows = np.arange(first, first + count)
    place, view, date = rows // (len(DATES) * VIEWS), rows // len(DATES) % VIEWS, rows % len(DATES)
    captures = [f"c{row:08d}" for row in rows]
    return {
        "capture_id": captures,
        "batch": [f"30m-{row // BATCH_ROWS:04d}" for row in rows],
        "image": [pictures[row % len(pictures)] + rng.bytes(max(0, picture_bytes - len(pictures[0]))) for row in rows],
        "sha256": [f"{row:064x}" for row in rows],
        "source": ["made"] * count,
        "pano_id": [f"p{p:07d}-{d}" for p, d in zip(place, date, strict=True)],
        "location_id": [f"{p:07d}" for p in place],
        "lat_deg": 45 + (place // side - side / 2) * SPACING_DEG,
        "lng_deg": -30 + (place % side - side / 2) * SPACING_DEG,
        "captured_on": [DATES[d] for d in date],
        "heading_deg": (view * 60).astype(np.float32),
        "licence": ["CC0"] * count,
        "attribution": ["made"] * count,
    }


def crops(shared: dict[str, Any]) -> pa.Table:
    """Rows of the crops table: hashes of pictures that have nothing in common."""
    count = len(shared["capture_id"])
    hashes = np.random.default_rng(int(shared["capture_id"][0][1:])).integers(0, 2**63, count, np.uint64)
    own = {"phash": hashes, "brightness": [100.0] * count, "contrast": [50.0] * count, "flags": [[]] * count}
    columns = shared | own | {"capture_sha256": shared["sha256"], "rotation": [None] * count}
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in CROPS}, schema=CROPS)


def captures(shared: dict[str, Any]) -> pa.Table:
    """Rows of the table of captures."""
    count = len(shared["capture_id"])
    said = {"provider": "made", "capture_precision": "day", "fetched_at": NOW, "run_id": "made", "status": "ok"}
    columns = shared | {name: [value] * count for name, value in said.items()}
    nothing = [None] * count
    return pa.table({field.name: pa.array(columns.get(field.name, nothing), field.type) for field in CAPTURES}, schema=CAPTURES)


def write_region(layout: Layout, places: int, side: int) -> Settings:
    """Boundary and locations."""
    half = (side / 2 + 2) * SPACING_DEG
    box = shapely.box(-30 - half, 45 - half, -30 + half, 45 + half)
    write_boundary(layout.boundary, Boundary("made", box, "EPSG:32625", 1.0))
    place = np.arange(places)
    lat, lng = 45 + (place // side - side / 2) * SPACING_DEG, -30 + (place % side - side / 2) * SPACING_DEG
    columns = {"location_id": [f"{p:07d}" for p in place], "series": ["30m"] * places}
    storage.write_geoparquet(layout.locations, gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(lng, lat), crs="EPSG:4326"))
    region = {"name": "made", "boundary": "region.geojson", "start_point": [45.0, -30.0]}
    splits = {"by": "blocks", "block_m": 250, "guard_m": 30, "test_share": 0.2, "dev_share": 0.1}
    return Settings.model_validate({"data_root": str(layout.root), "region": region, "splits": splits})


def timed(call: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(rows: int, picture_bytes: int) -> dict[str, float]:
    """One size, in this process."""
    with tempfile.TemporaryDirectory(prefix="geoloc-growth-") as folder:
        layout = Layout(Path(folder))
        places = -(-rows // (len(DATES) * VIEWS))
        side = int(np.ceil(np.sqrt(places)))
        settings = write_region(layout, places, side)
        commit = list[float]()
        for first in range(0, rows, BATCH_ROWS):
            shared = made(first, min(BATCH_ROWS, rows - first), side, picture_bytes)
            append_rows(layout.panoramas, captures(shared))
            cropped = crops(shared)
            commit.append(timed(lambda table=cropped: append_rows(layout.crops, table)))
        said = {"commit": float(np.median(commit[-5:]))}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said["catalog"] = timed(lambda: assemble_catalog(settings, layout))
        said["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        said["bytes_per_row"] = layout.catalog.stat().st_size / rows
        said["read"] = timed(lambda: storage.read_parquet(layout.catalog))
        said["count"] = timed(lambda: usable_rows(layout.catalog))
        said["verify"] = timed(lambda: verify_table(layout.crops))
        again = crops(made(0, min(BATCH_ROWS, rows), side, picture_bytes))
        said["replace"] = timed(lambda: replace_batch(layout.crops, again, "30m-0000"))
        said["forget"] = timed(lambda: forget(layout, Request("pano", "p0000001-0"), now=NOW))
        table = open_table(layout.crops)
        assert table is not None
        assert table.count_rows() == rows - VIEWS, "one panorama is gone, and nothing else"
        return said


def draw(measured: dict[int, dict[str, float]]) -> None:
    """The growth curves: seconds against rows, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for step in STEPS:
        axes.plot(list(measured), [one[step] for one in measured.values()], marker="o", label=step)
    sizes = list(measured)
    unit = measured[sizes[0]]["catalog"] / sizes[0]
    axes.plot(sizes, [unit * size for size in sizes], color="grey", linestyle=":", label="in proportion to the rows")
    axes.set(xscale="log", yscale="log", xlabel="pictures", ylabel="seconds")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Print a row for each size, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--picture-bytes", type=int, default=1_000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.picture_bytes)))
        return
    columns = [*STEPS[:2], "memory_mb", "bytes_per_row", *STEPS[2:]]
    print("| rows | " + " | ".join(columns) + " |\n|---:|" + "---:|" * len(columns))
    measured: dict[int, dict[str, float]] = {}
    for rows in sorted(options.rows):
        command = [sys.executable, __file__, "--one", str(rows), "--picture-bytes", str(options.picture_bytes)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[rows] = json.loads(answer)
        print(f"| {rows:,} | " + " | ".join(f"{measured[rows][name]:.3g}" for name in columns) + " |", flush=True)
    draw(measured)


if __name__ == "__main__":
    main()
