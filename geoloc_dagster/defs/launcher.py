"""Where runs start in production, and how the daemon finds out that one of them is gone.

Dagster's own launcher cannot tell: where the code server dies together with its workers, as a container that runs out of
memory does, their runs stay "started" until their longest run time is over, and keep their places in queue and pools.
Belongs here: the question whether a worker lives. What becomes of a run without one is Dagster's run monitoring's to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData, deserialize_value

GRACE_S = 30


class HealthCheckedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, which moreover asks the code server whether it still has the worker of a run.

    Args:
        inst_data: what the instance was configured with.
        grace_seconds: how long a code server may be out of reach before its runs count as lost; it restarts within that time.
        clock: seconds that only ever grow.
    """

    supports_check_run_worker_health = True

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        grace_seconds: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inst_data)
        self.grace_seconds = grace_seconds
        self._clock = clock
        self._silent_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> Any:
        """What `config:` below `run_launcher:` may say."""
        return {"grace_seconds": dg.Field(dg.Noneable(float), default_value=float(GRACE_S), is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """As the instance makes it."""
        given = config_value.get("grace_seconds")
        return cls(inst_data, GRACE_S if given is None else float(given))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of a run lives; a code server that does not answer is given time to come back."""
        has_worker = self._has_worker(run.run_id)
        if has_worker is None:
            now = self._clock()
            if now - self._silent_since.setdefault(run.run_id, now) < self.grace_seconds:
                return CheckRunHealthResult(WorkerStatus.RUNNING, "the code server does not answer yet")
            return CheckRunHealthResult(
                WorkerStatus.NOT_FOUND, f"the code server has not answered for {self.grace_seconds:.0f} s"
            )
        self._silent_since.pop(run.run_id, None)
        if has_worker:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server knows no worker of this run")

    def _has_worker(self, run_id: str) -> bool | None:
        """What the code server says; None where it cannot be asked."""
        from dagster._core.errors import DagsterUserCodeUnreachableError
        from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

        client = self._get_grpc_client_for_termination(run_id)
        if client is None:  # finished meanwhile, or never handed to a server: Dagster looks again before it decides
            return False
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=5)
        except DagsterUserCodeUnreachableError:
            return None
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel
