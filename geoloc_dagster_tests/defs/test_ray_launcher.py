"""Which runs go to Ray, and what becomes of them where Ray does not answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.test_utils import create_run_for_test

pytest.importorskip("dagster_ray", reason="the extra `ray` is not installed")

from dagster_ray import RayRunLauncher

from geoloc_dagster.defs.launcher import HealthCheckedRunLauncher
from geoloc_dagster.defs.ray_launcher import BackfillsOnRayRunLauncher, is_for_ray

CONFIG = {
    "module": "geoloc_dagster.defs.ray_launcher",
    "class": "BackfillsOnRayRunLauncher",
    "config": {"grace_seconds": 12, "ray": {"address": "http://127.0.0.1:9", "env_vars": ["GEOLOC_ENGINE=ray"]}},
}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_launcher": CONFIG}) as made:
        yield made


def a_run(instance: dg.DagsterInstance, *assets: str, backfill: bool = True) -> dg.DagsterRun:
    """A run that has started."""
    return create_run_for_test(
        instance,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/backfill": "abc"} if backfill else {},
        asset_selection=frozenset(dg.AssetKey(["oslo", name]) for name in assets),
    )


def launcher_of(instance: dg.DagsterInstance) -> BackfillsOnRayRunLauncher:
    launcher = instance.run_launcher
    assert isinstance(launcher, BackfillsOnRayRunLauncher)
    return launcher


def test_the_instance_takes_the_launcher_from_its_configuration(instance: dg.DagsterInstance) -> None:
    launcher = launcher_of(instance)
    assert launcher.supports_check_run_worker_health
    assert launcher.here.grace_seconds == 12
    assert (launcher.ray.address, launcher.ray.env_vars) == ("http://127.0.0.1:9", ["GEOLOC_ENGINE=ray"])
    assert launcher.ray.num_cpus is None, "a run that held CPUs would keep its own tasks waiting"


def launcher_at(instance: dg.DagsterInstance, clock: Callable[[], float]) -> BackfillsOnRayRunLauncher:
    """One of the instance's, by a clock of the test's."""
    here, ray = HealthCheckedRunLauncher(grace_seconds=12), RayRunLauncher(address="http://127.0.0.1:9")
    launcher = BackfillsOnRayRunLauncher(here, ray, clock=clock)
    launcher.register_instance(instance)
    return launcher


@pytest.mark.parametrize(
    ("assets", "backfill", "expected"),
    [
        (["crops"], True, True),
        (["crops", "embeddings"], True, True),
        (["crops"], False, False),
        (["panoramas"], True, False),
        (["photos", "crops"], True, False),
        (["street_view_metadata"], True, False),
        ([], True, False),
    ],
)
def test_backfills_that_collect_nothing_go_to_ray(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, assets: list[str], backfill: bool, expected: bool
) -> None:
    asked: list[str] = []
    for kind in (HealthCheckedRunLauncher, RayRunLauncher):
        monkeypatch.setattr(kind, "terminate", lambda self, _: asked.append(type(self).__name__) or True)
    run = a_run(instance, *assets, backfill=backfill)
    assert is_for_ray(run) is expected
    assert launcher_of(instance).terminate(run.run_id)
    assert asked == ["RayRunLauncher" if expected else "HealthCheckedRunLauncher"]


def test_a_cluster_that_does_not_answer_is_given_time(instance: dg.DagsterInstance) -> None:
    seconds = iter([0.0, 11.0, 12.5])
    launcher = launcher_at(instance, lambda: next(seconds))
    run = a_run(instance, "crops")
    told = [launcher.check_run_worker_health(run) for _ in range(3)]  # nothing listens at the address
    assert [one.status for one in told] == [WorkerStatus.RUNNING, WorkerStatus.RUNNING, WorkerStatus.NOT_FOUND]
    assert "known nothing of this run for 12 s" in str(told[-1].msg)


def test_a_job_that_a_new_cluster_does_not_know_is_lost_and_one_that_ended_is_said(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 20.0, 21.0, 30.0])
    launcher = launcher_at(instance, lambda: next(seconds))
    run = a_run(instance, "crops")
    answers = iter([WorkerStatus.UNKNOWN, WorkerStatus.RUNNING, WorkerStatus.UNKNOWN, WorkerStatus.FAILED, WorkerStatus.UNKNOWN])
    monkeypatch.setattr(RayRunLauncher, "check_run_worker_health", lambda *_: CheckRunHealthResult(next(answers), "no such job"))
    told = [launcher.check_run_worker_health(run).status for _ in range(5)]
    assert told[:4] == [WorkerStatus.RUNNING, WorkerStatus.RUNNING, WorkerStatus.RUNNING, WorkerStatus.FAILED]
    assert told[4] == WorkerStatus.RUNNING, "the silence begins anew once it has been broken"


def test_without_dagster_ray_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['dagster_ray'] = None; import geoloc_dagster.defs.ray_launcher"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "GEO-606 runs are to go to Ray and dagster-ray is not installed" in done.stderr
    assert "geoloc-dagster[ray]" in done.stderr
