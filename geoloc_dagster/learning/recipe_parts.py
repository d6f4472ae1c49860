"""What recipes of every kind are made of; cheap to import."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Normalisation = Literal["published", "picture"]
NAME = r"[a-z][a-z0-9_]{0,63}"
RecipeName = Annotated[str, Field(pattern=f"^{NAME}$", description="The name of its file.")]


class Section(BaseModel):
    """Unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PicturesSpec(Section):
    """How the pictures that are learned from are chosen and held."""

    splits: list[Literal["train", "dev", "test"]] = Field(default=["train"], min_length=1)
    exclude_flags: list[str] = Field(
        default=["undecodable", "black", "uniform"],
        description="Rows with one of these quality flags are left out, also where the catalog counts them as usable.",
    )
    image_size: int = Field(default=224, ge=16, le=1024, description="Pixels, at which the network sees a picture.")
    stored_size: int = Field(default=256, ge=16, le=2048, description="Pixels, from which augmentation cuts its crops.")
    normalise: Normalisation = Field(
        default="published",
        description="`published`: by the mean and spread that published weights expect; `picture`: by each picture's own, per "
        "channel, so that the level of light and its colour say nothing.",
    )
    memory_limit_gib: float = Field(default=4, gt=0, description="Larger collections are streamed from the crops table.")
    workers: int = Field(default=2, ge=0, le=64, description="Processes that decode a streamed collection.")

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.stored_size < self.image_size:
            raise ValueError("stored_size must be at least image_size")
        return self


class BackboneSpec(Section):
    """The network that turns a picture into a feature map."""

    library: Literal["timm", "torchvision"] = "timm"
    name: str = Field(
        default="resnet18",
        description="A model of the library; `resnet_basic` (timm) is built from `channels` and `blocks`.",
    )
    channels: list[int] | None = Field(default=None, min_length=4, max_length=4, description="Of the stages of `resnet_basic`.")
    blocks: list[int] | None = Field(default=None, min_length=4, max_length=4, description="Of the stages of `resnet_basic`.")
    weights: str = Field(default="none", min_length=1, description="`none`, `hub`, or a file (safetensors or a state dict).")
    output_stride: Literal[8, 16, 32] = Field(
        default=32, description="Pixels per cell of the feature map; 16 and 8 keep it finer by dilation (ResNets of timm)."
    )
    frozen_stages: int = Field(default=0, ge=0, le=4, description="The stem and this many stages keep their weights.")

    @model_validator(mode="after")
    def _basic(self) -> Self:
        if (self.name == "resnet_basic") != (self.channels is not None and self.blocks is not None):
            raise ValueError("channels and blocks belong to `resnet_basic`, which needs both")
        return self


class AugmentationSpec(Section):
    """Random changes of training pictures; never mirrored, because a mirrored street is another street."""

    min_scale: float = Field(default=0.8, gt=0, le=1, description="Smallest side of a crop, as a share of the picture.")
    aspect: float = Field(default=0.05, ge=0, le=1, description="Largest change of the aspect ratio, natural logarithm.")
    brightness: float = Field(default=0.2, ge=0, le=2, description="Largest gain, natural logarithm.")
    contrast: float = Field(default=0.2, ge=0, le=2, description="Largest gain, natural logarithm.")
    saturation: float = Field(default=0.2, ge=0, le=1)
    colour_cast: float = Field(default=0, ge=0, le=1, description="Largest gain of one channel, natural logarithm.")
    grey: float = Field(default=0, ge=0, le=1, description="Probability.")
    blur: float = Field(default=0, ge=0, le=1, description="Probability.")
    erase: float = Field(default=0, ge=0, le=1, description="Probability that a rectangle is blanked.")


class OptimiserSpec(Section):
    """Optimiser with one cycle of the learning rate: linear-cosine up, cosine down."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0, description="At the top of the cycle.")
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_share: float = Field(default=0.2, gt=0, lt=1)
    classifier_factor: float = Field(default=10, gt=0, description="Learning rate of the classes of `cosface`, times this.")
    clip_norm: float = Field(default=5, gt=0)


class ComputeSpec(Section):
    """What a training runs on. The batches, their order and the random numbers are the same on one device and on many."""

    precision: Literal["auto", "32", "bf16", "16"] = Field(
        default="auto", description="Of the arithmetic; `auto` is bf16 (mixed) on a GPU and 32 bits on a CPU."
    )
    compile: Literal["never", "auto", "always"] = Field(
        default="auto",
        description="Let torch compile the network: `auto` does so on a GPU where the training is long enough to pay for it.",
    )
    devices: int = Field(default=1, ge=1, le=1024, description="GPUs of each machine, or processes where there are none.")
    nodes: int = Field(default=1, ge=1, le=1024, description="Machines; all see the region's folder under the same path.")
    rendezvous: str | None = Field(default=None, description="`host:port` at which several machines find one another.")
    strategy: str = Field(default="auto", description="Lightning's, for several devices, e.g. ddp_static_graph; `auto` is ddp.")

    @property
    def processes(self) -> int:
        """One for each device of each machine."""
        return self.devices * self.nodes

    def check_batch(self, pictures: int) -> None:
        """Raise a `ValueError` for a batch that cannot be shared equally."""
        if pictures % self.processes:
            raise ValueError(f"a batch of {pictures} pictures cannot be shared by {self.processes} devices")

    @model_validator(mode="after")
    def _machines(self) -> Self:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError("several nodes need a `rendezvous`, e.g. 10.0.0.1:29400")
        return self


class HashedSection(Section):
    """A whole recipe: it can be named by what changes its result, repeated with other random numbers, and written down."""

    compute: ComputeSpec = ComputeSpec()

    def recipe_hash(self) -> str:
        """A fingerprint (16 hex digits) of all that changes the result by more than rounding: not description and compute."""
        fields = self.model_dump(mode="json", exclude={"description", "compute"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> Self:
        """The same recipe with other random numbers."""
        return self.model_copy(update={"seed": seed})

    def to_yaml(self) -> str:
        """The whole recipe as YAML, defaults written out."""
        fields = self.model_dump(mode="json")
        compute = fields.pop("compute")
        return yaml.safe_dump({**fields, "compute": compute}, sort_keys=False)


OWN_TRAINER_OPTIONS = frozenset(
    {
        "max_epochs",
        "callbacks",
        "logger",
        "default_root_dir",
        "reload_dataloaders_every_n_epochs",
        "use_distributed_sampler",
        "num_sanity_val_steps",
        "enable_progress_bar",
        "enable_model_summary",
        "gradient_clip_val",
    }
)
"""Options of Lightning's trainer that follow from the rest of a recipe, or that a run which can be resumed needs as they are."""
COMPUTE_OPTIONS = frozenset({"devices", "num_nodes", "strategy"})
"""Options of Lightning's trainer that a recipe sets under `compute`, because such a training is started in another way."""


class TrainedRecipe(HashedSection):
    """What recipes say whose trainer takes options of Lightning's."""

    version: Literal[1] = 1
    name: RecipeName
    description: str = ""
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="Passed to Lightning's trainer, e.g. {precision: bf16-mixed, accumulate_grad_batches: 2}.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _trainer(self) -> Self:
        own = sorted(OWN_TRAINER_OPTIONS & self.trainer.keys())
        if own:
            raise ValueError(f"trainer: {own[0]} follows from the rest of the recipe")
        elsewhere = sorted(COMPUTE_OPTIONS & self.trainer.keys())
        if elsewhere:
            raise ValueError(f"trainer: {elsewhere[0]} is set under `compute`, e.g. compute: {{devices: 2}}")
        return self
