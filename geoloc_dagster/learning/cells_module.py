"""The Lightning module of a classifier of cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geoloc_dagster.geo.partitioning import DROPPED, Partitioning
from geoloc_dagster.learning.augmentation import augment, mirror, prepared
from geoloc_dagster.learning.cells_losses import CellsLoss, unit_vectors
from geoloc_dagster.learning.cells_network import SCENE, CellsNetwork
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.photo_rows import PhotoRows, levels_of
from geoloc_dagster.learning.seeded import SeededModule
from geoloc_dagster.learning.shared_batch import all_gathered, gathered


class CellsModule(SeededModule):
    """Learns the cells of photos at every level, and their scene where the recipe has a scene head.

    Args:
        recipe: what to train.
        network: to train; a trained one is fine-tuned.
        partitioning: the cells.
        rows: photos of training.
        dev: photos on which loss and accuracy are told after each epoch.
    """

    shares_batches = True

    def __init__(
        self, recipe: CellsRecipe, network: CellsNetwork, partitioning: Partitioning, rows: PhotoRows, dev: PhotoRows
    ) -> None:
        super().__init__(recipe.seed, recipe.optimiser)
        self.recipe, self.network = recipe, network
        self._levels = levels_of(recipe, partitioning)
        self.loss = CellsLoss(recipe.heads, partitioning, self._levels)
        self._targets = {"train": _targets(rows), "dev": _targets(dev)}

    def on_fit_start(self) -> None:
        """What rows are of lies where they are learned from; no buffers, which several devices would send each other."""
        self._targets = {split: tuple(part.to(self.device) for part in parts) for split, parts in self._targets.items()}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Augment, classify, add up the losses."""
        pictures, rows = batch
        turned = mirror(pictures, self.recipe.augmentation.mirror, self._generator)
        data = self.recipe.data
        inputs = augment(turned, data.image_size, self.recipe.augmentation, self._generator, data.normalise)
        parts = self._losses("train", all_gathered(self.network(inputs)), gathered(rows))
        values = {f"train_{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(rows))
        return parts["loss"]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on the split dev."""
        pictures, rows = batch
        logits = self.network(prepared(pictures, self.recipe.data.image_size, self.recipe.data.normalise))
        parts = self._losses("dev", logits, rows)
        values = {f"dev_{name}": value for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(rows))
        classes = self._targets["dev"][0][rows]
        for number, level in enumerate(self._levels):
            known = classes[:, number] != DROPPED
            if bool(known.any()):
                right = (logits[level][known].argmax(1) == classes[known, number]).float().mean()
                self.log(
                    f"dev_{level}_accuracy", right, on_step=False, on_epoch=True, sync_dist=True, batch_size=int(known.sum())
                )
        if SCENE in logits:
            self._log_scenes(logits[SCENE], rows)

    def configure_optimizers(self) -> Any:
        """One cycle of the learning rate over all steps that the trainer will take."""
        return self.one_cycle(self.network, int(self.trainer.estimated_stepping_batches))

    def _losses(self, split: str, logits: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        classes, positions, scenes = (part[rows] for part in self._targets[split])
        return self.loss({name: value.float() for name, value in logits.items()}, classes, positions, scenes)

    def _log_scenes(self, logits: Tensor, rows: Tensor) -> None:
        scenes = self._targets["dev"][2][rows]
        known = ~scenes.isnan().any(dim=1)
        if bool(known.any()):
            right = (logits[known].argmax(1) == scenes[known].argmax(1)).float().mean()
            self.log("dev_scene_accuracy", right, on_step=False, on_epoch=True, sync_dist=True, batch_size=int(known.sum()))


def _targets(rows: PhotoRows) -> tuple[Tensor, ...]:
    return torch.tensor(rows.classes, dtype=torch.int64), unit_vectors(rows.lat_deg, rows.lng_deg), torch.tensor(rows.scenes)
