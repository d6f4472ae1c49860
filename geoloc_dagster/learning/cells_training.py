"""Training of classifiers of cells, and of networks per scene: from a recipe, a catalog and its labels to a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import pyarrow as pa
from safetensors.torch import load_file, save
from torch import Tensor

from geoloc_dagster.dataset.cells import Labels
from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import ModelMismatchError, NotEnoughDataError, RecipeError
from geoloc_dagster.geo.partitioning import fingerprint_of_levels
from geoloc_dagster.learning.cells_model import CellsModel, load_cells_model, scene_weights_file
from geoloc_dagster.learning.cells_module import CellsModule
from geoloc_dagster.learning.cells_network import CellsNetwork, build_cells_network
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.loop import TrainedModel, is_first_process
from geoloc_dagster.learning.photo_rows import PhotoRows
from geoloc_dagster.learning.photo_training import PhotoTraining, TrainingOptions
from geoloc_dagster.storage import write_bytes


def train_cells(
    recipe: CellsRecipe,
    catalog: pa.Table,
    labels: Labels,
    crops_path: Path,
    out_folder: Path,
    *,
    base: Path | None = None,
    **options: Unpack[TrainingOptions],
) -> TrainedModel:
    """Train a recipe and write the model as `out_folder/<model_version>/`.

    Args:
        recipe: what to train.
        catalog: the feature table; `usable`, `split` and `flags` decide which rows are learned from.
        labels: the cells and scenes of its rows.
        crops_path: the crops table.
        out_folder: of this recipe's models.
        base: folder of the model that networks per scene start from.
        options: how it is run.

    Raises:
        NotEnoughDataError: fewer labelled photos than a batch.
        ModelMismatchError: labels or the model to start from are of other cells.
        RecipeError, WeightsError: the recipe's network cannot be built.
        IntegrityError: a crop is not the one of the catalog, or `last.ckpt` is damaged.
    """
    training = _CellsTraining(recipe, catalog, labels, crops_path, None, out_folder, options)
    networks = training.plain() if recipe.scene_networks is None else training.per_scene(base)
    return training.finish(networks, {"base_model": base.name if base is not None else None})


class _CellsTraining(PhotoTraining[CellsRecipe, CellsNetwork]):
    """One network, or one after the other for every scene."""

    def build(self, *, load_weights: bool = True) -> CellsNetwork:
        """The untrained network."""
        return build_cells_network(self.recipe, self.classes(), load_weights=load_weights)

    def module(self, network: CellsNetwork, rows: PhotoRows) -> CellsModule:
        """What trains it on some rows."""
        return CellsModule(self.recipe, network, self.labels.partitioning, rows, self.dev)

    def asked(self, networks: Mapping[str, CellsNetwork], seen: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What the trained networks say of pictures; each photo by that of its scene."""
        per_scene = {scene: networks[scene_weights_file(scene)] for scene in SCENES if scene_weights_file(scene) in networks}
        model = CellsModel(**self.answering(networks[WEIGHTS_FILE]), scene_networks=per_scene)
        return model.log_probabilities(seen[0])

    def per_scene(self, base: Path | None) -> dict[str, CellsNetwork]:
        """The model that is started from, which routes, and one network for each scene."""
        spec = self.recipe.scene_networks
        assert spec is not None
        if base is None:
            raise RecipeError(f"recipe {self.recipe.name} needs a trained model of recipe {spec.base} to start from")
        start = self._base(base)
        networks = {WEIGHTS_FILE: start}
        for number, scene in enumerate(SCENES):
            finished = self.work / scene_weights_file(scene)
            network = self.build(load_weights=False)
            if finished.is_file():  # by an earlier attempt
                network.load_state_dict(load_file(finished))
            else:
                network.load_state_dict(start.state_dict())
                own = self.rows.chosen(self.rows.scenes[:, number] >= spec.threshold)
                if len(own) < self.recipe.budget.batch_size:
                    raise NotEnoughDataError(f"only {len(own):,} photos of training show the scene `{scene}`")
                self.run(network, own, self.work / scene, prefix=f"{scene}_")
                if is_first_process():
                    write_bytes(finished, save({name: value.contiguous() for name, value in network.state_dict().items()}))
            networks[scene_weights_file(scene)] = network
        return networks

    def _base(self, folder: Path) -> CellsNetwork:
        model = load_cells_model(folder, device="cpu")
        if model.network.scene is None or self.recipe.heads.scene is None:
            raise RecipeError(f"networks per scene are routed by a scene head; {folder.name} or this recipe has none")
        if fingerprint_of_levels(model.partitioning.levels) != fingerprint_of_levels(self.labels.partitioning.levels):
            raise ModelMismatchError(
                f"{folder.name} tells other cells apart than those of today", "Train its recipe again first."
            )
        return model.network
