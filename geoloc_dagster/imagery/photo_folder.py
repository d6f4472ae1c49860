"""Downloading a list into a plain folder: `ab/ID.jpg`, a report of what came and what did not, and the list filtered by it.

`downloads.csv` grows as pictures come, so a killed run goes on; `failures.csv` and the filtered list are written at the end.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import DataRootError
from geoloc_dagster.imagery.bulk import BulkRun, fetch_all, in_rounds
from geoloc_dagster.imagery.bulk_job import Job
from geoloc_dagster.imagery.bulk_processes import Crew
from geoloc_dagster.imagery.hosts import host_key
from geoloc_dagster.imagery.photo_ids import safe_id
from geoloc_dagster.imagery.photo_table import Photo, PhotoTable, read_photo_lists
from geoloc_dagster.storage import translated_errors, write_bytes

REPORT, FAILURES, PROBLEMS = "downloads.csv", "failures.csv", "bad_rows.csv"
_COLUMNS = ("id", "file", "kind", "detail", "final")
_OK = "ok"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one photo: `kind` is `ok` or the failure's; one that is not `final` is asked for again."""

    file: str
    kind: str
    detail: str
    final: bool


@dataclass
class Download:
    """What a folder holds after a run.

    Attributes:
        came: photos with a file.
        failures: photos without one, by kind.
        asked: photos that this run asked for.
        bad_rows: of the list.
        left_alone: hosts that this run gave up, and why.
        stopped: why it ended early; None where it did not.
    """

    came: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    asked: int = 0
    bad_rows: int = 0
    left_alone: dict[str, str] = field(default_factory=dict[str, str])
    stopped: str | None = None


