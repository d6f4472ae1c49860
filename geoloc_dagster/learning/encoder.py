"""A trained model as the rest of the system sees it: pictures in, unit vectors out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.learning.aggregation import RetrievalNetwork, build_network
from geoloc_dagster.learning.augmentation import plain
from geoloc_dagster.learning.recipe import Recipe, read_recipe
from geoloc_dagster.storage import verify_manifest

RECIPE_FILE = "recipe.yaml"
WEIGHTS_FILE = "weights.safetensors"
TRAINING_FILE = "training.json"


class Encoder:
    """Embeds pictures with one trained network; never trains it."""

    def __init__(self, network: RetrievalNetwork, recipe: Recipe, model_version: str) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.eval().to(self._device)
        self.recipe = recipe
        self.model_version = model_version

    @property
    def network(self) -> RetrievalNetwork:
        """The network itself, in evaluation mode."""
        return self._network

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._network.dimension

    @property
    def image_size(self) -> int:
        """Side in pixels at which pictures are to be read: as training held them; `embed` takes them to the network's size.

        Decoding straight to the network's size is another resampling and costs recall.
        """
        return self.recipe.data.stored_size

    def embed(self, pictures: Tensor | np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Pictures, uint8, N x 3 x any square size -> unit vectors, float32, N x dimension."""
        pixels = torch.as_tensor(pictures)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pictures must be uint8 of shape N x 3 x S x S, not {pixels.dtype} of {tuple(pixels.shape)}")
        data = self.recipe.data
        vectors = np.empty((len(pixels), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), batch_size):
                part = plain(pixels[start : start + batch_size].to(self._device), data.image_size, data.normalise)
                vectors[start : start + len(part)] = self._network(part).float().cpu().numpy()
        return vectors


def load_encoder(model_folder: Path) -> Encoder:
    """Load a trained model after checking every file of its folder against the manifest.

    Raises:
        IntegrityError: a file is missing or changed, or the weights do not fit the recipe; names the file.
    """
    manifest = verify_manifest(model_folder, remedy="Materialise `checkpoints` again; the last good release stays served.")
    recipe_path = model_folder / RECIPE_FILE
    recipe = read_recipe(recipe_path, Recipe)
    network = build_network(recipe, load_weights=False)
    try:
        network.load_state_dict(load_file(model_folder / WEIGHTS_FILE))
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"{model_folder / WEIGHTS_FILE} does not fit {recipe_path}: {error}") from error
    return Encoder(network, recipe, str(manifest["model_version"]))
