"""Group `release`: the champions, and their exports."""

import dagster as dg

from geoloc_dagster.defs.automation import fan_in_condition, refresh_condition
from geoloc_dagster.defs.checks import drift_check, drift_check_spec
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Mlflow
from geoloc_dagster.prediction.parts import KINDS


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region."""
    settings = region.settings
    exported_check = dg.AssetCheckSpec(
        "exported", asset=region.key("onnx_models"), description="Every model has an export; one without is served through torch."
    )

    @region.asset(
        "release",
        deps=[region.all_of("evaluations")],
        checks=[drift_check_spec(region)],
        automation_condition=fan_in_condition(region, "evaluations"),
        kinds={"mlflow"},
    )
    def champion(context: dg.AssetExecutionContext, mlflow: Mlflow, clock: Clock) -> dg.MaterializeResult:
        """The promoted checkpoint of each kind: the first automatically, later ones only through the evaluation gates."""
        from geoloc_dagster.prediction.promotion import gate_settings, promote_kinds

        said: dict[str, str | None] = {}
        recipes = {kind: region.recipes_of(kind) for kind in KINDS}
        outcomes = promote_kinds(region.layout, recipes, now=clock.now(), settings=gate_settings(settings.promotion))
        for kind, outcome in outcomes.items():
            suffix = "" if kind == "retrieval" else f"_{kind}"
            name = f"{region.model_name}{suffix.replace('_', '-')}"
            said[f"model_version{suffix}"] = outcome.champion.model_version
            said[f"promoted{suffix}"] = str(outcome.promoted)
            said[f"reason{suffix}"] = outcome.reason
            said[f"mlflow_model_version{suffix}"] = mlflow.set_champion(name, outcome.champion)  # also where a kill came between
        return dg.MaterializeResult(
            metadata=facts(len(outcomes), region.layout.checkpoints, **said), check_results=[drift_check(region)]
        )

    @region.asset("release", deps=["champion"], checks=[exported_check], automation_condition=refresh_condition(), kinds={"onnx"})
    def onnx_models(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The champions and their ensemble as ONNX files that answer as they do, so that whatever serves them needs no torch."""
        from geoloc_dagster.prediction.onnx_exports import export_served

        exports = export_served(region.layout, settings.fusion.ensemble, progress=reporter(context))
        difference = max(exports.made.values(), default=None)
        folder = region.layout.onnx_models
        check = dg.AssetCheckResult(
            check_name="exported", passed=not exports.refused, severity=dg.AssetCheckSeverity.WARN, metadata={**exports.refused}
        )
        return dg.MaterializeResult(
            metadata=facts(len(exports.made), folder, bytes=exports.bytes, largest_difference=difference), check_results=[check]
        )

    return [champion, onnx_models]
