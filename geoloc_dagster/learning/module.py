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
from geoloc_dagster.learning.shared_batch import gathered


class RetrievalModule(SeededModule):
    """Learns vectors that are near for pictures of one place and far for pictures of different places.

    Args:
        recipe: what to train.
        places: class of each training row, int64, shape (N,).
        locations: location of each training row as a number, int64, shape (N,).
        total_steps: of the whole training.
    """

    shares_batches = True

    def __init__(self, recipe: Recipe, places: np.ndarray, locations: np.ndarray, total_steps: int) -> None:
        super().__init__(recipe.seed, recipe.optimiser)
        self.recipe = recipe
        self.total_steps = total_steps
        self.network: RetrievalNetwork = build_network(recipe)
        _, first = np.unique(places, return_index=True)
        self.loss = PlaceLoss(recipe.loss, torch.from_numpy(locations[first]), self.network.loss_dimension)
        self._places, self._locations = torch.from_numpy(places), torch.from_numpy(locations)

    def on_fit_start(self) -> None:
        """What rows are of lies where they are learned from; no buffers, which several devices would send each other."""
        self._places, self._locations = self._places.to(self.device), self._locations.to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Augment, embed, add up the losses."""
        pictures, rows = batch
        data = self.recipe.data
        inputs = augment(pictures, data.image_size, self.recipe.augmentation, self._generator, data.normalise)
        vectors, rows = gathered(self.network(inputs).float()), gathered(rows)
        parts = self.loss(vectors, self._places[rows], self._locations[rows])
        values = {f"train_{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(rows))
        return parts["loss"]

    def configure_optimizers(self) -> Any:
        """One cycle of the learning rate."""
        return self.one_cycle(self.network, self.total_steps, self.loss.parameters())
