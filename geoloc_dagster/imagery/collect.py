"""The collection engine: from the locations of one batch to rows of the captures table, resumable at any instant.

Which views a table still lacks is an anti-join on `capture_id`, known before anything is fetched. Rows are committed
`commit_rows` at a time, so a killed process loses at most what it had not committed, and the next run goes on there. A
location that gave everything it has leaves a row in the visits table, after its captures are committed: until its next visit
is due, nothing at all is asked about it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.collection import CaptureSettings
from geoloc_dagster.dataset.pending import complete_locations
from geoloc_dagster.dataset.registration import batch_locations
from geoloc_dagster.errors import GeolocError, ServiceQuotaError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.blur import Redactor
from geoloc_dagster.imagery.boxes import boxes_to_blur, build_redactor
from geoloc_dagster.imagery.provider import (
    CollectionStopped,
    Location,
    Negative,
    Panorama,
    Provider,
    RequestFailedError,
    View,
)
from geoloc_dagster.imagery.tombstones import Tombstones, read_tombstones
from geoloc_dagster.imagery.writer import CaptureWriter, CollectionResult, capture_id, known_ids

__all__ = ["CollectionResult", "capture_id", "collect_batch", "collect_region_batch", "requested_views"]


async def collect_region_batch(
    settings: Settings,
    layout: Layout,
    provider: Provider,
    batch: str,
    *,
    run_id: str,
    now: dt.datetime,
    progress: Callable[[int, int], None] | None = None,
) -> CollectionResult:
    """Collect what is due of one registered batch, as the configuration says.

    At a live service a place that was complete less than `automation.rescan_after_days` ago is left alone; a folder costs
    nothing to look into, so it always is.

    Raises:
        IntegrityError: the batch is not registered.
        ConfigError: the boxes to blur cannot be used; nothing was fetched.
        As `collect_batch`.
    """
    if settings.capture.provider == "photo_list":
        from geoloc_dagster.imagery.photo_batch import collect_photo_batch

        return await collect_photo_batch(settings, layout, batch, run_id=run_id, now=now, progress=progress)
    live = settings.capture.provider != "folder"
    return await collect_batch(
        provider,
        batch_locations(layout, batch),
        batch,
        layout.panoramas,
        visits_path=layout.visits,
        run_id=run_id,
        now=now,
        commit_rows=settings.capture.commit_rows,
        views=requested_views(settings.capture),
        complete_since=now - dt.timedelta(days=settings.automation.rescan_after_days) if live else None,
        concurrency=_concurrency(settings),
        progress=progress,
        forgotten=read_tombstones(layout.tombstones),
        redactor=build_redactor(boxes_to_blur(settings)),
    )


def _concurrency(settings: Settings) -> int:
    """Locations that are visited at once."""
    if settings.capture.provider == "folder":
        return 1
    return settings.browser.workers if settings.capture.provider == "google_maps" else settings.service.concurrency


def requested_views(capture: CaptureSettings) -> list[View]:
    """The views to ask a live service for at every location; none for folders and lists, whose panoramas name their own."""
    if capture.provider in ("folder", "photo_list"):
        return []
    return [View(heading_deg, None, capture.pitch_deg, capture.fov_deg) for heading_deg in capture.headings_deg]


async def collect_batch(
    provider: Provider,
    locations: Sequence[Location],
    batch: str,
    table_path: Path,
    *,
    visits_path: Path,
    run_id: str,
    now: dt.datetime,
    commit_rows: int,
    views: Sequence[View] = (),
    complete_since: dt.datetime | None = None,
    concurrency: int = 1,
    progress: Callable[[int, int], None] | None = None,
    forgotten: Tombstones | None = None,
    redactor: Redactor | None = None,
) -> CollectionResult:
    """Collect every date of every view at the locations of one batch that the table does not hold yet.

    Args:
        provider: where the pictures come from.
        locations: the locations of the batch.
        batch: its key, e.g. `100m-0003`.
        table_path: the captures table; written on the first commit.
        visits_path: the visits table.
        run_id: recorded in every row of this run.
        now: time zone aware; recorded as `fetched_at` of every row of this run.
        commit_rows: rows per commit.
        views: the views to ask for where a panorama does not name its own.
        complete_since: a location with a complete visit at or after this is left alone; every location is visited without it.
        concurrency: locations that are visited at once.
        progress: called with (locations done, locations) after each location.
        forgotten: what is not fetched again.
        redactor: says which parts are blurred before anything is stored; nothing is without it.

    Raises:
        PermissionMissingError: the provider's terms forbid storing or training and no permission is on record.
        ServiceKeyError, ServiceBlockedError, ServiceUnavailableError, ServiceQuotaError: the provider will not or cannot go on.
            Everything collected before is committed first, and counted in the error's `facts`.
        DiskFullError: rows committed before stay; the next run goes on after them.
        DataRootError: the table's folder cannot be written.
    """
    failpoint("collect.begun")
    BatchKey.parse(batch)
    provider.terms.require(provider.name)
    complete = set[str]() if complete_since is None else complete_locations(visits_path, since=complete_since)
    due = [location for location in locations if location.location_id not in complete]
    writer = CaptureWriter(
        provider, batch, table_path, visits_path, run_id, now, commit_rows, total=len(locations), progress=progress
    )
    writer.completed = len(locations) - len(due)
    writer.skip(known_ids(table_path, due))
    writer.forgotten = forgotten or Tombstones()
    writer.redactor = redactor
    failpoint("collect.compared")
    stopped: str | None = None
    try:
        async with provider.session():
            failpoint("collect.connected")
            await _visit_all(provider, provider.find(due), writer, views, concurrency)
    except CollectionStopped as stop:
        if stop.reason == "quota":  # the service's own, and not what the configuration allows: somebody has to look at it
            spent = ServiceQuotaError(stop.detail)
            _explain(spent, writer)
            raise spent from stop
        stopped = str(stop)
    except GeolocError as error:
        _explain(error, writer)
        raise
    finally:
        failpoint("collect.disconnected")
        writer.flush()
    return writer.result(stopped)


def _explain(error: GeolocError, writer: CaptureWriter) -> None:
    """Let the error that ends a run say what the run did before it; everything that came is committed first."""
    writer.flush()
    result = writer.result(None)
    error.facts |= {"rows_kept": result.rows_total, **result.facts()}


async def _visit_all(
    provider: Provider,
    found: AsyncIterator[Panorama | Negative | RequestFailedError],
    writer: CaptureWriter,
    views: Sequence[View],
    concurrency: int,
) -> None:
    """Visit the locations that `found` yields, several at a time.

    A stop lets what is in flight arrive, because it has been asked for and counted; an error ends everything at once.
    """
    lock = asyncio.Lock()  # an async generator has one reader at a time
    stops: list[CollectionStopped] = []

    async def work() -> None:
        try:
            while not stops:
                async with lock:
                    answer = await anext(found)
                await _visit(provider, answer, writer, views)
        except StopAsyncIteration:
            return
        except CollectionStopped as stop:
            stops.append(stop)

    tasks = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if stops:
        raise stops[0]


async def _visit(
    provider: Provider, found: Panorama | Negative | RequestFailedError, writer: CaptureWriter, views: Sequence[View]
) -> None:
    """Take whatever one location has that the table lacks."""
    failpoint("collect.found")
    if isinstance(found, Negative):
        writer.visited(found.location, dates=0, rows_new=0, pending=0)
        return
    rows_new = pending = 0
    panoramas: list[Panorama] = []
    try:
        if isinstance(found, RequestFailedError):
            raise found
        panoramas = await provider.history(found)
        failpoint("collect.history")
    except RequestFailedError as failure:
        writer.failed(failure)
        return
    for panorama in panoramas:
        if writer.forgotten.cover(provider.name, panorama):
            continue
        missing = writer.missing(panorama, views)
        if missing:
            async for answer in provider.capture(panorama, missing):
                failpoint("collect.received")
                added = writer.add(answer)
                rows_new += added
                pending += not added
    writer.visited(found.location, dates=len(panoramas), rows_new=rows_new, pending=pending)
    failpoint("collect.visited")
