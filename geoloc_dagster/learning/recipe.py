"""A recipe is one YAML file that says everything about a training: data, backbone, head, losses, optimiser, budget.

Packaged recipes lie in `recipes/` beside this module; a region's own lie in `recipes/` beside its `geoloc.yaml` and win.
Cheap to import: no torch here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from geoloc_dagster.errors import IntegrityError, RecipeError
from geoloc_dagster.guards import parse_yaml
from geoloc_dagster.learning.cells_recipe import CellsRecipe, InferenceSpec
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.learning.recipe_parts import (
    NAME,
    AugmentationSpec,
    BackboneSpec,
    HashedSection,
    OptimiserSpec,
    PicturesSpec,
    RecipeName,
    Section,
)
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe

PACKAGED_RECIPES = Path(__file__).parent / "recipes"
RECIPE_FILE = "recipe.yaml"
"""In the folder of a trained model, the recipe that it was trained by."""
_NAME = re.compile(NAME)


class DataSpec(PicturesSpec):
    """Which rows of the catalog are learned from, and how their pictures are held."""

    exclude_flags: list[str] = Field(
        default=["undecodable", "black", "uniform", "frozen_rotation", "shared_panorama", "byte_identical"],
        description="Rows with one of these quality flags are left out, also where the catalog counts them as usable.",
    )
    place: Literal["view", "location"] = Field(
        default="view",
        description="What a class is. With `view`, other views of the same location count neither as same nor as different.",
    )
    min_pictures: int = Field(default=2, ge=2, description="A place with fewer pictures is left out.")
    image_size: int = Field(default=112, ge=16, le=1024, description="Pixels, at which the network sees a picture.")
    stored_size: int = Field(default=128, ge=16, le=2048, description="Pixels, from which augmentation cuts its crops.")


class WhiteningSpec(Section):
    """After training, rotate and rescale vectors by the spread of the training pictures' (Jégou & Chum, ECCV 2012)."""

    power: float = Field(default=0.5, ge=0, le=1, description="1 makes all directions equal, 0 only removes the mean.")
    dimension: int | None = Field(default=None, gt=0, description="Keep this many directions of largest spread; all without it.")
    pictures: int = Field(default=4096, ge=2, description="Training pictures that it is learned from, at most.")


class HeadSpec(Section):
    """How a feature map becomes one vector."""

    pooling: Literal["gem", "average", "strips", "grid"] = Field(
        default="gem",
        description="`gem` and `average` forget where a feature was, `strips` keeps the column, `grid` row and column.",
    )
    channels: int = Field(default=64, gt=0, description="`grid` only: channels kept per cell of the feature map.")
    projection: Literal["kept", "training", "none"] = Field(
        default="kept",
        description="A linear layer to `dimension`: `kept` in the model, there for the loss only (`training`), or `none`.",
    )
    dimension: int = Field(default=256, gt=0, le=8192, description="Length of a projected vector.")
    dropout: float = Field(default=0, ge=0, lt=1)
    whitening: WhiteningSpec | None = None


class MultiSimilaritySpec(Section):
    """Multi-similarity loss and miner (Wang et al., CVPR 2019)."""

    alpha: float = Field(default=2, gt=0)
    beta: float = Field(default=50, gt=0)
    base: float = Field(default=0.5, ge=-1, le=1)
    epsilon: float = Field(default=0.1, ge=0, description="Of the miner, in cosine.")
    weight: float = Field(default=1, gt=0)


