"""Photos of a training in batches: each once an epoch, held in memory or streamed from the crops table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from geoloc_dagster.learning.mapped_pictures import MappedPictures
from geoloc_dagster.learning.multitask_recipe import PhotoRecipe
from geoloc_dagster.learning.photo_rows import PhotoRows
from geoloc_dagster.learning.pictures import MemoryPictures, StreamedPictures, keep_batch, read_pictures
from geoloc_dagster.learning.shared_batch import ShareOfBatches

HeldPhotos = MemoryPictures | StreamedPictures | MappedPictures


class ShuffledBatches(Sampler[list[int]]):
    """Row numbers of one epoch's batches, each row once up to the last incomplete batch; the order follows from (seed, epoch)."""

    def __init__(self, rows: int, batch_size: int, seed: int, epoch: int) -> None:
        self._rows, self._size = rows, batch_size
        self._seed, self._epoch = seed, epoch

    def __len__(self) -> int:
        return self._rows // self._size

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)
        for start in range(0, len(self) * self._size, self._size):
            yield order[start : start + self._size].tolist()


class PhotoBatches(pl.LightningDataModule):
    """Photos of training and dev, in memory or streamed; with their class maps where there is a table of these."""

    def __init__(
        self, recipe: PhotoRecipe, rows: PhotoRows, dev: PhotoRows, crops_path: Path, maps_path: Path | None = None
    ) -> None:
        super().__init__()
        self._recipe = recipe
        self._count = len(rows)
        self._train = hold_photos(recipe, rows, crops_path, maps_path)
        self.dev = hold_photos(recipe, dev, crops_path, maps_path) if len(dev) else None

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches of the epoch that is about to begin."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        batches = ShuffledBatches(self._count, self._recipe.budget.batch_size, self._recipe.seed, epoch)
        if self.trainer is not None and self.trainer.world_size > 1:
            rank, parts = self.trainer.global_rank, self.trainer.world_size
            return _loader(
                self._recipe,
                self._train,
                batch_sampler=ShareOfBatches(batches, self._recipe.budget.batch_size, rank, parts),
            )
        return _loader(self._recipe, self._train, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Dev in its order; nothing where there is none."""
        if self.dev is None:
            return []
        size = self._recipe.budget.batch_size
        batches = [list(range(start, min(start + size, len(self.dev)))) for start in range(0, len(self.dev), size)]
        return _loader(self._recipe, self.dev, batch_sampler=batches)


def hold_photos(recipe: PhotoRecipe, rows: PhotoRows, crops_path: Path, maps_path: Path | None = None) -> HeldPhotos:
    """The photos of some rows, in their order, as the size of the collection allows, and their class maps where there are any."""
    size = recipe.data.stored_size
    layers = 3 if maps_path is None else 4
    if len(rows) * layers * size * size > recipe.data.memory_limit_gib * 2**30:
        pictures = StreamedPictures(crops_path, rows.capture_ids, size, rows.sha256)
    else:
        pictures = MemoryPictures(read_pictures(crops_path, rows.capture_ids, size, expected_sha256=rows.sha256))
    return pictures if maps_path is None else MappedPictures(pictures, maps_path, rows.capture_ids, size, rows.sha256)


def _loader(recipe: PhotoRecipe, pictures: HeldPhotos, *, batch_sampler: Any) -> DataLoader[Any]:
    """Workers are spawned afresh, never forked (Lance)."""
    streamed = pictures.streamed if isinstance(pictures, MappedPictures) else isinstance(pictures, StreamedPictures)
    workers = recipe.data.workers if streamed else 0
    return DataLoader(
        pictures,
        batch_sampler=batch_sampler,
        collate_fn=keep_batch,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
