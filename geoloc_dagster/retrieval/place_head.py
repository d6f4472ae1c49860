"""A linear classifier of views on the vectors of the gallery: what the pictures of one view have in common, learned.

The nearest picture decides by one comparison; this weighs which directions of a vector tell places apart and which follow light,
season and camera. It is learned in seconds from the vectors of the index, which hold every place that can be answered, and it
never sees a query.

Source: normalised softmax, as Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC 2019, here over
vectors that stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoloc_dagster.retrieval.encoder import Vectors

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlaceHeadSettings:
    """How it is learned.

    Attributes:
        epochs: over the gallery.
        batch_size: vectors of a step.
        learning_rate: of AdamW at the top of one cycle.
        scale: of cosines before the softmax.
        noise: standard deviation of what is added to each vector, relative to its length: pictures to come differ from these.
        seed: of order and noise.
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 0.02
    scale: float = 20.0
    noise: float = 0.5
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PlaceHead:
    """Weights of unit length, (classes, dimension), and the scale of cosines."""

    weights: F32
    scale: float

    def log_probabilities(self, vectors: Vectors) -> F32:
        """Of each class, (N, classes), of L2-normalised vectors, (N, dimension)."""
        said = self.scale * (vectors @ self.weights.T)
        most = said.max(axis=1, keepdims=True)
        return (said - most - np.log(np.exp(said - most).sum(axis=1, keepdims=True))).astype(np.float32)

    def save(self, path: Path) -> None:
        """As safetensors."""
        from safetensors.numpy import save

        from geoloc_dagster.storage import write_bytes

        write_bytes(path, save({"weights": self.weights, "scale": np.array([self.scale], np.float32)}))


def load_place_head(path: Path) -> PlaceHead:
    """What `save` wrote.

    Raises:
        IntegrityError: it is not that.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from geoloc_dagster.errors import IntegrityError

    try:
        held = load_file(path)
        return PlaceHead(held["weights"], float(held["scale"][0]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise IntegrityError(f"{path} is no classifier of views: {error}") from error


def learn_place_head(vectors: Vectors, classes: I64, count: int, settings: PlaceHeadSettings | None = None) -> PlaceHead:
    """Learn to tell classes apart; the same vectors and seed give the same weights on one machine.

    Args:
        vectors: of the gallery, L2-normalised, (N, dimension).
        classes: of each, (N,), from 0; -1 leaves a vector out.
        count: of classes.
        settings: how.
    """
    import torch
    import torch.nn.functional as F

    chosen = settings or PlaceHeadSettings()
    rows = np.flatnonzero(classes >= 0)
    inputs, wanted = torch.from_numpy(np.ascontiguousarray(vectors[rows])), torch.from_numpy(classes[rows])
    random = torch.Generator().manual_seed(chosen.seed)
    start = torch.zeros(count, inputs.shape[1]).index_add_(0, wanted, inputs)  # the mean of each class is a good beginning
    empty = start.norm(dim=1) == 0
    start[empty] = torch.randn(int(empty.sum()), inputs.shape[1], generator=random)
    weights = F.normalize(start).requires_grad_(True)
    optimiser = torch.optim.AdamW([weights], lr=chosen.learning_rate, weight_decay=0.0)
    steps = chosen.epochs * max(1, -(-len(rows) // chosen.batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, chosen.learning_rate, total_steps=steps)
    noise = chosen.noise / inputs.shape[1] ** 0.5
    for _ in range(chosen.epochs):
        order = torch.randperm(len(rows), generator=random)
        for batch in order.split(chosen.batch_size):
            seen = inputs[batch]
            seen = F.normalize(seen + noise * torch.randn(seen.shape, generator=random))
            loss = F.cross_entropy(chosen.scale * seen @ F.normalize(weights).T, wanted[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return PlaceHead(F.normalize(weights.detach()).numpy(), chosen.scale)
