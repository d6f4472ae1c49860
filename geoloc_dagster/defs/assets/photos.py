"""Group `imagery`, where the configuration has a section `scenes`: which scene each picture shows."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.defs.automation import refresh_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.progress import reporter
from geoloc_dagster.defs.region import Region

if TYPE_CHECKING:
    from geoloc_dagster.dataset.scene_labels import SceneClassifier


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region; none without scenes."""
    scenes, layout = region.settings.scenes, region.layout
    if scenes is None:
        return []
    listed = scenes.source == "list" and region.settings.capture.provider == "photo_list"

    @region.asset(
        "imagery",
        deps=["crops", *([region.unpartitioned("buffer_csvs")] if listed else [])],
        partitions_def=region.batches,
        automation_condition=refresh_condition(),
        code_version="1",
        kinds={"lance"},
    )
    def scene_labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Indoor, natural or urban, per crop: as the photo's list says, or as a model sees it; one batch replaced per commit."""
        from geoloc_dagster.dataset.scene_labels import write_scene_labels
        from geoloc_dagster.viz.overview import scene_sheet

        batch = context.partition_key
        result = write_scene_labels(
            layout.crops,
            layout.scene_labels,
            batch,
            scenes,
            photos_path=layout.photos if listed else None,
            load_classifier=None if scenes.model is None else lambda: _load(region, scenes.model),
            progress=reporter(context),
        )
        sheet = scene_sheet(layout.crops, layout.scene_labels, batch, list(result.by_scene))
        numbers = {"from_list": result.from_list, "from_model": result.from_model, "table_version": result.table_version}
        numbers |= {f"scene_{name}": count for name, count in result.by_scene.items()}
        return dg.MaterializeResult(metadata=facts(result.rows, layout.scene_labels, image=sheet, partitioned=True, **numbers))

    return [scene_labels]


def _load(region: Region, model: Path) -> "SceneClassifier":
    from geoloc_dagster.learning.scene_classifier import load_scene_classifier

    return load_scene_classifier(region.settings.resolve(model))
