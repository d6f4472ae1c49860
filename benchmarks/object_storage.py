"""What a data root in object storage costs beside one on disk.

    python benchmarks/object_storage.py [--demo [--beside DEMO]] [--server http://127.0.0.1:8333 --bucket NAME]

Without a server one is started (SeaweedFS, on this machine, its objects on the same disk). Single steps first: a commit of rows
of pictures, opening a table, its verification, a pull that brings in nothing and one that brings in everything. With `--demo` the
whole demo is made in both places afterwards, or beside a finished one on disk, and the two catalogs are compared byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.config import Layout
from geoloc_dagster.object_storage.binding import attach, working_copy_at
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster_tests.object_storage.server import BUCKET, KEYS, object_server

ROWS, COMMITS, PICTURE_BYTES, FILES = 256, 12, 20_000, 200


def median_s(action: Callable[[], object], times: int) -> float:
    seconds: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def steps(root: Path) -> dict[str, float]:
    """Seconds of each step below a data root."""
    table = root / "tables" / "pictures.lance"
    pictures = pa.array([os.urandom(PICTURE_BYTES) for _ in range(ROWS)])
    rows = pa.table({"capture_id": [uuid4().hex for _ in range(ROWS)], "image": pictures})
    made = {
        f"commit of {ROWS} rows, {ROWS * PICTURE_BYTES / 1e6:.0f} MB": median_s(lambda: append_rows(table, rows), COMMITS),
        "opening the table": median_s(lambda: open_table(table), 20),
        f"verifying it ({COMMITS} files)": median_s(lambda: verify_table(table), 5),
    }
    opened = open_table(table)
    assert opened is not None
    made["reading it whole"] = median_s(lambda: opened.to_table(), 3)
    made["writing a small file"] = median_s(lambda: storage.write_json(root / "reports" / f"{uuid4().hex}.json", {}), FILES)
    copy = working_copy_at(root)
    if copy is not None:
        made[f"pull of nothing new ({FILES} files)"] = median_s(copy.pull, 5)
        attach(
            root.with_name("second"), **{name: getattr(copy.store, name) for name in ("bucket", "prefix", "endpoint", "region")}
        )
        second = working_copy_at(root.with_name("second"))
        assert second is not None
        made["pull of everything"] = median_s(second.pull, 1)
    return made


def demo(folder: Path, *arguments: str) -> float:
    """Seconds of `geoloc demo`."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "geoloc_dagster", "demo", str(folder), *arguments], check=True)
    return time.monotonic() - started


@contextlib.contextmanager
def some_server(named: str | None, folder: Path) -> Iterator[str]:
    if named is not None:
        yield named
        return
    os.environ.update(KEYS)
    with object_server(folder) as url:
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="make the whole demo in both places")
    parser.add_argument("--beside", type=Path, help="a finished demo on disk, in place of making one")
    parser.add_argument("--server", help="one that runs; its keys in AWS's variables")
    parser.add_argument("--bucket", default=BUCKET)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="object-storage-"))
    try:
        with some_server(asked.server, folder / "server") as url:
            prefix = f"benchmark-{uuid4().hex[:8]}"
            attach(folder / "copy", bucket=asked.bucket, prefix=f"{prefix}/steps", endpoint=url, region="us-east-1")
            on_disk, stored = steps(folder / "local"), steps(folder / "copy")
            print("| step | on disk | in object storage |\n|---|---:|---:|")
            for name, seconds in stored.items():
                print(f"| {name} | {f'{on_disk[name] * 1e3:,.0f} ms' if name in on_disk else '–'} | {seconds * 1e3:,.0f} ms |")
            if asked.demo:
                os.environ |= {"AWS_ENDPOINT_URL": url, "GEOLOC_CACHE": str(folder / "cache")}
                data_root = f"s3://{asked.bucket}/{prefix}/demo"
                here = {} if asked.beside else {"on disk": demo(folder / "a")}
                there = {data_root: demo(folder / "b", "--data-root", data_root)}
                print("; ".join(f"{name} {taken / 60:.1f} minutes" for name, taken in {**here, **there}.items()))
                layouts = (
                    Layout((asked.beside or folder / "a") / "data"),
                    Layout(folder / "cache" / asked.bucket / prefix / "demo"),
                )
                hashes = [storage.sha256_file(layout.catalog) for layout in layouts]
                print(f"sha256 of the catalogs: {' and '.join(hashes)}, {'the same' if len(set(hashes)) == 1 else 'DIFFERENT'}")
                sys.exit(len(set(hashes)) != 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
