"""From answers of a provider to committed rows of the captures and visits tables."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.dataset.schema import CAPTURES, VISITS
from geoloc_dagster.errors import ImageError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.blur import Redactor, redact_capture
from geoloc_dagster.imagery.provider import (
    Capture,
    Failure,
    Location,
    Panorama,
    Provider,
    RequestFailedError,
    Terms,
    View,
    failure_classes,
)
from geoloc_dagster.imagery.quality import open_header
from geoloc_dagster.imagery.tombstones import Tombstones
from geoloc_dagster.tables import append_rows, open_table, table_version

_log = logging.getLogger(__name__)
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
        negatives: locations at which this run found that the provider has nothing.
        pending: locations of the batch that the next run has to visit again, or for the first time.
        visited: locations that this run looked at.
        stopped: why the run ended before it was through: the day's budget, the service's quota, or a pause that it asked for.
    """

    rows_new: int
    rows_total: int
    failures_by_kind: dict[str, int]
    bytes: int
    table_version: int
    negatives: int = 0
    pending: int = 0
    visited: int = 0
    stopped: str | None = None

    def facts(self) -> dict[str, Any]:
        """What a materialization says of it, and a failure as well."""
        return {
            "rows_new": self.rows_new,
            "locations_without_pictures": self.negatives,
            "locations_visited": self.visited,
            "pending": self.pending,
            "stopped": self.stopped,
            "bytes": self.bytes,
            "table_version": self.table_version,
            "failures": failure_classes(self.failures_by_kind) or None,
            **{f"failed_{kind}": count for kind, count in self.failures_by_kind.items()},
        }


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


@dataclass
class CaptureWriter:
    """Turns answers into rows and commits them; counts what happened."""

    provider: Provider
    batch: str
    table_path: Path
    visits_path: Path
    run_id: str
    now: dt.datetime
    commit_rows: int
    total: int
    progress: Callable[[int, int], None] | None
    completed: int = 0
    forgotten: Tombstones = field(default_factory=Tombstones)
    redactor: Redactor | None = None
    _known: set[str] = field(default_factory=set[str])
    _rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _visits: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _buffered: int = 0
    _rows_new: int = 0
    _bytes: int = 0
    _negatives: int = 0
    _visited: int = 0
    _failures: Counter[str] = field(default_factory=Counter[str])

    def skip(self, ids: set[str]) -> None:
        """Take captures as collected, because a table holds them."""
        self._known |= ids

    def missing(self, panorama: Panorama, views: Sequence[View]) -> list[View]:
        """The views of a panorama that no row says anything about; its own views where it names them."""
        wanted = panorama.views or tuple(views)
        known = self._known | self.forgotten.captures
        return [view for view in wanted if capture_id(self.provider.name, panorama, view) not in known]

    def add(self, answer: Capture | Failure) -> bool:
        """Whether the answer became a row; one that the next run asks for again does not."""
        answer, blurred = redacted(self.redactor, answer, self.provider.name)
        if isinstance(answer, Failure) and answer.retryable:
            self._failures[answer.kind] += 1
            return False
        row: dict[str, Any] = {
            **capture_row(answer, self.provider.name, self.provider.terms, batch=self.batch, now=self.now, run_id=self.run_id),
            "redacted_boxes": blurred,
        }
        if row["capture_id"] in self.forgotten.captures or row.get("creator") in self.forgotten.creators:
            return True  # nothing is kept of it, and nothing is left to ask for
        if row["failure"] is not None:
            self._failures[row["failure"]] += 1
        self._known.add(row["capture_id"])
        self._rows.append(row)
        self._buffered += len(row.get("image") or b"")
        failpoint("writer.row")
        if len(self._rows) >= self.commit_rows or self._buffered >= _MAX_COMMIT_BYTES:
            self.flush()
        return True

    def failed(self, failure: RequestFailedError) -> None:
        """A location that could not even be asked about; it stays pending."""
        self._failures[failure.kind] += 1
        self._count_visit(complete=False)

    def visited(self, location: Location, *, dates: int, rows_new: int, pending: int) -> None:
        """A location that was looked at; it is complete where no view is left to try again."""
        self._negatives += dates == 0
        self._visits.append(
            visit_row(
                location.location_id,
                self.provider.name,
                batch=self.batch,
                now=self.now,
                run_id=self.run_id,
                dates=dates,
                views_new=rows_new,
                pending=pending,
            )
        )
        self._count_visit(complete=pending == 0)

    def _count_visit(self, *, complete: bool) -> None:
        self._visited += 1
        self.completed += complete
        if self.progress is not None:
            self.progress(self.completed, self.total)

    def flush(self) -> None:
        """Commit what is buffered: captures first, so that a visit never says complete of views that were lost."""
        failpoint("writer.before_commit")
        if self._rows:
            append_rows(self.table_path, pa.Table.from_pylist(self._rows, schema=CAPTURES))
            self._rows_new += len(self._rows)
            self._bytes += self._buffered
            self._rows, self._buffered = [], 0
            failpoint("writer.captures_committed")
        if self._visits:
            append_rows(self.visits_path, pa.Table.from_pylist(self._visits, schema=VISITS))
            self._visits = []
            failpoint("writer.visits_committed")

    def result(self, stopped: str | None) -> CollectionResult:
        """What the run did, once everything is flushed."""
        # A batch without pictures still leaves a table behind, so that what follows can tell "none" from "never run".
        if open_table(self.table_path) is None:
            append_rows(self.table_path, CAPTURES.empty_table())
        table = open_table(self.table_path)
        return CollectionResult(
            rows_new=self._rows_new,
            rows_total=0 if table is None else int(table.count_rows(filter=f"batch = '{self.batch}'")),
            failures_by_kind=dict(self._failures),
            bytes=self._bytes,
            table_version=table_version(self.table_path),
            negatives=self._negatives,
            pending=self.total - self.completed,
            visited=self._visited,
            stopped=stopped,
        )


