"""The Lightning module: one training step, one optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoloc_dagster.learning.aggregation import RetrievalNetwork, build_network
from geoloc_dagster.learning.augmentation import augment
from geoloc_dagster.learning.losses import PlaceLoss
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.seeded import SeededModule


class RetrievalModule(SeededModule):
    """Learns vectors that are near for pictures of one place and far for pictures of different places.

    Args:
        recipe: what to train.
        places: class of each training row, int64, shape (N,).
        locations: location of each training row as a number, int64, shape (N,).
        total_steps: of the whole training.
    """

    def __init__(self, recipe: Recipe, places: np.ndarray, locations: np.ndarray, total_steps: int) -> None:
        super().__init__(recipe.seed, recipe.optimiser)
        self.recipe = recipe
        self.total_steps = total_steps
        self.network: RetrievalNetwork = build_network(recipe)
        _, first = np.unique(places, return_index=True)
        self.loss = PlaceLoss(recipe.loss, torch.from_numpy(locations[first]), self.network.loss_dimension)
        self._places, self._locations = torch.from_numpy(places), torch.from_numpy(locations)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Augment, embed, add up the losses."""
        pictures, rows = batch
        rows = rows.cpu()
        data = self.recipe.data
        inputs = augment(pictures, data.image_size, self.recipe.augmentation, self._generator, data.normalise)
        places, locations = self._places[rows].to(self.device), self._locations[rows].to(self.device)
        parts = self.loss(self.network(inputs).float(), places, locations)
        values = {f"train_{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(rows))
        return parts["loss"]

    def configure_optimizers(self) -> Any:
        """One cycle of the learning rate."""
        return self.one_cycle(self.network, self.total_steps, self.loss.parameters())
