"""A trained classifier of cells as the rest of the system sees it: pictures in, probabilities of cells and positions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.geo.distance import WORLD_SCORE_M
from geoloc_dagster.geo.partitioning import HIERARCHY, CellLevel, Partitioning, parent_table
from geoloc_dagster.geo.partitioning_folder import read_partitioning
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_network import (
    SCENE,
    CellsNetwork,
    HeadedNetwork,
    build_cells_network,
    mean_logits,
    views_of,
)
from geoloc_dagster.learning.cells_recipe import CellsRecipe, InferenceSpec
from geoloc_dagster.learning.device import Precision, answers_one_late, arithmetic
from geoloc_dagster.learning.encoder import RECIPE_FILE, WEIGHTS_FILE
from geoloc_dagster.learning.hierarchy import best_answers, hierarchy_log_probabilities
from geoloc_dagster.learning.multitask_recipe import PhotoRecipe
from geoloc_dagster.learning.photo_rows import levels_of
from geoloc_dagster.learning.recipe import read_recipe
from geoloc_dagster.storage import read_json, verify_manifest

CELLS_FOLDER = "cells"
HIERARCHY_FILE = "hierarchy.json"
_REMEDY = "Restore that folder, or materialise `checkpoints` again."


@dataclass(frozen=True, slots=True)
class CellAnswers:
    """What one level, or all together, say about N photos.

    Attributes:
        classes: the likeliest cell of each.
        lat_deg: the mean position of the training photos of that cell.
        lng_deg: likewise.
        confidence: its probability, 0 to 1; calibrated only as far as the fit of the levels' weights does it.
    """

    classes: npt.NDArray[np.int64]
    lat_deg: npt.NDArray[np.float64]
    lng_deg: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float32]


def scene_weights_file(scene: str) -> str:
    """The weights of the network of a scene."""
    return f"weights-{scene}.safetensors"


R = TypeVar("R", bound=PhotoRecipe)
N = TypeVar("N", bound=HeadedNetwork)


@dataclass(kw_only=True)
class PhotoModel(Generic[R, N]):
    """What classifiers of photos of whichever kind answer; never trains.

    Attributes:
        recipe: that it was trained by.
        partitioning: whose cells it tells apart.
        network: with a head per level.
        model_version: names the exact weights.
        weights: of the levels in f*.
        inference: how it is asked.
        score_km: the error at which an answer has lost most of its worth; by it f* weighs where a photo may be.
        precision: of its arithmetic.
    """

    recipe: R
    partitioning: Partitioning
    network: N
    model_version: str
    weights: dict[str, float]
    inference: InferenceSpec
    score_km: float = WORLD_SCORE_M / 1000
    precision: Precision = "32"
    device: str = ""

    def __post_init__(self) -> None:
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)
        self.levels = levels_of(self.recipe, self.partitioning)
        self.parents = parent_table([self.partitioning.level(level) for level in self.levels]) if self.levels else None

    @property
    def size(self) -> int:
        """Side in pixels at which pictures are to be read: as training held them."""
        return self.recipe.data.stored_size

    @property
    def p_keys(self) -> list[str]:
        """What there are answers of: each level, and all together."""
        return [*self.levels, HIERARCHY] if self.levels else []

    @property
    def finest(self) -> CellLevel:
        """The level whose classes `hierarchy` is about."""
        return self.partitioning.level(self.levels[-1])

    def answered(self, said: Mapping[str, Tensor]) -> dict[str, CellAnswers]:
        """The likeliest cell of each level and of all together, of what `log_probabilities` says."""
        return {p_key: self.answer(p_key, said[p_key]) for p_key in self.p_keys}

    def answer(self, p_key: str, log_probabilities: Tensor) -> CellAnswers:
        """The cells to answer with, of log-probabilities, (N, classes), of one level or `hierarchy`."""
        cells = self.finest if p_key == HIERARCHY else self.partitioning.level(p_key)
        score_km = self.score_km if p_key == HIERARCHY and self.inference.answer == "expected" else None
        answers = best_answers(log_probabilities, unit_vectors(cells.lat_deg, cells.lng_deg), score_km)
        sure = log_probabilities.gather(1, answers[:, None]).squeeze(1).exp().numpy()
        chosen = answers.numpy()
        return CellAnswers(chosen, cells.lat_deg[chosen], cells.lng_deg[chosen], sure)

    def in_batches(
        self, look: Callable[[Tensor], list[Any]], ask: Callable[[list[Any]], dict[str, Tensor]], seen: Tensor, batch_size: int
    ) -> dict[str, Tensor]:
        """Log-probabilities of every level, `hierarchy` and `scene`, float32 on the CPU.

        Args:
            look: makes the views of some photos.
            ask: logits of views.
            seen: what the photos are seen by, N x channels x S x S.
            batch_size: photos at once.
        """
        device = torch.device(self.device)

        def answer(part: Tensor) -> dict[str, Tensor]:
            views = look(part)
            with arithmetic(device, self.precision):
                logits = ask(views)
            return self.together(logits)

        slices = (seen[start : start + batch_size] for start in range(0, len(seen), batch_size))
        with torch.inference_mode():
            said = answers_one_late(answer, slices, device)
            parts = [{name: value.cpu() for name, value in part.items()} for part in said]
        if not parts:
            raise ValueError("there are no pictures")
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def together(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-probabilities of every level, `hierarchy` and `scene`, of their logits."""
        said = {name: torch.log_softmax(value.float(), dim=1) for name, value in logits.items()}
        if self.parents is not None:
            weights = self.weights if self.inference.hierarchy == "fitted" else dict.fromkeys(self.levels, 1.0)
            said[HIERARCHY] = hierarchy_log_probabilities(said, self.parents, self.levels, weights)
        return said


