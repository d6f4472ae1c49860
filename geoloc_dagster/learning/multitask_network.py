"""Two token branches, over the photo and over its class map, that exchange class tokens; classifiers of the levels and the scene.

Source: Pramanick et al., ECCV 2022, section 3 (multimodal feature fusion): after every layer both class tokens are projected to a
shared width, added, and projected back to each branch, while patch tokens stay in theirs; after the last layer the two class
tokens are added up with weights that attention gives them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoloc_dagster.errors import RecipeError
from geoloc_dagster.learning.cells_network import HeadedNetwork
from geoloc_dagster.learning.multitask_recipe import BranchesSpec, LevelHeadSpec, MultitaskRecipe
from geoloc_dagster.learning.transformer import TokenBranch, build_branch

NO_CLASS = 255
"""In a class map, a pixel of which nothing is known; a photo without a map is such all over."""
Seen = tuple[Tensor, Tensor | None]
"""What the network looks at: normalised pictures, N x 3 x S x S, and class maps, uint8, N x S x S."""


class TokenExchange(nn.Module):
    """Both class tokens to a shared width, added, and back to each branch.

    Args:
        widths: of the tokens of both branches.
        shared: the width in between.
        replace: whether what comes back replaces the class tokens, or is added to them; added, it is nothing at first.
    """

    def __init__(self, widths: tuple[int, int], shared: int, *, replace: bool) -> None:
        super().__init__()
        self._replace = replace
        self.to_shared = nn.ModuleList([nn.Linear(width, shared) for width in widths])
        back = [nn.Linear(shared, width) for width in widths]
        for linear in back if not replace else ():
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.back = nn.ModuleList(back)

    def forward(self, tokens: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both branches, N x T x width each; only the first token of each changes."""
        both = (tokens, others)
        shared = self.to_shared[0](tokens[:, 0]) + self.to_shared[1](others[:, 0])
        changed: list[Tensor] = []
        for branch, back in zip(both, self.back, strict=True):
            said = back(shared)[:, None].to(branch.dtype)
            said = said if self._replace else branch[:, :1] + said
            changed.append(torch.cat([said, branch[:, 1:]], dim=1))
        return changed[0], changed[1]


class TokenAttention(nn.Module):
    """The two last class tokens added up, each with the weight that attention gives it; in the width of the first.

    Args:
        widths: of the tokens of both branches.
    """

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        self.to_first = nn.Linear(widths[1], widths[0])
        self.score = nn.Linear(widths[0], 1)

    def forward(self, token: Tensor, other: Tensor) -> Tensor:
        """N x width of each -> N x width of the first."""
        both = torch.stack([token, self.to_first(other)], dim=1)
        return (torch.softmax(self.score(both), dim=1) * both).sum(dim=1)


class MultitaskNetwork(HeadedNetwork):
    """Branches, what is between them, and the classifiers.

    Args:
        photo: the branch that sees photos.
        segmentation: the branch that sees class maps; None without.
        spec: how the two come together.
        heads: dropout, and whether there is a scene head.
        classes: number of cells of each level.

    Raises:
        RecipeError: branches of other depths are to exchange tokens after every layer.
    """

    def __init__(
        self,
        photo: TokenBranch,
        segmentation: TokenBranch | None,
        spec: BranchesSpec,
        heads: LevelHeadSpec,
        classes: Mapping[str, int],
    ) -> None:
        super().__init__(photo.width, heads, classes)
        self.photo, self.segmentation = photo, segmentation
        self._channels = spec.seg_channels
        self.exchanges = nn.ModuleList()
        self.attention: TokenAttention | None = None
        if segmentation is None:
            return
        widths = (photo.width, segmentation.width)
        self.attention = TokenAttention(widths)
        if spec.fusion == "every_layer":
            if photo.depth != segmentation.depth:
                raise RecipeError(
                    f"branches of {photo.depth} and {segmentation.depth} layers cannot exchange tokens after every layer",
                    "Give both as many layers, or say `branches: {fusion: late}`.",
                )
            replace = spec.update == "replace"
            self.exchanges.extend(TokenExchange(widths, spec.shared_width, replace=replace) for _ in range(photo.depth))

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """Photos and their class maps -> logits of each level, N x classes, and of `scene`, N x 3."""
        return self.said(self.features(seen))

    def features(self, seen: Seen) -> Tensor:
        """What the classifiers stand on, N x width of the photo's branch."""
        pictures, maps = seen
        tokens = self.photo.first(pictures)
        if self.segmentation is None or self.attention is None:
            return self.photo.last(self._through(self.photo, tokens))
        if maps is None:
            maps = torch.full((pictures.shape[0], *pictures.shape[2:]), NO_CLASS, dtype=torch.uint8, device=pictures.device)
        channels, known = class_channels(maps, self._channels)
        unknown = F.adaptive_max_pool2d(known, self.segmentation.grid).flatten(1) == 0
        others = self.segmentation.first(channels, unknown)
        if not len(self.exchanges):
            tokens, others = self._through(self.photo, tokens), self._through(self.segmentation, others)
        for number, exchange in enumerate(self.exchanges):
            tokens, others = exchange(self.photo.layer(number, tokens), self.segmentation.layer(number, others))
        return self.attention(self.photo.last(tokens), self.segmentation.last(others))

    @staticmethod
    def _through(branch: TokenBranch, tokens: Tensor) -> Tensor:
        for number in range(branch.depth):
            tokens = branch.layer(number, tokens)
        return tokens


def class_channels(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Class maps, uint8, N x S x S, as one channel per class, N x count x S x S, and where they are known, N x 1 x S x S.

    A pixel without a class (`NO_CLASS`, or any number from `count` on) is in no channel.
    """
    numbers = torch.arange(count, dtype=maps.dtype, device=maps.device).view(1, -1, 1, 1)
    channels = (maps[:, None] == numbers).float()
    return channels, channels.sum(dim=1, keepdim=True)


def check_classes(maps: Tensor, count: int) -> None:
    """Raise RecipeError where a class map holds a class that has no channel."""
    known = maps[maps != NO_CLASS]
    highest = int(known.max()) if len(known) else 0
    if highest >= count:
        raise RecipeError(
            f"seg_channels: the class maps hold class {highest}, and {count} channels are for classes 0 to {count - 1}",
            f"Say `branches: {{seg_channels: {highest + 1}}}` or more.",
        )


def build_multitask_network(
    recipe: MultitaskRecipe, classes: Mapping[str, int], *, load_weights: bool = True
) -> MultitaskNetwork:
    """The untrained network of a recipe; `load_weights=False` leaves its pretrained weights out.

    Raises:
        RecipeError, WeightsError: a branch cannot be built.
    """
    spec, size = recipe.branches, recipe.data.image_size
    photo = build_branch(recipe.backbone, size, 3, load_weights=load_weights)
    segmentation = None
    if spec.segmentation:
        body = spec.backbone or recipe.backbone
        segmentation = build_branch(body, size, spec.seg_channels, masked=True, load_weights=load_weights)
    return MultitaskNetwork(photo, segmentation, spec, recipe.heads, classes)
