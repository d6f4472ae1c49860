"""Losses over cells: a cell that was dropped says nothing, and a near cell can be less wrong than a far one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.geo import distance
from geoloc_dagster.geo.distance import EARTH_RADIUS_M
from geoloc_dagster.geo.partitioning import DROPPED, Partitioning
from geoloc_dagster.learning.cells_network import SCENE
from geoloc_dagster.learning.cells_recipe import LevelHeadSpec

_BETA = 0.999  # an effective number is at most 1 / (1 - beta)


def unit_vectors(lat_deg: np.ndarray, lng_deg: np.ndarray) -> Tensor:
    """Positions on the unit sphere, float32, (N, 3)."""
    return torch.from_numpy(distance.unit_vectors(lat_deg, lng_deg).astype(np.float32))


def smoothed_labels(positions: Tensor, centres: Tensor, classes: Tensor, tau_km: float) -> Tensor:
    """Labels that fall off with the distance of a class's centre from the photo, rows sum to one, (N, C).

    y_i is proportional to exp(-(d(centre i, photo) - d(own centre, photo)) / tau), and at most that of the own class.

    Args:
        positions: unit vectors, (N, 3).
        centres: unit vectors, (C, 3).
        classes: own class of each photo, (N,), none dropped.
        tau_km: kilometres.
    """
    chord = torch.cdist(positions, centres, compute_mode="donot_use_mm_for_euclid_dist")
    distance_km = 2 * torch.asin((chord / 2).clamp(max=1)) * (EARTH_RADIUS_M / 1000)
    own = distance_km.gather(1, classes[:, None])
    return torch.softmax(-(distance_km - own).clamp(min=0) / tau_km, dim=1)


def scene_weights(scenes: Tensor, balance: str) -> Tensor:
    """What a photo of each scene counts, (3,), 1 on average over the photos.

    Args:
        scenes: probabilities, (N, 3), NaN where the scene is unknown.
        balance: `none`, `sqrt_inverse` (1 / square root of the number of photos of the scene), or `effective_number`
            ((1 - beta) / (1 - beta ** number); Cui et al., Class-Balanced Loss, CVPR 2019).
    """
    count = scenes[~scenes.isnan().any(dim=1)].sum(dim=0)
    if balance == "none" or not float(count.sum()):
        return torch.ones(scenes.shape[1])
    some = count.clamp(min=1)
    rare = some.rsqrt() if balance == "sqrt_inverse" else (1 - _BETA) / (1 - _BETA**some)
    return rare * (count.sum() / (rare * count).sum())


class CellsLoss(nn.Module):
    """The weighted sum of the levels' cross-entropies and that of the scene.

    Args:
        spec: weights, smoothing, scene.
        partitioning: gives the centres of classes.
        levels: that have a head.
        scenes: probabilities of the photos of training, (N, 3); their frequencies balance the scenes.
    """

    def __init__(self, spec: LevelHeadSpec, partitioning: Partitioning, levels: list[str], scenes: Tensor | None = None) -> None:
        super().__init__()
        balance = "none" if spec.scene is None or scenes is None else spec.scene.balance
        weights = torch.ones(len(SCENES)) if scenes is None else scene_weights(scenes, balance)
        self.register_buffer("scene_weights", weights, persistent=False)
        self._spec, self._levels = spec, levels
        for level in levels:
            cells = partitioning.level(level)
            self.register_buffer(f"centres_{level}", unit_vectors(cells.lat_deg, cells.lng_deg), persistent=False)

    def forward(self, logits: Mapping[str, Tensor], classes: Tensor, positions: Tensor, scenes: Tensor) -> dict[str, Tensor]:
        """Each part by name and their weighted sum as `loss`.

        Args:
            logits: of each level and of the scene.
            classes: int64, (N, levels), -1 where a photo's cell was dropped.
            positions: unit vectors of the photos, (N, 3).
            scenes: probabilities, (N, 3), NaN where the scene is unknown.
        """
        parts = {
            level: self._level(level, logits[level], classes[:, number], positions) for number, level in enumerate(self._levels)
        }
        total = sum(self._spec.weights.get(level, 1.0) * part for level, part in parts.items())
        if self._spec.scene is not None:
            parts[SCENE] = self._scene(logits[SCENE], scenes)
            total = total + self._spec.scene.weight * parts[SCENE]
        return {**parts, "loss": torch.as_tensor(total)}

    def _level(self, level: str, logits: Tensor, classes: Tensor, positions: Tensor) -> Tensor:
        known = classes != DROPPED
        smoothing = self._spec.smoothing
        tau_km = None if smoothing is None else smoothing.tau_of(level)
        if tau_km is None:
            losses = F.cross_entropy(logits, classes, ignore_index=DROPPED, reduction="none")
        else:
            labels = smoothed_labels(positions, self.get_buffer(f"centres_{level}"), classes.clamp(min=0), tau_km)
            losses = F.cross_entropy(logits, labels, reduction="none")
        return _mean_of(losses, known)

    def _scene(self, logits: Tensor, scenes: Tensor) -> Tensor:
        known = ~scenes.isnan().any(dim=1)
        assert self._spec.scene is not None
        likely = scenes.nan_to_num()
        wanted = likely if self._spec.scene.soft else likely.argmax(dim=1)
        each = F.cross_entropy(logits, wanted, weight=self.get_buffer("scene_weights"), reduction="none")
        return _mean_of(each, known)


def _mean_of(losses: Tensor, known: Tensor) -> Tensor:
    """The mean over the rows that are known, 0 where none is; masked rather than chosen, which a GPU would have to wait for."""
    return (losses * known).sum() / known.sum().clamp(min=1)
