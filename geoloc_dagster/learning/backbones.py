"""Networks from picture to feature map, by name, with weights from the hub, a file or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the error that torch raises where it refuses to unpickle
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import is_model_in_modules
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from geoloc_dagster.errors import RecipeError, WeightsError
from geoloc_dagster.learning.recipe_parts import BackboneSpec
from geoloc_dagster.learning.torch_archive import check_archive, check_tensors
from geoloc_dagster.storage import refuse_pickles

_SAVE_TENSORS = "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), path)."


class Backbone(nn.Module):
    """A network whose output is a feature map, N x channels x height x width.

    Token networks (ViT, CLIP image towers) give their patch tokens, laid out as they lie in the picture.
    """

    def __init__(self, body: nn.Module, image_size: int, frozen_stages: int) -> None:
        super().__init__()
        self.body = body
        self._frozen = _stages(body)[: frozen_stages + 1] if frozen_stages else []
        if frozen_stages and len(self._frozen) < frozen_stages + 1:
            raise RecipeError(f"frozen_stages: this backbone has fewer than {frozen_stages} stages that can be frozen")
        for module in self._frozen:
            module.requires_grad_(False)
        self.channels, self.height, self.width = self._shape_for(image_size)

    def forward(self, pictures: Tensor) -> Tensor:
        """N x 3 x S x S -> N x channels x height x width."""
        features = self.body(pictures)
        return features if features.ndim == 4 else self._as_map(features)

    def train(self, mode: bool = True) -> Backbone:
        """Frozen stages stay in evaluation mode, so that their batch statistics stay as well."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _as_map(self, tokens: Tensor) -> Tensor:
        """Patch tokens, N x (prefix + height * width) x channels, as a map."""
        patches = tokens[:, int(getattr(self.body, "num_prefix_tokens", 0)) :]
        side = round(patches.shape[1] ** 0.5)
        return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], side, side)

    def _shape_for(self, image_size: int) -> tuple[int, int, int]:
        self.eval()
        with torch.no_grad():
            _, channels, height, width = self(torch.zeros(1, 3, image_size, image_size)).shape
        self.train()
        return channels, height, width


def build_backbone(spec: BackboneSpec, image_size: int, *, load_weights: bool = True) -> Backbone:
    """Build the backbone that a recipe names.

    Args:
        spec: of the recipe.
        image_size: side of the pictures that it will see, pixels.
        load_weights: False where trained weights replace the pretrained ones anyway.

    Raises:
        RecipeError: the library has no such model, or it gives no feature map at this size.
        WeightsError: the weights cannot be had or do not fit.
    """
    from_hub = load_weights and spec.weights == "hub"
    try:
        body = _torchvision(spec, from_hub) if spec.library == "torchvision" else _timm(spec, image_size, from_hub)
        backbone = Backbone(body, image_size, spec.frozen_stages)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise RecipeError(f"backbone {spec.library}/{spec.name} cannot be built for {image_size} px: {error}") from error
    if load_weights and spec.weights not in ("none", "hub"):
        _load_file(body, Path(spec.weights))
    return backbone


def _timm(spec: BackboneSpec, image_size: int, from_hub: bool) -> nn.Module:
    if spec.name == "resnet_basic":
        return _resnet_basic(spec.blocks or [], spec.channels or [], spec.output_stride)
    if not timm.is_model(spec.name):
        raise no_such_model(spec.name, "resnet18, resnet50")
    strided: dict[str, Any] = {} if spec.output_stride == 32 else {"output_stride": spec.output_stride}
    sized: dict[str, Any] = {"img_size": image_size} if is_model_in_modules(spec.name, ["vision_transformer"]) else {}
    return downloaded(
        f"timm/{spec.name}",
        from_hub,
        lambda: timm.create_model(spec.name, pretrained=from_hub, num_classes=0, global_pool="", **sized, **strided),
    )


def _resnet_basic(blocks: list[int], channels: list[int], output_stride: int) -> nn.Module:
    """A ResNet of basic blocks with any width; timm's annotations of its arguments are too narrow."""
    arguments: dict[str, Any] = {"block": BasicBlock, "layers": tuple(blocks), "channels": tuple(channels)}
    return ResNet(**arguments, output_stride=output_stride, num_classes=0, global_pool="", zero_init_last=True)


def _torchvision(spec: BackboneSpec, from_hub: bool) -> nn.Module:
    """A torchvision model without its average pooling and classifier."""
    from torchvision.models import get_model, list_models

    if spec.name not in list_models():
        raise RecipeError(f"torchvision has no model {spec.name!r}", "It has e.g. resnet18, resnet50.")
    name = f"torchvision/{spec.name}"
    model = downloaded(name, from_hub, lambda: get_model(spec.name, weights="DEFAULT" if from_hub else None))
    kept = [(name, child) for name, child in model.named_children() if name not in ("avgpool", "fc", "classifier", "heads")]
    body = nn.Sequential()
    for name, child in kept:
        body.add_module(name, child)
    return body


def no_such_model(name: str, usual: str) -> RecipeError:
    """A model that timm does not have, and names that begin alike."""
    near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or usual
    return RecipeError(f"timm has no model {name!r}", f"It has e.g. {near}.")


def downloaded(name: str, from_hub: bool, build: Callable[[], Any]) -> nn.Module:
    """Build a model; a download that fails is a `WeightsError` with its cause."""
    try:
        return build()
    except (OSError, RuntimeError) as error:
        if not from_hub:
            raise
        raise WeightsError(f"the hub's weights of {name} cannot be had: {error}") from error


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file or of a state dict that torch saved; never unpickles anything but tensors.

    Raises:
        WeightsError: missing, unreadable, or no state dict.
        UnsafeFileError: a pickle, or tensors that claim more than the file holds.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            refuse_pickles(path)
            check_archive(path)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path} cannot be read as weights alone: {first}", _SAVE_TENSORS) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict", _SAVE_TENSORS)
    check_tensors(path, state)
    return state


def _load_file(body: nn.Module, path: Path) -> None:
    """Load a state dict.

    Raises:
        WeightsError: missing, unreadable, or not of this backbone.
    """
    state = read_state_dict(path)
    missing, _ = body.load_state_dict(_fitting(state, body), strict=False)
    if missing:
        raise WeightsError(f"{path} has no weights for {len(missing)} tensors of the backbone, e.g. {missing[0]}")


def _fitting(state: Mapping[str, Any], body: nn.Module) -> dict[str, Tensor]:
    """The tensors of `state` that the backbone has; a classifier's are left behind."""
    own = body.state_dict()
    return {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}


def _stages(body: nn.Module) -> list[nn.Module]:
    """Stem and stages, first to last, of the networks that have such."""
    children = dict(body.named_children())
    if "layer1" in children:
        stem = nn.ModuleList([module for name, module in children.items() if not name.startswith(("layer", "fc", "global"))])
        return [stem, *[children[f"layer{number}"] for number in range(1, 5)]]
    if "blocks" in children:
        blocks = list(children["blocks"].children())
        quarter = max(1, len(blocks) // 4)
        stem = nn.ModuleList([module for name, module in children.items() if name in ("patch_embed", "norm_pre")])
        return [stem, *[nn.ModuleList(blocks[start : start + quarter]) for start in range(0, 4 * quarter, quarter)]]
    return []
