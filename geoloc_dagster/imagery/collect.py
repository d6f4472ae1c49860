"""The collection engine: from the locations of one batch to rows of the captures table, resumable at any instant.

Which views a table still lacks is an anti-join on `capture_id`, known before anything is fetched. Rows are committed
`commit_rows` at a time, so a killed process loses at most what it had not committed, and the next run goes on there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.errors import ImageError
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.provider import Capture, Failure, Location, Negative, Panorama, Provider, View
from geoloc_dagster.imagery.quality import open_header
from geoloc_dagster.storage import append_rows, open_table, table_version

_MAX_COMMIT_BYTES = 256 << 20  # commits earlier when pictures are large, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """What one run collected.

    Attributes:
        rows_new: rows added by this run.
        rows_total: rows of the batch in the table afterwards.
        failures_by_kind: views that gave no usable picture in this run, by kind.
        bytes: bytes of the pictures added by this run.
        table_version: version of the table that holds all of them.
        negatives: locations of the batch at which the provider has nothing.
        pending: views that failed in a way that the next run tries again.
    """

    rows_new: int
    rows_total: int
    failures_by_kind: dict[str, int]
    bytes: int
    table_version: int
    negatives: int = 0
    pending: int = 0


def capture_id(provider: str, panorama: Panorama, view: View) -> str:
    """The identity of a capture, 32 hex characters, stable between runs and known before it is fetched.

    A hash of provider, source, location, capture date, rotation or requested heading, pitch, field of view and variant.
    The panorama id is not part of it: those change from night to night.
    """
    captured_on = None if panorama.captured_on is None else panorama.captured_on.isoformat()
    looks = [_number(value) for value in (view.heading_deg, view.pitch_deg, view.fov_deg)]
    parts = [provider, panorama.source, panorama.location.location_id, captured_on, view.rotation, *looks, panorama.variant]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:32]


def _number(value: float | None) -> str | None:
    return None if value is None else format(value, ".4f")


async def collect_batch(
    provider: Provider,
    locations: Sequence[Location],
    batch: str,
    table_path: Path,
    *,
    run_id: str,
    now: dt.datetime,
    commit_rows: int,
    views: Sequence[View] = (),
    progress: Callable[[int, int], None] | None = None,
) -> CollectionResult:
    """Collect every date of every view at the locations of one batch that the table does not hold yet.

    Args:
        provider: where the pictures come from.
        locations: the locations of the batch.
        batch: its key, e.g. `100m-0003`.
        table_path: the captures table; written on the first commit.
        run_id: recorded in every row of this run.
        now: time zone aware; recorded as `fetched_at` of every row of this run.
        commit_rows: rows per commit.
        views: the views to ask for where a panorama does not name its own.
        progress: called with (locations done, locations) after each location.

    Raises:
        PermissionMissingError: the provider's terms forbid storing or training and no permission is on record.
        DiskFullError: rows committed before stay; the next run goes on after them.
        DataRootError: the table's folder cannot be written.
    """
    BatchKey.parse(batch)
    provider.terms.require(provider.name)
    writer = _Writer(provider, batch, table_path, run_id, now, commit_rows)
    writer.skip(_known_ids(table_path, locations))
    done = 0
    async for found in provider.find(locations):
        if isinstance(found, Negative):
            writer.negatives += 1
        else:
            for panorama in await provider.history(found):
                missing = writer.missing(panorama, views)
                if missing:
                    async for answer in provider.capture(panorama, missing):
                        writer.add(answer)
        done += 1
        if progress is not None:
            progress(done, len(locations))
    return writer.finish()


def _known_ids(table_path: Path, locations: Sequence[Location]) -> set[str]:
    """Ids of the captures that the table holds of these locations, in whatever batch."""
    table = open_table(table_path)
    if table is None or not locations:
        return set()
    quoted = ", ".join("'" + location.location_id.replace("'", "''") + "'" for location in locations)
    rows = table.to_table(columns=["capture_id"], filter=f"location_id IN ({quoted})")
    return set(rows["capture_id"].to_pylist())


@dataclass
class _Writer:
    """Turns answers into rows and commits them; counts what happened."""

    provider: Provider
    batch: str
    table_path: Path
    run_id: str
    now: dt.datetime
    commit_rows: int
    negatives: int = 0
    _known: set[str] = field(default_factory=set[str])
    _rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _buffered: int = 0
    _rows_new: int = 0
    _bytes: int = 0
    _pending: int = 0
    _failures: Counter[str] = field(default_factory=Counter[str])

    def skip(self, ids: set[str]) -> None:
        self._known |= ids

    def missing(self, panorama: Panorama, views: Sequence[View]) -> list[View]:
        wanted = panorama.views or tuple(views)
        return [view for view in wanted if capture_id(self.provider.name, panorama, view) not in self._known]

    def add(self, answer: Capture | Failure) -> None:
        if isinstance(answer, Failure) and answer.retryable:
            self._failures[answer.kind] += 1
            self._pending += 1
            return
        row = self._row(answer)
        if row["failure"] is not None:
            self._failures[row["failure"]] += 1
        self._known.add(row["capture_id"])
        self._rows.append(row)
        self._buffered += len(row.get("image") or b"")
        if len(self._rows) >= self.commit_rows or self._buffered >= _MAX_COMMIT_BYTES:
            self._commit()

    def finish(self) -> CollectionResult:
        # A batch without pictures still leaves a table behind, so that what follows can tell "none" from "never run".
        if self._rows or open_table(self.table_path) is None:
            self._commit()
        table = open_table(self.table_path)
        return CollectionResult(
            rows_new=self._rows_new,
            rows_total=0 if table is None else int(table.count_rows(filter=f"batch = '{self.batch}'")),
            failures_by_kind=dict(self._failures),
            bytes=self._bytes,
            table_version=table_version(self.table_path),
            negatives=self.negatives,
            pending=self._pending,
        )

    def _commit(self) -> None:
        append_rows(self.table_path, pa.Table.from_pylist(self._rows, schema=CAPTURES))
        self._rows_new += len(self._rows)
        self._bytes += self._buffered
        self._rows, self._buffered = [], 0

    def _row(self, answer: Capture | Failure) -> dict[str, Any]:
        panorama, view, location = answer.panorama, answer.view, answer.panorama.location
        return {
            "capture_id": capture_id(self.provider.name, panorama, view),
            "batch": self.batch,
            "provider": self.provider.name,
            "source": panorama.source,
            "pano_id": panorama.pano_id,
            "sequence_id": panorama.sequence_id,
            "location_id": location.location_id,
            "lat_deg": location.lat_deg,
            "lng_deg": location.lng_deg,
            "captured_on": panorama.captured_on,
            "capture_precision": panorama.precision,
            "heading_deg": view.heading_deg,
            "rotation": view.rotation,
            "pitch_deg": view.pitch_deg,
            "fov_deg": view.fov_deg,
            "fetched_at": self.now,
            "run_id": self.run_id,
            "licence": self.provider.terms.licence,
            "attribution": self.provider.terms.attribution,
            **_picture_columns(answer),
        }


def _picture_columns(answer: Capture | Failure) -> dict[str, Any]:
    """Bytes, size and status; the bytes of something that is no picture are kept, marked as failed, for whoever asks why."""
    if isinstance(answer, Failure):
        return {"status": "failed", "failure": answer.kind}
    width = height = failure = None
    try:
        width, height = open_header(answer.image).size
    except ImageError:
        failure = "undecodable"
    return {
        "image": answer.image,
        "sha256": hashlib.sha256(answer.image).hexdigest(),
        "width": width,
        "height": height,
        "source_url": answer.source_url,
        "creator": answer.creator,
        "status": "ok" if failure is None else "failed",
        "failure": failure,
    }
