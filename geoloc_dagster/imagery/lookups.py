"""Live lookups: which grid points have a street view, asked nearest to the start point first, resumable at any instant.

Every answer is a row, the negative ones too. A negative answer expires: after `recheck_before` its point is asked again, and
the newest row of a point counts. A point with a street view is never asked again; its dates are found by visits.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.schema import STREET_VIEW_METADATA
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.buffers import rank_from_start
from geoloc_dagster.imagery.provider import CollectionStopped, RequestFailedError
from geoloc_dagster.storage import read_geoparquet
from geoloc_dagster.tables import append_rows, open_table

COMMIT_ROWS = 200  # what a killed process can lose; each lookup is one small request


class Answer(Protocol):
    """What a service says of one position."""

    status: str
    pano_id: str | None
    lat_deg: float | None
    lng_deg: float | None
    captured_on: dt.date | None
    copyright: str | None


class CoverageService(Protocol):
    """A service that knows where street views are."""

    def session(self) -> AbstractAsyncContextManager[None]:
        """Open connections for one run."""
        ...

    async def lookup(self, lat_deg: float, lng_deg: float) -> Answer:
        """The nearest street view of a position, or the answer that there is none."""
        ...


@dataclass
class LookupRun:
    """What one run of lookups did.

    Attributes:
        asked: points that gave an answer, which are the rows added.
        found: of these, points with a street view.
        failures_by_kind: points that gave none, by kind; the next run asks them again.
        stopped: why the run ended before it was through; None where it did not.
        left: grid points without any answer; coverage is complete at 0.
    """

    asked: int = 0
    found: int = 0
    failures_by_kind: Counter[str] = field(default_factory=Counter[str])
    stopped: str | None = None
    left: int = 0


def lookup_ids(points: pd.DataFrame) -> pd.Series:
    """`59.324940,18.069360`: a point is known by its position, so that another grid spacing or polygon asks only what is new."""
    texts = [f"{lat:.6f},{lng:.6f}" for lat, lng in zip(points["lat_deg"], points["lng_deg"], strict=True)]
    return pd.Series(texts, index=points.index, dtype=str)


def due_points(
    points: pd.DataFrame, table_path: Path, start_point: tuple[float, float], recheck_before: dt.datetime
) -> pd.DataFrame:
    """The grid points to ask about, nearest to the start point first, with the column lookup_id added.

    Args:
        points: columns lat_deg, lng_deg.
        table_path: the coverage table.
        start_point: (lat, lng) degrees.
        recheck_before: aware; a negative answer from before this is out of date.
    """
    rows: Any = points.iloc[rank_from_start(points["lat_deg"].to_numpy(), points["lng_deg"].to_numpy(), start_point)]
    rows = rows.assign(lookup_id=lookup_ids(rows))
    dataset = open_table(table_path)
    if dataset is None:
        return rows
    answers: Any = dataset.to_table(columns=["lookup_id", "status", "looked_up_at"]).to_pandas()
    valid = answers[(answers["status"] == "OK") | (answers["looked_up_at"] >= pd.Timestamp(recheck_before))]
    return rows[~rows["lookup_id"].isin(valid["lookup_id"].unique())]


def unanswered(points: pd.DataFrame, table_path: Path) -> int:
    """How many grid points have never been answered; coverage is complete at 0."""
    dataset = open_table(table_path)
    if dataset is None:
        return len(points)
    known = dataset.to_table(columns=["lookup_id"])["lookup_id"].unique().to_pylist()
    return int((~lookup_ids(points).isin(known)).sum())


def points_due(settings: Settings, layout: Layout, *, now: dt.datetime) -> int:
    """How many grid points a run would have to ask about, without the run's limit."""
    if settings.grid_cells is not None:
        from geoloc_dagster.imagery.cell_lookups import cell_points_due

        return cell_points_due(settings, layout, now=now)
    recheck_before = now - dt.timedelta(days=settings.coverage.recheck_after_days)
    points = read_geoparquet(layout.grid_points)
    return len(due_points(points, layout.street_view_metadata, settings.region.start_point, recheck_before))


async def look_up_region(
    settings: Settings,
    layout: Layout,
    service: CoverageService,
    *,
    now: dt.datetime,
    progress: Callable[[int, int], None] | None = None,
) -> LookupRun:
    """Ask about the region's next grid points, as many as one run may; the coverage table exists afterwards.

    Raises:
        IntegrityError: there is no grid yet, or it is damaged.
        ServiceKeyError, ServiceBlockedError, ServiceUnavailableError: as `look_up`.
    """
    if settings.grid_cells is not None:
        from geoloc_dagster.imagery.cell_lookups import look_up_cells

        run = await look_up_cells(settings, layout, service, now=now, progress=progress)
    else:
        run = await _look_up_grid(settings, layout, service, now=now, progress=progress)
    if open_table(layout.street_view_metadata) is None:
        append_rows(layout.street_view_metadata, STREET_VIEW_METADATA.empty_table())
    return run


