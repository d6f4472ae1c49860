"""The Lightning module of a transformer over photos and class maps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from geoloc_dagster.geo.partitioning import Partitioning
from geoloc_dagster.learning.augmentation import augment, augment_with_maps, mirror, prepared
from geoloc_dagster.learning.cells_module import PhotoModule
from geoloc_dagster.learning.cells_network import resized_maps
from geoloc_dagster.learning.device import moved
from geoloc_dagster.learning.multitask_network import NO_CLASS, MultitaskNetwork, Seen
from geoloc_dagster.learning.multitask_recipe import MultitaskOptimiserSpec, MultitaskRecipe
from geoloc_dagster.learning.photo_rows import PhotoRows
from geoloc_dagster.learning.shared_batch import rand

_LAST_SHARE = 1e-3  # of the learning rate, at the last step


class MultitaskModule(PhotoModule):
    """Learns cells and scenes of photos and class maps; a batch holds pictures, maps where there are any, and row numbers.

    Args:
        recipe: what to train.
        network: to train.
        partitioning: the cells.
        rows: photos of training.
        dev: photos on which loss and accuracy are told after each epoch.
    """

    def __init__(
        self, recipe: MultitaskRecipe, network: MultitaskNetwork, partitioning: Partitioning, rows: PhotoRows, dev: PhotoRows
    ) -> None:
        super().__init__(recipe, network, partitioning, rows, dev)
        self.recipe = recipe

    def changed(self, *seen: Tensor) -> Seen:
        """Some mirrored, all cropped, in other colours; maps as their pictures, and some left out."""
        data, spec = self.recipe.data, self.recipe.augmentation
        pictures = seen[0]
        if len(seen) < 2:
            turned = mirror(pictures, spec.mirror, self._generator)
            return augment(turned, data.image_size, spec, self._generator, data.normalise), None
        pictures, maps = augment_with_maps(pictures, seen[1], data.image_size, spec, self._generator, data.normalise)
        lost = rand(len(maps), generator=self._generator) < self.recipe.branches.map_dropout
        return pictures, maps.masked_fill(moved(lost, maps.device)[:, None, None], NO_CLASS)

    def whole(self, *seen: Tensor) -> Seen:
        """Resized."""
        size = self.recipe.data.image_size
        pictures = prepared(seen[0], size, self.recipe.data.normalise)
        return pictures, resized_maps(seen[1], size) if len(seen) > 1 else None

    def configure_optimizers(self) -> Any:
        """Warm-up and cosine, by the step."""
        trainer, epochs = self.trainer, self.recipe.budget.epochs
        total = max(int(trainer.estimated_stepping_batches), 1)
        warmup = round(total * self.recipe.optimiser.warmup_epochs / epochs)
        return warmup_and_cosine(self.network, self.recipe.optimiser, warmup, total)


def warmup_and_cosine(network: nn.Module, spec: MultitaskOptimiserSpec, warmup: int, total: int) -> dict[str, Any]:
    """Optimiser and schedule; weights and biases have rates of their own, the latter no decay.

    Args:
        network: what is trained.
        spec: of the recipe.
        warmup: steps to the top.
        total: steps in all.
    """
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    of_weights, of_biases = spec.rates
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": spec.weight_decay, "lr": of_weights},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0, "lr": of_biases},
    ]
    optimiser = torch.optim.SGD(groups, momentum=spec.momentum) if spec.name == "sgd" else torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, warmup, total))
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_share(step: int, warmup: int, total: int) -> float:
    """What share of the learning rate a step has, from 0: rising to all of it over `warmup` steps, then half a cosine down."""
    if step < warmup:
        return (step + 1) / warmup
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2
