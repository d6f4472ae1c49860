"""Losses over the places of a batch. Another view of the same location is neither the same place nor a different one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn

from geoloc_dagster.learning.recipe import CosFaceSpec, LossSpec, MultiSimilaritySpec, SupervisedContrastiveSpec

_NEVER = -1e4  # a logit that no softmax notices, and that stays finite when multiplied by zero


class PlaceMultiSimilarity(nn.Module):
    """Multi-similarity loss on mined pairs, without pairs of one location that show different views."""

    def __init__(self, spec: MultiSimilaritySpec) -> None:
        super().__init__()
        self.mine = MultiSimilarityMiner(epsilon=spec.epsilon)
        self.loss = MultiSimilarityLoss(alpha=spec.alpha, beta=spec.beta, base=spec.base)  # pyright: ignore[reportArgumentType]

    def forward(self, vectors: Tensor, places: Tensor, locations: Tensor) -> Tensor:
        """Unit vectors N x D, class of each and location of each, both int64 of shape (N,) -> scalar."""
        anchor_p, positive, anchor_n, negative = self.mine(vectors, places)
        different = locations[anchor_n] != locations[negative]
        return self.loss(vectors, places, (anchor_p, positive, anchor_n[different], negative[different]))


class PlaceContrastive(nn.Module):
    """Supervised contrastive loss: each picture must be nearer to its place's others than to everything else in the batch."""

    def __init__(self, spec: SupervisedContrastiveSpec) -> None:
        super().__init__()
        self.temperature = spec.temperature

    def forward(self, vectors: Tensor, places: Tensor, locations: Tensor) -> Tensor:
        """Unit vectors N x D, class of each and location of each, both int64 of shape (N,) -> scalar."""
        same_place = places[:, None] == places[None]
        same_location = locations[:, None] == locations[None]
        itself = torch.eye(len(places), dtype=torch.bool, device=places.device)
        ignored = itself | (same_location & ~same_place)
        logits = (vectors @ vectors.T / self.temperature).masked_fill(ignored, _NEVER)
        likelihood = logits - logits.logsumexp(1, keepdim=True)
        positive = same_place & ~itself
        return -(likelihood * positive).sum(1).div(positive.sum(1)).mean()


class PlaceCosFace(nn.Module):
    """Large-margin cosine classification, blind to the other views of a picture's own location.

    Args:
        place_locations: location of each class, int64, shape (C,).
        dimension: of the vectors.
        spec: scale and margin.
    """

    place_locations: Tensor

    def __init__(self, place_locations: Tensor, dimension: int, spec: CosFaceSpec) -> None:
        super().__init__()
        self.spec = spec
        self.centres = nn.Parameter(torch.randn(len(place_locations), dimension) * 0.05)
        self.register_buffer("place_locations", place_locations, persistent=False)

    def forward(self, vectors: Tensor, places: Tensor, locations: Tensor) -> Tensor:
        """Unit vectors N x D, class of each and location of each, both int64 of shape (N,) -> scalar."""
        cosine = vectors @ F.normalize(self.centres, dim=1).T
        own = F.one_hot(places, len(self.centres)).bool()
        other_view = (self.place_locations[None] == locations[:, None]) & ~own
        logits = (cosine - self.spec.margin * own).masked_fill(other_view, -1) * self.spec.scale
        return F.cross_entropy(logits, places, label_smoothing=self.spec.label_smoothing)


class PlaceLoss(nn.Module):
    """The weighted sum of a recipe's losses; `parts` of the last call are kept for logging."""

    def __init__(self, spec: LossSpec, place_locations: Tensor, dimension: int) -> None:
        super().__init__()
        self.losses = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        if spec.multi_similarity is not None:
            self.losses["multi_similarity"] = PlaceMultiSimilarity(spec.multi_similarity)
            self.weights["multi_similarity"] = spec.multi_similarity.weight
        if spec.supervised_contrastive is not None:
            self.losses["supervised_contrastive"] = PlaceContrastive(spec.supervised_contrastive)
            self.weights["supervised_contrastive"] = spec.supervised_contrastive.weight
        if spec.cosface is not None:
            self.losses["cosface"] = PlaceCosFace(place_locations, dimension, spec.cosface)
            self.weights["cosface"] = spec.cosface.weight

    def forward(self, vectors: Tensor, places: Tensor, locations: Tensor) -> dict[str, Tensor]:
        """Each loss by name and their weighted sum as `loss`."""
        parts: dict[str, Tensor] = {name: loss(vectors, places, locations) for name, loss in self.losses.items()}
        total = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return {**parts, "loss": total}