async def _look_up_grid(
    settings: Settings,
    layout: Layout,
    service: CoverageService,
    *,
    now: dt.datetime,
    progress: Callable[[int, int], None] | None,
) -> LookupRun:
    """Ask about the points of the grid, nearest to the start first."""
    coverage = settings.coverage
    recheck_before = now - dt.timedelta(days=coverage.recheck_after_days)
    points = read_geoparquet(layout.grid_points)
    due = due_points(points, layout.street_view_metadata, settings.region.start_point, recheck_before)
    run = await look_up(
        service,
        due.head(coverage.lookups_per_run),
        layout.street_view_metadata,
        now=now,
        concurrency=settings.service.concurrency,
        progress=progress,
    )
    run.left = unanswered(points, layout.street_view_metadata)
    return run


async def look_up(
    service: CoverageService,
    points: pd.DataFrame,
    table_path: Path,
    *,
    now: dt.datetime,
    concurrency: int,
    commit_rows: int = COMMIT_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> LookupRun:
    """Ask about points in their order and append one row per answer, `commit_rows` at a time.

    Args:
        service: who is asked.
        points: columns lookup_id, lat_deg, lng_deg; those of `due_points`, cut to the run's budget.
        table_path: the coverage table.
        now: aware; recorded as `looked_up_at`.
        concurrency: points asked about at once.
        commit_rows: rows per commit.
        progress: called with (points asked, points) after each commit.

    Raises:
        ServiceKeyError, ServiceBlockedError, ServiceUnavailableError: the service will not or cannot go on. The answers
            that came before are committed first.
    """
    chunks = (points.iloc[start : start + commit_rows] for start in range(0, len(points), commit_rows))
    return await look_up_chunks(
        service, chunks, table_path, total=len(points), now=now, concurrency=concurrency, progress=progress
    )


async def look_up_chunks(
    service: CoverageService,
    chunks: Iterable[pd.DataFrame],
    table_path: Path,
    *,
    total: int,
    now: dt.datetime,
    concurrency: int,
    progress: Callable[[int, int], None] | None = None,
) -> LookupRun:
    """As `look_up`, of chunks that are taken one by one: each when the answers of the one before are in the table.

    Args:
        service: as of `look_up`, as are all others.
        chunks: points of one commit each, with the same columns.
        table_path: the coverage table.
        total: points of all chunks, for `progress`.
        now: aware.
        concurrency: points asked about at once.
        progress: called after each commit.
    """
    failpoint("lookups.begun")
    run = LookupRun()
    limit = asyncio.Semaphore(concurrency)
    seen = 0
    async with service.session():
        for chunk in chunks:
            rows, problem = await _ask(service, chunk, limit, now, run)
            failpoint("lookups.before_commit")
            if rows:
                append_rows(table_path, pa.Table.from_pylist(rows, schema=STREET_VIEW_METADATA))
                failpoint("lookups.committed")
                run.asked += len(rows)
                run.found += sum(row["status"] == "OK" for row in rows)
            if isinstance(problem, CollectionStopped):
                run.stopped = str(problem)
                break
            if isinstance(problem, GeolocError):
                failed = {f"failed_{kind}": count for kind, count in run.failures_by_kind.items()}
                problem.facts = {**problem.facts, "rows_new": run.asked, **failed}
            if problem is not None:
                raise problem
            seen += len(chunk)
            if progress is not None:
                progress(seen, total)
    return run


async def _ask(
    service: CoverageService, points: pd.DataFrame, limit: asyncio.Semaphore, now: dt.datetime, run: LookupRun
) -> tuple[list[dict[str, Any]], BaseException | None]:
    """Rows of the points that answered, in order, and the exception that ends the run, if there was one."""

    async def one(lookup_id: str, lat_deg: float, lng_deg: float) -> dict[str, Any] | None:
        async with limit:
            try:
                answer = await service.lookup(lat_deg, lng_deg)
            except RequestFailedError as failure:
                if failure.retryable:
                    run.failures_by_kind[failure.kind] += 1
                    return None
                return _row(lookup_id, lat_deg, lng_deg, now, failure.kind.upper())
        failpoint("lookups.answered")
        return _row(lookup_id, lat_deg, lng_deg, now, answer.status, answer)

    columns: Sequence[np.ndarray[Any, Any]] = [points[name].to_numpy() for name in ("lookup_id", "lat_deg", "lng_deg")]
    tasks = [asyncio.create_task(one(str(a), float(b), float(c))) for a, b, c in zip(*columns, strict=True)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    problems = [task.exception() for task in tasks if task in done and task.exception() is not None]
    rows = [task.result() for task in tasks if not task.cancelled() and task.exception() is None]
    return [row for row in rows if row is not None], next(iter(problems), None)


def _row(
    lookup_id: str, lat_deg: float, lng_deg: float, now: dt.datetime, status: str, answer: Answer | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "lookup_id": lookup_id,
        "requested_lat_deg": lat_deg,
        "requested_lng_deg": lng_deg,
        "status": status,
        "looked_up_at": now,
    }
    if answer is not None and answer.status == "OK":
        for name in ("pano_id", "lat_deg", "lng_deg", "captured_on", "copyright"):
            row[name] = getattr(answer, name)
    return row
