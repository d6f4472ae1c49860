"""A trained sequence model as the rest of the system sees it: views of places in, probabilities of classes and positions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.geo.distance import WORLD_SCORE_M
from geoloc_dagster.geo.partitioning import HIERARCHY, CellLevel, Partitioning, parent_table
from geoloc_dagster.geo.region_classes import RegionLevel, read_classes
from geoloc_dagster.learning.augmentation import prepared
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE, CellAnswers
from geoloc_dagster.learning.encoder import RECIPE_FILE, WEIGHTS_FILE
from geoloc_dagster.learning.hierarchy import best_answers, hierarchy_log_probabilities
from geoloc_dagster.learning.recipe import read_recipe
from geoloc_dagster.learning.sequence_network import SequenceNetwork, build_sequence_network, in_slots
from geoloc_dagster.learning.sequence_recipe import SequenceInferenceSpec, SequenceRecipe
from geoloc_dagster.learning.sequence_rows import levels_of
from geoloc_dagster.storage import read_json, verify_manifest

_REMEDY = "Restore that folder, or materialise `checkpoints` again."
_BLOCK = 128
Floats = Tensor | npt.NDArray[np.float32]
Bools = Tensor | npt.NDArray[np.bool_]


@dataclass
class SequenceModel:
    """Says where the views of places were taken; never trains.

    Attributes:
        recipe: that it was trained by.
        partitioning: whose classes it tells apart; one level of polygons where these are grid cells.
        network: with a head per level.
        model_version: names the exact weights.
        weights: of the levels in f*.
        inference: how it is asked.
        score_km: the error at which an answer has lost most of its worth; by it f* weighs where a place may be.
    """

    recipe: SequenceRecipe
    partitioning: Partitioning
    network: SequenceNetwork
    model_version: str
    weights: dict[str, float]
    inference: SequenceInferenceSpec
    score_km: float = WORLD_SCORE_M / 1000
    device: str = ""

    def __post_init__(self) -> None:
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)
        self.levels = levels_of(self.recipe, self.partitioning)
        self.parents = _parents(self.partitioning, self.levels)

    @property
    def size(self) -> int:
        """Side in pixels at which pictures are to be read: as training held them."""
        return self.recipe.data.stored_size

    @property
    def p_keys(self) -> list[str]:
        """What there are answers of: each level, and all together."""
        return [*self.levels, HIERARCHY]

    @property
    def finest(self) -> CellLevel:
        """The level whose classes `hierarchy` is about."""
        return self.partitioning.level(self.levels[-1])

    def log_probabilities(
        self, pictures: Tensor | npt.NDArray[np.uint8], headings_deg: Floats, present: Bools, *, batch_size: int = 32
    ) -> dict[str, Tensor]:
        """Of every level and `hierarchy`, float32 on the CPU, N x classes.

        Args:
            pictures: uint8, N x V x 3 x S x S; those of missing views are of no account.
            headings_deg: (N, V), degrees clockwise from north, or from an unknown direction of each row; NaN where unknown.
            present: (N, V) bool: whether there is a view, at least one in each row.
            batch_size: rows at once.

        Raises:
            ValueError: shapes or types are others, there are no rows, or one has no view.
        """
        pixels, headings, there = torch.as_tensor(pictures), torch.as_tensor(headings_deg).float(), torch.as_tensor(present)
        if pixels.dtype != torch.uint8 or pixels.ndim != 5 or pixels.shape[2] != 3:
            raise ValueError(f"pictures must be uint8 of shape N x V x 3 x S x S, not {pixels.dtype} of {tuple(pixels.shape)}")
        _check_views(tuple(pixels.shape[:2]), headings, there)
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(pixels), batch_size):
            rows = slice(start, start + batch_size)
            features = in_slots(self.view_features(pixels[rows][there[rows]]), there[rows])
            parts.append(self.said_of(features, headings[rows], there[rows]))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def view_features(self, pictures: Tensor | npt.NDArray[np.uint8]) -> Tensor:
        """What the backbone says of single views: uint8 P x 3 x S x S -> float32 P x channels on the CPU."""
        pixels, data = torch.as_tensor(pictures), self.recipe.data
        with torch.inference_mode():
            parts = [
                self.network.view_features(prepared(part.to(self.device), data.image_size, data.normalise)).float().cpu()
                for part in pixels.split(_BLOCK)
            ]
        return torch.cat(parts)

    def said_of(self, features: Tensor, headings_deg: Floats, present: Bools) -> dict[str, Tensor]:
        """As `log_probabilities`, from what `view_features` said, (N, V, channels): other views of them cost next to nothing."""
        headings, there = torch.as_tensor(headings_deg).float(), torch.as_tensor(present)
        _check_views(tuple(features.shape[:2]), headings, there)
        with torch.inference_mode():
            logits = self.network(*(part.to(self.device) for part in (features, headings, there)))
        return {name: value.cpu() for name, value in self.together(logits).items()}

    def together(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-probabilities of every level and `hierarchy`, of their logits."""
        said = {name: torch.log_softmax(value.float(), dim=1) for name, value in logits.items()}
        weights = self.weights if self.inference.hierarchy == "fitted" else dict.fromkeys(self.levels, 1.0)
        said[HIERARCHY] = hierarchy_log_probabilities(said, self.parents, self.levels, weights)
        return said

    def answer(self, p_key: str, log_probabilities: Tensor) -> CellAnswers:
        """The classes to answer with, of log-probabilities, (N, classes), of one level or `hierarchy`."""
        cells = self.finest if p_key == HIERARCHY else self.partitioning.level(p_key)
        score_km = self.score_km if p_key == HIERARCHY and self.inference.answer == "expected" else None
        answers = best_answers(log_probabilities, unit_vectors(cells.lat_deg, cells.lng_deg), score_km)
        sure = log_probabilities.gather(1, answers[:, None]).squeeze(1).exp().numpy()
        chosen = answers.numpy()
        return CellAnswers(chosen, cells.lat_deg[chosen], cells.lng_deg[chosen], sure)


