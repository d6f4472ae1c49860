"""A training as an asset sees it: in this process on one device, by processes that torchrun starts on several."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dagster as dg

from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.learning.recipe import AnyRecipe

if TYPE_CHECKING:
    from geoloc_dagster.config import Layout
    from geoloc_dagster.learning.loop import TrainedModel
    from geoloc_dagster.learning.tracking import MlflowTarget

MODULE = "geoloc_dagster.training_process"
STEP_VARIABLE = "GEOLOC_STEP_PID"  # by which it notices that this process is gone


def train_anywhere(
    context: dg.AssetExecutionContext,
    pipes: dg.PipesSubprocessClient,
    recipe: AnyRecipe,
    layout: Layout,
    *,
    mlflow: MlflowTarget,
    resume: bool,
    **options: Any,
) -> TrainedModel:
    """Train where the recipe's `compute` says; raises as the training does, wherever it runs."""
    from geoloc_dagster.learning.dispatch import train_recipe

    if recipe.compute.processes == 1:
        return train_recipe(recipe, layout, mlflow=mlflow, resume=resume, progress=reporter(context), **options)
    from geoloc_dagster.learning.jobs import TrainingJob, result_of, torchrun_command, write_job
    from geoloc_dagster.learning.loop import read_trained

    job = TrainingJob(recipe, layout.root, mlflow, resume, options["provenance"])
    job_file = write_job(layout.checkpoints / recipe.name / f".job-{recipe.recipe_hash()}", job)
    command = torchrun_command(job_file, recipe.compute, MODULE)
    context.log.info("training on %s devices: %s", recipe.compute.processes, " ".join(command))
    try:
        pipes.run(context=context, command=command, env=_environment(recipe.compute.devices))
    except dg.DagsterError:
        result_of(job_file)  # raises what its processes raised, where they could say it
        raise
    return read_trained(result_of(job_file), recipe)


def _environment(devices: int) -> dict[str, str]:
    """The cores of this machine are shared out, where nobody has said otherwise; torchrun would give each process one."""
    threads = max(1, (os.cpu_count() or 1) // devices)
    return {STEP_VARIABLE: str(os.getpid()), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
