"""What stands in for Dagster's own launcher, code server and daemon in production, asked one at a time."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.server import GrpcServerProcess

from geoloc_dagster.defs import code_server
from geoloc_dagster.defs.daemon import patiently
from geoloc_dagster.defs.launcher import HealthCheckedRunLauncher

LAUNCHER = {"module": "geoloc_dagster.defs.launcher", "class": "HealthCheckedRunLauncher", "config": {"grace_seconds": 12}}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_launcher": LAUNCHER}) as made:
        yield made


def started_run(instance: dg.DagsterInstance, port: int | None) -> dg.DagsterRun:
    """A run that says that the code server of a port has its worker."""
    tags = {} if port is None else {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": port})}
    return create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags)


def test_the_instance_takes_the_launcher_from_its_configuration(instance: dg.DagsterInstance) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, HealthCheckedRunLauncher)
    assert launcher.supports_check_run_worker_health
    assert launcher.grace_seconds == 12


def test_a_code_server_that_does_not_answer_is_given_time(instance: dg.DagsterInstance) -> None:
    run = started_run(instance, port=9)
    seconds = iter([0.0, 11.0, 12.5])
    launcher = HealthCheckedRunLauncher(grace_seconds=12, clock=lambda: next(seconds))
    launcher.register_instance(instance)
    assert [launcher.check_run_worker_health(run).status for _ in range(3)] == [
        WorkerStatus.RUNNING,
        WorkerStatus.RUNNING,
        WorkerStatus.NOT_FOUND,
    ]


def test_a_code_server_says_whether_it_has_the_worker(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    definitions = tmp_path / "definitions.py"
    definitions.write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    origin = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(definitions))
    with GrpcServerProcess(instance.get_ref(), loadable_target_origin=origin, force_port=True, wait_on_exit=True) as server:
        run = started_run(instance, port=server.port)
        told = instance.run_launcher.check_run_worker_health(run)
    assert told.status == WorkerStatus.NOT_FOUND
    assert "knows no worker" in str(told.msg)


def test_a_run_that_no_server_has_taken_is_not_running(instance: dg.DagsterInstance) -> None:
    assert instance.run_launcher.check_run_worker_health(started_run(instance, port=None)).status == WorkerStatus.NOT_FOUND


def test_a_code_server_ends_when_its_watch_has_failed() -> None:
    script = (
        "import threading, time\n"
        "from geoloc_dagster.defs import code_server\n"
        "threading.excepthook = code_server.end_with_the_watch\n"
        "def fail(): raise OSError('no database')\n"
        "threading.Thread(target=fail, name='other').start()\n"
        "time.sleep(0.5); print('still here', flush=True)\n"
        "threading.Thread(target=fail, name=code_server.WATCH).start()\n"
        "time.sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code_server.LOST_WATCH, "still here\n")
    assert "no database" in done.stderr


def test_the_watch_has_the_name_that_it_is_known_by(instance: dg.DagsterInstance) -> None:
    """Dagster may rename its thread; then the code server would outlive it again."""
    from dagster._grpc import server

    assert f'name="{code_server.WATCH}"' in Path(server.__file__).read_text()
    assert threading.excepthook is not code_server.end_with_the_watch


def test_a_retry_is_tried_until_it_works_or_patience_is_over() -> None:
    seconds, slept = itertools.count(0.0, 1.0), list[float]()
    outcomes = iter([ConnectionError("away"), ConnectionError("away"), None])

    def retry(run: str) -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return f"retried {run}"

    patient = patiently(retry, patience_s=60, pause_s=2, clock=lambda: next(seconds), sleep=slept.append)
    assert patient("a") == "retried a"
    assert slept == [2, 2]
    never = patiently(lambda: 1 / 0, patience_s=3, pause_s=2, clock=lambda: next(seconds), sleep=slept.append)
    with pytest.raises(ZeroDivisionError):
        never()


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Dagster's two questions of a retry, as the daemon asks them here; what they were asked is noted."""
    from dagster._daemon import cli
    from dagster._daemon.auto_run_reexecution import auto_run_reexecution as retries

    from geoloc_dagster.defs import daemon

    noted = SimpleNamespace(argv=None, asked=[], retried=[], failures=0)

    def retry_run(run: dg.DagsterRun, workspace: object) -> None:
        if noted.failures:
            noted.failures -= 1
            raise ConnectionError("the code server starts")
        noted.retried.append(run)

    monkeypatch.setattr(retries, "should_retry", lambda run, instance: noted.asked.append(run) or True)
    monkeypatch.setattr(retries, "retry_run", retry_run)
    for name in daemon.SWITCHES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["daemon", "run", "--workspace", "w.yaml"])
    monkeypatch.setattr(cli, "main", lambda: setattr(noted, "argv", list(sys.argv)))
    daemon.main()
    return SimpleNamespace(
        noted=noted, consume=retries.consume_new_runs_for_automatic_reexecution, should_retry=retries.should_retry
    )