def redacted(redactor: Redactor | None, answer: Capture | Failure, provider: str) -> tuple[Capture | Failure, int | None]:
    """What may be stored of an answer, and how many parts of it were blurred; None where nobody looked."""
    if redactor is None or isinstance(answer, Failure):
        return answer, None
    name = capture_id(provider, answer.panorama, answer.view)
    allowed, blurred = redact_capture(redactor, answer, name)
    if isinstance(allowed, Failure):
        _log.warning("capture %s is not stored: %s", name, allowed.detail)
        return allowed, None
    return allowed, blurred


def capture_row(
    answer: Capture | Failure, provider: str, terms: Terms, *, batch: str, now: dt.datetime, run_id: str
) -> dict[str, Any]:
    """One answer as a row of the captures table."""
    panorama, view, location = answer.panorama, answer.view, answer.panorama.location
    return {
        "capture_id": capture_id(provider, panorama, view),
        "batch": batch,
        "provider": provider,
        "source": panorama.source,
        "pano_id": panorama.pano_id,
        "sequence_id": panorama.sequence_id,
        "location_id": location.location_id,
        "lat_deg": location.lat_deg if panorama.lat_deg is None else panorama.lat_deg,
        "lng_deg": location.lng_deg if panorama.lng_deg is None else panorama.lng_deg,
        "requested_lat_deg": location.lat_deg,
        "requested_lng_deg": location.lng_deg,
        "captured_on": panorama.captured_on,
        "capture_precision": panorama.precision,
        "heading_deg": view.heading_deg,
        "rotation": view.rotation,
        "pitch_deg": view.pitch_deg,
        "fov_deg": view.fov_deg,
        "fetched_at": now,
        "run_id": run_id,
        "licence": terms.licence,
        "attribution": terms.attribution,
        **_picture_columns(answer),
    }


def visit_row(
    location_id: str, provider: str, *, batch: str, now: dt.datetime, run_id: str, dates: int, views_new: int, pending: int
) -> dict[str, Any]:
    """One look at a location as a row of the visits table."""
    return {
        "location_id": location_id,
        "batch": batch,
        "provider": provider,
        "visited_at": now,
        "dates": dates,
        "views_new": views_new,
        "pending": pending,
        "run_id": run_id,
    }


def _picture_columns(answer: Capture | Failure) -> dict[str, Any]:
    """Bytes, size and status; the bytes of something that is no picture are kept, marked as failed, for whoever asks why."""
    if isinstance(answer, Failure):
        return {"status": "failed", "failure": answer.kind}
    width = height = failure = None
    try:
        width, height = answer.size or open_header(answer.image).size
    except ImageError:
        failure = "undecodable"
    own = {"licence": answer.licence, "attribution": answer.attribution}
    return {
        **{name: value for name, value in own.items() if value},
        "image": answer.image,
        "sha256": hashlib.sha256(answer.image).hexdigest(),
        "width": width,
        "height": height,
        "source_url": answer.source_url,
        "creator": answer.creator,
        "status": "ok" if failure is None else "failed",
        "failure": failure,
    }


def known_ids(table_path: Path, locations: Sequence[Location]) -> set[str]:
    """Ids of the captures that the table holds of these locations, in whatever batch."""
    table = open_table(table_path)
    if table is None or not locations:
        return set()
    quoted = ", ".join("'" + location.location_id.replace("'", "''") + "'" for location in locations)
    rows = table.to_table(columns=["capture_id"], filter=f"location_id IN ({quoted})")
    return set(rows["capture_id"].to_pylist())
