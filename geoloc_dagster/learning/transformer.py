"""Vision transformers of timm that are run layer by layer, so that two of them can exchange their class tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import trunc_normal_
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from geoloc_dagster.errors import RecipeError, WeightsError
from geoloc_dagster.learning.backbones import downloaded, no_such_model, read_state_dict
from geoloc_dagster.learning.multitask_recipe import TransformerSpec

_PATCHES = "patch_embed.proj.weight"


class TokenBranch(nn.Module):
    """A vision transformer that is asked for its tokens one layer at a time; the first token is the class token.

    Args:
        body: gives patch embedding, positions, layers and the last norm.
        frozen: whether the body keeps its weights.
        masked: whether patches may be unknown; a learned token stands for them.
    """

    def __init__(self, body: VisionTransformer, *, frozen: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.body = body
        self._frozen = frozen
        body.requires_grad_(not frozen)
        self.width, self.depth = int(body.embed_dim), len(body.blocks)
        self.mask_token = nn.Parameter(torch.zeros(self.width)) if masked else None
        if self.mask_token is not None:
            trunc_normal_(self.mask_token, std=0.02)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.body.patch_embed.grid_size
        return int(rows), int(columns)

    def first(self, inputs: Tensor, unknown: Tensor | None = None) -> Tensor:
        """Tokens before the first layer, N x T x width.

        Args:
            inputs: N x channels x S x S.
            unknown: bool, N x patches, row by row: where the learned token stands.
        """
        tokens = self.body.patch_embed(inputs)
        if unknown is not None and self.mask_token is not None:
            tokens = torch.where(unknown.reshape(*tokens.shape[:-1], 1), self.mask_token.to(tokens.dtype), tokens)
        return self.body.norm_pre(self.body.patch_drop(self.body._pos_embed(tokens)))  # pyright: ignore[reportPrivateUsage]

    def layer(self, number: int, tokens: Tensor) -> Tensor:
        """Tokens after a layer, of those before it."""
        return self.body.blocks[number](tokens)

    def last(self, tokens: Tensor) -> Tensor:
        """The class token after the last layer, normed, N x width."""
        return self.body.norm(tokens[:, 0])

    def train(self, mode: bool = True) -> TokenBranch:
        """A frozen body stays in evaluation mode: it skips no layers at random."""
        super().train(mode)
        if self._frozen:
            self.body.eval()
        return self


def build_branch(
    spec: TransformerSpec, image_size: int, channels: int, *, masked: bool = False, load_weights: bool = True
) -> TokenBranch:
    """Build the branch that a recipe names.

    Args:
        spec: of the recipe.
        image_size: side of what it will see, pixels.
        channels: of what it will see; weights for three are spread over other numbers.
        masked: whether patches may be unknown.
        load_weights: False where trained weights replace the pretrained ones anyway.

    Raises:
        RecipeError: there is no such transformer, or it has no class token.
        WeightsError: the weights cannot be had or do not fit.
    """
    from_hub = load_weights and spec.weights == "hub"
    try:
        body = _body(spec, image_size, channels, from_hub)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise RecipeError(f"backbone {spec.name} cannot be built for {image_size} px: {error}") from error
    if not isinstance(body, VisionTransformer):
        raise RecipeError(
            f"backbone {spec.name} is no plain vision transformer, whose layers can be run one by one",
            "Use e.g. vit_base_patch16_224, deit3_small_patch16_224 or vit_small_patch14_dinov2.",
        )
    if load_weights and spec.weights not in ("none", "hub"):
        _load_file(body, Path(spec.weights), channels)
    return TokenBranch(body, frozen=spec.frozen, masked=masked)


def _body(spec: TransformerSpec, image_size: int, channels: int, from_hub: bool) -> nn.Module:
    options: dict[str, Any] = {"img_size": image_size, "in_chans": channels, "num_classes": 0, "global_pool": "token"}
    options["drop_path_rate"] = spec.drop_path
    if spec.is_basic:
        shape = {"patch_size": spec.patch, "embed_dim": spec.width, "depth": spec.depth, "num_heads": spec.heads}
        return VisionTransformer(**shape, **options)
    if not timm.is_model(spec.name):
        raise no_such_model(spec.name, "vit_base_patch16_224, vit_small_patch14_dinov2")
    return downloaded(f"timm/{spec.name}", from_hub, lambda: timm.create_model(spec.name, pretrained=from_hub, **options))


def _load_file(body: VisionTransformer, path: Path, channels: int) -> None:
    """Load a state dict; positions and patches of another size are resized, those of a classifier left behind.

    Raises:
        WeightsError: missing, unreadable, or not of this transformer.
    """
    state: dict[str, Any] = checkpoint_filter_fn(dict(read_state_dict(path)), body)
    if _PATCHES in state and state[_PATCHES].shape[1] != channels:
        state[_PATCHES] = adapt_input_conv(channels, state[_PATCHES])
    own = body.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    missing, _ = body.load_state_dict(fitting, strict=False)
    if missing:
        raise WeightsError(f"{path} has no weights for {len(missing)} tensors of the transformer, e.g. {missing[0]}")
