"""Groups `coverage` and `buffers`: where street views exist, and which of those locations are collected, in which batches."""

import asyncio
from dataclasses import asdict

import dagster as dg

from geoloc_dagster.defs.automation import after_checks_condition
from geoloc_dagster.defs.checks import cells_check, cells_check_spec, coverage_complete, spacing_check
from geoloc_dagster.defs.freshness import lookups_policy
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Imagery


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of these groups for one region."""
    settings = region.settings
    buffer_checks = [
        dg.AssetCheckSpec("spacing", asset=region.key("buffer_csvs"), description="Locations of a series keep their distance."),
        dg.AssetCheckSpec(
            "inside_boundary", asset=region.key("buffer_csvs"), description="Every location is inside the polygon."
        ),
    ]

    every, cells = "Every grid point has been looked up.", list[str]()
    if settings.grid_cells is not None:
        cells = ["grid_cells"]
        buffer_checks.append(cells_check_spec(region))
        every = "Every cell has its sample, or its points are used up."
    coverage_check = dg.AssetCheckSpec("complete", asset=region.key("street_view_metadata"), description=every)

    @region.asset(
        "coverage",
        deps=["grid_points"],
        checks=[coverage_check],
        pool=region.service_pool(settings.coverage.provider),
        freshness_policy=lookups_policy(region),
        kinds={"lance"},
    )
    def street_view_metadata(
        context: dg.AssetExecutionContext, imagery: dg.ResourceParam[Imagery], clock: Clock
    ) -> dg.MaterializeResult:
        """One row per lookup, nearest to the start first: panorama, position and date, or the negative answer, which expires."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.imagery.coverage import count_lookups, import_region_lookups, read_lookups
        from geoloc_dagster.imagery.lookups import LookupRun, look_up_region
        from geoloc_dagster.viz.overview import coverage_map

        layout, now = region.layout, clock.now()
        if settings.coverage.provider == "csv":
            run = LookupRun(asked=import_region_lookups(settings, layout, now=now))
        else:
            run = asyncio.run(look_up_region(settings, layout, imagery.coverage(), now=now, progress=reporter(context)))
        counts = count_lookups(layout.street_view_metadata)
        return dg.MaterializeResult(
            metadata=facts(
                counts.rows_total,
                layout.street_view_metadata,
                image=coverage_map(read_boundary(layout.boundary), read_lookups(layout.street_view_metadata)),
                rows_new=run.asked,
                covered=counts.covered,
                not_looked_up=run.left,
                stopped=run.stopped,
                table_version=counts.table_version,
                **{f"failed_{kind}": count for kind, count in run.failures_by_kind.items()},
            ),
            check_results=[coverage_complete(region, run.left)],
        )

    @region.asset(
        "buffers",
        deps=["region_boundary", *cells, "street_view_metadata"],
        checks=buffer_checks,
        automation_condition=after_checks_condition(),
        kinds={"csv", "geoparquet"},
    )
    def buffer_csvs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Ranked locations at least X m from every registered one, as CSV per spacing and one GeoParquet; registers batches."""
        from geoloc_dagster.dataset.registration import register_locations
        from geoloc_dagster.viz.overview import locations_map

        registration = register_locations(settings, region.layout)
        keys = registration.batch_keys
        context.instance.add_dynamic_partitions(region.batches.name or "", keys)
        return dg.MaterializeResult(
            metadata=facts(
                len(registration.locations),
                region.layout.locations,
                image=locations_map(registration.boundary, registration.locations),
                batches=len(keys),
                locations_new=registration.new,
                bad_rows=registration.bad_rows or None,
                bad_scenes=registration.bad_scenes or None,
                **{f"locations_{series}": count for series, count in registration.per_series.items()},
                **({} if registration.cells is None else asdict(registration.cells)),
            ),
            check_results=[*spacing_check(region, registration), *cells_check(region, registration)],
        )

    return [street_view_metadata, buffer_csvs]