class SupervisedContrastiveSpec(Section):
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020)."""

    temperature: float = Field(default=0.1, gt=0)
    weight: float = Field(default=1, gt=0)


class CosFaceSpec(Section):
    """Large-margin cosine classification over the places of the training split (Wang et al., CVPR 2018)."""

    scale: float = Field(default=30, gt=0)
    margin: float = Field(default=0.2, ge=0, lt=1)
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    weight: float = Field(default=1, gt=0)


class LossSpec(Section):
    """The losses that are added up."""

    multi_similarity: MultiSimilaritySpec | None = None
    supervised_contrastive: SupervisedContrastiveSpec | None = None
    cosface: CosFaceSpec | None = None

    @model_validator(mode="after")
    def _any(self) -> Self:
        if self.multi_similarity is None and self.supervised_contrastive is None and self.cosface is None:
            raise ValueError("name at least one loss: multi_similarity, supervised_contrastive or cosface")
        return self


class SamplerSpec(Section):
    """A batch is P places times K pictures of each, of different dates where there are as many."""

    places: int = Field(default=24, ge=2)
    pictures_per_place: int = Field(default=4, ge=2)


class EarlyStopSpec(Section):
    """Stop when recall@1 on the dev split no longer rises; the weights of its best evaluation are kept."""

    every_epochs: int = Field(default=2, gt=0, description="Epochs between evaluations.")
    patience: int = Field(default=3, gt=0, description="Evaluations without a rise after which training stops.")


class BudgetSpec(Section):
    """How long to train."""

    epochs: int = Field(default=10, gt=0, description="One epoch shows every place once, P x K pictures a step.")
    early_stop: EarlyStopSpec | None = Field(default=None, description="Trains all epochs without it.")


class Recipe(HashedSection):
    """Everything that makes a training for retrieval what it is."""

    version: Literal[1] = 1
    name: RecipeName
    kind: Literal["retrieval"] = "retrieval"
    description: str = ""
    data: DataSpec = DataSpec()
    backbone: BackboneSpec = BackboneSpec()
    head: HeadSpec = HeadSpec()
    loss: LossSpec
    sampler: SamplerSpec = SamplerSpec()
    augmentation: AugmentationSpec = AugmentationSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    budget: BudgetSpec = BudgetSpec()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        self.compute.check_batch(self.sampler.places * self.sampler.pictures_per_place)
        return self

    @property
    def places_photos(self) -> bool:
        """Whether its model says where photos were taken."""
        return True


AnyRecipe = Recipe | CellsRecipe | MultitaskRecipe | SequenceRecipe
_Kind = TypeVar("_Kind", Recipe, CellsRecipe, MultitaskRecipe, SequenceRecipe)
_KINDS: dict[Any, type[AnyRecipe]] = {
    "retrieval": Recipe,
    "cells": CellsRecipe,
    "scenes": MultitaskRecipe,
    "sequence": SequenceRecipe,
}


def recipe_names(folder: Path) -> list[str]:
    """The names that `load_recipe` knows for a region's folder: its own and the packaged ones."""
    return sorted({path.stem for place in (folder / "recipes", PACKAGED_RECIPES) for path in place.glob("*.yaml")})


