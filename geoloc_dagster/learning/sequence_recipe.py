"""Recipes of kind `sequence`: views of one place and date at known headings, answered as one.

Sources: GeoguessrLSTM (a CNN and an LSTM over three headings, classes that are grid cells of the USA); Haas et al., PIGEON, CVPR
2024 (four headings as one, labels smoothed by distance). Beyond both: the heading is part of what is seen of a view, so their
order is of no account, and any may be missing.
Cheap to import: no torch here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geoloc_dagster.learning.cells_recipe import CellHeadSpec, SmoothingSpec
from geoloc_dagster.learning.recipe_parts import (
    AugmentationSpec,
    BackboneSpec,
    OptimiserSpec,
    PicturesSpec,
    RecipeName,
    Section,
    TrainedRecipe,
)


class ViewsSpec(Section):
    """Which views of a place and date are looked at, and what changes in training."""

    at_most: int = Field(default=8, ge=1, le=64, description="Views of one place and date; of more, some all around are taken.")
    dropout: float = Field(default=0.25, ge=0, lt=1, description="Probability that a view is missing in training; one is left.")
    unknown: float = Field(
        default=0.1, ge=0, lt=1, description="Probability that the headings of a place are hidden in training: a photo has none."
    )
    random_start: bool = Field(
        default=True,
        description="In training the sequence begins at any heading, and headings that count from an unknown one are turned.",
    )


class ViewEncoderSpec(Section):
    """How the views of a place and date become one vector."""

    kind: Literal["lstm", "gru", "attention", "mean"] = Field(
        default="attention", description="`lstm` and `gru` read the views in the order of their headings."
    )
    width: int = Field(default=256, ge=8, le=4096, description="Length of the vector.")
    layers: int = Field(default=1, ge=1, le=12, description="Of `lstm`, `gru` and `attention`.")
    attention_heads: int = Field(default=4, ge=1, le=32, description="`attention` only; divides the width.")
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.kind == "attention" and self.width % self.attention_heads:
            raise ValueError("attention_heads must divide width")
        if self.width % 2:
            raise ValueError("width must be even")
        return self


class SequenceHeadSpec(Section):
    """What the classes are, and how they are learned."""

    classes: Literal["grid_cells", "s2_cells"] = Field(
        default="grid_cells", description="The polygons of `grid_cells`, or the S2 cells of `cells`."
    )
    levels: list[str] | None = Field(
        default=None, min_length=1, description="`s2_cells`: levels of the partitioning; all by default."
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Of the loss of each level; 1 where it is not named."
    )
    smoothing: SmoothingSpec | None = SmoothingSpec(tau_km=75.0)
    pooling: Literal["average", "gem", "max"] = Field(default="average", description="From feature map to the vector of a view.")

    @property
    def of_cells(self) -> CellHeadSpec:
        """What the losses of cells want to know."""
        return CellHeadSpec(levels=self.levels, weights=self.weights, smoothing=self.smoothing)


class SequenceInferenceSpec(Section):
    """How a trained model is asked."""

    hierarchy: Literal["fitted", "equal"] = Field(
        default="fitted", description="Weights of the levels in f*: fitted on the split dev, or all 1."
    )
    answer: Literal["expected", "likeliest"] = Field(
        default="expected", description="The class whose centre is nearest on average (by GeoScore), or the likeliest one."
    )


class SequenceBudgetSpec(Section):
    """How long to train."""

    epochs: int = Field(default=20, gt=0, description="One epoch shows every place and date once.")
    batch_size: int = Field(default=32, ge=2, le=65_536, description="Places and dates, each with all of its views.")


class SequenceRecipe(TrainedRecipe):
    """Everything that makes a sequence model what it is."""

    kind: Literal["sequence"] = "sequence"
    data: PicturesSpec = PicturesSpec()
    views: ViewsSpec = ViewsSpec()
    backbone: BackboneSpec = BackboneSpec(name="resnet50")
    start_from: RecipeName | None = Field(
        default=None, description="A recipe of any kind with the same backbone; the newest model of it gives that its weights."
    )
    frozen: bool = Field(
        default=False, description="Learn the encoder and the classes only; each picture goes through the backbone once."
    )
    encoder: ViewEncoderSpec = ViewEncoderSpec()
    heads: SequenceHeadSpec = SequenceHeadSpec()
    augmentation: AugmentationSpec = AugmentationSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    budget: SequenceBudgetSpec = SequenceBudgetSpec()
    inference: SequenceInferenceSpec = SequenceInferenceSpec()

    @property
    def places_photos(self) -> bool:
        """Whether its model says where photos were taken."""
        return True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.compute.processes > 1:
            raise ValueError("compute: a recipe of kind `sequence` trains on one device")
        if self.frozen and self.start_from is None and self.backbone.weights == "none":
            raise ValueError("frozen: a backbone without weights would stay random; give `backbone.weights` or `start_from`")
        if self.heads.classes == "grid_cells" and self.heads.levels is not None:
            raise ValueError("heads.levels: grid cells have one level; leave it out")
        return self
