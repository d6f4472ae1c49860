"""A small collection in a process of its own, to be killed at any point, and what must hold of it afterwards.

`python -m geoloc_dagster_tests.end_to_end.chaos REGION URL` does whatever REGION still lacks: lookups, buffers, pictures, crops;
then one place is forgotten, and the rest is exported.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.dataset.exports.run import export
from geoloc_dagster.dataset.exports.selection import Selection
from geoloc_dagster.dataset.forget import Request, forget
from geoloc_dagster.dataset.registration import register_locations
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.geo.boundary import load_boundary, write_boundary
from geoloc_dagster.geo.grid import grid_points, write_grid
from geoloc_dagster.imagery.collect import collect_region_batch
from geoloc_dagster.imagery.factory import build_provider, build_street_view
from geoloc_dagster.imagery.lookups import look_up_region
from geoloc_dagster.imagery.tombstones import read_tombstones
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region

NOW = dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC)
_CORNERS = ((ORIGIN[0] - 0.0007, ORIGIN[1] - 0.0007), (ORIGIN[0] + 0.0047, ORIGIN[1] + 0.0067))
_PORT = re.compile(r"http://127\.0\.0\.1:\d+")  # each trial has a server of its own
_PORT_BYTES = re.compile(_PORT.pattern.encode())
FORGOTTEN = Request("bbox", f"{ORIGIN[0] - 0.0005},{ORIGIN[1] - 0.0005},{ORIGIN[0] + 0.0005},{ORIGIN[1] + 0.0005}")
_VOLATILE = ("run_id", "fetched_at", "looked_up_at", "visited_at")


def prepare(folder: Path) -> Path:
    """A region of twelve places, its grid laid; nothing is asked yet."""
    folder.mkdir(parents=True)
    write_region(
        folder,
        boundary=rectangle(*_CORNERS),
        region={"name": "chaos", "boundary": "region.geojson", "start_point": list(ORIGIN)},
        grid={"spacing_m": 25},
        capture={"provider": "emulator", "size": [64, 64], "commit_rows": 10, "headings_deg": [0, 180]},
        crops={"size": 32, "min_decodable_share": 0.0},
        service={"concurrency": 4},
    )
    settings = load_settings(folder / "geoloc.yaml")
    layout = Layout(settings.data_root)
    place = settings.region
    boundary = load_boundary(
        settings.resolve(place.boundary), name=place.name, start_point=place.start_point, max_area_km2=place.max_area_km2
    )
    write_boundary(layout.boundary, boundary)
    write_grid(layout.grid_points, grid_points(boundary, settings.grid.spacing_m, max_points=10_000))
    return folder


def collect(folder: Path, url: str) -> None:
    """Everything that is missing."""
    settings = load_settings(folder / "geoloc.yaml")
    layout = Layout(settings.data_root)
    run_id = f"{os.getpid()}"
    service = build_street_view(settings, "emulator", emulator_url=lambda: url, now=lambda: NOW)
    run = asyncio.run(look_up_region(settings, layout, service, now=NOW))
    assert run.left == 0, run
    for batch in register_locations(settings, layout).batch_keys:
        provider = build_provider(settings, emulator_url=lambda: url, now=lambda: NOW)
        result = asyncio.run(collect_region_batch(settings, layout, provider, batch, run_id=run_id, now=NOW))
        assert result.pending == 0, result
        write_crops(layout.panoramas, layout.crops, batch, settings.crops)
    if not (folder / "forgotten").exists():  # whoever asked for it asks again where it was killed
        assert forget(layout, FORGOTTEN, now=NOW).captures > 0
        (folder / "forgotten").touch()
    export(layout, "chaos", "webdataset", folder / "export", Selection(), shard_rows=40)


def dataset_hash(folder: Path) -> str:
    """sha256 over the rows of every table, sorted, without what says when and by which run they were fetched."""
    layout = Layout(folder / "data")
    digest = hashlib.sha256()
    for path, key in (
        (layout.street_view_metadata, "lookup_id"),
        (layout.panoramas, "capture_id"),
        (layout.crops, "capture_id"),
    ):
        dataset = open_table(path)
        assert dataset is not None, path
        columns = [name for name in dataset.schema.names if name not in _VOLATILE]
        rows = dataset.to_table(columns=columns).sort_by(key)
        for row in rows.to_pylist():
            digest.update(_PORT.sub("", repr(sorted(row.items()))).encode())
    digest.update(repr(sorted(read_tombstones(layout.tombstones).captures)).encode())
    for shard in sorted((folder / "export").glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive.getmembers():
                stream = archive.extractfile(member)
                assert stream is not None
                digest.update(member.name.encode() + _PORT_BYTES.sub(b"", stream.read()))
    return digest.hexdigest()


def unreadable(folder: Path) -> list[str]:
    """Files of a region that are there under their own name and cannot be read; temporary ones are nobody's."""
    problems: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or ".lance" in str(path.parent):
            continue
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001 - whatever a reader raises is what is looked for
            problems.append(f"{path.relative_to(folder)} cannot be read: {error}")
    return problems


