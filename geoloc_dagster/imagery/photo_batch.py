"""The photos of one batch of a region: which are missing, who fetches them, and how they get into the tables."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.dataset.schema import CAPTURES, VISITS
from geoloc_dagster.errors import CollectionSourceError, IntegrityError, ServiceBlockedError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.boxes import boxes_to_blur, build_redactor
from geoloc_dagster.imagery.bulk import BulkRun, fetch_all, in_rounds
from geoloc_dagster.imagery.bulk_job import BudgetJob, Job
from geoloc_dagster.imagery.bulk_processes import Crew
from geoloc_dagster.imagery.hosts import host_key
from geoloc_dagster.imagery.photo_files import is_files, name_of
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Location, View
from geoloc_dagster.imagery.tombstones import Tombstones, read_tombstones
from geoloc_dagster.imagery.writer import CollectionResult, capture_id, known_ids, visit_row
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import append_rows, commit_files, open_table, table_version

_PHOTOS_PER_PROCESS = 100  # a process takes about a second to start
_COLUMNS = ("url", "lat_deg", "lng_deg", "captured_on", "precision", "creator", "licence", "attribution", "heading_deg")


async def collect_photo_batch(
    settings: Settings,
    layout: Layout,
    batch: str,
    *,
    run_id: str,
    now: dt.datetime,
    progress: Callable[[int, int], None] | None = None,
) -> CollectionResult:
    """Fetch what is missing of one batch of photos.

    Raises:
        IntegrityError: the batch is not registered.
        ConfigError: the boxes to blur cannot be used; nothing was fetched.
        PermissionMissingError: the licence of the list forbids storing or training and no permission is on record.
        CollectionSourceError: a folder of photos is missing.
        ServiceBlockedError: nothing came at all, and a host answered with a page for people.
        WorkerLostError, DiskFullError, DataRootError: everything committed before is kept.
    """
    failpoint("collect.begun")
    BatchKey.parse(batch)
    job = job_of(settings, layout, batch=batch, run_id=run_id, now=now)
    job.terms.require("photo_list")
    build_redactor(job.blur)  # a file that cannot be used is found before anything is asked
    async with Crew.called_up(job.sink) as crew:  # they load while what is missing is found
        photos = photos_of_batch(layout, batch)
        missing = missing_photos(photos, layout.panoramas, job, read_tombstones(layout.tombstones))
        _require_files(settings, missing)
        for path, schema in ((layout.panoramas, CAPTURES), (layout.visits, VISITS)):
            if open_table(path) is None:
                append_rows(path, schema.empty_table())
        failpoint("collect.compared")
        store = TableStore(layout, job, settled=len(photos) - len(missing))
        run = BulkRun()
        if missing:
            wanted = settings.capture.photos.processes or processes_by_default()
            run = await fetch_all(
                job,
                in_rounds(in_turn(missing, layout.visits, batch), lambda photo: host_key(photo.url)),
                store,
                crew=crew,
                processes=max(1, min(wanted, len(missing) // _PHOTOS_PER_PROCESS)),
                progress=None if progress is None else lambda run: progress(store.settled, len(photos)),
            )
    settled_before = {photo.photo_id for photo in photos} - {photo.photo_id for photo in missing}
    store.visit_settled(sorted(settled_before))
    return _result(layout, batch, store, run, len(photos))


def job_of(settings: Settings, layout: Layout, *, batch: str, run_id: str, now: dt.datetime) -> Job:
    """What the fetching processes are to know."""
    from geoloc_dagster.imagery.buckets import host_buckets_path
    from geoloc_dagster.imagery.egress import Egress
    from geoloc_dagster.imagery.factory import daily_budgets, requests_per_second

    capture, service, photos = settings.capture, settings.service, settings.capture.photos
    egress = Egress.parse(settings.egress.proxy, settings.egress.credentials_variable)
    budgets = [
        BudgetJob(what=one.what, limit=one.limit, per_charge=dict(one.per_charge), said=one.said)
        for one in daily_budgets(service, free=True)
    ]
    return Job(
        sink="table",
        target=layout.panoramas,
        batch=batch,
        run_id=run_id,
        now=now,
        began_at=dt.datetime.now(dt.UTC),
        licence=capture.licence,
        attribution=capture.attribution,
        permission=capture.permission,
        rate=requests_per_second(service, "photo_list"),
        concurrency=service.concurrency,
        connections=photos.connections,
        deadline_s=service.deadline_s,
        max_bytes=service.max_bytes,
        attempts=service.attempts,
        ledger=layout.ledger,
        budgets=tuple(budgets),
        buckets=host_buckets_path(),
        evidence=layout.evidence,
        proxy=egress.address,
        credentials=egress.credentials,
        min_side_px=photos.min_side_px,
        resize=photos.resize,
        size_px=photos.size_px,
        encoding=photos.encoding,
        quality=photos.quality,
        fov_deg=capture.fov_deg,
        size_suffix=photos.size_suffix,
        files=tuple(path for path in map(settings.resolve, photos.files) if is_files(path)),
        commit_rows=capture.commit_rows,
        blur=boxes_to_blur(settings),
    )


def _require_files(settings: Settings, missing: Sequence[Photo]) -> None:
    """A folder that is not there now says nothing of its photos."""
    absent = [path for path in map(settings.resolve, settings.capture.photos.files) if not path.exists()]
    if absent and any(name_of(photo.url) is not None for photo in missing):
        raise CollectionSourceError(f"{absent[0]} is missing", "Mount or restore it; what was collected of it stays.")


def registered_photos(layout: Layout, photo_ids: Sequence[str]) -> dict[str, Photo]:
    """Registered photos by id."""
    import pyarrow.compute as pc

    table = read_parquet(layout.photos)
    chosen = table.filter(pc.field("location_id").isin(list(photo_ids)))
    return {photo.photo_id: photo for photo in map(_photo, chosen.to_pylist())}


def photos_of_batch(layout: Layout, batch: str) -> list[Photo]:
    """The photos of one batch, in the order of the list.

    Raises:
        IntegrityError: no photos have been registered, or not this batch.
    """
    import pyarrow.compute as pc

    rows = read_parquet(layout.photos).filter(pc.field("batch") == batch).to_pylist()
    if not rows:
        raise IntegrityError(f"batch {batch} is not in {layout.photos}", "Materialise `buffer_csvs` again.")
    return list(map(_photo, rows))


def missing_photos(photos: Sequence[Photo], table_path: Path, job: Job, forgotten: Tombstones) -> list[Photo]:
    """Those of which the table holds nothing and nobody has asked to be forgotten."""
    provider = job.provider()
    locations = {photo.photo_id: Location(photo.photo_id, photo.lat_deg or 0.0, photo.lng_deg or 0.0) for photo in photos}
    known = known_ids(table_path, list(locations.values())) | forgotten.captures
    missing: list[Photo] = []
    for photo in photos:
        panorama = provider.panorama(locations[photo.photo_id], photo)
        gone = forgotten.cover("photo_list", panorama) or photo.creator in forgotten.creators
        if not gone and capture_id("photo_list", panorama, _only(panorama.views)) not in known:
            missing.append(photo)
    return missing


def in_turn(photos: Sequence[Photo], visits_path: Path, batch: str) -> list[Photo]:
    """Those first that were asked for least often, so that a photo that stops its host each time holds up no other."""
    visits = open_table(visits_path)
    tried: Counter[str] = Counter()
    if visits is not None:
        tried.update(visits.to_table(columns=["location_id"], filter=f"batch = '{batch}'")["location_id"].to_pylist())
    return sorted(photos, key=lambda photo: tried[photo.photo_id])


class TableStore:
    """Commits what the processes hand over: captures first, so that a visit never says complete of what was lost.

    Args:
        layout: of the region.
        job: what is fetched.
        settled: photos of the batch of which nothing is left to ask.
    """

    def __init__(self, layout: Layout, job: Job, *, settled: int) -> None:
        self._layout = layout
        self._job = job
        self.settled = settled
        self.tried = 0

    def keep(self, said: Sequence[Mapping[str, Any]], run: BulkRun) -> None:
        """Commit what was handed over and count it."""
        fragments = [fragment for one in said for fragment in one["fragments"]]
        done = [photo_id for one in said for photo_id in one["done"]]
        tried = [photo_id for one in said for photo_id in one["tried"]]
        if fragments:
            commit_files(self._layout.panoramas, fragments)
            failpoint("bulk.committed")
        self._visit([(photo_id, 1, 0) for photo_id in done] + [(photo_id, 0, 1) for photo_id in tried])
        run.done += len(done)
        run.bytes += sum(one["bytes"] for one in said)
        for one in said:
            run.failures_by_kind.update(one["failures"])
        self.settled += len(done)
        self.tried += len(tried)

    def visit_settled(self, photo_ids: Sequence[str]) -> None:
        """A visit for photos whose rows were committed by a process that was killed before their visit was."""
        from geoloc_dagster.dataset.pending import complete_locations

        complete = complete_locations(self._layout.visits)
        self._visit([(photo_id, 0, 0) for photo_id in photo_ids if photo_id not in complete])

    def _visit(self, visits: Sequence[tuple[str, int, int]]) -> None:
        import pyarrow as pa

        if not visits:
            return
        job = self._job
        rows = [
            visit_row(
                photo_id, "photo_list", batch=job.batch, now=job.now, run_id=job.run_id, dates=1, views_new=new, pending=pending
            )
            for photo_id, new, pending in visits
        ]
        append_rows(self._layout.visits, pa.Table.from_pylist(rows, schema=VISITS))


def _result(layout: Layout, batch: str, store: TableStore, run: BulkRun, total: int) -> CollectionResult:
    stopped, blocked = run.stopped, None
    if run.left_alone:
        named = "; ".join(f"{host}: {reason}" for host, reason in sorted(run.left_alone.items())[:5])
        if run.blocked and not run.done:
            blocked = ServiceBlockedError(f"nothing came, and {len(run.left_alone)} hosts are left alone ({named})")
        stopped = stopped or f"{len(run.left_alone)} hosts are left alone ({named})"
    table = open_table(layout.panoramas)
    result = CollectionResult(
        rows_new=run.done,
        rows_total=0 if table is None else int(table.count_rows(filter=f"batch = '{batch}'")),
        failures_by_kind=dict(run.failures_by_kind),
        bytes=run.bytes,
        table_version=table_version(layout.panoramas),
        pending=total - store.settled,
        visited=run.done + store.tried,
        stopped=stopped,
    )
    if blocked is not None:
        blocked.facts |= {"rows_kept": result.rows_total, **result.facts()}
        raise blocked
    return result


def _photo(row: Mapping[str, Any]) -> Photo:
    return Photo(row["location_id"], **{name: row[name] for name in _COLUMNS})


def _only(views: tuple[View, ...]) -> View:
    return views[0]
