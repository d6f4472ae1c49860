"""Recipes of kind `cells`: one backbone, a classifier per level of S2 cells, and networks per scene made from such a model.

Source: Müller-Budack et al., Geolocation Estimation of Photos using a Hierarchical Model and Scene Classification, ECCV 2018.
Cheap to import: no torch here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geoloc_dagster.learning.recipe_parts import (
    AugmentationSpec,
    BackboneSpec,
    OptimiserSpec,
    PicturesSpec,
    Section,
    TrainedRecipe,
)


class SmoothingSpec(Section):
    """Labels that tell near classes from far ones: exp(-(d(centre, photo) - d(own centre, photo)) / tau), then normalised.

    Source: Haas et al., PIGEON: Predicting Image Geolocations, CVPR 2024, section 3.
    """

    tau_km: Annotated[float, Field(gt=0)] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        default=75, description="Kilometres, for all levels or by level; a level that is not named has plain labels."
    )

    def tau_of(self, level: str) -> float | None:
        """Of a level; None where its labels are plain."""
        return self.tau_km.get(level) if isinstance(self.tau_km, dict) else self.tau_km


class SceneHeadSpec(Section):
    """A classifier of the scene beside those of the cells."""

    weight: float = Field(default=1, gt=0, description="Of its loss.")
    soft: bool = Field(default=True, description="Learn the probabilities of the scene labels; only the likeliest without it.")
    balance: Literal["none", "sqrt_inverse", "effective_number"] = Field(
        default="none",
        description="What a photo of a rare scene counts more: by the square root of how rare it is, or by the effective number "
        "of photos of its scene (Cui et al., CVPR 2019).",
    )


class LevelHeadSpec(Section):
    """The classifiers: one per level, and one of the scene."""

    dropout: float = Field(default=0, ge=0, lt=1)
    levels: list[str] | None = Field(default=None, description="Levels of the partitioning; all without it, none if empty.")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Of the loss of each level; 1 where it is not named."
    )
    smoothing: SmoothingSpec | None = None
    scene: SceneHeadSpec | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.levels == [] and self.scene is None:
            raise ValueError("a model without levels and without a scene head has nothing to say")
        return self


class CellHeadSpec(LevelHeadSpec):
    """What stands on the backbone."""

    pooling: Literal["average", "gem"] = "average"


class InferenceSpec(Section):
    """How a trained model is asked."""

    crops: Literal[1, 5, 10] = Field(
        default=1, description="1: the whole picture; 5: corners and middle; 10: also mirrored. Logits are averaged."
    )
    hierarchy: Literal["fitted", "equal"] = Field(
        default="fitted", description="Weights of the levels in f*: fitted on the split dev, or all 1 as in the paper."
    )
    answer: Literal["expected", "likeliest"] = Field(
        default="expected",
        description="Of f*: the cell whose centre is nearest on average (by GeoScore), or the likeliest one as in the paper.",
    )


class MirroredAugmentationSpec(AugmentationSpec):
    """Random changes of training photos."""

    mirror: float = Field(default=0.5, ge=0, le=1, description="Probability.")
    min_scale: float = Field(default=0.7, gt=0, le=1, description="Smallest side of a crop, as a share of the picture.")


class CellOptimiserSpec(OptimiserSpec):
    """Optimiser with one cycle of the learning rate."""

    name: Literal["adamw", "sgd"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0, description="At the top of the cycle.")


class SceneNetworksSpec(Section):
    """One network per scene, fine-tuned from a model on the photos of that scene; a photo asks the one of its own scene.

    Source: section 3.4 of the paper named above (individual scene networks).
    """

    base: str = Field(description="The recipe whose newest model they start from; it needs a scene head, which routes.")
    threshold: float = Field(
        default=0.3, ge=0, lt=1, description="A photo is learned from by the network of every scene that is at least this likely."
    )


class PhotoBudgetSpec(Section):
    """How long to train."""

    epochs: int = Field(default=15, gt=0, description="One epoch shows every photo once.")
    batch_size: int = Field(default=128, ge=2, le=65_536)


class ClassifierRecipe(TrainedRecipe):
    """What recipes of all classifiers of photos say."""

    data: PicturesSpec = PicturesSpec()
    augmentation: MirroredAugmentationSpec = MirroredAugmentationSpec()
    budget: PhotoBudgetSpec = PhotoBudgetSpec()
    inference: InferenceSpec = InferenceSpec()

    @model_validator(mode="after")
    def _shared(self) -> Self:
        self.compute.check_batch(self.budget.batch_size)
        return self


class CellsRecipe(ClassifierRecipe):
    """Everything that makes a classifier of cells what it is."""

    kind: Literal["cells"] = "cells"
    backbone: BackboneSpec = BackboneSpec(name="resnet50")
    heads: CellHeadSpec = CellHeadSpec()
    scene_networks: SceneNetworksSpec | None = None
    optimiser: CellOptimiserSpec = CellOptimiserSpec()

    @property
    def places_photos(self) -> bool:
        """Whether its model says where photos were taken, and not only what they show."""
        return self.heads.levels != []