def _read(path: Path) -> None:
    if path.suffix == ".lance":
        dataset = open_table(path)
        if dataset is not None:
            dataset.to_table()
    elif path.suffix == ".parquet":
        read_parquet(path)
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    elif path.suffix == ".tar":
        with tarfile.open(path) as archive:
            assert all(archive.extractfile(member).read() for member in archive)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Trial:
    """What came of one kill.

    Attributes:
        killed: whether the process was killed before it had finished.
        problems: what did not hold afterwards; empty where everything did.
    """

    killed: bool
    problems: tuple[str, ...]


def run_trial(template: Path, folder: Path, expected: str, *, point: str | None = None, delay_s: float = 0.0) -> Trial:
    """Kill a collection at a named point or after a delay, run it again, and compare with an undisturbed one."""
    shutil.copytree(template, folder)
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        child = _start(folder, emulator, point)
        if point is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(delay_s)
            child.send_signal(signal.SIGKILL)
        code = child.wait(120)
        problems = unreadable(folder)
        before = _committed(folder)
        _settle(emulator)
        emulator.clear_hits()
        again = _start(folder, emulator, None)
        if again.wait(120) != 0:
            problems.append(f"the second run ended with {again.returncode}: {_log(folder)}")
        else:
            problems += unreadable(folder) + _compare(folder, expected, before, emulator)
        if left_behind(child.pid) or left_behind(again.pid):
            problems.append("a process was left behind")
    shutil.rmtree(folder)
    if code not in (0, -signal.SIGKILL):
        problems.append(f"the first run ended with {code}")
    return Trial(code == -signal.SIGKILL, tuple(problems))


def undisturbed(template: Path, folder: Path) -> tuple[str, float]:
    """The hash of an undisturbed collection, and the seconds it took."""
    shutil.copytree(template, folder)
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        started = time.monotonic()
        assert _start(folder, emulator, None).wait(120) == 0, _log(folder)
        return dataset_hash(folder), time.monotonic() - started


def _start(folder: Path, emulator: EmulatorThread, point: str | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "GEOLOC_STATE": str(folder / "state")}
    environment.pop("GEOLOC_FAILPOINT", None)
    if point is not None:
        environment["GEOLOC_FAILPOINT"] = point
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "geoloc_dagster_tests.end_to_end.chaos"]
        return subprocess.Popen(
            [*command, str(folder), emulator.url], env=environment, stdout=log, stderr=log, start_new_session=True
        )


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text()[-800:]


def _committed(folder: Path) -> tuple[set[str], set[str]]:
    """Captures in the table or forgotten, and positions with an answer."""
    layout = Layout(folder / "data")
    captures, lookups = open_table(layout.panoramas), open_table(layout.street_view_metadata)
    rows = [] if lookups is None else lookups.to_table(columns=["requested_lat_deg", "requested_lng_deg"]).to_pylist()
    positions = {f"{row['requested_lat_deg']:.7f},{row['requested_lng_deg']:.7f}" for row in rows}
    held = set[str]() if captures is None else set(captures.to_table(columns=["capture_id"])["capture_id"].to_pylist())
    return held | read_tombstones(layout.tombstones).captures, positions


def _settle(emulator: EmulatorThread) -> None:
    """Wait for the answers to what the killed process had asked."""
    seen = -1
    while (now := emulator.hits(last=1)["totals"]["requests"]) != seen:
        seen = now
        time.sleep(0.1)


def _compare(folder: Path, expected: str, before: tuple[set[str], set[str]], emulator: EmulatorThread) -> list[str]:
    problems: list[str] = []
    layout = Layout(folder / "data")
    for table in (layout.street_view_metadata, layout.panoramas, layout.visits, layout.crops):
        verify_table(table)
    if dataset_hash(folder) != expected:
        problems.append("the dataset differs from the undisturbed one")
    captures = open_table(layout.panoramas)
    assert captures is not None
    ids = captures.to_table(columns=["capture_id"])["capture_id"].to_pylist()
    if len(ids) != len(set(ids)):
        problems.append(f"{len(ids) - len(set(ids))} captures occur twice")
    hits = emulator.hits()["requests"]
    pictures = Counter(hit["what"] for hit in hits if hit["endpoint"] == "image")
    forgotten = read_tombstones(layout.tombstones).captures
    missing = len((set(ids) | forgotten) - before[0])
    if pictures.total() != missing:
        problems.append(f"{pictures.total()} pictures asked for where {missing} were missing")
    if forgotten & set(ids):
        problems.append(f"{len(forgotten & set(ids))} captures are there although they were forgotten")
    again = [hit["what"] for hit in hits if hit["endpoint"] == "metadata" and hit["what"] in before[1]]
    if again:
        problems.append(f"{len(again)} answered positions asked for again")
    return problems


def left_behind(pid: int) -> list[int]:
    """Processes of the session that `pid` began: they stay in it when it is gone and they get another parent."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            state, _, _, session = status.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == pid and state != "Z":
                found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    collect(Path(sys.argv[1]), sys.argv[2])
