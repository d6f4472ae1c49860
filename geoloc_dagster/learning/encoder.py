"""A trained model as the rest of the system sees it: pictures in, unit vectors out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.learning.aggregation import RetrievalNetwork, build_network
from geoloc_dagster.learning.augmentation import plain
from geoloc_dagster.learning.device import Precision, answers_one_late, arithmetic, default_device, precision_of
from geoloc_dagster.learning.recipe import RECIPE_FILE, Recipe, read_recipe
from geoloc_dagster.storage import verify_manifest

WEIGHTS_FILE = "weights.safetensors"
TRAINING_FILE = "training.json"


class Encoder:
    """Embeds pictures with one trained network; never trains it.

    Args:
        network: that was trained.
        recipe: that it was trained by; its `compute.precision` is that of embedding too.
        model_version: names the exact weights.
        device: `cpu` or `cuda`; the GPU where there is one without it.
        precision: in place of the recipe's.
    """

    def __init__(
        self, network: RetrievalNetwork, recipe: Recipe, model_version: str, device: str = "", precision: Precision | None = None
    ) -> None:
        self._device = torch.device(device) if device else default_device()
        self._precision: Precision = precision or precision_of(recipe.compute, self._device)
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
    def on_gpu(self) -> bool:
        """Whether the CPU is free for other work while it embeds."""
        return self._device.type == "cuda"

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
        vectors = np.empty((len(pixels), self.dimension), dtype=np.float32)
        parts = (pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size))
        done = 0
        with torch.inference_mode():
            for said in answers_one_late(self._embedded, parts, self._device):
                vectors[done : done + len(said)] = said.cpu().numpy()
                done += len(said)
        return vectors

    def _embedded(self, pictures: Tensor) -> Tensor:
        data = self.recipe.data
        inputs = plain(pictures, data.image_size, data.normalise)
        with arithmetic(self._device, self._precision):
            vectors = self._network(inputs).float()
        return vectors if self._precision == "32" else F.normalize(vectors, dim=1)  # half precision leaves them a little off


def load_encoder(model_folder: Path, *, device: str = "", precision: Precision | None = None) -> Encoder:
    """Load a trained model after checking every file of its folder against the manifest.

    Args:
        model_folder: of the model.
        device: `cpu` or `cuda`; the GPU where there is one without it.
        precision: of its arithmetic; as its recipe says without it.

    Raises:
        IntegrityError: a file is missing or changed, or the weights do not fit the recipe; names the file.
    """
    manifest = verify_manifest(model_folder, remedy="Materialise `checkpoints` again; the last good release stays served.")
    recipe_path = model_folder / RECIPE_FILE
    recipe = read_recipe(recipe_path, Recipe)
    network = build_network(recipe, load_weights=False)
    try:
        network.load_state_dict(load_file(model_folder / WEIGHTS_FILE))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise IntegrityError(f"{model_folder / WEIGHTS_FILE} does not fit {recipe_path}: {error}") from error
    return Encoder(network, recipe, str(manifest["model_version"]), device, precision)
