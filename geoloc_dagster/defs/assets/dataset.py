"""Group `dataset`: the feature table that trainings, evaluations and the index read."""

import dagster as dg

from geoloc_dagster.defs.automation import fan_in_condition
from geoloc_dagster.defs.freshness import imagery_policy
from geoloc_dagster.defs.metadata import facts, flatten
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this group for one region."""
    settings = region.settings
    leakage = dg.AssetCheckSpec(
        "leakage",
        asset=region.key("catalog"),
        blocking=True,
        description="No location, panorama, near-duplicate picture or, divided by them, creator is in two splits.",
    )

    @region.asset(
        "dataset",
        deps=[region.all_of("crops")],
        checks=[leakage],
        automation_condition=fan_in_condition(region, "crops"),
        freshness_policy=imagery_policy(region),
        kinds={"parquet"},
    )
    def catalog(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """One row per crop: place, view, date, split, query or not, usable or not, and the flags found by comparison."""
        from geoloc_dagster.dataset.assembly import assemble_catalog
        from geoloc_dagster.viz.overview import splits_map

        made = assemble_catalog(settings, region.layout, progress=reporter(context))
        check = dg.AssetCheckResult(
            check_name="leakage",
            passed=made.leaks.empty,
            description=str(made.leak_error()) if len(made.leaks) else None,
            metadata={"pairs": len(made.leaks), "examples": dg.MetadataValue.json(made.examples)},
        )
        return dg.MaterializeResult(
            metadata=facts(
                made.catalog.num_rows,
                region.layout.catalog,
                image=splits_map(made.boundary, made.catalog),
                crops_version=made.crops_version,
                **flatten({name: count for name, count in made.counts.items() if name != "rows"}),
            ),
            check_results=[check],
        )

    return [catalog]
