"""Trained models as one graph each, from uint8 pictures to answers, that can be exported.

A resize without cropping is two products with fixed matrices, one along each axis: that is what bilinear resampling with
antialiasing is, it takes a hundredth of a network's time, and it can repeat torch's arithmetic on bytes exactly.

In whatever is traced here, the size of a batch is `shape[0]`: `len` would make it a constant.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.learning.aggregation import RetrievalNetwork
from geoloc_dagster.learning.augmentation import normalise
from geoloc_dagster.learning.cells_model import CellsModel
from geoloc_dagster.learning.cells_network import SCENE, views_of
from geoloc_dagster.learning.multitask_model import MultitaskModel
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.recipe_parts import PicturesSpec
from geoloc_dagster.learning.sequence_model import SequenceModel

_MOST_BITS = 22


class Resize(nn.Module):
    """Bilinear resampling with antialiasing, as `augmentation.plain` does it, or in bytes as `augmentation.prepared`.

    Args:
        side: of the pictures that come in.
        size: of those that go out.
        in_bytes: rounded to bytes after either axis, with weights of 16 bits, as torch resizes uint8 on a CPU.
    """

    across: Tensor

    def __init__(self, side: int, size: int, *, in_bytes: bool) -> None:
        super().__init__()
        eye = torch.eye(side, dtype=torch.float64 if in_bytes else torch.float32)[None, None]  # torch's own precision of weights
        weights = F.interpolate(eye, size=(side, size), mode="bilinear", antialias=True, align_corners=False)[0, 0]
        self._bits = _bits_of(float(weights.max())) if in_bytes else None
        if self._bits is not None:
            weights = (weights * 2**self._bits).round()  # integers whose sums float32 holds exactly
        self._same = side == size
        self.register_buffer("across", weights.float())

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8, N x 3 x side x side -> float32 of 0..255, N x 3 x size x size."""
        values = pictures.float()
        if self._same:
            return values
        values = self._rounded(values @ self.across)
        return self._rounded(self.across.T @ values)

    def _rounded(self, sums: Tensor) -> Tensor:
        return sums if self._bits is None else ((sums + 2 ** (self._bits - 1)) / 2**self._bits).floor().clamp(0, 255)


def _bits_of(largest: float) -> int:
    """How many bits torch gives to the fraction of weights, so that the largest still fits into 16."""
    bits = 0
    while bits < _MOST_BITS and int(0.5 + largest * 2 ** (bits + 1)) < 1 << 15:
        bits += 1
    return bits


class EncoderGraph(nn.Module):
    """Pictures to unit vectors, as `learning.encoder.Encoder.embed` at 32 bits."""

    def __init__(self, network: RetrievalNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.network, self._data = network, recipe.data
        self.resize = Resize(recipe.data.stored_size, recipe.data.image_size, in_bytes=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8, N x 3 x side x side -> N x dimension."""
        return self.network(normalise(self.resize(pictures), self._data.normalise))


class PhotoGraph(nn.Module):
    """Pictures without class maps to log-probabilities of the finest cells, as `PhotoModel` says `hierarchy` of them."""

    def __init__(self, model: CellsModel | MultitaskModel) -> None:
        super().__init__()
        self.network = model.network
        self.by_scene = nn.ModuleDict(model.scene_networks if isinstance(model, CellsModel) else {})
        self._model, self._shown = model, _Shown(model.recipe.data, model.inference.crops)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8, N x 3 x side x side -> N x classes."""
        views = self._shown(pictures)
        logits = self._logits(self.network, views)
        return self._model.together(self._routed(logits, views) if len(self.by_scene) else logits)[HIERARCHY]

    def _logits(self, network: nn.Module, views: list[Tensor]) -> dict[str, Tensor]:
        """As `mean_logits`, all views in one batch: a graph that holds the network ten times is ten times as large."""
        seen: Any = torch.cat(views)
        said: dict[str, Tensor] = network((seen, None) if isinstance(self._model, MultitaskModel) else seen)
        return {name: value.unflatten(0, (len(views), -1)).mean(0) for name, value in said.items()}

    def _routed(self, logits: dict[str, Tensor], views: list[Tensor]) -> dict[str, Tensor]:
        """Each photo by the network of its likeliest scene; all are asked, because a graph has one way through it."""
        scene = logits[SCENE].argmax(dim=1)
        own = [self._logits(self.by_scene[name], views) for name in SCENES]
        rows = torch.arange(scene.shape[0])
        return {**logits, **{level: torch.stack([said[level] for said in own])[scene, rows] for level in self._model.levels}}


class SequenceGraph(nn.Module):
    """Pictures, each the only view of its place, to log-probabilities of the finest classes, as `photo_models.SingleViews`."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.network, self._model = model.network, model
        self._shown = _Shown(model.recipe.data, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8, N x 3 x side x side -> N x classes."""
        features = self.network.view_features(self._shown(pictures)[0])[:, None]
        headings = torch.full((pictures.shape[0], 1), torch.nan)
        present = torch.ones((pictures.shape[0], 1), dtype=torch.bool)
        return self._model.together(self.network(features, headings, present))[HIERARCHY]


class _Shown(nn.Module):
    """What a classifier is shown of pictures as they are stored, as `views_of` makes it on a CPU."""

    def __init__(self, data: PicturesSpec, crops: int) -> None:
        super().__init__()
        self._data, self._crops = data, crops
        self.resize = Resize(data.stored_size, data.image_size, in_bytes=True)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        if self._crops > 1:
            return views_of(pictures, self._data, self._crops)  # cut, not resized
        return [normalise(self.resize(pictures), self._data.normalise)]
