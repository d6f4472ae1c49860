"""From feature map to one vector: pooling that forgets the layout of the picture, and pooling that keeps it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoloc_dagster.learning.backbones import Backbone, build_backbone
from geoloc_dagster.learning.recipe import HeadSpec, Recipe


class GeM(nn.Module):
    """Generalised mean over the cells of a feature map (Radenović et al., TPAMI 2019): (mean x^p)^(1/p), p learned.

    Args:
        cells: (rows, columns) of regions that are pooled apart; (1, 1) pools the whole map.
    """

    def __init__(self, cells: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))
        self.cells = cells

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W -> N x (C * rows * columns)."""
        powers = features.clamp(min=1e-6).pow(self.p)
        return F.adaptive_avg_pool2d(powers, self.cells).pow(1 / self.p).flatten(1)


class Grid(nn.Module):
    """Every cell of the feature map, reduced to few channels and laid side by side, so that *where* is kept."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W -> N x (channels * H * W)."""
        return self.norm(self.reduce(features)).flatten(1)


class Whitening(nn.Module):
    """Centre, rotate and rescale unit vectors so that no direction counts only because all pictures vary along it.

    Args:
        length: of the vectors that come in, D.
        dimension: of those that go out, K <= D: the directions of largest spread.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, length: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("matrix", torch.eye(length, dimension))

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors, N x D -> unit vectors, N x K."""
        return F.normalize((vectors - self.mean) @ self.matrix, dim=1)

    def fit(self, vectors: Tensor, power: float) -> None:
        """Learn from unit vectors, N x D: each direction is divided by its standard deviation to the power `power`."""
        values = vectors.double()
        mean = values.mean(0)
        variance, directions = torch.linalg.eigh((values - mean).T @ (values - mean) / len(values))
        variance, directions = variance.flip(0), directions.flip(1)
        scale = variance.clamp(min=float(variance[0]) * 1e-6).pow(-power / 2)
        self.mean.copy_(mean)
        self.matrix.copy_((directions * scale)[:, : self.matrix.shape[1]])


class RetrievalNetwork(nn.Module):
    """Backbone, pooling, projection and whitening, to one unit vector per picture.

    A projection that is there for training only takes up what the loss wants and the place does not need; what lies
    before it finds unseen places better (as in Chen et al., ICML 2020).
    """

    def __init__(self, backbone: Backbone, spec: HeadSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling, length = _pooling(backbone, spec)
        self.dropout = nn.Dropout(spec.dropout)
        self.projection = None if spec.projection == "none" else nn.Linear(length, spec.dimension, bias=False)
        self.loss_dimension = length if self.projection is None else spec.dimension
        self._project_always = spec.projection == "kept"
        self.dimension = spec.dimension if self._project_always else length
        self.whitening: Whitening | None = None
        if spec.whitening is not None:
            wanted = min(spec.whitening.dimension or self.dimension, self.dimension)
            self.whitening = Whitening(self.dimension, wanted)
            self.dimension = wanted

    def forward(self, pictures: Tensor) -> Tensor:
        """Normalised pictures, N x 3 x S x S -> unit vectors, N x loss_dimension in training, else N x dimension."""
        if self.training:
            features = self.dropout(self.pooling(self.backbone(pictures)))
            return F.normalize(features if self.projection is None else self.projection(features), dim=1)
        units = self.unwhitened(pictures)
        return units if self.whitening is None else self.whitening(units)

    def unwhitened(self, pictures: Tensor) -> Tensor:
        """What the whitening is learned from: unit vectors as they come out of pooling and a kept projection."""
        features = self.pooling(self.backbone(pictures))
        if self.projection is not None and self._project_always:
            features = self.projection(features)
        return F.normalize(features, dim=1)


def _pooling(backbone: Backbone, spec: HeadSpec) -> tuple[nn.Module, int]:
    channels, height, width = backbone.channels, backbone.height, backbone.width
    match spec.pooling:
        case "gem":
            return GeM(), channels
        case "average":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
        case "strips":
            return GeM((1, width)), channels * width
        case "grid":
            return Grid(channels, spec.channels), spec.channels * height * width


def build_network(recipe: Recipe, *, load_weights: bool = True) -> RetrievalNetwork:
    """The untrained network of a recipe; `load_weights=False` leaves its pretrained weights out."""
    backbone = build_backbone(recipe.backbone, recipe.data.image_size, load_weights=load_weights)
    network = RetrievalNetwork(backbone, recipe.head)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
