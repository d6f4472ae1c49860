"""What is watched during a training: computing time and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

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
