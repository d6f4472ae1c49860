"""Training of transformers over photos and class maps: from a recipe, a catalog and its labels to a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import pyarrow as pa
from torch import Tensor

from geoloc_dagster.dataset.cells import Labels
from geoloc_dagster.dataset.class_maps import CLASSES
from geoloc_dagster.errors import RecipeError
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.loop import TrainedModel
from geoloc_dagster.learning.multitask_model import MultitaskModel
from geoloc_dagster.learning.multitask_module import MultitaskModule
from geoloc_dagster.learning.multitask_network import MultitaskNetwork, build_multitask_network
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.learning.photo_rows import PhotoRows
from geoloc_dagster.learning.photo_training import PhotoTraining, TrainingOptions
from geoloc_dagster.tables import table_exists


def train_multitask(
    recipe: MultitaskRecipe,
    catalog: pa.Table,
    labels: Labels,
    crops_path: Path,
    out_folder: Path,
    *,
    maps_path: Path | None = None,
    **options: Unpack[TrainingOptions],
) -> TrainedModel:
    """Train a recipe and write the model as `out_folder/<model_version>/`.

    Args:
        recipe: what to train.
        catalog: the feature table.
        labels: the cells and scenes of its rows.
        crops_path: the crops table.
        out_folder: of this recipe's models.
        maps_path: the table of class maps; a recipe without the segmentation branch needs none and reads none.
        options: how it is run.

    Raises:
        NotEnoughDataError: fewer labelled photos than a batch, of the scene of interest where there is one.
        ModelMismatchError: the cell labels are of another partitioning.
        RecipeError, WeightsError: the recipe's network cannot be built, or there are no class maps.
        IntegrityError: a crop or a map is not the one of the catalog, or `last.ckpt` is damaged.
    """
    if recipe.needs_maps and (maps_path is None or not table_exists(maps_path)):
        raise RecipeError(
            f"recipe {recipe.name} learns from class maps, and there are none",
            "Materialise `segmentation_maps` for every batch, or say `branches: {segmentation: off}`.",
        )
    if recipe.needs_maps and recipe.branches.seg_channels < len(CLASSES):
        raise RecipeError(
            f"recipe {recipe.name} has {recipe.branches.seg_channels} channels for the {len(CLASSES)} classes of the maps",
            f"Say `branches: {{seg_channels: {len(CLASSES)}}}`.",
        )
    training = _MultitaskTraining(
        recipe, catalog, labels, crops_path, maps_path if recipe.needs_maps else None, out_folder, options
    )
    return training.finish(training.plain())


class _MultitaskTraining(PhotoTraining[MultitaskRecipe, MultitaskNetwork]):
    """Of one network."""

    def build(self, *, load_weights: bool = True) -> MultitaskNetwork:
        """The untrained network."""
        return build_multitask_network(self.recipe, self.classes(), load_weights=load_weights)

    def module(self, network: MultitaskNetwork, rows: PhotoRows) -> MultitaskModule:
        """What trains it on some rows."""
        return MultitaskModule(self.recipe, network, self.labels.partitioning, rows, self.dev)

    def asked(self, networks: Mapping[str, MultitaskNetwork], seen: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What the trained network says of pictures and their class maps."""
        return MultitaskModel(**self.answering(networks[WEIGHTS_FILE])).log_probabilities(*seen)
