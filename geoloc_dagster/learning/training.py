"""The training loop: from a recipe and a catalog to an immutable model folder.

While it runs, a work folder holds `last.ckpt`, written after every epoch; a killed training goes on from there and, on
the CPU with the same number of threads, ends at the same weights as one that was never interrupted.
"""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from geoloc_dagster.learning.aggregation import RetrievalNetwork
from geoloc_dagster.learning.augmentation import plain
from geoloc_dagster.learning.callbacks import Clock, EarlyStop, ProgressReport, Stopwatch
from geoloc_dagster.learning.device import compile_where_it_pays
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel, build_trainer, fit, training_facts, write_model
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.module import RetrievalModule
from geoloc_dagster.learning.pictures import MemoryPictures, StreamedPictures, keep_batch, read_pictures
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.rows import TrainingRows, select_rows
from geoloc_dagster.learning.sampler import PlaceBatchSampler
from geoloc_dagster.learning.shared_batch import ShareOfBatches
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.learning.validation import DevSplit
from geoloc_dagster.storage import translated_errors

_WHITENING_BATCH = 256


def train(
    recipe: Recipe,
    catalog: pa.Table,
    crops_path: Path,
    out_folder: Path,
    *,
    mlflow: MlflowTarget | None = None,
    resume: bool = True,
    progress: Callable[[int, int], None] | None = None,
    provenance: Mapping[str, Any] | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    clock: Clock = time.monotonic,
) -> TrainedModel:
    """Train a recipe and write the model as `out_folder/<model_version>/`.

    Args:
        recipe: what to train.
        catalog: the feature table; `usable`, `split` and `flags` decide which rows are learned from.
        crops_path: the crops table.
        out_folder: of this recipe's models.
        mlflow: where to log; nowhere without it.
        resume: go on from the `last.ckpt` of an interrupted training of the same recipe on the same rows.
        progress: called with (steps done, steps in all).
        provenance: JSON facts of the upstream (table versions, run id) that are kept in `training.json`.
        now: the time of day, aware; when the training finished is written down.
        clock: seconds, for durations only.

    Raises:
        NotEnoughDataError: fewer places than a batch needs.
        RecipeError, WeightsError: the recipe's backbone cannot be built.
        IntegrityError: a crop is not the one of the catalog, or `last.ckpt` is damaged.
    """
    rows = select_rows(recipe.data, catalog)
    work = out_folder / f".work-{recipe.recipe_hash()}-{rows.fingerprint()[:12]}"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    steps = recipe.budget.epochs * len(_sampler(recipe, rows, epoch=0))
    module = RetrievalModule(recipe, rows.places, rows.locations, steps)
    stopwatch = Stopwatch(clock)
    dev = DevSplit(recipe, catalog, crops_path)
    callbacks: list[pl.Callback] = [stopwatch, ProgressReport(progress, steps)]
    if recipe.budget.early_stop is not None and dev.has_queries:
        callbacks.append(EarlyStop(recipe.budget.early_stop, dev, work / "best.safetensors"))
    with translated_errors(work):
        trainer = build_trainer(
            work,
            mlflow,
            callbacks,
            epochs=recipe.budget.epochs,
            clip_norm=recipe.optimiser.clip_norm,
            compute=recipe.compute,
        )
        compile_where_it_pays(module.network, recipe.compute, trainer.strategy.root_device, steps=steps)
        data = _Pictures(recipe, rows, crops_path)
        fit(trainer, module, data, work / LAST_CHECKPOINT)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    data.whiten(module.network)
    recall = dev.recall(module.network)
    for logger in trainer.loggers:
        logger.log_metrics(recall, step=trainer.global_step)
    facts = training_facts(
        recipe,
        metrics | recall,
        rows=len(rows.capture_ids),
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        samples=trainer.global_step * recipe.sampler.places * recipe.sampler.pictures_per_place,
        seconds=stopwatch.seconds,
        attempts=stopwatch.attempts,
    ) | {
        "trained_on_places": rows.place_count,
        "trained_on_locations": int(rows.locations.max()) + 1,
        "rows_sha256": rows.fingerprint(),
        "provenance": dict(provenance or {}),
        "mlflow_run_id": mlflow.run_id if mlflow is not None else None,
        "finished_at": now().isoformat(),
    }
    model = write_model(out_folder, recipe, {WEIGHTS_FILE: module.network.cpu()}, facts)
    shutil.rmtree(work, ignore_errors=True)
    return model


class _Pictures(pl.LightningDataModule):
    """Training pictures in memory or streamed, with a new order every epoch."""

    def __init__(self, recipe: Recipe, rows: TrainingRows, crops_path: Path) -> None:
        super().__init__()
        self._recipe, self._rows = recipe, rows
        size, spec = recipe.data.stored_size, recipe.data
        self._streamed = len(rows.capture_ids) * 3 * size * size > spec.memory_limit_gib * 2**30
        self._pictures: MemoryPictures | StreamedPictures
        if self._streamed:
            self._pictures = StreamedPictures(crops_path, rows.capture_ids, size, rows.sha256)
        else:
            pixels = read_pictures(crops_path, rows.capture_ids, size, expected_sha256=rows.sha256)
            self._pictures = MemoryPictures(pixels)

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches of the epoch that is about to begin; workers are spawned afresh, never forked (Lance)."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        workers = self._recipe.data.workers if self._streamed else 0
        return DataLoader(
            self._pictures,
            batch_sampler=self._share(_sampler(self._recipe, self._rows, epoch)),
            collate_fn=keep_batch,
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def _share(self, batches: PlaceBatchSampler) -> PlaceBatchSampler | ShareOfBatches:
        if self.trainer is None or self.trainer.world_size == 1:
            return batches
        size = self._recipe.sampler.places * self._recipe.sampler.pictures_per_place
        return ShareOfBatches(batches, size, self.trainer.global_rank, self.trainer.world_size)

    def whiten(self, network: RetrievalNetwork) -> None:
        """Fit the whitening of a trained network, where its recipe has one, on some of its training pictures."""
        spec, data = self._recipe.head.whitening, self._recipe.data
        if spec is None or network.whitening is None:
            return
        chosen = np.random.default_rng(self._recipe.seed).permutation(len(self._pictures))[: spec.pictures].tolist()
        device = network.whitening.mean.device
        network.eval()
        with torch.inference_mode():
            parts = [
                network.unwhitened(plain(self._pictures.__getitems__(part)[0].to(device), data.image_size, data.normalise))
                for part in (chosen[start : start + _WHITENING_BATCH] for start in range(0, len(chosen), _WHITENING_BATCH))
            ]
        network.whitening.fit(torch.cat(parts).float(), spec.power)


def _sampler(recipe: Recipe, rows: TrainingRows, epoch: int) -> PlaceBatchSampler:
    spec = recipe.sampler
    return PlaceBatchSampler(rows.places, rows.dates, spec.places, spec.pictures_per_place, recipe.seed, epoch)
