"""A trained transformer over photos and class maps as the rest of the system sees it: pictures and maps in, probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geoloc_dagster.learning.cells_model import CellAnswers, OpenedFolder, PhotoModel, Precision, as_pictures
from geoloc_dagster.learning.cells_network import map_views_of, mean_logits, views_of
from geoloc_dagster.learning.cells_recipe import InferenceSpec
from geoloc_dagster.learning.multitask_network import NO_CLASS, MultitaskNetwork, build_multitask_network, check_classes
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe

Pixels = Tensor | npt.NDArray[np.uint8]


@dataclass(kw_only=True)
class MultitaskModel(PhotoModel[MultitaskRecipe, MultitaskNetwork]):
    """Classifies photos by what they look like and by their class maps; a photo without a map is answered as such."""

    @property
    def needs_maps(self) -> bool:
        """Whether answers are better with class maps."""
        return self.network.segmentation is not None

    def log_probabilities(self, pictures: Pixels, maps: Pixels | None = None, *, batch_size: int = 64) -> dict[str, Tensor]:
        """Of every level, `hierarchy` and `scene`, float32 on the CPU, N x classes.

        Args:
            pictures: uint8, N x 3 x S x S.
            maps: class maps, uint8, N x S x S, `NO_CLASS` (255) where nothing is known: all over for a photo without a map.
                None where no photo has one. A model without the segmentation branch does not look at them.
            batch_size: photos at once.
        """
        pixels = as_pictures(pictures)
        if not self.needs_maps:
            return self.in_batches(self._logits, batch_size, pixels)
        return self.in_batches(self._logits, batch_size, pixels, self._as_maps(pixels, maps))

    def answers(self, pictures: Pixels, maps: Pixels | None = None, *, batch_size: int = 64) -> dict[str, CellAnswers]:
        """The likeliest cell of each level and of all together."""
        return self.answered(self.log_probabilities(pictures, maps, batch_size=batch_size))

    def _as_maps(self, pictures: Tensor, maps: Pixels | None) -> Tensor:
        if maps is None:
            return torch.full((len(pictures), *pictures.shape[2:]), NO_CLASS, dtype=torch.uint8)
        classes = torch.as_tensor(maps)
        if classes.dtype != torch.uint8 or classes.shape != (len(pictures), *pictures.shape[2:]):
            raise ValueError(
                f"maps must be uint8, as many and as large as the pictures, not {classes.dtype} {tuple(classes.shape)}"
            )
        check_classes(classes, self.recipe.branches.seg_channels)
        return classes

    def _logits(self, pictures: Tensor, maps: Tensor | None = None) -> dict[str, Tensor]:
        data, crops = self.recipe.data, self.inference.crops
        views = views_of(pictures, data, crops)
        of_maps = [None] * len(views) if maps is None else map_views_of(maps, data, crops)
        return mean_logits(self.network, list(zip(views, of_maps, strict=True)))


def load_multitask_model(
    folder: Path, *, inference: InferenceSpec | None = None, precision: Precision = "32", device: str = ""
) -> MultitaskModel:
    """Load a trained model after checking every file of its folder against the manifest; see `load_cells_model`.

    Raises:
        IntegrityError: a file is missing or changed, or weights do not fit the recipe; names the file.
        RecipeError: the model is of another kind.
    """
    opened = OpenedFolder(
        folder, MultitaskRecipe, lambda recipe, classes: build_multitask_network(recipe, classes, load_weights=False)
    )
    return MultitaskModel(**opened.fields(inference, precision, device))
