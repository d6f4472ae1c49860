"""A model that tells the scene of a photo: any classifier of cells with a scene head, or one with that head alone."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import ModelMismatchError


class SceneClassifier(Protocol):
    """Pictures in, probabilities of indoor, natural and urban out."""

    model_version: str

    @property
    def size(self) -> int:
        """Side in pixels at which pictures are to be read."""
        ...

    def scenes(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 pictures, N x 3 x S x S -> probabilities, N x 3."""
        ...


def load_scene_classifier(folder: Path) -> SceneClassifier:
    """Load the model of a folder.

    Raises:
        ModelMismatchError: it tells no scenes.
        IntegrityError: a file of it has changed.
    """
    from geoloc_dagster.learning.cells_model import load_cells_model

    model = load_cells_model(folder)
    if model.network.scene is None:
        raise ModelMismatchError(f"the model in {folder} tells no scenes", "Train a recipe with `heads.scene`.")
    return model
