"""Keeping an instance and a data root tidy: the weekly job, and which runs of the past may go.

A run is kept while it is the one that last made some asset or partition, because its events are how Dagster knows that they are
there; and a failed one while what it failed at has not been made since, because its failure is why it is not tried again.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock

if TYPE_CHECKING:
    from geoloc_dagster.dataset.maintenance import Done

_PAGE = 200
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def build_maintenance_schedule(region: Region) -> dg.ScheduleDefinition:
    """Every Sunday night, unless something of the region is running."""

    @dg.op(name=f"{region.name}_tidy", description="Old runs, leftovers of killed processes, small files and old table versions.")
    def tidy(context: dg.OpExecutionContext, clock: dg.ResourceParam[Clock]) -> None:
        done = run_maintenance(region, context.instance, now=clock.now(), apply=True)
        for one in done:
            context.log.info("%s (%s bytes)", one.what, f"{one.bytes:,}")
        context.add_output_metadata({"things": len(done), "bytes_freed": sum(one.bytes for one in done)})

    @dg.job(name=f"{region.name}_maintenance", description="Tidies the data root and the event log, by the policy `maintenance`.")
    def maintenance() -> None:
        tidy()

    @dg.schedule(
        name=f"{region.name}_weekly_maintenance",
        job=maintenance,
        cron_schedule="0 4 * * 0",
        execution_timezone="UTC",
        description="Old runs, leftovers of killed processes, small files and old versions of tables.",
    )
    def weekly_maintenance(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = context.instance.get_runs_count(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={"geoloc/region": region.name})
        )
        if busy:
            return dg.SkipReason(f"{busy} runs of {region.name} are at work; next week")
        week = context.scheduled_execution_time.date().isoformat()
        return dg.RunRequest(run_key=f"maintenance-{week}", tags={"geoloc/region": region.name, "geoloc/trigger": "maintenance"})

    return weekly_maintenance


def run_maintenance(region: Region, instance: dg.DagsterInstance, *, now: dt.datetime, apply: bool) -> list["Done"]:
    """Tidy runs and data root, or say what there would be to do; raises as `dataset.maintenance.maintain` does.

    Args:
        region: whose.
        instance: that holds its runs.
        now: aware.
        apply: do it.
    """
    from geoloc_dagster.dataset.maintenance import maintain
    from geoloc_dagster.defs.build import build_definitions

    policy = region.settings.maintenance
    checks = sorted(build_definitions(settings=region.settings).resolve_asset_graph().asset_check_keys, key=str)
    done = prune_runs(region, instance, checks, before=now - dt.timedelta(days=policy.keep_runs_days), apply=apply)
    return [*done, *maintain(region.fresh_layout(), now=now, keep_versions_days=policy.keep_versions_days, apply=apply)]


def prune_runs(
    region: Region, instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], *, before: dt.datetime, apply: bool
) -> list["Done"]:
    """Delete runs of the region that ended before a time (aware), with their events, but for those that are still needed."""
    from geoloc_dagster.dataset.maintenance import Done

    needed, made = _latest_runs(region, instance)
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    needed |= {record.run_id for record in latest.values()}
    ended = [record for record in _ended_before(region, instance, before) if record.dagster_run.run_id not in needed]
    old = [record.dagster_run.run_id for record in ended if not _still_failed(record, made)]
    size = sum(_log_bytes(instance, run_id) for run_id in old)
    if apply:
        for run_id in old:
            instance.delete_run(run_id)
    return [Done(f"{len(old):,} runs that ended before {before.date()}, with their events", size)] if old else []


def _ended_before(region: Region, instance: dg.DagsterInstance, before: dt.datetime) -> list[dg.RunRecord]:
    wanted = dg.RunsFilter(statuses=_ENDED)
    found: list[dg.RunRecord] = []
    cursor: str | None = None
    while page := instance.get_run_records(wanted, limit=_PAGE, cursor=cursor):
        ended = [record for record in page if record.end_time is not None and record.end_time < before.timestamp()]
        found += [record for record in ended if _is_of(region, record.dagster_run)]
        cursor = page[-1].dagster_run.run_id
    return found


def _is_of(region: Region, run: dg.DagsterRun) -> bool:
    """Whether a run is the region's: by its tag, or by its assets where somebody asked for it in the UI."""
    named = run.tags.get("geoloc/region")
    if named is not None:
        return named == region.name
    keys = run.asset_selection or ()
    return bool(keys) and all(key.path[0] == region.name for key in keys)


def _latest_runs(region: Region, instance: dg.DagsterInstance) -> tuple[set[str], dict[tuple[str, str | None], float]]:
    """Runs that last made an asset, or a partition of one, and when that was."""
    needed: set[str] = set()
    made: dict[tuple[str, str | None], float] = {}
    for key in instance.all_asset_keys():
        if key.path[0] == region.name:
            for record in _materializations(instance, key):
                what = (key.path[-1], record.partition_key)
                if what not in made:
                    made[what] = record.timestamp
                    needed.add(record.run_id)
    return needed, made


def _materializations(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[dg.EventLogRecord]:
    """All of them, the newest first."""
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=_PAGE, cursor=cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _still_failed(record: dg.RunRecord, made: dict[tuple[str, str | None], float]) -> bool:
    """Whether something that a failed run was to make has not been made since."""
    run = record.dagster_run
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    partition, ended = run.tags.get("dagster/partition"), record.end_time or 0.0
    since = {(name, of) for (name, of), at in made.items() if at > ended}
    return any(not {(key.path[-1], partition), (key.path[-1], None)} & since for key in run.asset_selection or ())


def _log_bytes(instance: dg.DagsterInstance, run_id: str) -> int:
    """Size of a run's own event log where there is one file for each, as on a single machine."""
    file = Path(instance.root_directory or "") / "history" / "runs" / f"{run_id}.db"
    return file.stat().st_size if file.is_file() else 0
