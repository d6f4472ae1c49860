"""A region that lives through nights without a daemon: schedules and sensors at an injected time, conditions until they rest."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import claim_data_root, load_settings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.headless import open_instance
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock

_now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]


class TestClock(Clock):
    """The clock of the test, for everything that asks one."""

    __test__ = False

    def now(self) -> dt.datetime:
        return _now[0]


class FastForward:
    """The region's definitions on the instance of its data root, which the command line reports to as well."""

    def __init__(self, config: Path) -> None:
        self.settings = load_settings(config)
        self.region, self.layout = Region(self.settings), Layout(self.settings.data_root)
        claim_data_root(self.settings)
        self.defs = build_definitions(settings=self.settings, resource_overrides={"clock": TestClock()})
        self.job = self.defs.resolve_implicit_global_asset_job_def()
        self.graph = self.defs.resolve_asset_graph()
        self.instance = open_instance(self.layout)
        self.cursor: Any = None
        self.run_keys: set[str] = set()

    def make(self, *names: str, partition: str | None = None, tags: dict[str, str] | None = None) -> None:
        """Materialise assets as somebody at the UI would; that takes a minute by the clock."""
        _now[0] += dt.timedelta(minutes=1)
        keys = [self.region.key(name) for name in names]
        done = self.job.execute_in_process(instance=self.instance, asset_selection=keys, partition_key=partition, tags=tags)
        assert done.success

    def night(self, day: dt.date) -> list[str]:
        """The collection of a night and what follows from it; the batches that were asked for."""
        _now[0] = dt.datetime.combine(day, dt.time(1), dt.UTC)
        schedule = self.defs.resolve_schedule_def(f"{self.region.name}_nightly_collection")
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=_now[0], repository_def=self.defs.get_repository_def()
        )
        answer = schedule(context)
        if isinstance(answer, dg.SkipReason):
            return [str(answer.skip_message)]
        for request in answer:
            self.make(self.region.pictures, partition=request.partition_key, tags=dict(request.tags))
        self.settle()
        return [str(request.partition_key) for request in answer]

    def settle(self) -> list[tuple[str, str | None]]:
        """Make what the conditions ask for until they ask for nothing; what was made, in its order."""
        made: list[tuple[str, str | None]] = []
        for _ in range(12):
            asked = self.asked()
            if not asked:
                return made
            for name, partition in asked:
                self.make(name, partition=partition)
            made += asked
        raise AssertionError(f"the conditions never come to rest: {asked}")

    def asked(self) -> list[tuple[str, str | None]]:
        """What the conditions ask for now, inputs first."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        found: list[tuple[str, str | None]] = []
        for key in self.graph.toposorted_asset_keys:
            found += [(key.path[-1], partition) for partition in sorted(result.get_requested_partitions(key), key=str)]
        return found

    def retraining(self) -> list[str] | str:
        """Recipes that the sensor asks for, each run key once as the daemon has it; or why it asks for none."""
        sensor = self.defs.resolve_sensor_def(f"{self.region.name}_retraining")
        answer = sensor(dg.build_sensor_context(instance=self.instance, definitions=self.defs))
        if isinstance(answer, dg.SkipReason):
            return str(answer.skip_message)
        fresh = [request for request in answer.run_requests if request.run_key not in self.run_keys]
        self.run_keys |= {str(request.run_key) for request in fresh}
        return [str(request.partition_key) for request in fresh]

    def facts(self, name: str) -> dict[str, Any]:
        """The metadata of an asset's last materialization."""
        event = self.instance.get_latest_materialization_event(self.region.key(name))
        return {key: entry.value for key, entry in event.asset_materialization.metadata.items()}

    def check(self, asset: str, name: str) -> bool:
        """Run a check; whether it passed."""
        selection = dg.AssetSelection.checks(dg.AssetCheckKey(self.region.key(asset), name))
        job = dg.define_asset_job("check", selection=selection).resolve(asset_graph=self.graph)
        (result,) = job.execute_in_process(instance=self.instance, resources=self.defs.resources).get_asset_check_evaluations()
        return bool(result.passed)
