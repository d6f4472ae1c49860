"""Group `release`: the champions, and what they become: vectors, an index, exports."""

import dagster as dg

from geoloc_dagster.defs.automation import fan_in_condition, refresh_condition
from geoloc_dagster.defs.checks import drift_check, drift_check_spec
from geoloc_dagster.defs.freshness import imagery_policy
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Mlflow, Scale
from geoloc_dagster.prediction.parts import KINDS


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region; vectors and index only where a recipe makes them."""
    settings = region.settings
    size_check = dg.AssetCheckSpec(
        "size", asset=region.key("faiss_index"), blocking=True, description="The index holds one vector per usable row."
    )
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

    @region.asset(
        "release",
        deps=["crops", region.unpartitioned("champion")],
        partitions_def=region.batches,
        automation_condition=refresh_condition(),
        kinds={"lance", "pytorch"},
    )
    def embeddings(context: dg.AssetExecutionContext, scale: dg.ResourceParam[Scale]) -> dg.MaterializeResult:
        """One vector per crop of the champion and of its ensemble, one batch replaced per commit of a Lance table."""
        from geoloc_dagster.prediction.champion import embed_champion
        from geoloc_dagster.prediction.ensemble import embed_members

        layout, batch, progress, engine = region.layout, context.partition_key, reporter(context), scale.engine()
        result = embed_champion(layout, batch, progress, engine)
        beside = embed_members(layout, settings.fusion.ensemble, batch, progress, engine=engine)
        return dg.MaterializeResult(
            metadata=facts(
                result.rows,
                layout.embeddings,
                partitioned=True,
                model_version=result.model_version,
                table_version=result.table_version,
                ensemble=beside,
            )
        )

    @region.asset(
        "release",
        deps=["crops"],
        partitions_def=region.batches,
        automation_condition=refresh_condition(),
        kinds={"lance"},
    )
    def local_features(context: dg.AssetExecutionContext, scale: dg.ResourceParam[Scale]) -> dg.MaterializeResult:
        """By what crops are compared feature by feature (SIFT), one batch replaced per commit of a Lance table."""
        from geoloc_dagster.retrieval.local_table import make_local_features

        layout, batch, engine = region.layout, context.partition_key, scale.engine()
        made = make_local_features(layout.crops, layout.local_features, batch, progress=reporter(context), engine=engine)
        return dg.MaterializeResult(
            metadata=facts(
                made.rows, layout.local_features, partitioned=True, features=made.features, table_version=made.table_version
            )
        )

    has_index = bool(region.recipes_of("retrieval"))
    verified = [local_features] if has_index and settings.fusion.verify else []

    @region.asset(
        "release",
        deps=[region.all_of("embeddings"), *(region.all_of("local_features") for _ in verified), "catalog"],
        checks=[size_check],
        automation_condition=fan_in_condition(region, "embeddings", *("local_features" for _ in verified)),
        freshness_policy=imagery_policy(region),
        kinds={"faiss"},
    )
    def faiss_index(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The champion's vectors of all usable rows as a FAISS index with its row table and manifest; refuses mixed models."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.prediction.champion import read_champion
        from geoloc_dagster.prediction.ensemble import index_members
        from geoloc_dagster.retrieval.index import build_index
        from geoloc_dagster.retrieval.index_planner import PlanSettings
        from geoloc_dagster.storage import read_parquet
        from geoloc_dagster.tables import table_version
        from geoloc_dagster.viz.overview import gallery_map

        layout = region.layout
        catalog = read_parquet(layout.catalog)
        version = table_version(layout.embeddings)
        plan = PlanSettings(settings.index.recall, settings.index.exact_below_mb * 10**6)
        local = layout.local_features if verified else None
        champion = read_champion(layout).model_version
        result = build_index(layout.embeddings, catalog, champion, layout.indexes, plan=plan, local_features=local)
        index_members(layout, settings.fusion.ensemble, catalog, plan)
        check = dg.AssetCheckResult(
            check_name="size", passed=result.vectors == result.rows, metadata={"vectors": result.vectors, "rows": result.rows}
        )
        return dg.MaterializeResult(
            metadata=facts(
                result.rows,
                result.folder,
                image=gallery_map(read_boundary(layout.boundary), read_parquet(result.folder / "rows.parquet")),
                model_version=result.model_version,
                bytes=result.bytes,
                dimension=result.dimension,
                embeddings_version=version,
                kind=result.plan.kind,
                chosen_because=result.plan.reason,
            ),
            check_results=[check],
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

    return [champion, *([embeddings, *verified, faiss_index] if has_index else []), onnx_models]
