"""Where a fetching process puts pictures for a table: data files of it, which another process commits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.boxes import build_redactor
from geoloc_dagster.imagery.bulk_job import Job
from geoloc_dagster.imagery.provider import Capture, Failure
from geoloc_dagster.imagery.writer import capture_row, redacted
from geoloc_dagster.tables import write_uncommitted

_ROWS_AT_ONCE = 16
_MOST_BYTES = 8 << 20  # handed over earlier where pictures are large, so that memory stays bounded


class TableSink:
    """Writes the rows of many pictures as one data file of a Lance table and hands it over; nothing is committed here.

    Args:
        job: what is fetched.
        say: hands over.
    """

    def __init__(self, job: Job, say: Callable[[Mapping[str, Any]], None]) -> None:
        self._job = job
        self._redactor = build_redactor(job.blur)
        self._say = say
        self._rows: list[dict[str, Any]] = []
        self._tried: list[str] = []
        self._failures: Counter[str] = Counter()
        self._bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._writing: asyncio.Future[None] | None = None

    async def add(self, answer: Capture | Failure) -> None:
        """A row, but for a failure that is asked for again."""
        answer, blurred = redacted(self._redactor, answer, "photo_list")
        if isinstance(answer, Failure):
            self._failures[answer.kind] += 1
        if isinstance(answer, Failure) and answer.retryable:
            self._tried.append(answer.panorama.location.location_id)
        else:
            job = self._job
            row = capture_row(answer, "photo_list", job.terms, batch=job.batch, now=job.now, run_id=job.run_id)
            self._rows.append({**row, "redacted_boxes": blurred})
            self._bytes += len(row.get("image") or b"")
        failpoint("bulk.row")
        if len(self._rows) + len(self._tried) >= self._job.commit_rows or self._bytes >= _MOST_BYTES:
            await self._flush()

    async def close(self) -> None:
        """Hand over the rest."""
        await self._flush()
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()

    async def _flush(self) -> None:
        """Write beside the fetching; one file at a time, so that memory holds two of them at most."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
        if self._writing is not None:
            self._writing.result()
        rows, tried, failures, size = self._rows, self._tried, dict(self._failures), self._bytes
        if not rows and not tried:
            return
        self._rows, self._tried, self._bytes = [], [], 0
        self._failures.clear()
        loop = asyncio.get_running_loop()
        self._writing = asyncio.ensure_future(loop.run_in_executor(self._thread, self._write, rows, tried, failures, size))

    def _write(self, rows: list[dict[str, Any]], tried: list[str], failures: dict[str, int], size: int) -> None:
        done = [row["location_id"] for row in rows]
        fragments = write_uncommitted(self._job.target, _batches(rows), CAPTURES) if done else []
        failpoint("bulk.written")
        self._say({"fragments": fragments, "done": done, "tried": tried, "failures": failures, "bytes": size})


def _batches(rows: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """The rows, a few at a time; each picture is let go of once it is copied."""
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        rows[first : first + _ROWS_AT_ONCE] = [{}] * len(some)
        yield pa.RecordBatch.from_pylist(some, schema=CAPTURES)
