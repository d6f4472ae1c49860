"""One backbone with a linear classifier per level of cells, and one of the scene where the recipe wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.learning.aggregation import GeM
from geoloc_dagster.learning.augmentation import normalise, plain, prepared
from geoloc_dagster.learning.backbones import Backbone, build_backbone
from geoloc_dagster.learning.cells_recipe import CellHeadSpec, CellsRecipe, LevelHeadSpec
from geoloc_dagster.learning.recipe_parts import PicturesSpec

SCENE = "scene"
"""The name of the scene head among the outputs; no level may be called so."""


class HeadedNetwork(nn.Module):
    """A linear classifier per level and, where it is wanted, of the scene.

    Args:
        width: of the features that they stand on.
        spec: dropout, and whether there is a scene head.
        classes: number of cells of each level.
    """

    def __init__(self, width: int, spec: LevelHeadSpec, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(spec.dropout)
        self.heads = nn.ModuleDict({level: nn.Linear(width, count) for level, count in classes.items()})
        self.scene = nn.Linear(width, len(SCENES)) if spec.scene is not None else None

    def said(self, features: Tensor) -> dict[str, Tensor]:
        """Features, N x width -> logits of each level, N x classes, and of `scene`, N x 3."""
        features = self.dropout(features)
        logits = {level: head(features) for level, head in self.heads.items()}
        return logits if self.scene is None else {**logits, SCENE: self.scene(features)}


class CellsNetwork(HeadedNetwork):
    """Backbone, pooling, and a classifier per level.

    Args:
        backbone: gives feature maps.
        spec: pooling, dropout, and whether there is a scene head.
        classes: number of cells of each level.
    """

    def __init__(self, backbone: Backbone, spec: CellHeadSpec, classes: Mapping[str, int]) -> None:
        super().__init__(backbone.channels, spec, classes)
        self.backbone = backbone
        self.pooling = GeM() if spec.pooling == "gem" else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Normalised pictures, N x 3 x S x S -> logits of each level, N x classes, and of `scene`, N x 3."""
        return self.said(self.pooling(self.backbone(pictures)))


def build_cells_network(recipe: CellsRecipe, classes: Mapping[str, int], *, load_weights: bool = True) -> CellsNetwork:
    """The untrained network of a recipe; `load_weights=False` leaves its pretrained weights out."""
    backbone = build_backbone(recipe.backbone, recipe.data.image_size, load_weights=load_weights)
    network = CellsNetwork(backbone, recipe.heads, classes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def views_of(pictures: Tensor, data: PicturesSpec, crops: int) -> list[Tensor]:
    """What the network is shown of uint8 pictures, N x 3 x any size: `crops` batches, N x 3 x image_size x image_size.

    One crop is the whole picture, resized. Five are the corners and the middle at the size that training cuts from; ten are
    these mirrored as well.
    """
    if crops == 1:
        return [prepared(pictures, data.image_size, data.normalise)]
    whole = plain(pictures, data.stored_size, "none")
    cut = [normalise(corner, data.normalise) for corner in _corners(whole, data)]
    return cut if crops == 5 else [*cut, *(view.flip(3).contiguous(memory_format=torch.channels_last) for view in cut)]


def map_views_of(maps: Tensor, data: PicturesSpec, crops: int) -> list[Tensor]:
    """The class maps, uint8, N x any size, of what `views_of` shows of their pictures: N x image_size x image_size each."""
    if crops == 1:
        return [resized_maps(maps, data.image_size)]
    cut = list(_corners(resized_maps(maps, data.stored_size), data))
    return cut if crops == 5 else [*cut, *(view.flip(2) for view in cut)]


def resized_maps(maps: Tensor, size: int) -> Tensor:
    """Class maps, N x any size, at another size, each pixel with the class of the nearest one."""
    if maps.shape[-2:] == (size, size):
        return maps
    return F.interpolate(maps[:, None].float(), size=(size, size), mode="nearest-exact")[:, 0].to(maps.dtype)


def _corners(whole: Tensor, data: PicturesSpec) -> Iterator[Tensor]:
    """The corners and the middle of the last two dimensions."""
    size = data.image_size
    end, middle = data.stored_size - size, (data.stored_size - size) // 2
    for top, left in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
        yield whole[..., top : top + size, left : left + size]


def mean_logits(network: nn.Module, views: Sequence[Any]) -> dict[str, Tensor]:
    """Logits averaged over the views of each picture."""
    said: list[dict[str, Tensor]] = [network(view) for view in views]
    return {name: torch.stack([logits[name].float() for logits in said]).mean(0) for name in said[0]}
