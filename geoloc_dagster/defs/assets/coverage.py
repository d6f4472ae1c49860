"""Groups `coverage` and `buffers`: where street views exist, and which of those locations are collected, in which batches."""

import dagster as dg

from geoloc_dagster.defs.checks import spacing_check
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of these groups for one region."""
    settings = region.settings
    buffer_checks = [
        dg.AssetCheckSpec("spacing", asset=region.key("buffer_csvs"), description="Locations of a series keep their distance."),
        dg.AssetCheckSpec(
            "inside_boundary", asset=region.key("buffer_csvs"), description="Every location is inside the polygon."
        ),
    ]

    @region.asset("coverage", deps=["grid_points"], kinds={"lance"})
    def street_view_metadata(context: dg.AssetExecutionContext, clock: Clock) -> dg.MaterializeResult:
        """One row per lookup: panorama, position and date, or the negative answer; append-only Lance table."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.imagery.coverage import import_lookups, read_lookups
        from geoloc_dagster.viz.overview import coverage_map

        coverage = settings.coverage
        counts = import_lookups(
            [settings.resolve(path) for path in coverage.files],
            [settings.resolve(path) for path in coverage.negatives],
            region.layout.street_view_metadata,
            start_point=settings.region.start_point,
            now=clock.now(),
        )
        return dg.MaterializeResult(
            metadata=facts(
                counts.rows_total,
                region.layout.street_view_metadata,
                image=coverage_map(read_boundary(region.layout.boundary), read_lookups(region.layout.street_view_metadata)),
                rows_new=counts.rows_new,
                covered=counts.covered,
                table_version=counts.table_version,
            )
        )

    @region.asset("buffers", deps=["region_boundary", "street_view_metadata"], checks=buffer_checks, kinds={"csv", "geoparquet"})
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
                **{f"locations_{series}": count for series, count in registration.per_series.items()},
            ),
            check_results=spacing_check(region, registration),
        )

    return [street_view_metadata, buffer_csvs]
