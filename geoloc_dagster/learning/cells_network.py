"""One backbone with a linear classifier per level of cells, and one of the scene where the recipe wants it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.learning.aggregation import GeM
from geoloc_dagster.learning.augmentation import normalise, plain, prepared
from geoloc_dagster.learning.backbones import Backbone, build_backbone
from geoloc_dagster.learning.cells_recipe import CellHeadSpec, CellsRecipe
from geoloc_dagster.learning.recipe_parts import PicturesSpec

SCENE = "scene"
"""The name of the scene head among the outputs; no level may be called so."""


class CellsNetwork(nn.Module):
    """Backbone, pooling, and a classifier per level.

    Args:
        backbone: gives feature maps.
        spec: pooling, dropout, and whether there is a scene head.
        classes: number of cells of each level.
    """

    def __init__(self, backbone: Backbone, spec: CellHeadSpec, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = GeM() if spec.pooling == "gem" else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(spec.dropout)
        self.heads = nn.ModuleDict({level: nn.Linear(backbone.channels, count) for level, count in classes.items()})
        self.scene = nn.Linear(backbone.channels, len(SCENES)) if spec.scene is not None else None

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Normalised pictures, N x 3 x S x S -> logits of each level, N x classes, and of `scene`, N x 3."""
        features = self.dropout(self.pooling(self.backbone(pictures)))
        logits = {level: head(features) for level, head in self.heads.items()}
        return logits if self.scene is None else {**logits, SCENE: self.scene(features)}


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
    size = data.image_size
    if crops == 1:
        return [prepared(pictures, size, data.normalise)]
    whole = plain(pictures, data.stored_size, "none")
    end, middle = data.stored_size - size, (data.stored_size - size) // 2
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    cut = [normalise(whole[:, :, top : top + size, left : left + size], data.normalise) for top, left in corners]
    return cut if crops == 5 else [*cut, *(view.flip(3).contiguous(memory_format=torch.channels_last) for view in cut)]


def mean_logits(network: nn.Module, views: list[Tensor]) -> dict[str, Tensor]:
    """Logits averaged over the views of each picture."""
    said: list[dict[str, Tensor]] = [network(view) for view in views]
    return {name: torch.stack([logits[name].float() for logits in said]).mean(0) for name in said[0]}
