"""Groups `collection` and `imagery`: the pictures of each batch, as captured and as crops."""

import asyncio

import dagster as dg

from geoloc_dagster.defs.automation import WHY, refresh_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Imagery, Scale


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of these groups for one region."""
    settings = region.settings

    @region.asset(
        "collection",
        name=region.pictures,
        deps=[region.unpartitioned("buffer_csvs")],
        partitions_def=region.batches,
        pool=region.service_pool(settings.capture.provider),
        kinds={"lance"},
    )
    def pictures(context: dg.AssetExecutionContext, imagery: dg.ResourceParam[Imagery], clock: Clock) -> dg.MaterializeResult:
        """One row per captured view with bytes, place, date, heading, licence and checksum; append-only Lance table."""
        from geoloc_dagster.imagery.collect import collect_region_batch
        from geoloc_dagster.imagery.factory import budget_facts
        from geoloc_dagster.viz.overview import batch_sheet

        result = asyncio.run(
            collect_region_batch(
                settings,
                region.layout,
                imagery.provider(),
                context.partition_key,
                run_id=context.run_id,
                now=clock.now(),
                progress=reporter(context),
            )
        )
        return dg.MaterializeResult(
            metadata=facts(
                result.rows_total,
                region.layout.panoramas,
                image=batch_sheet(region.layout.panoramas, context.partition_key),
                partitioned=True,
                why=context.run.tags.get(WHY),
                **result.facts(),
                **budget_facts(settings, clock.now().date()),
            )
        )

    @region.asset(
        "imagery",
        deps=[region.pictures],
        partitions_def=region.batches,
        automation_condition=refresh_condition(),
        code_version="1",
        kinds={"lance"},
    )
    def crops(context: dg.AssetExecutionContext, scale: dg.ResourceParam[Scale]) -> dg.MaterializeResult:
        """Quality-checked square crops, stored encoded, with their flags; one batch replaced per commit of a Lance table."""
        from geoloc_dagster.dataset.crops import write_crops
        from geoloc_dagster.viz.overview import batch_sheet

        layout, engine = region.layout, scale.engine()
        result = write_crops(
            layout.panoramas, layout.crops, context.partition_key, settings.crops, progress=reporter(context), engine=engine
        )
        return dg.MaterializeResult(
            metadata=facts(
                result.rows,
                layout.crops,
                image=batch_sheet(layout.crops, context.partition_key),
                partitioned=True,
                decodable_share=result.decodable_share,
                table_version=result.table_version,
                **{f"flag_{flag}": count for flag, count in result.flags.items()},
            )
        )

    return [pictures, crops]
