"""Group `cells`, where the configuration has a section `cells`: the S2 cells of a region's photos, and the class of each."""

import dagster as dg

from geoloc_dagster.defs.automation import refresh_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.region import Region


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this group for one region; none without cells."""
    cells, layout = region.settings.cells, region.layout
    if cells is None:
        return []

    @region.asset("cells", deps=["catalog"], automation_condition=refresh_condition(), kinds={"csv"})
    def s2_partitions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Adaptive S2 cells of the photos of the split train: a CSV per level and their parent table, with a fingerprint."""
        from geoloc_dagster.dataset.cells import make_partitions
        from geoloc_dagster.geo.partitioning_folder import read_partitioning
        from geoloc_dagster.viz.cells import cells_map
        from geoloc_dagster.viz.encode import MAX_BYTES

        made = make_partitions(cells, layout)
        numbers = {f"cells_{name}": count for name, count in made.cells.items()}
        numbers |= {f"dropped_{name}": count for name, count in made.dropped.items()}
        levels = read_partitioning(layout.s2_partitions).levels
        picture = cells_map(levels, title=f"{region.name}: S2 cells", max_bytes=MAX_BYTES)
        return dg.MaterializeResult(
            metadata=facts(made.rows, layout.s2_partitions, image=picture, fingerprint=made.fingerprint, **numbers)
        )

    @region.asset("cells", deps=["catalog", "s2_partitions"], automation_condition=refresh_condition(), kinds={"parquet"})
    def cell_labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The class of every photo at every level; -1 where its cell was dropped."""
        from geoloc_dagster.dataset.cells import label_cells

        made = label_cells(layout)
        numbers = {f"dropped_{name}": count for name, count in made.dropped.items()}
        return dg.MaterializeResult(metadata=facts(made.rows, layout.cell_labels, fingerprint=made.fingerprint, **numbers))

    return [s2_partitions, cell_labels]
