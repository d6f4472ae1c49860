"""Training of a classifier of photos of whichever kind: rows, steps, weights of the levels, and the folder that is left."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from geoloc_dagster.dataset.cells import Labels
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.geo.partitioning import parent_table
from geoloc_dagster.geo.partitioning_folder import write_partitioning
from geoloc_dagster.learning.callbacks import Clock, ProgressReport, Stopwatch
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE
from geoloc_dagster.learning.cells_module import PhotoModule
from geoloc_dagster.learning.device import compile_where_it_pays
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.hierarchy import fit_weights
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel, build_trainer, fit, training_facts, write_model
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.multitask_recipe import PhotoRecipe
from geoloc_dagster.learning.photo_batches import PhotoBatches, hold_photos
from geoloc_dagster.learning.photo_rows import PhotoRows, levels_of, require_photos, select_photos
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import translated_errors, write_json

_DEV_PHOTOS = 20_000
_BLOCK = 512
R = TypeVar("R", bound=PhotoRecipe)
N = TypeVar("N", bound=nn.Module)


class TrainingOptions(TypedDict, total=False):
    """How a training is run; none of it changes its result.

    Attributes:
        mlflow: where to log; nowhere without it.
        resume: go on from the `last.ckpt` of an interrupted training of the same recipe on the same rows; by default it does.
        progress: called with (steps done, steps in all).
        provenance: JSON facts of the upstream that are kept in `training.json`.
        now: the time of day, aware.
        clock: seconds, for durations only.
    """

    mlflow: MlflowTarget | None
    resume: bool
    progress: Callable[[int, int], None] | None
    provenance: Mapping[str, Any] | None
    now: Callable[[], dt.datetime]
    clock: Clock


class PhotoTraining(ABC, Generic[R, N]):
    """One training.

    Args:
        recipe: what to train.
        catalog: the feature table.
        labels: the cells and scenes of its rows.
        crops_path: the crops table.
        maps_path: the table of class maps; None where the network sees none.
        out_folder: of this recipe's models.
        options: how it is run.
    """

    def __init__(
        self,
        recipe: R,
        catalog: pa.Table,
        labels: Labels,
        crops_path: Path,
        maps_path: Path | None,
        out_folder: Path,
        options: TrainingOptions,
    ) -> None:
        self.recipe, self.labels, self._options = recipe, labels, options
        self._tables, self._out = (crops_path, maps_path), out_folder
        self.rows = require_photos(recipe, select_photos(recipe, catalog, labels, list(recipe.data.splits)))
        dev = select_photos(recipe, catalog, labels, [] if "dev" in recipe.data.splits else ["dev"])
        if len(dev) > _DEV_PHOTOS:
            dev = dev.chosen(np.random.default_rng(recipe.seed).permutation(len(dev)) < _DEV_PHOTOS)
        self.dev = dev
        self.work = out_folder / f".work-{recipe.recipe_hash()}-{self.rows.fingerprint()[:12]}"
        if not options.get("resume", True):
            shutil.rmtree(self.work, ignore_errors=True)
        keep_freed_memory()
        self.levels = levels_of(recipe, labels.partitioning)
        self._steps, self._samples = 0, 0
        self._seconds, self._attempts = 0.0, 1
        self._metrics: dict[str, float] = {}

    @abstractmethod
    def build(self, *, load_weights: bool = True) -> N:
        """The untrained network."""

    @abstractmethod
    def module(self, network: N, rows: PhotoRows) -> PhotoModule:
        """What trains it on some rows."""

    @abstractmethod
    def asked(self, networks: Mapping[str, N], seen: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Log-probabilities of every level that trained networks give photos of dev, of what a batch holds of them."""

    def answering(self, network: N) -> dict[str, Any]:
        """What a `PhotoModel` of a network is made of before its levels are weighed."""
        return {
            "recipe": self.recipe,
            "partitioning": self.labels.partitioning,
            "network": network,
            "model_version": "being trained",
            "weights": dict.fromkeys(self.levels, 1.0),
            "inference": self.recipe.inference.model_copy(update={"hierarchy": "equal"}),
        }

    def plain(self) -> dict[str, N]:
        """One network for all photos."""
        torch.manual_seed(self.recipe.seed)
        network = self.build()
        self.run(network, self.rows, self.work)
        return {WEIGHTS_FILE: network}

    def run(self, network: N, rows: PhotoRows, work: Path, prefix: str = "") -> None:
        """Train a network on some rows; its `last.ckpt` lies in `work`, its metrics begin with `prefix`."""
        recipe = self.recipe
        steps = recipe.budget.epochs * (len(rows) // recipe.budget.batch_size)
        module = self.module(network, rows)
        stopwatch = Stopwatch(self._options.get("clock", time.monotonic))
        callbacks: list[pl.Callback] = [stopwatch, ProgressReport(self._options.get("progress"), steps)]
        with translated_errors(work):
            trainer = build_trainer(
                work,
                self._options.get("mlflow"),
                callbacks,
                epochs=recipe.budget.epochs,
                clip_norm=recipe.optimiser.clip_norm,
                options=recipe.trainer,
                compute=recipe.compute,
            )
            compile_where_it_pays(network, recipe.compute, trainer.strategy.root_device, steps=steps)
            fit(trainer, module, PhotoBatches(recipe, rows, self.dev, *self._tables), work / LAST_CHECKPOINT)
        self._seconds, self._attempts = self._seconds + stopwatch.seconds, max(self._attempts, stopwatch.attempts)
        self._steps += trainer.global_step
        self._samples += steps * recipe.budget.batch_size
        self._metrics |= {f"{prefix}{name}": float(value) for name, value in trainer.callback_metrics.items()}

    def finish(self, networks: Mapping[str, N], further: Mapping[str, Any] | None = None) -> TrainedModel:
        """Fit the weights of the levels and write the model's folder; `further` goes into `training.json`."""
        partitioning, mlflow = self.labels.partitioning, self._options.get("mlflow")
        weights, fitted_on = self._fitted_weights(networks)
        facts = self._facts() | {
            "trained_on_cells": self.classes(),
            "cells_fingerprint": partitioning.fingerprint,
            "rows_sha256": self.rows.fingerprint(),
            "hierarchy_weights": weights,
            "provenance": dict(self._options.get("provenance") or {}),
            "mlflow_run_id": mlflow.run_id if mlflow is not None else None,
            "finished_at": self._options.get("now", _now)().isoformat(),
            **(further or {}),
        }

        def also(folder: Path) -> None:
            write_partitioning(folder / CELLS_FOLDER, partitioning)
            write_json(folder / HIERARCHY_FILE, {"weights": weights, "fitted_on": fitted_on, "score_km": round(self.score_km, 3)})

        model = write_model(self._out, self.recipe, {file: network.cpu() for file, network in networks.items()}, facts, also)
        shutil.rmtree(self.work, ignore_errors=True)
        return model

    def classes(self) -> dict[str, int]:
        """Number of cells of each level that has a head."""
        return {level: len(self.labels.partitioning.level(level)) for level in self.levels}

    @property
    def score_km(self) -> float:
        """By which f* weighs where a photo may be."""
        lat, lng = self.rows.lat_deg, self.rows.lng_deg
        return score_m(lat.min(), lng.min(), lat.max(), lng.max()) / 1000

    def _fitted_weights(self, networks: Mapping[str, N]) -> tuple[dict[str, float], int]:
        """Weights of the levels in f*, and the number of photos of dev that they were fitted on."""
        if not self.levels or not len(self.dev):
            return dict.fromkeys(self.levels, 1.0), 0
        held = hold_photos(self.recipe, self.dev, *self._tables)
        parts = [self.asked(networks, held.__getitems__(rows)[:-1]) for rows in _in_blocks(len(held), _BLOCK)]
        said = {level: torch.cat([part[level] for part in parts]) for level in self.levels}
        levels = [self.labels.partitioning.level(level) for level in self.levels]
        fitted = fit_weights(
            said,
            self.dev.classes[:, -1],
            parent_table(levels),
            self.levels,
            unit_vectors(self.dev.lat_deg, self.dev.lng_deg),
            unit_vectors(levels[-1].lat_deg, levels[-1].lng_deg),
            self.score_km,
        )
        return fitted, len(held)

    def _facts(self) -> dict[str, Any]:
        return training_facts(
            self.recipe,
            self._metrics,
            rows=len(self.rows),
            epochs=self.recipe.budget.epochs,
            steps=self._steps,
            samples=self._samples,
            seconds=self._seconds,
            attempts=self._attempts,
        )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _in_blocks(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
