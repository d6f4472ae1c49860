"""Recipes of kind `scenes`: a vision transformer that looks at a photo and at its class map, and tells cells and scene.

Source: Pramanick et al., Where in the World is this Image? Transformer-based Geo-localization in the Wild, ECCV 2022. Defaults
are those of the paper and its published script where they say one. Cheap to import: no torch here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from geoloc_dagster.learning.cells_recipe import CellsRecipe, ClassifierRecipe, LevelHeadSpec, SceneHeadSpec
from geoloc_dagster.learning.recipe_parts import Section

_PUBLISHED_WEIGHTS = {"coarse": 0.5, "middle": 0.3, "fine": 0.2}
_OWN_SHAPE = "vit_basic"


class TransformerSpec(Section):
    """A vision transformer with a class token."""

    name: str = Field(
        default="vit_base_patch16_224",
        description=f"A vision transformer of timm; `{_OWN_SHAPE}` is built from `patch`, `width`, `depth` and `heads`.",
    )
    patch: int | None = Field(default=None, ge=2, le=64, description="Pixels, side of a patch of `vit_basic`.")
    width: int | None = Field(default=None, ge=8, le=4096, description="Of the tokens of `vit_basic`.")
    depth: int | None = Field(default=None, ge=1, le=64, description="Layers of `vit_basic`.")
    heads: int | None = Field(default=None, ge=1, le=64, description="Of the attention of `vit_basic`.")
    weights: str = Field(default="none", min_length=1, description="`none`, `hub`, or a file (safetensors or a state dict).")
    drop_path: float = Field(default=0, ge=0, lt=1, description="Probability that the last layer is skipped; less before it.")
    frozen: bool = Field(default=False, description="Its own weights stay; what stands between and after the branches learns.")

    @model_validator(mode="after")
    def _basic(self) -> Self:
        shape = (self.patch, self.width, self.depth, self.heads)
        if (self.name == _OWN_SHAPE) != all(number is not None for number in shape) or (
            self.name != _OWN_SHAPE and any(number is not None for number in shape)
        ):
            raise ValueError(f"patch, width, depth and heads belong to `{_OWN_SHAPE}`, which needs all four")
        if self.width is not None and self.heads is not None and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")
        return self

    @property
    def is_basic(self) -> bool:
        """Whether its shape stands in the recipe."""
        return self.name == _OWN_SHAPE


class BranchesSpec(Section):
    """The second branch, which sees the class map of the photo, and how the two come together."""

    segmentation: bool = Field(default=True, description="Off leaves the photo's own branch alone, which needs no class maps.")
    seg_channels: int = Field(default=9, ge=2, le=254, description="Classes of the maps, each a channel of its own.")
    backbone: TransformerSpec | None = Field(default=None, description="Of that branch; built as the photo's without it.")
    fusion: Literal["every_layer", "late"] = Field(
        default="every_layer", description="Class tokens are exchanged after every layer, or added up after the last one only."
    )
    update: Literal["residual", "replace"] = Field(
        default="residual",
        description="What is exchanged is added to each class token, or stands in its place as in the paper. Added, and with "
        "nothing to add at first, it leaves pretrained branches as they are until it has learned something.",
    )
    shared_width: int = Field(default=256, ge=1, le=4096, description="To which both class tokens are projected and added.")
    map_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Share of training photos shown without their map, so that such are answered too."
    )


class MultitaskHeadSpec(LevelHeadSpec):
    """The classifiers: one per level, and one of the scene."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=_PUBLISHED_WEIGHTS.copy, description="Of the loss of each level; 1 where it is not named."
    )
    scene: SceneHeadSpec | None = Field(default_factory=SceneHeadSpec, description="`off` leaves it out.")

    @field_validator("scene", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


class MultitaskOptimiserSpec(Section):
    """Optimiser with a linear warm-up and a cosine to a thousandth, both by the step."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = Field(default=None, gt=0, description="At the top; 0.1 for sgd, 0.0005 for adamw without it.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Of weights; biases, norms and lone tokens have none.")
    warmup_epochs: float = Field(default=2, ge=0, description="Of a rate that rises from nothing.")
    weights_factor: float | None = Field(default=None, gt=0, description="Times the rate; 0.2 for sgd, 1 for adamw without it.")
    biases_factor: float | None = Field(default=None, gt=0, description="Of biases and norms; 0.0048 for sgd, 1 for adamw.")
    clip_norm: float = Field(default=5, gt=0)

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates at the top, of weights and of biases."""
        sgd = self.name == "sgd"
        rate = self.learning_rate or (0.1 if sgd else 5e-4)
        return rate * (self.weights_factor or (0.2 if sgd else 1.0)), rate * (self.biases_factor or (0.0048 if sgd else 1.0))


class MultitaskRecipe(ClassifierRecipe):
    """Everything that makes a transformer over photos and class maps what it is."""

    kind: Literal["scenes"] = "scenes"
    scene_of_interest: Literal["all", "indoor", "natural", "urban"] = Field(
        default="all", description="Trained and measured on photos whose likeliest scene is this one; others are answered too."
    )
    backbone: TransformerSpec = TransformerSpec()
    branches: BranchesSpec = BranchesSpec()
    heads: MultitaskHeadSpec = MultitaskHeadSpec()
    optimiser: MultitaskOptimiserSpec = MultitaskOptimiserSpec()

    @property
    def places_photos(self) -> bool:
        """Whether its model says where photos were taken."""
        return self.heads.levels != []

    @property
    def needs_maps(self) -> bool:
        """Whether it learns from class maps."""
        return self.branches.segmentation

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.heads.levels == []:
            raise ValueError("heads: levels may not be empty; a classifier of scenes alone is a recipe of kind `cells`")
        if self.optimiser.warmup_epochs >= self.budget.epochs:
            warmup, epochs = self.optimiser.warmup_epochs, self.budget.epochs
            raise ValueError(f"optimiser: {warmup:g} of {epochs} epochs are warm-up; say a smaller warmup_epochs")
        return self


PhotoRecipe = CellsRecipe | MultitaskRecipe
"""Recipes that are trained on photos with cells and scenes."""
