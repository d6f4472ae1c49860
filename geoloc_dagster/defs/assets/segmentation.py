"""Group `imagery`, where the configuration has a section `segmentation`: what each pixel of each picture shows."""

from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.defs.automation import refresh_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Imagery

if TYPE_CHECKING:
    from geoloc_dagster.dataset.segmentation_maps import MapSource


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region; none without segmentation."""
    if region.settings.segmentation is None:
        return []
    layout = region.layout

    @region.asset(
        "imagery",
        deps=["crops"],
        partitions_def=region.batches,
        automation_condition=refresh_condition(),
        code_version="1",
        kinds={"lance"},
    )
    def segmentation_maps(context: dg.AssetExecutionContext, imagery: dg.ResourceParam[Imagery]) -> dg.MaterializeResult:
        """Class of each pixel per crop, as a model sees it or as the emulator drew it; one batch replaced per commit."""
        from geoloc_dagster.dataset.class_maps import CLASSES, COLOURS
        from geoloc_dagster.dataset.segmentation_maps import write_segmentation_maps
        from geoloc_dagster.viz.class_maps import segmentation_sheet

        batch = context.partition_key
        source = _source(region, imagery, batch)
        result = write_segmentation_maps(layout.crops, layout.segmentation_maps, batch, source, progress=reporter(context))
        sheet = segmentation_sheet(layout.crops, layout.segmentation_maps, batch, list(zip(CLASSES, COLOURS, strict=True)))
        numbers = {"maps": result.maps, "bytes_per_map": result.bytes_per_map, "table_version": result.table_version}
        numbers |= {f"share_{name}": share for name, share in result.shares.items()}
        numbers |= {f"showing_{name}": count for name, count in result.showing.items()}
        return dg.MaterializeResult(
            metadata=facts(result.rows, layout.segmentation_maps, image=sheet, partitioned=True, source=source.name, **numbers)
        )

    return [segmentation_maps]


def _source(region: Region, imagery: Imagery, batch: str) -> "MapSource":
    from geoloc_dagster.dataset.segmentation_maps import EmulatedMaps, SegmenterMaps

    settings, layout = region.settings, region.layout
    if settings.segmentation is None or settings.segmentation.source == "emulator":
        return EmulatedMaps(imagery.emulated_maps(), layout.panoramas, layout.crops, batch, settings.crops)
    from geoloc_dagster.learning.segmenter import load_segmenter

    return SegmenterMaps(load_segmenter(settings.segmentation, settings.resolve), layout.crops)
