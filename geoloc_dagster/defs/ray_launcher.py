"""Backfills as jobs of a Ray cluster, everything else as processes of this machine.

Collection stays here: what it may ask of services is counted by each machine for itself. A run on Ray takes no CPU of the
cluster's unless it is configured to, so that its tasks never wait for the run that waits for them.
Belongs here: which run goes where, and what it means that a cluster does not answer. Jobs are dagster-ray's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from geoloc_dagster.defs.launcher import GRACE_S, HealthCheckedRunLauncher
from geoloc_dagster.errors import EngineMissingError

try:
    from dagster_ray import RayRunLauncher
except ImportError as error:
    raise EngineMissingError(f"runs are to go to Ray and dagster-ray is not installed ({error})") from error

COLLECTING = frozenset({"street_view_metadata", "panoramas", "photos"})
"""Assets that ask services."""


def is_for_ray(run: dg.DagsterRun) -> bool:
    """Whether a run belongs to a backfill and collects nothing."""
    names = {key.path[-1] for key in run.asset_selection or ()}
    return BACKFILL_ID_TAG in run.tags and bool(names) and not names & COLLECTING


class BackfillsOnRayRunLauncher(RunLauncher, ConfigurableClass):
    """Launches each run where it belongs, and asks there whether its worker lives.

    Args:
        here: for runs of this machine.
        ray: for runs of the cluster.
        inst_data: what the instance was configured with.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        here: HealthCheckedRunLauncher,
        ray: RayRunLauncher,
        inst_data: ConfigurableClassData | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.here = here
        self.ray = ray
        self._inst_data = inst_data
        self._clock = clock
        self._silent_since: dict[str, float] = {}

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What the instance was configured with."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """`grace_seconds` of HealthCheckedRunLauncher and `ray` of RayRunLauncher."""
        return {**HealthCheckedRunLauncher.config_type(), "ray": RayRunLauncher.config_type()["ray"]}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """As the instance makes it."""
        given = config_value.get("grace_seconds")
        here = HealthCheckedRunLauncher(grace_seconds=GRACE_S if given is None else float(given))
        return cls(here, RayRunLauncher(**config_value["ray"]), inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Both launchers work for the same instance."""
        super().register_instance(instance)
        self.here.register_instance(instance)
        self.ray.register_instance(instance)

    def _of(self, run: dg.DagsterRun) -> HealthCheckedRunLauncher | RayRunLauncher:
        return self.ray if is_for_ray(run) else self.here

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run where it belongs."""
        self._of(context.dagster_run).launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """End a run where it is."""
        run = self._instance.get_run_by_id(run_id)
        return run is not None and self._of(run).terminate(run_id)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What is known of the process of a run."""
        return self._of(run).get_run_worker_debug_info(run, include_container_logs)

    def dispose(self) -> None:
        """Give up what both launchers hold."""
        self.here.dispose()
        self.ray.dispose()

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster asks for every run that has started."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of a run lives; a cluster that does not answer, or has been started anew, is given time."""
        if not is_for_ray(run):
            return self.here.check_run_worker_health(run)
        health = self._ray_health(run)
        if health.status != WorkerStatus.UNKNOWN:
            self._silent_since.pop(run.run_id, None)
            return health
        now = self._clock()
        if now - self._silent_since.setdefault(run.run_id, now) < self.here.grace_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"Ray does not say yet how the run is: {health.msg}")
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"Ray has known nothing of this run for {self.here.grace_seconds:.0f} s: {health.msg}"
        )

    def _ray_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """What Ray says; UNKNOWN where it knows no such job, as after a new start, or cannot be asked."""
        try:
            return self.ray.check_run_worker_health(run)
        except OSError as error:  # `requests` makes its errors, and Ray's client makes ConnectionErrors, of this kind
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, str(error))
