"""The Lightning modules of classifiers of photos."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from geoloc_dagster.geo.partitioning import DROPPED, Partitioning
from geoloc_dagster.learning.augmentation import augment, mirror, prepared
from geoloc_dagster.learning.cells_losses import CellsLoss, unit_vectors
from geoloc_dagster.learning.cells_network import SCENE, CellsNetwork
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.multitask_recipe import PhotoRecipe
from geoloc_dagster.learning.photo_rows import PhotoRows, levels_of
from geoloc_dagster.learning.seeded import SeededModule
from geoloc_dagster.learning.shared_batch import all_gathered, gathered


class PhotoModule(SeededModule):
    """Learns the cells of photos at every level, and their scene where the recipe has a scene head.

    A batch is what the photos are seen by, one tensor or more, and last their row numbers.

    Args:
        recipe: what to train.
        network: to train; a trained one is fine-tuned.
        partitioning: the cells.
        rows: photos of training.
        dev: photos on which loss and accuracy are told after each epoch.
    """

    shares_batches = True

    def __init__(
        self, recipe: PhotoRecipe, network: nn.Module, partitioning: Partitioning, rows: PhotoRows, dev: PhotoRows
    ) -> None:
        super().__init__(recipe.seed, recipe.optimiser if isinstance(recipe, CellsRecipe) else None)
        self.network = network
        self._levels = levels_of(recipe, partitioning)
        self._targets = {"train": _targets(rows), "dev": _targets(dev)}
        self.loss = CellsLoss(recipe.heads, partitioning, self._levels, self._targets["train"][2])

    def on_fit_start(self) -> None:
        """What rows are of lies where they are learned from; no buffers, which several devices would send each other."""
        self._targets = {split: tuple(part.to(self.device) for part in parts) for split, parts in self._targets.items()}

    @abstractmethod
    def changed(self, *seen: Tensor) -> Any:
        """Inputs of the network for training, of what a batch holds: augmented."""

    @abstractmethod
    def whole(self, *seen: Tensor) -> Any:
        """Inputs of the network for measuring: as they are."""

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Augment, classify, add up the losses."""
        *seen, rows = batch
        parts = self._losses("train", all_gathered(self.network(self.changed(*seen))), gathered(rows))
        values = {f"train_{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(rows))
        return parts["loss"]

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Loss and accuracy on the split dev."""
        *seen, rows = batch
        logits: dict[str, Tensor] = self.network(self.whole(*seen))
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

    def _losses(self, split: str, logits: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        classes, positions, scenes = (part[rows] for part in self._targets[split])
        return self.loss({name: value.float() for name, value in logits.items()}, classes, positions, scenes)

    def _log_scenes(self, logits: Tensor, rows: Tensor) -> None:
        scenes = self._targets["dev"][2][rows]
        known = ~scenes.isnan().any(dim=1)
        if bool(known.any()):
            right = (logits[known].argmax(1) == scenes[known].argmax(1)).float().mean()
            self.log("dev_scene_accuracy", right, on_step=False, on_epoch=True, sync_dist=True, batch_size=int(known.sum()))


class CellsModule(PhotoModule):
    """Of a classifier of cells; arguments as above."""

    def __init__(
        self, recipe: CellsRecipe, network: CellsNetwork, partitioning: Partitioning, rows: PhotoRows, dev: PhotoRows
    ) -> None:
        super().__init__(recipe, network, partitioning, rows, dev)
        self.recipe = recipe

    def changed(self, *seen: Tensor) -> Tensor:
        """Some mirrored, all cropped, in other colours."""
        turned = mirror(seen[0], self.recipe.augmentation.mirror, self._generator)
        data = self.recipe.data
        return augment(turned, data.image_size, self.recipe.augmentation, self._generator, data.normalise)

    def whole(self, *seen: Tensor) -> Tensor:
        """Resized."""
        return prepared(seen[0], self.recipe.data.image_size, self.recipe.data.normalise)

    def configure_optimizers(self) -> Any:
        """One cycle of the learning rate over all steps that the trainer will take."""
        return self.one_cycle(self.network, int(self.trainer.estimated_stepping_batches))


def _targets(rows: PhotoRows) -> tuple[Tensor, ...]:
    return torch.tensor(rows.classes, dtype=torch.int64), unit_vectors(rows.lat_deg, rows.lng_deg), torch.tensor(rows.scenes)
