"""A model that tells the scene of a photo: any classifier of cells with a scene head, or one with that head alone."""

from __future__ import annotations

from pathlib import Path

from geoloc_dagster.dataset.scene_labels import SceneClassifier
from geoloc_dagster.errors import ModelMismatchError


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
