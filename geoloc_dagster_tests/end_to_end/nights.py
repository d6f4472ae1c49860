"""A region at an emulated city that lives through nights as its schedules and conditions would have it, without a daemon."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock
from geoloc_dagster.emulator.process import RunningEmulator
from geoloc_dagster_tests.end_to_end.regions import AROUND, ORIGIN, rectangle, write_region

__all__ = ["AROUND", "ORIGIN", "Nights", "WallClock", "rectangle", "write_region"]
_now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]


class WallClock(Clock):
    """The clock on the wall of the test."""

    def now(self) -> dt.datetime:
        return _now[0]


@dataclass
class Nights:
    """The region's definitions on an instance, and the city's clock."""

    config: Path
    emulator: RunningEmulator
    instance: dg.DagsterInstance
    cursor: Any = None
    runs: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, str | None]])

    def __post_init__(self) -> None:
        self.settings = load_settings(self.config)
        self.region = Region(self.settings)
        self.layout = Layout(self.settings.data_root)
        self.defs = build_definitions(settings=self.settings, resource_overrides={"clock": WallClock()})

    def make(self, *names: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """Materialise assets as somebody at the UI would."""
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance, asset_selection=[self.region.key(name) for name in names], partition_key=partition
        )

    def live_through(self, day: dt.date) -> Counter[str]:
        """One night: the schedules at their times, conditions after each; returns how many runs of each job there were."""
        before = len(self.runs)
        self.emulator.set_today(day)
        for hour, schedule in ((0, "nightly_lookups"), (1, "nightly_collection")):
            _now[0] = dt.datetime.combine(day, dt.time(hour), dt.UTC)
            self._schedule(schedule)
            self._conditions("buffer_csvs")
        return Counter(name for name, _ in self.runs[before:])

    def _schedule(self, name: str) -> None:
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=_now[0], repository_def=self.defs.get_repository_def()
        )
        schedule = self.defs.resolve_schedule_def(f"{self.region.name}_{name}")
        answer = schedule(context)
        requests = [] if isinstance(answer, dg.SkipReason) else answer if isinstance(answer, list) else [answer]
        for request in requests:
            job = self.defs.resolve_job_def(schedule.job_name)
            done = job.execute_in_process(instance=self.instance, partition_key=request.partition_key, tags=request.tags)
            assert done.success
            self.runs.append((name, request.partition_key))

    def _conditions(self, *names: str) -> None:
        """Make what the conditions ask for, of the named assets; the rest of the graph is not what these tests are about."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        for name in names:
            if result.get_requested_partitions(self.region.key(name)):
                self.make(name)
                self.runs.append((name, None))

    def facts(self, name: str, partition: str | None = None) -> dict[str, Any]:
        """The metadata of an asset's last materialization."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=self.region.key(name), asset_partitions=[partition] if partition else None), limit=1
        ).records
        return {key: entry.value for key, entry in records[0].asset_materialization.metadata.items()}
