"""Training of classifiers of cells, and of networks per scene: from a recipe, a catalog and its labels to a model folder."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save

from geoloc_dagster.dataset.cells import Labels
from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import ModelMismatchError, NotEnoughDataError, RecipeError
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.geo.partitioning import fingerprint_of_levels, parent_table
from geoloc_dagster.geo.partitioning_folder import write_partitioning
from geoloc_dagster.learning.callbacks import Clock, ProgressReport, Stopwatch
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE, CellsModel, load_cells_model, scene_weights_file
from geoloc_dagster.learning.cells_module import CellsModule
from geoloc_dagster.learning.cells_network import CellsNetwork, build_cells_network
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.device import compile_where_it_pays
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.hierarchy import fit_weights
from geoloc_dagster.learning.loop import (
    LAST_CHECKPOINT,
    TrainedModel,
    build_trainer,
    fit,
    is_first_process,
    training_facts,
    write_model,
)
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.photo_batches import PhotoBatches, hold_photos
from geoloc_dagster.learning.photo_rows import PhotoRows, levels_of, require_photos, select_photos
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import translated_errors, write_bytes, write_json

_log = logging.getLogger(__name__)
_DEV_PHOTOS = 20_000
Progress = Callable[[int, int], None]


def train_cells(
    recipe: CellsRecipe,
    catalog: pa.Table,
    labels: Labels,
    crops_path: Path,
    out_folder: Path,
    *,
    base: Path | None = None,
    mlflow: MlflowTarget | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    clock: Clock = time.monotonic,
) -> TrainedModel:
    """Train a recipe and write the model as `out_folder/<model_version>/`.

    Args:
        recipe: what to train.
        catalog: the feature table; `usable`, `split` and `flags` decide which rows are learned from.
        labels: the cells and scenes of its rows.
        crops_path: the crops table.
        out_folder: of this recipe's models.
        base: folder of the model that networks per scene start from.
        mlflow: where to log; nowhere without it.
        resume: go on from the `last.ckpt` of an interrupted training of the same recipe on the same rows.
        progress: called with (steps done, steps in all).
        provenance: JSON facts of the upstream that are kept in `training.json`.
        now: the time of day, aware.
        clock: seconds, for durations only.

    Raises:
        NotEnoughDataError: fewer labelled photos than a batch.
        ModelMismatchError: labels or the model to start from are of other cells.
        RecipeError, WeightsError: the recipe's network cannot be built.
        IntegrityError: a crop is not the one of the catalog, or `last.ckpt` is damaged.
    """
    rows = require_photos(recipe, select_photos(recipe, catalog, labels, list(recipe.data.splits)))
    dev_splits = [] if "dev" in recipe.data.splits else ["dev"]
    dev = select_photos(recipe, catalog, labels, dev_splits)
    if len(dev) > _DEV_PHOTOS:
        dev = dev.chosen(np.random.default_rng(recipe.seed).permutation(len(dev)) < _DEV_PHOTOS)
    work = out_folder / f".work-{recipe.recipe_hash()}-{rows.fingerprint()[:12]}"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    keep_freed_memory()
    training = _Training(recipe, labels, crops_path, rows, dev, work, mlflow, clock, progress)
    networks = training.plain() if recipe.scene_networks is None else training.per_scene(base)
    weights, fitted_on = training.fitted_weights(networks)
    facts = training.facts() | {
        "trained_on_cells": {level: len(labels.partitioning.level(level)) for level in levels_of(recipe, labels.partitioning)},
        "cells_fingerprint": labels.partitioning.fingerprint,
        "rows_sha256": rows.fingerprint(),
        "hierarchy_weights": weights,
        "base_model": base.name if base is not None else None,
        "provenance": dict(provenance or {}),
        "mlflow_run_id": mlflow.run_id if mlflow is not None else None,
        "finished_at": now().isoformat(),
    }

    def also(folder: Path) -> None:
        write_partitioning(folder / CELLS_FOLDER, labels.partitioning)
        said = {"weights": weights, "fitted_on": fitted_on, "score_km": round(training.score_km, 3)}
        write_json(folder / HIERARCHY_FILE, said)

    model = write_model(out_folder, recipe, {file: network.cpu() for file, network in networks.items()}, facts, also)
    shutil.rmtree(work, ignore_errors=True)
    return model


class _Training:
    """One training: one network, or one after the other for every scene."""

    def __init__(
        self,
        recipe: CellsRecipe,
        labels: Labels,
        crops_path: Path,
        rows: PhotoRows,
        dev: PhotoRows,
        work: Path,
        mlflow: MlflowTarget | None,
        clock: Clock,
        progress: Progress | None,
    ) -> None:
        self._recipe, self._labels, self._crops = recipe, labels, crops_path
        self._rows, self._dev, self._work = rows, dev, work
        self._mlflow, self._clock, self._progress = mlflow, clock, progress
        self._levels = levels_of(recipe, labels.partitioning)
        self._steps, self._samples = 0, 0
        self._seconds, self._attempts = 0.0, 1
        self._metrics: dict[str, float] = {}

    def plain(self) -> dict[str, CellsNetwork]:
        """One network for all photos."""
        torch.manual_seed(self._recipe.seed)
        network = build_cells_network(self._recipe, self._classes())
        self._run(network, self._rows, self._work)
        return {WEIGHTS_FILE: network}

    def per_scene(self, base: Path | None) -> dict[str, CellsNetwork]:
        """The model that is started from, which routes, and one network for each scene."""
        spec = self._recipe.scene_networks
        assert spec is not None
        if base is None:
            raise RecipeError(f"recipe {self._recipe.name} needs a trained model of recipe {spec.base} to start from")
        start = self._base(base)
        networks = {WEIGHTS_FILE: start}
        for number, scene in enumerate(SCENES):
            finished = self._work / scene_weights_file(scene)
            network = build_cells_network(self._recipe, self._classes(), load_weights=False)
            if finished.is_file():  # by an earlier attempt
                network.load_state_dict(load_file(finished))
            else:
                network.load_state_dict(start.state_dict())
                own = self._rows.chosen(self._rows.scenes[:, number] >= spec.threshold)
                if len(own) < self._recipe.budget.batch_size:
                    raise NotEnoughDataError(f"only {len(own):,} photos of training show the scene `{scene}`")
                self._run(network, own, self._work / scene, prefix=f"{scene}_")
                if is_first_process():
                    write_bytes(finished, save({name: value.contiguous() for name, value in network.state_dict().items()}))
            networks[scene_weights_file(scene)] = network
        return networks

    def fitted_weights(self, networks: Mapping[str, CellsNetwork]) -> tuple[dict[str, float], int]:
        """Weights of the levels in f*, and the number of photos of dev that they were fitted on."""
        if not self._levels or not len(self._dev):
            return dict.fromkeys(self._levels, 1.0), 0
        scene_networks = {scene: networks[scene_weights_file(scene)] for scene in SCENES if scene_weights_file(scene) in networks}
        inference = self._recipe.inference.model_copy(update={"hierarchy": "equal"})
        finest = self._labels.partitioning.level(self._levels[-1])
        equal = dict.fromkeys(self._levels, 1.0)
        network = networks[WEIGHTS_FILE]
        model = CellsModel(self._recipe, self._labels.partitioning, network, "being trained", equal, inference)
        model.scene_networks = scene_networks
        dev = hold_photos(self._recipe, self._dev, self._crops)
        parts = [model.log_probabilities(dev.__getitems__(rows)[0]) for rows in _in_blocks(len(dev), 512)]
        said = {level: torch.cat([part[level] for part in parts]) for level in self._levels}
        parents = parent_table([self._labels.partitioning.level(level) for level in self._levels])
        fitted = fit_weights(
            said,
            self._dev.classes[:, -1],
            parents,
            self._levels,
            unit_vectors(self._dev.lat_deg, self._dev.lng_deg),
            unit_vectors(finest.lat_deg, finest.lng_deg),
            self.score_km,
        )
        return fitted, len(dev)

    @property
    def score_km(self) -> float:
        """By which f* weighs where a photo may be."""
        lat, lng = self._rows.lat_deg, self._rows.lng_deg
        return score_m(lat.min(), lng.min(), lat.max(), lng.max()) / 1000

    def facts(self) -> dict[str, Any]:
        """What `training.json` says of all its parts."""
        return training_facts(
            self._recipe,
            self._metrics,
            rows=len(self._rows),
            epochs=self._recipe.budget.epochs,
            steps=self._steps,
            samples=self._samples,
            seconds=self._seconds,
            attempts=self._attempts,
        )

    def _run(self, network: CellsNetwork, rows: PhotoRows, work: Path, prefix: str = "") -> None:
        recipe = self._recipe
        steps = recipe.budget.epochs * (len(rows) // recipe.budget.batch_size)
        module = CellsModule(recipe, network, self._labels.partitioning, rows, self._dev)
        stopwatch = Stopwatch(self._clock)
        callbacks: list[pl.Callback] = [stopwatch, ProgressReport(self._progress, steps)]
        with translated_errors(work):
            trainer = build_trainer(
                work,
                self._mlflow,
                callbacks,
                epochs=recipe.budget.epochs,
                clip_norm=recipe.optimiser.clip_norm,
                options=recipe.trainer,
                compute=recipe.compute,
            )
            compile_where_it_pays(network, recipe.compute, trainer.strategy.root_device, steps=steps)
            fit(trainer, module, PhotoBatches(recipe, rows, self._dev, self._crops), work / LAST_CHECKPOINT)
        self._seconds, self._attempts = self._seconds + stopwatch.seconds, max(self._attempts, stopwatch.attempts)
        self._steps += trainer.global_step
        self._samples += recipe.budget.epochs * (len(rows) // recipe.budget.batch_size) * recipe.budget.batch_size
        self._metrics |= {f"{prefix}{name}": float(value) for name, value in trainer.callback_metrics.items()}

    def _base(self, folder: Path) -> CellsNetwork:
        model = load_cells_model(folder, device="cpu")
        if model.network.scene is None or self._recipe.heads.scene is None:
            raise RecipeError(f"networks per scene are routed by a scene head; {folder.name} or this recipe has none")
        if fingerprint_of_levels(model.partitioning.levels) != fingerprint_of_levels(self._labels.partitioning.levels):
            raise ModelMismatchError(
                f"{folder.name} tells other cells apart than those of today", "Train its recipe again first."
            )
        return model.network

    def _classes(self) -> dict[str, int]:
        return {level: len(self._labels.partitioning.level(level)) for level in self._levels}


def _in_blocks(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
