"""Training of sequence models: from a recipe, a catalog and classes to a model folder."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.errors import ModelMismatchError, RecipeError
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.geo.grid_cells import read_grid_cells
from geoloc_dagster.geo.partitioning import Partitioning
from geoloc_dagster.geo.partitioning_folder import read_partitioning
from geoloc_dagster.geo.region_classes import region_classes, write_classes
from geoloc_dagster.learning.callbacks import Clock, ProgressReport, Stopwatch
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE
from geoloc_dagster.learning.device import compile_where_it_pays
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.hierarchy import fit_weights
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel, build_trainer, fit, training_facts, write_model
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.sequence_batches import SequenceBatches, SequenceViews
from geoloc_dagster.learning.sequence_model import SequenceModel
from geoloc_dagster.learning.sequence_module import SequenceModule
from geoloc_dagster.learning.sequence_network import SequenceNetwork, build_sequence_network, in_slots
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.learning.sequence_rows import levels_of, require_sequences, select_sequences, usable_views
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import translated_errors, verify_manifest, write_json

_log = logging.getLogger(__name__)
_BACKBONE = "backbone."
_BLOCK = 64
Progress = Callable[[int, int], None]


def read_region_classes(recipe: SequenceRecipe, catalog: pa.Table, grid_cells: Path, s2_partitions: Path) -> Partitioning:
    """The classes that a recipe tells apart: the region's S2 cells, or its grid cells with the places of training in each.

    Raises:
        PartitioningError, IntegrityError: there are none yet, or they are damaged.
    """
    if recipe.heads.classes == "s2_cells":
        return read_partitioning(s2_partitions)
    places: Any = usable_views(recipe, catalog, recipe.data.splits).drop_duplicates("location_id")
    return region_classes(
        read_grid_cells(grid_cells), places["lat_deg"].to_numpy(np.float64), places["lng_deg"].to_numpy(np.float64)
    )


def train_sequence(
    recipe: SequenceRecipe,
    catalog: pa.Table,
    classes: Partitioning,
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
        classes: that places lie in.
        crops_path: the crops table.
        out_folder: of this recipe's models.
        base: folder of the model that gives the backbone its weights.
        mlflow: where to log; nowhere without it.
        resume: go on from the `last.ckpt` of an interrupted training of the same recipe on the same rows.
        progress: called with (steps done, steps in all).
        provenance: JSON facts of the upstream that are kept in `training.json`.
        now: the time of day, aware.
        clock: seconds, for durations only.

    Raises:
        NotEnoughDataError: fewer places and dates than a batch.
        ModelMismatchError: the model to start from has another backbone.
        RecipeError, WeightsError: the recipe's network cannot be built.
        IntegrityError: a crop is not the one of the catalog, or a file is damaged.
    """
    rows = require_sequences(recipe, select_sequences(recipe, catalog, classes, recipe.data.splits))
    dev = select_sequences(recipe, catalog, classes, [] if "dev" in recipe.data.splits else ["dev"])
    levels = levels_of(recipe, classes)
    work = out_folder / f".work-{recipe.recipe_hash()}-{rows.fingerprint()[:12]}"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    network = build_sequence_network(
        recipe, {level: len(classes.level(level)) for level in levels}, load_weights=recipe.start_from is None
    )
    if recipe.start_from is not None:
        start_from(network, base, recipe)
    per_epoch = len(rows) // recipe.budget.batch_size
    steps = recipe.budget.epochs * per_epoch
    module, stopwatch = SequenceModule(recipe, network, classes, rows, dev), Stopwatch(clock)
    callbacks: list[pl.Callback] = [stopwatch, ProgressReport(progress, steps)]
    with translated_errors(work):
        trainer = build_trainer(
            work,
            mlflow,
            callbacks,
            epochs=recipe.budget.epochs,
            clip_norm=recipe.optimiser.clip_norm,
            options=recipe.trainer,
            compute=recipe.compute,
        )
        compile_where_it_pays(network, recipe.compute, trainer.strategy.root_device, steps=steps)
        data = SequenceBatches(recipe, network, rows, dev, crops_path)
        fit(trainer, module, data, work / LAST_CHECKPOINT)
    score_km = score_m(rows.lat_deg.min(), rows.lng_deg.min(), rows.lat_deg.max(), rows.lng_deg.max()) / 1000
    weights = _fitted_weights(recipe, network, classes, data.dev, score_km)
    facts = training_facts(
        recipe,
        {name: float(value) for name, value in trainer.callback_metrics.items()},
        rows=len(rows.capture_ids),
        epochs=recipe.budget.epochs,
        steps=trainer.global_step,
        samples=round(steps * recipe.budget.batch_size * float(rows.counts.mean())),
        seconds=stopwatch.seconds,
        attempts=stopwatch.attempts,
    ) | {
        "trained_on_sequences": len(rows),
        "trained_on_places": len(set(rows.location_ids)),
        "trained_on_cells": {level: len(classes.level(level)) for level in levels},
        "cells_fingerprint": classes.fingerprint,
        "rows_sha256": rows.fingerprint(),
        "hierarchy_weights": weights,
        "base_model": base.name if base is not None else None,
        "provenance": dict(provenance or {}),
        "mlflow_run_id": mlflow.run_id if mlflow is not None else None,
        "finished_at": now().isoformat(),
    }

    def also(folder: Path) -> None:
        write_classes(folder / CELLS_FOLDER, classes)
        write_json(folder / HIERARCHY_FILE, {"weights": weights, "fitted_on": len(dev), "score_km": round(score_km, 3)})

    model = write_model(out_folder, recipe, {WEIGHTS_FILE: network.cpu()}, facts, also)
    shutil.rmtree(work, ignore_errors=True)
    return model


