"""A training that other processes run: what they are to do, how they are started, and what came of it. Cheap to import."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoloc_dagster import errors
from geoloc_dagster.errors import GeolocError, IntegrityError
from geoloc_dagster.learning.recipe import AnyRecipe, parse_recipe
from geoloc_dagster.learning.recipe_parts import ComputeSpec
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import read_json, write_json

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything that the processes of one training need to know.

    Attributes:
        recipe: what to train.
        data_root: of the region.
        mlflow: where to log; nowhere without it.
        resume: go on from the last checkpoint.
        provenance: facts of the upstream.
    """

    recipe: AnyRecipe
    data_root: Path
    mlflow: MlflowTarget | None
    resume: bool
    provenance: Mapping[str, Any]


def write_job(folder: Path, job: TrainingJob) -> Path:
    """Write a job into a folder of its own, from which what came of an earlier one is taken away; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT_FILE, FAILURE_FILE):
        (folder / name).unlink(missing_ok=True)
    said = {
        "recipe": job.recipe.to_yaml(),
        "data_root": str(job.data_root),
        "mlflow": None if job.mlflow is None else asdict(job.mlflow),
        "resume": job.resume,
        "provenance": dict(job.provenance),
    }
    write_json(folder / JOB_FILE, said)
    return folder / JOB_FILE


def read_job(path: Path) -> TrainingJob:
    """The job of a file.

    Raises:
        IntegrityError: it cannot be read.
        RecipeError: its recipe is wrong.
    """
    said = read_json(path)
    mlflow = said["mlflow"]
    return TrainingJob(
        recipe=parse_recipe(said["recipe"], path),
        data_root=Path(said["data_root"]),
        mlflow=None if mlflow is None else MlflowTarget(**mlflow),
        resume=bool(said["resume"]),
        provenance=said["provenance"],
    )


def torchrun_command(job_file: Path, compute: ComputeSpec, module: str) -> list[str]:
    """What starts the processes of this machine; on the others of several the same."""
    several = ["--nnodes", str(compute.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", str(compute.rendezvous)]
    where = ["--standalone"] if compute.nodes == 1 else [*several, "--rdzv-id", job_file.parent.name]
    start = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(compute.devices)]
    return [*start, "-m", module, str(job_file)]


def failure_facts(error: GeolocError) -> dict[str, str]:
    """An error as another process can raise it again."""
    return {"code": error.code, "cause": error.cause, "remedy": error.remedy}


def result_of(job_file: Path) -> Path:
    """The folder of the model that a job has left.

    Raises:
        GeolocError: what its processes raised, as its own kind.
        IntegrityError: they left nothing.
    """
    failure = job_file.parent / FAILURE_FILE
    if failure.is_file():
        said = read_json(failure)
        kinds = {kind.code: kind for kind in _kinds(GeolocError)}
        raise kinds.get(said["code"], errors.GeolocError)(said["cause"], said["remedy"])
    if not (job_file.parent / RESULT_FILE).is_file():
        raise IntegrityError(
            f"the processes of {job_file} ended without a model", "Read their output above; the next attempt goes on from there."
        )
    return Path(read_json(job_file.parent / RESULT_FILE)["folder"])


def _kinds(kind: type[GeolocError]) -> list[type[GeolocError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in _kinds(below))]