async def download(
    job: Job,
    url_csv: Path,
    crew: Crew,
    *,
    processes: int,
    shuffle_seed: int | None = None,
    most: int | None = None,
    filter_files: Sequence[Path] = (),
    columns: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Download:
    """Fetch what a folder lacks of a list; the folder is `job.target`.

    Args:
        job: how, and where to.
        url_csv: the list.
        crew: called up, and used for this alone.
        processes: that fetch.
        shuffle_seed: mixes the list, always alike; its own order without.
        most: photos of the (mixed) list, from its beginning.
        filter_files: further lists, of which those rows are written to the folder whose photos came.
        columns: names of columns of the list.
        progress: called with (photos with an outcome, photos).

    Raises:
        PhotoListError: it is no list.
        WorkerLostError, DataRootError, DiskFullError: what came before is kept.
    """
    folder = job.target
    table = read_photo_lists([url_csv], columns=columns, need_position=False)
    photos = list(table.photos)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(photos)
    photos = photos[:most]
    with translated_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outcomes = read_outcomes(folder)
    _find_files(folder, photos, outcomes)
    missing = [photo for photo in photos if (known := outcomes.get(photo.photo_id)) is None or not known.final]
    missing.sort(key=lambda photo: photo.photo_id in outcomes)  # one that stops its host each time holds up no other
    done = len(photos) - len(missing)
    with FolderStore(folder, outcomes) as store:
        run = BulkRun()
        if missing:
            order = missing if shuffle_seed is not None else in_rounds(missing, lambda photo: host_key(photo.url))
            said = None if progress is None else lambda run: progress(done + store.kept, len(photos))
            run = await fetch_all(job, order, store, crew=crew, processes=processes, progress=said)
    return _finish(folder, table, photos, outcomes, run, store, filter_files)


class FolderStore:
    """Adds to the report what the processes say; the files are there already.

    Args:
        folder: of the report.
        outcomes: kept up to date.
    """

    def __init__(self, folder: Path, outcomes: dict[str, Outcome]) -> None:
        self._path = folder / REPORT
        self._outcomes = outcomes
        self.kept = 0

    def __enter__(self) -> FolderStore:
        with translated_errors(self._path):
            content = self._path.read_bytes() if self._path.exists() else b""
            new = b"\n" not in content  # or killed before its header was whole
            if new and content:
                self._path.unlink()
            elif not new and not content.endswith(b"\n"):
                os.truncate(self._path, content.rfind(b"\n") + 1)  # a killed run has left half a line
            self._stream = self._path.open("a", encoding="utf-8", newline="")
            self._writer = csv.writer(self._stream, lineterminator="\n")
            if new:
                self._writer.writerow(_COLUMNS)
                self._stream.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def keep(self, said: Sequence[Mapping[str, Any]], run: BulkRun) -> None:
        """Write down what came and what did not."""
        files = [file for one in said for file in one["files"]]
        with translated_errors(self._path):
            for photo_id, file, kind, detail, retryable in files:
                outcome = Outcome(file, kind, " ".join(detail.split())[:200], not retryable)
                self._outcomes[photo_id] = outcome
                self._writer.writerow([photo_id, outcome.file, outcome.kind, outcome.detail, int(outcome.final)])
                if kind != _OK:
                    run.failures_by_kind[kind] += 1
                run.done += 1
            self._stream.flush()
        self.kept += len(files)


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """What the report of a folder says of each photo, the last word counting; lines that a killed run left half are passed over.

    Raises:
        DataRootError: there is such a file, and it is no report.
    """
    path = folder / REPORT
    if not path.exists():
        return {}
    outcomes: dict[str, Outcome] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        header = ",".join(next(reader, []))
        if not ",".join(_COLUMNS).startswith(header):  # a killed run may have left half of it
            raise DataRootError(f"{path} is not a report of downloads", "Choose another folder with --output.")
        for cells in reader:
            if len(cells) == len(_COLUMNS) and cells[4] in ("0", "1"):
                outcomes[cells[0]] = Outcome(cells[1], cells[2], cells[3], cells[4] == "1")
    return outcomes


def filter_list(path: Path, came: set[str], target: Path, *, id_column: str | None = None) -> int:
    """Write those rows of a CSV whose photos came, as they are; returns how many.

    Args:
        path: with a header, or `id,url`.
        came: safe ids.
        target: where to.
        id_column: where ids are; found by its usual names, else the first column.
    """
    usual = ("img_id", "image_id", "photo_id", "id") if id_column is None else (id_column.lower(),)
    text, rows = io.StringIO(), 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader, writer = csv.reader(stream), csv.writer(text, lineterminator="\n")
        header = next(reader, [])
        lower = [name.strip().lower() for name in header]
        place = next((lower.index(name) for name in usual if name in lower), None)
        lines: Iterable[list[str]] = reader
        if place is None:
            place, lines = 0, [header, *reader]
        else:
            writer.writerow(header)
        for cells in lines:
            if len(cells) > place and safe_id(cells[place]) in came:
                writer.writerow(cells)
                rows += 1
    write_bytes(target, text.getvalue().encode())
    return rows


def _find_files(folder: Path, photos: Sequence[Photo], outcomes: dict[str, Outcome]) -> None:
    """Files that a killed run wrote and did not write down; and a file that somebody has deleted is missing again."""
    there = {path.stem: path for path in folder.glob("??/*") if not path.name.startswith(".")}
    for photo in photos:
        known, path = outcomes.get(photo.photo_id), there.get(photo.photo_id)
        if path is not None:
            outcomes[photo.photo_id] = Outcome(path.relative_to(folder).as_posix(), _OK, "", True)
        elif known is not None and known.kind == _OK:
            del outcomes[photo.photo_id]


def _finish(
    folder: Path,
    table: PhotoTable,
    photos: Sequence[Photo],
    outcomes: Mapping[str, Outcome],
    run: BulkRun,
    store: FolderStore,
    filter_files: Sequence[Path],
) -> Download:
    came = {photo.photo_id for photo in photos if (one := outcomes.get(photo.photo_id)) is not None and one.kind == _OK}
    failed = [(photo, outcomes.get(photo.photo_id)) for photo in photos if photo.photo_id not in came]
    rows = [
        [photo.photo_id, photo.url.split("?")[0], *((one.kind, one.detail) if one else ("not_asked", _why_not(photo, run)))]
        for photo, one in failed
    ]
    _write_csv(folder / FAILURES, ["id", "url", "kind", "detail"], rows)
    if table.problems:
        _write_csv(folder / PROBLEMS, ["file", "line", "reason"], [[one.file, one.line, one.reason] for one in table.problems])
    for path in filter_files:
        filter_list(path, came, folder / f"downloaded_{path.name}")
    kinds = Counter("not_asked" if one is None else one.kind for _, one in failed)
    return Download(len(came), kinds, store.kept, table.bad_rows, dict(run.left_alone), run.stopped)


def _why_not(photo: Photo, run: BulkRun) -> str:
    """Why a photo was not asked for, as far as is known."""
    return run.stopped or run.left_alone.get(host_key(photo.url)) or ""


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def folder_job(folder: Path, *, now: dt.datetime, **options: Any) -> Job:
    """The job of a download without a region: no daily budget but what the rate allows, rates shared with the whole host."""
    from geoloc_dagster.imagery.buckets import host_buckets_path

    return Job(
        sink="folder", target=folder, now=now, began_at=now, buckets=host_buckets_path(), evidence=folder / "evidence", **options
    )
