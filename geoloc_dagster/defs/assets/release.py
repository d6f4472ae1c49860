"""Group `release`: all experts on one grid, what is released, and where it is served."""

import dagster as dg

from geoloc_dagster.defs.automation import index_first_condition, refresh_condition
from geoloc_dagster.defs.freshness import imagery_policy
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region."""
    settings = region.settings
    index = ["faiss_index"] if region.recipes_of("retrieval") else []

    @region.asset(
        "release",
        deps=[*index, "champion", "catalog"],
        automation_condition=index_first_condition(region),
        kinds={"parquet", "json"},
    )
    def fusion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """All experts on one grid: weights and calibration fitted on dev, each expert and all together measured on test."""
        from geoloc_dagster.evaluation.fusion_report import headline_of
        from geoloc_dagster.prediction.fusing import make_fusion

        made = make_fusion(settings, region.layout, progress=reporter(context))
        if made.folder is None:
            context.log.warning("no fusion, so that answers are not calibrated: %s", made.reason)
            return dg.MaterializeResult(metadata=facts(0, region.layout.fusions, status="none", reason=made.reason))
        weights = {f"weight_{name}": weight for name, weight in made.weights.items()}
        figures = headline_of(made.report)
        return dg.MaterializeResult(
            metadata=facts(made.questions, made.folder, image=made.picture, status="made", **weights, **figures)
        )

    @region.asset(
        "release",
        deps=[*index, "champion", "onnx_models", "fusion", "model_card", "data_card"],
        automation_condition=index_first_condition(region),
        freshness_policy=imagery_policy(region),
        kinds={"json"},
    )
    def release(context: dg.AssetExecutionContext, clock: Clock) -> dg.MaterializeResult:
        """An immutable manifest of models, index, catalog and cards by sha256; one pointer moves; prediction reads only this."""
        from geoloc_dagster.prediction.release import publish_release

        published = publish_release(region.layout, region=region.name, config_hash=settings.config_hash(), now=clock.now())
        return dg.MaterializeResult(
            metadata=facts(published.rows, published.folder, release=published.release_id, model_version=published.model_version)
        )

    @region.asset("release", deps=["release"], automation_condition=refresh_condition(), kinds={"json"})
    def explorer_deployment(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The explorers that run serve the release; fails where one does not, and says why."""
        from geoloc_dagster.explorer.deployment import await_served
        from geoloc_dagster.prediction.release import served_id

        said, folder = settings.explorer, region.layout.releases
        release_id = served_id(region.layout)
        served = await_served(said.urls, release_id, most_s=said.patience_seconds)
        seconds = {f"seconds_{number}": one.seconds for number, one in enumerate(served)}
        return dg.MaterializeResult(metadata=facts(len(served), folder, release=release_id, urls=said.urls, **seconds))

    return [fusion, release, *([explorer_deployment] if settings.explorer.urls else [])]