def load_recipe(name_or_path: str | Path, folder: Path) -> AnyRecipe:
    """Read a recipe by name (the region's `recipes/` first, then the packaged ones) or from a YAML file.

    Raises:
        RecipeError: no such recipe, or a line of it is wrong; names the file, the line and the key.
    """
    path = _find(str(name_or_path), folder)
    try:
        text = path.read_text(encoding="utf-8")
        recipe = parse_recipe(text, path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if recipe.name != path.stem:
        raise RecipeError(f"{path} says `name: {recipe.name}`, its file says {path.stem}", "Give both the same name.")
    return recipe


def check_recipes(
    names: Sequence[str],
    folder: Path,
    *,
    cells: bool,
    grid_cells: bool = False,
    class_maps: bool = True,
    ensemble: Sequence[str] = (),
) -> list[AnyRecipe]:
    """The recipes of a region, which can be trained one after the other.

    Args:
        names: in the order in which they are trained.
        folder: of the region.
        cells: whether the region has S2 cells.
        grid_cells: whether it has grid cells.
        class_maps: whether it has class maps.
        ensemble: names of those whose models look beside the champion.

    Raises:
        RecipeError: one does not exist or is wrong, is in the ensemble and places no photos, needs cells or class maps where
            there are none, or the model of a recipe that comes later.
    """
    read = [load_recipe(name, folder) for name in names]
    able = [recipe.name for recipe in read if recipe.places_photos]
    for name in ensemble:
        if name not in able:
            raise RecipeError(
                f"fusion.ensemble names {name}, which is no recipe of this region that says where photos were taken",
                f"It has {', '.join(able) or 'none'}; list those that look beside the champion of their kind.",
            )
    for place, recipe in enumerate(read):
        if isinstance(recipe, Recipe):
            continue
        of_grid = isinstance(recipe, SequenceRecipe) and recipe.heads.classes == "grid_cells"
        if of_grid and not grid_cells:
            raise RecipeError(
                f"recipe {recipe.name} classifies grid cells, and the configuration has none",
                "Add a section such as `grid_cells: {step_deg: 2}`, or let the recipe say `heads: {classes: s2_cells}`.",
            )
        if not of_grid and not cells:
            raise RecipeError(
                f"recipe {recipe.name} classifies cells, and the configuration has none",
                "Add a section such as `cells: {levels: {coarse: [50, 5000], middle: [50, 2000], fine: [50, 1000]}}`.",
            )
        if isinstance(recipe, MultitaskRecipe) and recipe.needs_maps and not class_maps:
            raise RecipeError(
                f"recipe {recipe.name} learns from class maps, and the configuration makes none",
                "Add e.g. `segmentation: {model: lraspp_mobilenet_v3_large}`, or let it say `branches: {segmentation: off}`.",
            )
        base = base_of(recipe)
        if base is not None and base not in names[:place]:
            raise RecipeError(f"recipe {recipe.name} starts from a model of {base}", f"List {base} before it under `recipes`.")
    return read


def base_of(recipe: AnyRecipe) -> str | None:
    """The recipe whose newest model a training starts from; None where it starts from nothing."""
    if isinstance(recipe, SequenceRecipe):
        return recipe.start_from
    return recipe.scene_networks.base if isinstance(recipe, CellsRecipe) and recipe.scene_networks is not None else None


def parse_recipe(text: str, path: Path) -> AnyRecipe:
    """Validate the text of a recipe, of whichever kind it says; `path` appears in errors only.

    Raises:
        RecipeError: not YAML, or a key or value that a recipe cannot have, with its line.
    """
    try:
        values: Any = parse_yaml(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe: its top level must be keys and values")
    kind = values.get("kind", "retrieval")
    if kind not in _KINDS:
        raise RecipeError(f"{path}, line {_line_of(root, ['kind'])}: kind: it is one of {', '.join(_KINDS)}, not {kind!r}")
    try:
        return _KINDS[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise RecipeError(f"{path}, line {_line_of(root, first['loc'])}: {key}: {first['msg']}") from error


def read_recipe(path: Path, kind: type[_Kind]) -> _Kind:
    """The recipe that lies beside a trained model.

    Raises:
        RecipeError: it cannot be read, or is of another kind.
    """
    try:
        recipe = parse_recipe(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if not isinstance(recipe, kind):
        raise RecipeError(f"{path} is of kind `{recipe.kind}`, which does not do what is asked of it here")
    return recipe


def recipe_of(model_folder: Path) -> AnyRecipe:
    """The recipe of a trained model, of whichever kind.

    Raises:
        IntegrityError: it is missing.
        RecipeError: it is wrong.
    """
    path = model_folder / RECIPE_FILE
    if not path.is_file():
        raise IntegrityError(f"{path} is missing", "Restore that folder, or materialise `checkpoints` again.")
    return parse_recipe(path.read_text(encoding="utf-8"), path)


def read_inference(path: Path) -> InferenceSpec:
    """How a model is to be asked, from a YAML with `inference:`; whatever else it holds is of no account.

    Raises:
        RecipeError: it cannot be read, or has no such section.
    """
    try:
        values: Any = parse_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or "inference" not in values:
            raise RecipeError(f"{path} has no section `inference`", "It may say {inference: {crops: 5, hierarchy: equal}}.")
        return InferenceSpec.model_validate(values["inference"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{path}: inference.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _find(text: str, folder: Path) -> Path:
    if _NAME.fullmatch(text):
        for place in (folder / "recipes", PACKAGED_RECIPES):
            if (place / f"{text}.yaml").is_file():
                return place / f"{text}.yaml"
        raise RecipeError(
            f"there is no recipe {text!r}",
            f"Use one of {', '.join(recipe_names(folder))}, or write {folder / 'recipes' / text}.yaml.",
        )
    path = folder / text
    if not path.is_file():
        raise RecipeError(f"there is no recipe file {path}")
    return path


def _line_of(root: yaml.Node | None, keys: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest node on the way to `keys` that the text really has."""
    node, line = root, 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == key), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
