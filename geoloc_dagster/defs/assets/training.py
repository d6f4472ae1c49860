"""Groups `training` and `evaluation`: one checkpoint and one honest report per recipe."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from geoloc_dagster.defs.automation import refresh_condition
from geoloc_dagster.defs.metadata import facts, flatten
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Mlflow
from geoloc_dagster.defs.training_process import train_anywhere

if TYPE_CHECKING:
    from geoloc_dagster.learning.loop import TrainedModel


class TrainingConfig(dg.Config):
    """How one training is run; shown in the Launchpad."""

    resume: bool = True
    """Go on with a training that was interrupted; take a finished one where nothing that it was made from has changed."""


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of these groups for one region."""
    settings = region.settings
    labels = [] if settings.cells is None else [region.unpartitioned("s2_partitions"), region.unpartitioned("cell_labels")]
    labels += [] if settings.grid_cells is None else [region.unpartitioned("grid_cells")]
    labels += [] if settings.scenes is None else [region.all_of("scene_labels")]
    labels += [] if settings.segmentation is None else [region.all_of("segmentation_maps")]

    @region.asset(
        "training",
        deps=[region.unpartitioned("catalog"), *labels],
        partitions_def=region.recipes,
        pool=f"{region.name}_training",
        kinds={"pytorch", "mlflow"},
    )
    def checkpoints(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        mlflow: Mlflow,
        clock: Clock,
        pipes: dg.ResourceParam[dg.PipesSubprocessClient],
    ) -> dg.MaterializeResult:
        """A trained model per recipe: weights, recipe, and the rows and table versions that it saw, under one manifest."""
        from geoloc_dagster.learning.dispatch import finished_model, provenance_of
        from geoloc_dagster.learning.recipe import load_recipe

        layout = region.layout
        recipe = load_recipe(context.partition_key, settings.folder)
        provenance = provenance_of(layout, recipe)
        finished = finished_model(recipe, layout, provenance) if config.resume else None
        if finished is not None:
            return _trained(finished, as_before=f"trained from the same before, {finished.finished_at:.16}")
        provenance["dagster_run_id"] = context.run_id
        with mlflow.run(f"{recipe.name}", mlflow_tags(context)) as target:
            model = train_anywhere(
                context, pipes, recipe, layout, mlflow=target, resume=config.resume, provenance=provenance, now=clock.now
            )
        return _trained(model, mlflow_url=dg.MetadataValue.url(target.url))

    @region.asset(
        "evaluation",
        deps=["checkpoints", region.unpartitioned("catalog")],
        partitions_def=region.recipes,
        automation_condition=refresh_condition(),
        kinds={"parquet", "json"},
    )
    def evaluations(context: dg.AssetExecutionContext, mlflow: Mlflow) -> dg.MaterializeResult:
        """Recall on the held-out splits with intervals by place, against baselines, by year, district and flags; pictures."""
        from geoloc_dagster.evaluation.dispatch import evaluate_any
        from geoloc_dagster.evaluation.summary import headline

        report = evaluate_any(settings, region.layout, context.partition_key, progress=reporter(context))
        figures = headline(report.metrics)
        mlflow.attach(report.mlflow_run_id, report.folder, figures)
        return dg.MaterializeResult(
            metadata=facts(
                report.queries,
                report.folder,
                image=report.sheet,
                partitioned=True,
                model_version=report.model_version,
                **figures,
            )
        )

    return [checkpoints, evaluations]


def _trained(model: "TrainedModel", **more: Any) -> dg.MaterializeResult:
    figures = {"trained_on_rows": model.rows, "seconds": model.seconds, "epochs": model.epochs, **flatten(model.metrics)}
    ids = {"model_version": model.model_version, "mlflow_run_id": model.mlflow_run_id}
    return dg.MaterializeResult(metadata=facts(model.rows, model.folder, partitioned=True, **ids, **figures, **more))


def mlflow_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """How an MLflow run finds the Dagster run that made it."""
    return {
        "dagster.run_id": context.run_id,
        "dagster.asset": context.asset_key.to_user_string(),
        "dagster.partition": context.partition_key,
        "dagster.url": f"http://127.0.0.1:3000/runs/{context.run_id}",
    }
