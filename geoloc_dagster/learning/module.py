"""The Lightning module: one training step, one optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from geoloc_dagster.learning.aggregation import RetrievalNetwork, build_network
from geoloc_dagster.learning.augmentation import augment
from geoloc_dagster.learning.losses import PlaceLoss
from geoloc_dagster.learning.recipe import Recipe

_DIV_FACTOR, _FINAL_DIV_FACTOR = 25.0, 1e3


class RetrievalModule(pl.LightningModule):
    """Learns vectors that are near for pictures of one place and far for pictures of different places.

    All random numbers of a step follow from (seed, step), so that a resumed training repeats an uninterrupted one.

    Args:
        recipe: what to train.
        places: class of each training row, int64, shape (N,).
        locations: location of each training row as a number, int64, shape (N,).
        total_steps: of the whole training.
    """

    def __init__(self, recipe: Recipe, places: np.ndarray, locations: np.ndarray, total_steps: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.total_steps = total_steps
        self.network: RetrievalNetwork = build_network(recipe)
        _, first = np.unique(places, return_index=True)
        self.loss = PlaceLoss(recipe.loss, torch.from_numpy(locations[first]), self.network.loss_dimension)
        self._places, self._locations = torch.from_numpy(places), torch.from_numpy(locations)
        self._generator = torch.Generator()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step: augmentation from its own generator, dropout from torch's global one."""
        state = np.random.SeedSequence([self.recipe.seed, self.global_step]).generate_state(2, np.uint32)
        self._generator.manual_seed(int(state[0]))
        torch.manual_seed(int(state[1]))

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
        """One cycle of the learning rate; no decay for norms, biases, GeM exponents and class centres."""
        spec = self.recipe.optimiser
        network = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in network if p.ndim > 1], "weight_decay": spec.weight_decay},
            {"params": [p for p in network if p.ndim <= 1], "weight_decay": 0.0},
        ]
        peaks = [spec.learning_rate, spec.learning_rate]
        centres = list(self.loss.parameters())
        if centres:
            groups.append({"params": centres, "weight_decay": 0.0})
            peaks.append(spec.learning_rate * spec.classifier_factor)
        optimiser = _optimiser(spec.name, groups, spec.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            peaks,
            total_steps=self.total_steps,
            pct_start=spec.warmup_share,
            cycle_momentum=False,
            div_factor=_DIV_FACTOR,
            final_div_factor=_FINAL_DIV_FACTOR,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _optimiser(name: str, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=learning_rate)