@dataclass(kw_only=True)
class CellsModel(PhotoModel[CellsRecipe, CellsNetwork]):
    """Classifies photos; its scene head routes where there are networks per scene.

    Attributes:
        scene_networks: by scene; empty without.
    """

    scene_networks: dict[str, CellsNetwork] = field(default_factory=dict[str, CellsNetwork])

    def __post_init__(self) -> None:
        super().__post_init__()
        for network in self.scene_networks.values():
            network.eval().to(self.device)

    def log_probabilities(self, pictures: Tensor | npt.NDArray[np.uint8], *, batch_size: int = 64) -> dict[str, Tensor]:
        """Of every level, `hierarchy` and `scene`, float32 on the CPU: uint8 pictures N x 3 x S x S -> N x classes."""
        return self.in_batches(self._views, self._logits, as_pictures(pictures), batch_size)

    def answers(self, pictures: Tensor | npt.NDArray[np.uint8], *, batch_size: int = 64) -> dict[str, CellAnswers]:
        """The likeliest cell of each level and of all together."""
        return self.answered(self.log_probabilities(pictures, batch_size=batch_size))

    def scenes(self, pictures: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities of indoor, natural and urban, (N, 3).

        Raises:
            ModelMismatchError: the model has no scene head.
        """
        if self.network.scene is None:
            raise ModelMismatchError(f"{self.model_version} tells no scenes", "Train a recipe with `heads.scene`.")
        return self.log_probabilities(pictures)[SCENE].exp().numpy()

    def _views(self, pictures: Tensor) -> list[Tensor]:
        return views_of(pictures, self.recipe.data, self.inference.crops)

    def _logits(self, views: list[Tensor]) -> dict[str, Tensor]:
        logits = mean_logits(self.network, views)
        return self._routed(logits, views) if self.scene_networks else logits

    def _routed(self, logits: dict[str, Tensor], views: list[Tensor]) -> dict[str, Tensor]:
        """Each photo by the network of its likeliest scene."""
        scene = logits[SCENE].argmax(dim=1)
        routed = dict(logits)
        for number, name in enumerate(SCENES):
            rows = torch.nonzero(scene == number).flatten()
            if len(rows):
                own = mean_logits(self.scene_networks[name], [view[rows] for view in views])
                for level in self.levels:
                    routed[level] = routed[level].index_copy(0, rows, own[level].to(routed[level].dtype))
        return routed


def as_pictures(pictures: Tensor | npt.NDArray[np.uint8]) -> Tensor:
    """The same as a tensor; raises ValueError where they are not uint8, N x 3 x S x S."""
    pixels = torch.as_tensor(pictures)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"pictures must be uint8 of shape N x 3 x S x S, not {pixels.dtype} of {tuple(pixels.shape)}")
    return pixels


class OpenedFolder(Generic[R, N]):
    """A model's folder whose every file was checked against its manifest.

    Args:
        folder: of the model.
        kind: of its recipe.
        build: makes its network without weights, of the recipe and the number of cells of each level.

    Raises:
        IntegrityError: a file is missing or changed; names the file.
        RecipeError: the model is of another kind.
    """

    def __init__(self, folder: Path, kind: type[R], build: Callable[[R, dict[str, int]], N]) -> None:
        self._folder, self._build = folder, build
        self.manifest = verify_manifest(folder, remedy=_REMEDY)
        self.recipe = read_recipe(folder / RECIPE_FILE, kind)
        self.partitioning = read_partitioning(folder / CELLS_FOLDER)

    def network(self, file: str = WEIGHTS_FILE) -> N:
        """The network of a file of weights; raises IntegrityError where they do not fit the recipe."""
        levels = levels_of(self.recipe, self.partitioning)
        built = self._build(self.recipe, {level: len(self.partitioning.level(level)) for level in levels})
        try:
            built.load_state_dict(load_file(self._folder / file))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise IntegrityError(f"{self._folder / file} does not fit {self._folder / RECIPE_FILE}: {error}", _REMEDY) from error
        return built

    def fields(self, inference: InferenceSpec | None, precision: Precision, device: str) -> dict[str, Any]:
        """What every `PhotoModel` is made of."""
        hierarchy: Mapping[str, Any] = read_json(self._folder / HIERARCHY_FILE)
        return {
            "recipe": self.recipe,
            "partitioning": self.partitioning,
            "network": self.network(),
            "model_version": str(self.manifest["model_version"]),
            "weights": {level: float(weight) for level, weight in hierarchy["weights"].items()},
            "inference": inference or self.recipe.inference,
            "score_km": float(hierarchy["score_km"]),
            "precision": precision,
            "device": device,
        }


def load_cells_model(
    folder: Path,
    *,
    inference: InferenceSpec | None = None,
    precision: Precision = "32",
    device: str = "",
) -> CellsModel:
    """Load a trained model after checking every file of its folder against the manifest.

    Args:
        folder: of the model.
        inference: how it is asked; as its recipe says without it.
        precision: of its arithmetic.
        device: `cpu` or `cuda`; the GPU where there is one without it.

    Raises:
        IntegrityError: a file is missing or changed, or weights do not fit the recipe; names the file.
        RecipeError: the model is of another kind.
    """
    opened = OpenedFolder(folder, CellsRecipe, lambda recipe, classes: build_cells_network(recipe, classes, load_weights=False))
    scenes = SCENES if opened.recipe.scene_networks else ()
    networks = {scene: opened.network(scene_weights_file(scene)) for scene in scenes}
    return CellsModel(**opened.fields(inference, precision, device), scene_networks=networks)
