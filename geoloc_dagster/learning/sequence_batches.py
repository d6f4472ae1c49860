"""Places and dates in batches, each with all of its views: as pictures, or as features that a frozen backbone gave once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from geoloc_dagster.learning.augmentation import prepared
from geoloc_dagster.learning.photo_batches import ShuffledBatches
from geoloc_dagster.learning.pictures import MemoryPictures, StreamedPictures, keep_batch, read_pictures
from geoloc_dagster.learning.sequence_network import SequenceNetwork
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.learning.sequence_rows import SequenceRows

Views = MemoryPictures | StreamedPictures
_BLOCK = 128


class SequenceViews(Dataset[tuple[Tensor, Tensor]]):
    """An item is (the views of a row, P x …; its row number); several items are their views one after the other."""

    def __init__(self, rows: SequenceRows, views: Views) -> None:
        self.rows, self.views = rows, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.views.__getitems__(self.rows.captures_of(indices))[0], torch.tensor(indices)


class SequenceBatches(pl.LightningDataModule):
    """Places and dates of training and dev; `network` gives features where the recipe freezes it."""

    def __init__(
        self, recipe: SequenceRecipe, network: SequenceNetwork, rows: SequenceRows, dev: SequenceRows, crops_path: Path
    ) -> None:
        super().__init__()
        self._recipe, self._count = recipe, len(rows)
        self._train = hold_sequences(recipe, network, rows, crops_path)
        self.dev = hold_sequences(recipe, network, dev, crops_path) if len(dev) else None

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches of the epoch that is about to begin."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return self._loader(self._train, ShuffledBatches(self._count, self._recipe.budget.batch_size, self._recipe.seed, epoch))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Dev in its order; nothing where there is none."""
        if self.dev is None:
            return []
        size = self._recipe.budget.batch_size
        return self._loader(
            self.dev, [list(part) for part in np.split(np.arange(len(self.dev)), range(size, len(self.dev), size))]
        )

    def _loader(self, views: SequenceViews, batch_sampler: Any) -> DataLoader[Any]:
        """Workers are spawned afresh, never forked (Lance)."""
        workers = self._recipe.data.workers if isinstance(views.views, StreamedPictures) else 0
        return DataLoader(
            views,
            batch_sampler=batch_sampler,
            collate_fn=keep_batch,
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
            pin_memory=torch.cuda.is_available(),
        )


def hold_sequences(recipe: SequenceRecipe, network: SequenceNetwork, rows: SequenceRows, crops_path: Path) -> SequenceViews:
    """The views of some rows: features of a frozen backbone, else pictures, in memory or streamed as their number allows."""
    size = recipe.data.stored_size
    if len(rows.capture_ids) * 3 * size * size > recipe.data.memory_limit_gib * 2**30:
        views: Views = StreamedPictures(crops_path, rows.capture_ids, size, rows.sha256)
    else:
        views = MemoryPictures(read_pictures(crops_path, rows.capture_ids, size, expected_sha256=rows.sha256))
    if recipe.frozen:
        views = MemoryPictures(_features(recipe, network, views))
    return SequenceViews(rows, views)


def _features(recipe: SequenceRecipe, network: SequenceNetwork, views: Views) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.eval().to(device)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(views), _BLOCK):
            pictures, _ = views.__getitems__(list(range(start, min(start + _BLOCK, len(views)))))
            seen = prepared(pictures.to(device), recipe.data.image_size, recipe.data.normalise)
            parts.append(network.view_features(seen).float().cpu())
    return torch.cat(parts).clone()
