"""Trained classifiers of photos, of whichever kind their recipe is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geoloc_dagster.dataset.class_maps import ClassMapReader
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.learning.cells_model import CellsModel, Precision, load_cells_model
from geoloc_dagster.learning.cells_recipe import InferenceSpec
from geoloc_dagster.learning.multitask_model import MultitaskModel, load_multitask_model
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.learning.recipe import recipe_of
from geoloc_dagster.learning.sequence_model import SequenceModel, load_sequence_model
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.tables import table_exists

AnyPhotoModel = CellsModel | MultitaskModel


def load_photo_model(
    folder: Path, *, inference: InferenceSpec | None = None, precision: Precision = "32", device: str = ""
) -> AnyPhotoModel:
    """Load a trained classifier; takes and raises what `load_cells_model` and `load_multitask_model` do."""
    load = load_multitask_model if isinstance(recipe_of(folder), MultitaskRecipe) else load_cells_model
    return load(folder, inference=inference, precision=precision, device=device)


@dataclass(frozen=True, slots=True)
class SingleViews:
    """A sequence model asked about photos: each is the only view of its place, at an unknown heading."""

    model: SequenceModel

    @property
    def model_version(self) -> str:
        """Names the exact weights."""
        return self.model.model_version

    @property
    def size(self) -> int:
        """Side of the pictures that it takes, pixels."""
        return self.model.size

    @property
    def finest(self) -> CellLevel:
        """The classes that `hierarchy` is about."""
        return self.model.finest

    def log_probabilities(self, pictures: Tensor | npt.NDArray[np.uint8]) -> dict[str, Tensor]:
        """Of every level and `hierarchy`, of uint8 pictures N x 3 x S x S."""
        views = torch.as_tensor(pictures)[:, None]
        there = torch.ones(views.shape[:2], dtype=torch.bool)
        return self.model.log_probabilities(views, torch.full(views.shape[:2], torch.nan), there)


def load_classifier(folder: Path, *, device: str = "") -> AnyPhotoModel | SingleViews:
    """Load a trained classifier of whichever kind for single photos; takes and raises what loading that kind does."""
    if isinstance(recipe_of(folder), SequenceRecipe):
        return SingleViews(load_sequence_model(folder, device=device))
    return load_photo_model(folder, device=device)


class PhotoAsker:
    """Asks a classifier about photos of a region, with their class maps where it looks at these.

    Args:
        model: that is asked.
        maps_path: the table of class maps; where it is missing, photos are asked about without.

    Raises:
        IntegrityError: the maps are of other classes.
    """

    def __init__(self, model: AnyPhotoModel, maps_path: Path) -> None:
        self._model = model
        wanted = isinstance(model, MultitaskModel) and model.needs_maps and table_exists(maps_path)
        self._maps = ClassMapReader(maps_path) if wanted else None

    def log_probabilities(
        self, capture_ids: list[str], pictures: npt.NDArray[np.uint8], sha256: dict[str, str]
    ) -> dict[str, Tensor]:
        """Of every level, `hierarchy` and `scene`, of uint8 pictures N x 3 x S x S of some captures.

        Raises:
            IntegrityError: a capture has no map, or one of another crop.
        """
        if isinstance(self._model, CellsModel):
            return self._model.log_probabilities(pictures)
        maps = None if self._maps is None else self._maps.maps(capture_ids, self._model.size, sha256)
        return self._model.log_probabilities(pictures, maps)