def test_the_daemon_starts_with_its_switches(consumer: SimpleNamespace) -> None:
    from geoloc_dagster.defs import daemon

    assert consumer.noted.argv == ["dagster-daemon", "run", "--workspace", "w.yaml"]
    assert {name: os.environ[name] for name in daemon.SWITCHES} == daemon.SWITCHES


def test_a_retry_waits_for_the_code_server(instance: dg.DagsterInstance, consumer: SimpleNamespace) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.FAILURE)
    consumer.noted.failures = 1
    list(consumer.consume(SimpleNamespace(instance=instance), [SimpleNamespace(dagster_run=run)], logging.getLogger()))
    assert [retried.run_id for retried in consumer.noted.retried] == [run.run_id]
    assert "dagster/will_retry" not in instance.get_run_by_id(run.run_id).tags, "Dagster noted that it will not be retried"


def test_a_run_is_judged_once_its_end_has_arrived(instance: dg.DagsterInstance, consumer: SimpleNamespace) -> None:
    """The event that it has failed is read before the run says so itself."""
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    later = threading.Timer(0.5, lambda: instance.report_run_failed(run))
    later.start()
    assert consumer.should_retry(run, instance)
    later.join()
    assert [asked.status for asked in consumer.noted.asked] == [dg.DagsterRunStatus.FAILURE]


def test_a_run_that_does_not_end_is_not_waited_for_for_ever(instance: dg.DagsterInstance) -> None:
    from geoloc_dagster.defs.daemon import settled

    run, slept = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED), list[float]()
    assert settled(run, instance, wait_s=1, sleep=slept.append).status == dg.DagsterRunStatus.STARTED
    assert sum(slept) == pytest.approx(1)


def test_dagster_knows_the_switches_of_the_daemon() -> None:
    from dagster._core.execution import asset_backfill
    from dagster._daemon import backfill

    from geoloc_dagster.defs import daemon

    known = Path(asset_backfill.__file__).read_text() + Path(backfill.__file__).read_text()
    assert [name for name in daemon.SWITCHES if f'"{name}"' not in known] == []


def test_trainings_are_logged_where_the_environment_says(tmp_path: Path) -> None:
    from geoloc_dagster.config import Layout
    from geoloc_dagster.defs.build import _mlflow

    region = SimpleNamespace(layout=Layout(tmp_path), model_name="geoloc-oslo")
    alone = _mlflow(region, {})
    assert (alone.tracking_uri, alone.artifact_location) == (Layout(tmp_path).mlflow_uri, str(Layout(tmp_path).mlflow_artifacts))
    server = _mlflow(region, {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "GEOLOC_MLFLOW_PAGE": "http://localhost:8081"})
    assert (server.tracking_uri, server.artifact_location, server.page) == ("http://mlflow:5000", None, "http://localhost:8081")
