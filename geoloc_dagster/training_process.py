"""A training on several devices, one process for each, started by torchrun outside the step that waits for it.

    torchrun --standalone --nproc-per-node 4 -m geoloc_dagster.training_process JOB

The asset `checkpoints` writes the job and starts this where a recipe's `compute` asks for more than one device. The first process
tells Dagster through Pipes how far it is; what came of it lies beside the job, `result.json` or `failure.json`. With several
machines the same command, which the asset logs, is to be started on each of the others.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dagster_pipes import PipesContext, open_dagster_pipes

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.learning.dispatch import train_recipe
from geoloc_dagster.learning.jobs import FAILURE_FILE, RESULT_FILE, failure_facts, read_job
from geoloc_dagster.learning.loop import TrainedModel, is_first_process
from geoloc_dagster.storage import write_json

_LOG_INTERVAL_S, _LOOK_S = 10.0, 1.0
STEP_VARIABLE = "GEOLOC_STEP_PID"


def run(job_file: Path, progress: Callable[[int, int], None] | None = None) -> TrainedModel:
    """Train this process's share of a job.

    Raises:
        GeolocError: as the training does; what and why is written beside the job as well.
    """
    job = read_job(job_file)
    try:
        model = train_recipe(
            job.recipe,
            Layout(job.data_root),
            mlflow=job.mlflow,
            resume=job.resume,
            progress=progress,
            provenance=job.provenance,
            now=lambda: dt.datetime.now(dt.UTC),
        )
    except GeolocError as error:
        write_json(job_file.parent / FAILURE_FILE, failure_facts(error))
        raise
    if is_first_process():
        write_json(job_file.parent / RESULT_FILE, {"folder": str(model.folder)})
    return model


def main() -> None:
    """Run the job that is named, and tell Dagster of it where it has started this."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    threading.Thread(target=_end_with_the_step, daemon=True).start()
    job_file = Path(sys.argv[1])
    try:
        if not is_first_process():
            run(job_file)
            return
        with open_dagster_pipes() as pipes:
            model = run(job_file, _reporter(pipes))
            pipes.log.info("%s has learned from %s pictures", model.model_version, f"{model.rows:,}")
    except GeolocError as error:
        sys.exit(str(error))


def _reporter(pipes: PipesContext) -> Callable[[int, int], None]:
    """A line in Dagster's log every ten seconds at most, since that log is never purged."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_INTERVAL_S or done == total:
            last = time.monotonic()
            pipes.log.info("%s of %s", f"{done:,}", f"{total:,}")

    return progress


def _end_with_the_step() -> None:
    """A step that is killed leaves nobody behind who would train beside its successor."""
    pid = os.environ.get(STEP_VARIABLE)
    while pid is not None:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    main()
