"""Where a training is logged: one MLflow run, opened before the training and ended with it. MLflow is imported lazily."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from pytorch_lightning.loggers import MLFlowLogger

_SERVER_VARIABLE = "MLFLOW_TRACKING_URI"
_LOCAL_UI = "http://127.0.0.1:5000"


@dataclass(frozen=True, slots=True)
class MlflowTarget:
    """A run of an MLflow experiment.

    Attributes:
        tracking_uri: of the server or database.
        experiment: its name; made if it does not exist.
        run_id: go on logging to this run; a new one without it.
        tags: of the run.
        url: of the run in the user interface; empty where there is no run yet.
    """

    tracking_uri: str
    experiment: str
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    url: str = ""

    def logger(self) -> MLFlowLogger:
        """A Lightning logger that writes there."""
        from pytorch_lightning.loggers import MLFlowLogger

        return MLFlowLogger(
            experiment_name=self.experiment,
            tracking_uri=self.tracking_uri,
            run_id=self.run_id,
            tags=dict(self.tags),
        )


@contextlib.contextmanager
def tracked_run(
    tracking_uri: str,
    experiment: str,
    artifact_location: str | None,
    name: str,
    tags: Mapping[str, str],
    *,
    page: str | None = None,
) -> Generator[MlflowTarget]:
    """Open a run and end it as FINISHED, or as FAILED where the block raises or is interrupted.

    Args:
        tracking_uri: of the server, or `sqlite:///…` of a database whose folder is made if needed.
        experiment: made, with this artifact location, if it does not exist.
        artifact_location: URI or folder of the experiment's files; None where the server knows.
        name: of the run.
        tags: of the run, e.g. the orchestrator's run id.
        page: address of the user interface, where it is not the server's own.
    """
    from mlflow import MlflowClient
    from mlflow.entities import RunStatus

    _make_database_folder(tracking_uri)
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment_id = _experiment_id(client, experiment, artifact_location)
    run_id = client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id
    base = (page or (tracking_uri if tracking_uri.startswith("http") else _LOCAL_UI)).rstrip("/")
    url = f"{base}/#/experiments/{experiment_id}/runs/{run_id}"
    status = RunStatus.FAILED
    with _environment_kept(_SERVER_VARIABLE):
        try:
            yield MlflowTarget(tracking_uri, experiment, run_id, dict(tags), url)
            status = RunStatus.FINISHED
        finally:
            client.set_terminated(run_id, RunStatus.to_string(status))


def attach_results(tracking_uri: str, run_id: str, metrics: Mapping[str, float], files: Path | None = None) -> None:
    """Add figures and files to a run that has ended, e.g. an evaluation to its training.

    Args:
        tracking_uri: as for `tracked_run`.
        run_id: of the run.
        metrics: finite numbers by name.
        files: a file or a folder; a folder's content lands below `evaluation/`.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    for name, value in metrics.items():
        client.log_metric(run_id, name.replace("@", "_at_"), float(value))
    if files is not None and files.is_dir():
        client.log_artifacts(run_id, str(files), artifact_path="evaluation")
    elif files is not None:
        client.log_artifact(run_id, str(files), artifact_path="evaluation")


@contextlib.contextmanager
def _environment_kept(variable: str) -> Generator[None]:
    """Leave a variable as it was: Lightning's logger sets it for good, and the next region of this process has another server."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before


def _experiment_id(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifact_location))


def _make_database_folder(tracking_uri: str) -> None:
    scheme, _, path = tracking_uri.partition(":///")
    if scheme == "sqlite" and path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
