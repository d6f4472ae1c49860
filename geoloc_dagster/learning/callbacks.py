"""What is watched during a training: computing time, progress, and whether it still gets better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from safetensors.torch import load_file, save

from geoloc_dagster.learning.module import RetrievalModule
from geoloc_dagster.learning.recipe import EarlyStopSpec
from geoloc_dagster.learning.validation import DevSplit
from geoloc_dagster.storage import write_bytes

Clock = Callable[[], float]


class Stopwatch(pl.Callback):
    """Seconds of training, over all attempts: what earlier ones took is kept in the checkpoint."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock()
        self._earlier = 0.0
        self._ended: float | None = None
        self.attempts = 1

    @property
    def seconds(self) -> float:
        """So far."""
        return self._earlier + (self._clock() if self._ended is None else self._ended) - self._started

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reading pictures is not training."""
        self._started = self._clock()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Neither is validating."""
        self._ended = self._clock()

    def state_dict(self) -> dict[str, Any]:
        """Kept in the checkpoint."""
        return {"seconds": self.seconds, "attempts": self.attempts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a training goes on from a checkpoint."""
        self._earlier = float(state_dict["seconds"])
        self.attempts = int(state_dict["attempts"]) + 1


class ProgressReport(pl.Callback):
    """Tells a function how many of all steps are done."""

    def __init__(self, progress: Callable[[int, int], None] | None, total_steps: int) -> None:
        self._progress = progress
        self._total = total_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After every step."""
        if self._progress is not None:
            self._progress(trainer.global_step, self._total)


class EarlyStop(pl.Callback):
    """Ends a training whose dev recall@1 has not risen for a while, and goes back to the best weights.

    Args:
        spec: how often and how patient.
        dev: what recall is measured on.
        best: file of the best weights so far, in the work folder.
    """

    def __init__(self, spec: EarlyStopSpec, dev: DevSplit, best: Path) -> None:
        self._spec, self._dev, self._best_file = spec, dev, best
        self._best = -1.0
        self._without_rise = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure every few epochs."""
        if (trainer.current_epoch + 1) % self._spec.every_epochs or not isinstance(pl_module, RetrievalModule):
            return
        recall = trainer.strategy.broadcast(self._dev.recall(pl_module.network) if trainer.is_global_zero else {})
        pl_module.log_dict(recall)
        if recall["dev_recall_at_1"] > self._best:
            self._best, self._without_rise = recall["dev_recall_at_1"], 0
            if trainer.is_global_zero:
                state = pl_module.network.state_dict()
                write_bytes(self._best_file, save({name: value.cpu().contiguous() for name, value in state.items()}))
        else:
            self._without_rise += 1
        trainer.should_stop = self._without_rise >= self._spec.patience

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the best weights, where any were measured."""
        if self._best_file.is_file() and isinstance(pl_module, RetrievalModule):
            pl_module.network.load_state_dict(load_file(self._best_file))

    def state_dict(self) -> dict[str, Any]:
        """Kept in the checkpoint."""
        return {"best": self._best, "without_rise": self._without_rise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a training goes on from a checkpoint."""
        self._best, self._without_rise = float(state_dict["best"]), int(state_dict["without_rise"])
