"""What `geoloc.yaml` may say of the data set: crops, the catalog, cells, scenes, class maps and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geoloc_dagster.config.section import Name, Section


class CropSettings(Section):
    """How a capture becomes a square picture."""

    size: int = Field(default=224, ge=16, le=2048, description="Pixels.")
    box: tuple[int, int, int, int] | None = Field(
        default=None, description="(left, top, right, bottom) of screenshots; centre square without it."
    )
    jpeg_quality: int = Field(default=92, ge=50, le=100)
    min_decodable_share: float = Field(default=0.99, ge=0, le=1, description="The gate of a batch.")


class CatalogSettings(Section):
    """Which crops are usable, and which are queries."""

    min_dates: int = Field(default=2, ge=1, description="A place and heading with fewer dates gives no query.")
    require_all_headings: bool = Field(default=False, description="Leave out places at which a heading is missing.")
    exclude_flags: list[str] = Field(
        default_factory=lambda: ["undecodable", "black", "uniform"], description="Quality flags that make a row unusable."
    )


class CellSettings(Section):
    """The S2 cells that recipes of kind `cells` classify; made of the photos of the split `train`."""

    levels: dict[Name, tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]] = Field(
        default={"coarse": (50, 5_000), "middle": (50, 2_000), "fine": (50, 1_000)},
        min_length=1,
        description="[img_min, img_max] of each level, coarsest first: cells with fewer photos are dropped, with more are cut.",
    )
    min_level: int = Field(default=2, ge=0, le=30, description="No cell is larger than those of this S2 level.")
    max_level: int = Field(default=30, ge=0, le=30, description="No cell is cut smaller than those of this S2 level.")

    @model_validator(mode="after")
    def _nested(self) -> Self:
        minima, maxima = {low for low, _ in self.levels.values()}, [high for _, high in self.levels.values()]
        if len(minima) > 1 or maxima != sorted(set(maxima), reverse=True) or min(minima) > min(maxima):
            raise ValueError("levels have one img_min, and img_max that gets smaller from level to level")
        if self.min_level > self.max_level:
            raise ValueError("min_level must not be above max_level")
        taken = sorted({"hierarchy", "scene"} & self.levels.keys())
        if taken:
            raise ValueError(f"`{taken[0]}` is the name of another answer; give the level another")
        return self


class SceneSettings(Section):
    """Which scene each picture shows: indoor, natural or urban."""

    source: Literal["list", "model"] = Field(
        default="list", description="`list`: the scene columns of a photo list, and `model` for photos without; or `model` alone."
    )
    model: Path | None = Field(default=None, description="A scene classifier, relative to this file.")
    classes: list[Literal["indoor", "natural", "urban"]] = Field(
        default=["indoor", "natural", "urban"], description="What the model's three answers stand for, in their order."
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.source == "model" and self.model is None:
            raise ValueError("`source: model` needs a `model`")
        if sorted(self.classes) != ["indoor", "natural", "urban"]:
            raise ValueError("classes names indoor, natural and urban once each")
        return self


class SegmentationSettings(Section):
    """What each pixel of each picture shows: sky, building, road, vegetation, water, vehicle, person, sign, or other."""

    source: Literal["emulator", "model"] = Field(
        default="model",
        description="`emulator`: the exact maps of an emulated city's or planet's pictures; or as a model sees it.",
    )
    library: Literal["torchvision", "transformers"] = Field(default="torchvision", description="That has the model.")
    model: str | None = Field(
        default=None,
        description="torchvision: e.g. `lraspp_mobilenet_v3_large`; transformers: a name on the hub, or a folder of safetensors.",
    )
    weights: str = Field(
        default="hub", description="torchvision: `hub`, or a file of safetensors or of a state dict, relative to this file."
    )
    categories: Literal["voc", "cityscapes"] | list[str] = Field(
        default="voc", description="torchvision: what the outputs of weights from a file stand for, in their order."
    )
    mapping: dict[str, Literal["other", "sky", "building", "road", "vegetation", "water", "vehicle", "person", "sign"]] = Field(
        default_factory=dict, description="Which class a category of the model counts as, where not as packaged."
    )
    size: int = Field(default=512, ge=32, le=2048, description="Side at which the model sees pictures, pixels.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.source == "model" and self.model is None:
            raise ValueError("`source: model` needs a `model`, e.g. `lraspp_mobilenet_v3_large`")
        if self.library == "transformers" and self.weights != "hub":
            raise ValueError("weights: `transformers` reads them from the folder that `model` names; leave it out")
        return self


class SplitSettings(Section):
    """How places are divided into train, dev and test."""

    by: Literal["blocks", "series", "source", "creator", "lists"] = Field(
        default="blocks",
        description="`creator`: whole photographers, wherever their photos are; `lists`: as published lists of places say.",
    )
    block_m: float = Field(default=500, gt=0, description="Side of a geographic block, metres.")
    guard_m: float = Field(default=50, ge=0, description="Places of train this near to dev or test are left out (`blocks` only).")
    test_share: float = Field(default=0.2, ge=0, lt=1)
    dev_share: float = Field(
        default=0.1, ge=0, lt=1, description="With `series`, `source` and `lists`: the part of train put aside as dev, by blocks."
    )
    train: list[str] = Field(default_factory=list, description="Series or sources (shell patterns) of train.")
    test: list[str] = Field(default_factory=list, description="Series or sources (shell patterns) of test.")
    lists: dict[Literal["train", "dev", "test"], list[Path]] = Field(
        default_factory=dict,
        description="`lists`: text files that name places, one a line. Without a list of test all others are test, and so on.",
    )
    drop_leaking: bool = Field(default=False, description="Make leaking rows of train unusable instead of failing.")
    seed: int = 0

    @model_validator(mode="after")
    def _lists_are_there(self) -> Self:
        if (self.by == "lists") != bool(self.lists):
            raise ValueError("`by: lists` and `lists: {train: [FILE], test: [FILE]}` belong together")
        return self
