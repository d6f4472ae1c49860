"""Group `release`: what pictures are found by, and the index of it."""

import dagster as dg

from geoloc_dagster.defs.automation import fan_in_condition, refresh_condition
from geoloc_dagster.defs.freshness import imagery_policy
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Scale


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region; none where no recipe makes vectors."""
    settings = region.settings
    if not region.recipes_of("retrieval"):
        return []
    size_check = dg.AssetCheckSpec(
        "size", asset=region.key("faiss_index"), blocking=True, description="The index holds one vector per usable row."
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

    verified = [local_features] if settings.fusion.verify else []

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

    return [embeddings, *verified, faiss_index]
