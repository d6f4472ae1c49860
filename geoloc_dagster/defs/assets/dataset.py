"""Group `dataset`: the feature table that trainings, evaluations and the index read."""

import dagster as dg

from geoloc_dagster.defs.automation import fan_in_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this group for one region."""
    settings = region.settings
    leakage = dg.AssetCheckSpec(
        "leakage",
        asset=region.key("catalog"),
        blocking=True,
        description="No location, panorama or near-duplicate picture is in two splits.",
    )

    @region.asset(
        "dataset",
        deps=[region.all_of("crops")],
        checks=[leakage],
        automation_condition=fan_in_condition(region, "crops"),
        kinds={"parquet"},
    )
    def catalog(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """One row per crop: place, view, date, split, query or not, usable or not, and the flags found by comparison."""
        from geoloc_dagster.dataset.assembly import assemble_catalog
        from geoloc_dagster.viz.maps import splits_map

        result = assemble_catalog(settings, region.layout, progress=reporter(context))
        check = dg.AssetCheckResult(
            check_name="leakage",
            passed=not len(result.leaks),
            metadata={"pairs": len(result.leaks), "dropped": result.dropped, "examples": dg.MetadataValue.json(result.examples)},
        )
        return dg.MaterializeResult(
            metadata=facts(
                result.rows,
                region.layout.catalog,
                image=splits_map(result.boundary, result.locations),
                crops_version=result.crops_version,
                **result.counts,
            ),
            check_results=[check],
        )

    return [catalog]
