"""Group `region`: the place itself, as a validated polygon and the grid of points that is laid over it."""

import dagster as dg

from geoloc_dagster.config.collection import GridCellSettings
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.region import Region


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this group for one region."""
    settings = region.settings

    @region.asset("region", kinds={"geoparquet"})
    def region_boundary(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The region's validated polygon, from GeoJSON, shapefile or TopoJSON; stored as GeoParquet in WGS84."""
        from geoloc_dagster.config.loader import claim_data_root
        from geoloc_dagster.geo.boundary import load_boundary, write_boundary
        from geoloc_dagster.viz.overview import boundary_map

        layout = claim_data_root(settings)
        place = settings.region
        boundary = load_boundary(
            settings.resolve(place.boundary),
            name=place.name,
            feature=place.boundary_feature,
            part=place.boundary_part,
            metric_crs=place.metric_crs,
            max_area_km2=place.max_area_km2,
            start_point=place.start_point,
        )
        write_boundary(layout.boundary, boundary)
        return dg.MaterializeResult(
            metadata=facts(
                1, layout.boundary, image=boundary_map(boundary), area_km2=boundary.area_km2, metric_crs=boundary.metric_crs
            )
        )

    rules = settings.grid_cells
    if rules is not None:
        return [region_boundary, _grid_cells(region, rules), _cell_points(region, rules)]

    @region.asset("region", deps=["region_boundary"], kinds={"geoparquet"})
    def grid_points(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Points `grid.spacing_m` apart inside the boundary, where street views are looked up; none for lists of photos."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.geo.grid import grid_points as lay_grid
        from geoloc_dagster.geo.grid import no_grid, write_grid
        from geoloc_dagster.viz.overview import grid_map

        boundary = read_boundary(region.layout.boundary)
        if region.pictures == "photos":  # which may be all over the Earth
            points = no_grid()
        else:
            points = lay_grid(boundary, settings.grid.spacing_m, max_points=settings.grid.max_points)
        write_grid(region.layout.grid_points, points)
        return dg.MaterializeResult(
            metadata=facts(
                len(points),
                region.layout.grid_points,
                image=grid_map(boundary, points, settings.grid.spacing_m),
                spacing_m=settings.grid.spacing_m,
            )
        )

    return [region_boundary, grid_points]


def _grid_cells(region: Region, rules: GridCellSettings) -> dg.AssetsDefinition:
    @region.asset("region", deps=["region_boundary"], kinds={"geoparquet"})
    def grid_cells(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The cells of a country: boxes of `grid_cells.step_deg` cut by the boundary, small pieces merged; GeoParquet."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.geo.grid_cells import describe_cells, write_grid_cells
        from geoloc_dagster.geo.grid_cells import grid_cells as cut
        from geoloc_dagster.viz.overview import grid_cells_map

        boundary = read_boundary(region.layout.boundary)
        cells = describe_cells(cut(boundary.geometry, rules.step_deg, merge_below=rules.merge_below))
        write_grid_cells(region.layout.grid_cells, cells)
        return dg.MaterializeResult(
            metadata=facts(
                len(cells),
                region.layout.grid_cells,
                image=grid_cells_map(boundary, cells, rules.step_deg),
                smallest_km2=float(cells["area_km2"].min()),
                largest_km2=float(cells["area_km2"].max()),
            )
        )

    return grid_cells


def _cell_points(region: Region, rules: GridCellSettings) -> dg.AssetsDefinition:
    @region.asset("region", deps=["region_boundary", "grid_cells"], kinds={"geoparquet"})
    def grid_points(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Random points in every cell, in rounds over the cells: where street views are looked up until a cell is full."""
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.geo.cell_sampling import cell_points
        from geoloc_dagster.geo.grid import write_grid
        from geoloc_dagster.geo.grid_cells import read_grid_cells
        from geoloc_dagster.viz.overview import grid_cells_map

        layout, settings = region.layout, region.settings
        cells = read_grid_cells(layout.grid_cells)
        points = cell_points(cells, rules.attempts_per_cell, seed=rules.seed, max_points=settings.grid.max_points)
        write_grid(layout.grid_points, points)
        image = grid_cells_map(read_boundary(layout.boundary), cells, rules.step_deg, points)
        return dg.MaterializeResult(
            metadata=facts(len(points), layout.grid_points, image=image, points_per_cell=rules.attempts_per_cell)
        )

    return grid_points
