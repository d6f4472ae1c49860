"""Training of a recipe of whichever kind from what a region holds."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.cells import read_labels
from geoloc_dagster.dataset.freshness import usable_rows
from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.geo.partitioning_folder import OUTLINES
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.loop import TrainedModel, read_trained
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe, PhotoRecipe
from geoloc_dagster.learning.recipe import AnyRecipe, base_of
from geoloc_dagster.learning.registry import newest_training, require_training
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import read_parquet, sha256_file, verify_manifest
from geoloc_dagster.tables import table_exists, table_version

_log = logging.getLogger(__name__)


def train_recipe(
    recipe: AnyRecipe,
    layout: Layout,
    *,
    mlflow: MlflowTarget | None = None,
    resume: bool = True,
    progress: Callable[[int, int], None] | None = None,
    provenance: Mapping[str, Any] | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> TrainedModel:
    """Train a recipe on the region's catalog; raises as `train`, `train_cells`, `train_multitask` and `train_sequence` do."""
    catalog, out = read_parquet(layout.catalog), layout.checkpoints / recipe.name
    common: dict[str, Any] = {
        "mlflow": mlflow,
        "resume": resume,
        "progress": progress,
        "provenance": provenance,
        "now": now,
    }
    if isinstance(recipe, SequenceRecipe):
        from geoloc_dagster.learning.sequence_training import read_region_classes, train_sequence

        classes = read_region_classes(recipe, catalog, layout.grid_cells, layout.s2_partitions)
        return train_sequence(recipe, catalog, classes, layout.crops, out, base=_base(recipe, layout), **common)
    if isinstance(recipe, CellsRecipe):
        from geoloc_dagster.learning.cells_training import train_cells

        return train_cells(recipe, catalog, read_labels(layout), layout.crops, out, base=_base(recipe, layout), **common)
    if isinstance(recipe, MultitaskRecipe):
        from geoloc_dagster.learning.multitask_training import train_multitask

        maps = layout.segmentation_maps
        return train_multitask(recipe, catalog, read_labels(layout), layout.crops, out, maps_path=maps, **common)
    from geoloc_dagster.learning.training import train

    return train(recipe, catalog, layout.crops, out, **common)


def finished_model(recipe: AnyRecipe, layout: Layout, provenance: Mapping[str, Any]) -> TrainedModel | None:
    """The newest model of a recipe, if it was trained as the recipe is and from what there is now.

    A training repeated on one machine ends at the same weights, so whoever runs a graph again, or goes on after a failure further
    down, need not wait for it twice. A model whose files have changed is not taken.

    Args:
        recipe: what would be trained.
        layout: of the region.
        provenance: by `provenance_of`.
    """
    newest = newest_training(layout.checkpoints / recipe.name)
    if newest is None or not newest.answers_for(recipe.recipe_hash(), provenance):
        return None
    try:
        verify_manifest(newest.folder)
    except IntegrityError as error:
        _log.warning("training again: %s", error)
        return None
    return read_trained(newest.folder, recipe)


def provenance_of(layout: Layout, recipe: AnyRecipe) -> dict[str, Any]:
    """Which state of the region's tables a training sees."""
    seen: dict[str, Any] = {
        "usable_rows": usable_rows(layout.catalog, recipe.data.splits),
        "catalog_sha256": sha256_file(layout.catalog),
        "crops_version": table_version(layout.crops),
    }
    if isinstance(recipe, PhotoRecipe) and table_exists(layout.scene_labels):
        seen["scene_labels_version"] = table_version(layout.scene_labels)
    if isinstance(recipe, MultitaskRecipe) and recipe.needs_maps and table_exists(layout.segmentation_maps):
        seen["segmentation_maps_version"] = table_version(layout.segmentation_maps)
    for name, path in _classes_of(recipe, layout).items():
        seen[name] = sha256_file(path) if path.is_file() else None
    base = _base(recipe, layout)
    return seen if base is None else seen | {"base_model": base.name}


def _classes_of(recipe: AnyRecipe, layout: Layout) -> dict[str, Path]:
    """The files that say which cells a recipe tells apart, and which of them each picture lies in."""
    cells = layout.s2_partitions / OUTLINES
    if isinstance(recipe, PhotoRecipe):
        return {"cells_sha256": cells, "cell_labels_sha256": layout.cell_labels}
    if isinstance(recipe, SequenceRecipe):
        return {"cells_sha256": cells if recipe.heads.classes == "s2_cells" else layout.grid_cells}
    return {}


def _base(recipe: AnyRecipe, layout: Layout) -> Path | None:
    """The newest model of the recipe that this one starts from."""
    base = base_of(recipe)
    return None if base is None else require_training(layout.checkpoints / base).folder