def load_sequence_model(folder: Path, *, inference: SequenceInferenceSpec | None = None, device: str = "") -> SequenceModel:
    """Load a trained model after checking every file of its folder against the manifest.

    Args:
        folder: of the model.
        inference: how it is asked; as its recipe says without it.
        device: `cpu` or `cuda`; the GPU where there is one without it.

    Raises:
        IntegrityError: a file is missing or changed, or weights do not fit the recipe; names the file.
        RecipeError: the model is of another kind.
    """
    manifest = verify_manifest(folder, remedy=_REMEDY)
    recipe = read_recipe(folder / RECIPE_FILE, SequenceRecipe)
    classes = read_classes(folder / CELLS_FOLDER)
    network = build_sequence_network(
        recipe, {level: len(classes.level(level)) for level in levels_of(recipe, classes)}, load_weights=False
    )
    try:
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise IntegrityError(f"{folder / WEIGHTS_FILE} does not fit {folder / RECIPE_FILE}: {error}", _REMEDY) from error
    hierarchy: Mapping[str, Any] = read_json(folder / HIERARCHY_FILE)
    weights = {level: float(weight) for level, weight in hierarchy["weights"].items()}
    version = str(manifest["model_version"])
    return SequenceModel(
        recipe, classes, network, version, weights, inference or recipe.inference, float(hierarchy["score_km"]), device
    )


def _parents(classes: Partitioning, levels: list[str]) -> npt.NDArray[np.int32]:
    """Columns of the levels that the model has, for the rows of its finest."""
    of_model = [classes.level(level) for level in levels]
    return classes.parents if isinstance(of_model[-1], RegionLevel) else parent_table(of_model)


def _check_views(shape: tuple[int, ...], headings_deg: Tensor, present: Tensor) -> None:
    if not shape[0]:
        raise ValueError("there are no places")
    if present.dtype != torch.bool or tuple(present.shape) != shape or tuple(headings_deg.shape) != shape:
        raise ValueError(
            f"headings_deg and present (bool) must have shape {shape}, not {tuple(headings_deg.shape)} and {tuple(present.shape)}"
        )
    if not bool(present.any(dim=1).all()):
        raise ValueError(f"row {int((~present.any(dim=1)).nonzero()[0])} has no view")