def start_from(network: SequenceNetwork, base: Path | None, recipe: SequenceRecipe) -> None:
    """Give the backbone the weights of a trained model's.

    Raises:
        RecipeError: there is no model to start from.
        ModelMismatchError: its backbone is another one.
        IntegrityError: a file of it has changed.
    """
    if base is None:
        raise RecipeError(f"recipe {recipe.name} needs a trained model of recipe {recipe.start_from} to start from")
    verify_manifest(base)
    state = load_file(base / WEIGHTS_FILE)
    own = {name.removeprefix(_BACKBONE): value for name, value in state.items() if name.startswith(_BACKBONE)}
    try:
        network.backbone.load_state_dict(own)
    except RuntimeError as error:
        raise ModelMismatchError(
            f"{base.name} has another backbone than recipe {recipe.name}", "Give both recipes the same `backbone`."
        ) from error


def _fitted_weights(
    recipe: SequenceRecipe, network: SequenceNetwork, classes: Partitioning, dev: SequenceViews | None, score_km: float
) -> dict[str, float]:
    """Weights of the levels in f*, by the places and dates of dev; all 1 where there are none."""
    levels = levels_of(recipe, classes)
    equal = dict.fromkeys(levels, 1.0)
    if dev is None:
        return equal
    inference = recipe.inference.model_copy(update={"hierarchy": "equal"})
    model = SequenceModel(recipe, classes, network, "being trained", equal, inference)
    rows, parts = dev.rows, list[dict[str, Tensor]]()
    for start in range(0, len(rows), _BLOCK):
        chosen = list(range(start, min(start + _BLOCK, len(rows))))
        views = dev.__getitems__(chosen)[0]
        there = torch.from_numpy(rows.present[chosen])
        features = views if recipe.frozen else model.view_features(views)
        parts.append(model.said_of(in_slots(features, there), rows.headings[chosen], there))
    finest = model.finest
    return fit_weights(
        {level: torch.cat([part[level] for part in parts]) for level in levels},
        rows.classes[:, -1],
        model.parents,
        levels,
        unit_vectors(rows.lat_deg, rows.lng_deg),
        unit_vectors(finest.lat_deg, finest.lng_deg),
        score_km,
    )
