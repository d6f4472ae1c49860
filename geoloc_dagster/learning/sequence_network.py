"""Views of a place and date to one answer: a shared backbone, each view with its heading, an encoder, a head per level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from geoloc_dagster.learning.aggregation import GeM
from geoloc_dagster.learning.backbones import Backbone, build_backbone
from geoloc_dagster.learning.sequence_recipe import SequenceHeadSpec, SequenceRecipe, ViewEncoderSpec

_UNKNOWN_LAST, _MISSING_LAST = 1_000.0, 2_000.0  # beyond any heading


def heading_code(headings_deg: Tensor) -> Tensor:
    """Degrees clockwise from north, any shape -> (…, 3): sine, cosine, and 1; all three 0 where the heading is unknown (NaN)."""
    known = ~headings_deg.isnan()
    angle = torch.deg2rad(headings_deg.nan_to_num())
    return torch.stack([angle.sin(), angle.cos(), torch.ones_like(angle)], dim=-1) * known[..., None]


def in_order(headings_deg: Tensor, present: Tensor, start_deg: Tensor) -> Tensor:
    """(N, V) int64: the slots of each row clockwise from `start_deg`; views of unknown heading after them, missing ones last.

    Args:
        headings_deg: (N, V), NaN where unknown.
        present: (N, V) bool.
        start_deg: (N,).
    """
    key = torch.remainder(headings_deg - start_deg[:, None], 360.0)
    key = torch.where(headings_deg.isnan(), torch.full_like(key, _UNKNOWN_LAST), key)
    return torch.where(present, key, torch.full_like(key, _MISSING_LAST)).argsort(dim=1, stable=True)


class MeanEncoder(nn.Module):
    """The mean of the views that are there."""

    def forward(self, views: Tensor, headings_deg: Tensor, present: Tensor, start_deg: Tensor) -> Tensor:
        """(N, V, width) -> (N, width)."""
        return (views * present[..., None]).sum(dim=1) / present.sum(dim=1, keepdim=True)


class AttentionEncoder(nn.Module):
    """Views look at each other, then are averaged by how much each has to say; missing ones are looked at by none."""

    def __init__(self, spec: ViewEncoderSpec) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            spec.width, spec.attention_heads, 2 * spec.width, spec.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, spec.layers, enable_nested_tensor=False)
        self.says = nn.Linear(spec.width, 1)

    def forward(self, views: Tensor, headings_deg: Tensor, present: Tensor, start_deg: Tensor) -> Tensor:
        """(N, V, width) -> (N, width)."""
        views = self.layers(views, src_key_padding_mask=~present)
        weights = self.says(views).squeeze(-1).masked_fill(~present, float("-inf")).softmax(dim=1)
        return (views.masked_fill(~present[..., None], 0) * weights[..., None]).sum(dim=1)


class RecurrentEncoder(nn.Module):
    """An LSTM or GRU that reads the views clockwise and anticlockwise; what it last remembers both ways is the answer."""

    def __init__(self, spec: ViewEncoderSpec) -> None:
        super().__init__()
        kind = nn.LSTM if spec.kind == "lstm" else nn.GRU
        between = spec.dropout if spec.layers > 1 else 0.0
        half = spec.width // 2
        self.cells = kind(spec.width, half, spec.layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, views: Tensor, headings_deg: Tensor, present: Tensor, start_deg: Tensor) -> Tensor:
        """(N, V, width) -> (N, width)."""
        remembered = self.cells(views if views.shape[1] == 1 else self._packed(views, headings_deg, present, start_deg))[1]
        last = remembered[0] if isinstance(remembered, tuple) else remembered
        return torch.cat([last[-2], last[-1]], dim=1)

    @staticmethod
    def _packed(views: Tensor, headings_deg: Tensor, present: Tensor, start_deg: Tensor) -> PackedSequence:
        order = in_order(headings_deg, present, start_deg)
        views = views.gather(1, order[..., None].expand_as(views))
        return pack_padded_sequence(views, present.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)


class SequenceNetwork(nn.Module):
    """Backbone and pooling for each view; heading and features of a view to a vector; encoder over the views; heads.

    Args:
        backbone: gives feature maps.
        heads: pooling.
        encoder: over the views.
        classes: number of classes of each level.
        frozen: the backbone keeps its weights.
    """

    def __init__(
        self, backbone: Backbone, heads: SequenceHeadSpec, encoder: ViewEncoderSpec, classes: Mapping[str, int], *, frozen: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        pooled = nn.AdaptiveMaxPool2d(1) if heads.pooling == "max" else nn.AdaptiveAvgPool2d(1)
        self.pooling = GeM() if heads.pooling == "gem" else nn.Sequential(pooled, nn.Flatten())
        self.norm = nn.LayerNorm(backbone.channels)
        self.view = nn.Linear(backbone.channels + 3, encoder.width)
        self.dropout = nn.Dropout(encoder.dropout)
        self.encoder = _encoder(encoder)
        self.summary = nn.LayerNorm(encoder.width)
        self.heads = nn.ModuleDict({level: nn.Linear(encoder.width, count) for level, count in classes.items()})
        self._fixed: list[nn.Module] = [self.backbone, self.pooling] if frozen else []
        for module in self._fixed:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> SequenceNetwork:
        """A frozen backbone stays in evaluation mode, so that its batch statistics stay as well."""
        super().train(mode)
        for module in self._fixed:
            module.eval()
        return self

    def view_features(self, pictures: Tensor) -> Tensor:
        """Normalised pictures, P x 3 x S x S -> P x channels; each view by itself."""
        return self.pooling(self.backbone(pictures))

    def forward(
        self, features: Tensor, headings_deg: Tensor, present: Tensor, start_deg: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of each level, N x classes.

        Args:
            features: of the views, (N, V, channels); those of missing views are of no account.
            headings_deg: (N, V), NaN where unknown.
            present: (N, V) bool, at least one view in each row.
            start_deg: (N,): where recurrent encoders begin; north without it.
        """
        start = torch.zeros_like(headings_deg[:, 0]) if start_deg is None else start_deg
        features = features.masked_fill(~present[..., None], 0)
        seen = torch.cat([self.norm(features), heading_code(headings_deg).to(features.dtype)], dim=-1)
        views = self.dropout(nn.functional.gelu(self.view(seen)))
        vector = self.dropout(self.summary(self.encoder(views, headings_deg, present, start)))
        return {level: head(vector) for level, head in self.heads.items()}


def build_sequence_network(recipe: SequenceRecipe, classes: Mapping[str, int], *, load_weights: bool = True) -> SequenceNetwork:
    """The untrained network of a recipe; `load_weights=False` leaves its pretrained weights out."""
    backbone = build_backbone(recipe.backbone, recipe.data.image_size, load_weights=load_weights)
    network = SequenceNetwork(backbone, recipe.heads, recipe.encoder, classes, frozen=recipe.frozen)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def in_slots(values: Tensor, present: Tensor) -> Tensor:
    """(P, F) values of the views that are there, one row after the other -> (N, V, F), zero where there is none."""
    table = values.new_zeros((*present.shape, values.shape[-1]))
    table[present] = values
    return table


def _encoder(spec: ViewEncoderSpec) -> nn.Module:
    if spec.kind == "mean":
        return MeanEncoder()
    return AttentionEncoder(spec) if spec.kind == "attention" else RecurrentEncoder(spec)
