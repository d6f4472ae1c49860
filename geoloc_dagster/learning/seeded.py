"""What trainings have in common: random numbers that follow from seed and step, and one cycle of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from geoloc_dagster.learning.recipe_parts import OptimiserSpec
from geoloc_dagster.learning.shared_batch import SharedGenerator

_DIV_FACTOR, _FINAL_DIV_FACTOR = 25.0, 1e3
_FEWEST_STEPS = 4  # of which two lead up to the top


class SeededModule(pl.LightningModule):
    """All random numbers of a step follow from (seed, step), so that a resumed training repeats an uninterrupted one.

    Args:
        seed: of the recipe.
        optimiser: of the recipe, for `one_cycle`.

    Attributes:
        shares_batches: whether its loss is that of the whole batch where several devices share one; others refuse to try.
    """

    shares_batches: ClassVar[bool] = False

    def __init__(self, seed: int, optimiser: OptimiserSpec | None = None) -> None:
        super().__init__()
        self._seed, self._optimiser = seed, optimiser
        self._generator = SharedGenerator()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step: augmentation from its own generator, dropout from torch's global one, another one on every device."""
        state = np.random.SeedSequence([self._seed, self.global_step]).generate_state(2, np.uint32)
        self._generator.part, self._generator.parts = self.global_rank, self.trainer.world_size
        self._generator.manual_seed(int(state[0]))
        torch.manual_seed(int(state[1]) + self.global_rank)

    def one_cycle(self, network: nn.Module, total_steps: int, classifier: Iterable[nn.Parameter] = ()) -> dict[str, Any]:
        """Optimiser and schedule; no decay for norms, biases, GeM exponents and the classifier, which may learn faster."""
        spec = self._optimiser
        assert spec is not None
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in learned if p.ndim > 1], "weight_decay": spec.weight_decay},
            {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
        ]
        peaks = [spec.learning_rate, spec.learning_rate]
        centres = list(classifier)
        if centres:
            groups.append({"params": centres, "weight_decay": 0.0})
            peaks.append(spec.learning_rate * spec.classifier_factor)
        optimiser = _optimiser(spec.name, groups, spec.learning_rate)
        steps = max(total_steps, _FEWEST_STEPS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            peaks,
            total_steps=steps,
            pct_start=max(spec.warmup_share, 2 / steps),
            cycle_momentum=False,
            div_factor=_DIV_FACTOR,
            final_div_factor=_FINAL_DIV_FACTOR,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _optimiser(name: str, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=learning_rate)
