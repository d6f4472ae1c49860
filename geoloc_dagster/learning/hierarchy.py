"""f*: what the classifiers of all levels say together about the cells of the finest, in log space.

score(fine cell) = sum over levels of weight * log p(the level's cell that holds it); all weights 1 is the product of the paper
(Müller-Budack et al., ECCV 2018, section 3.3). Fitted weights come from photos that were not trained on, in two steps: how much
each level counts beside the others is what puts answers nearest (by likelihood the finest would count alone, because it implies
the others, and answers get worse); how sure they are together is what makes the true cells likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from geoloc_dagster.geo.distance import EARTH_RADIUS_M
from geoloc_dagster.geo.partitioning import DROPPED, I32
from geoloc_dagster.learning.device import moved

_STEPS = 60
_FACTORS = (0.0, 0.5, 0.75, 1.33, 2.0)
_ROUNDS = 3
_LEAST_GAIN = 1e-4  # of a score from 0 to 1
_MOST_PHOTOS = 4_000
_CANDIDATES, _MASS = 32, 256


def hierarchy_log_probabilities(
    log_probabilities: Mapping[str, Tensor], parents: I32, levels: Sequence[str], weights: Mapping[str, float]
) -> Tensor:
    """Log-probabilities over the finest cells, shape (N, F); every row sums to one.

    Args:
        log_probabilities: of each level, float, (N, classes).
        parents: int, (F, levels): the class of each level that holds each finest cell.
        levels: names in the order of the columns of `parents`.
        weights: of each level, 0 or more.
    """
    device = log_probabilities[levels[-1]].device
    columns = moved(torch.from_numpy(parents.astype(np.int64)), device)
    total = torch.zeros((log_probabilities[levels[-1]].shape[0], len(parents)), device=device)
    for number, level in enumerate(levels):
        total = total + weights[level] * log_probabilities[level].float()[:, columns[:, number]]
    return torch.log_softmax(total, dim=1)


def best_answers(log_probabilities: Tensor, centres: Tensor, score_km: float | None) -> Tensor:
    """The cell to answer with, int64, (N,): the likeliest, or the one whose centre earns most on average.

    Args:
        log_probabilities: over the finest cells, (N, F).
        centres: of these, unit vectors, (F, 3).
        score_km: an answer earns exp(-error / score_km); None takes the likeliest cell. Of each photo the 32 likeliest cells are
            candidates, and the 256 likeliest are where it may be.
    """
    if score_km is None:
        return log_probabilities.argmax(dim=1)
    probabilities, cells = log_probabilities.exp().topk(min(_MASS, log_probabilities.shape[1]), dim=1)
    where = centres.to(log_probabilities.device)[cells]  # (N, mass, 3), the likeliest first
    candidates = where[:, : min(_CANDIDATES, where.shape[1])]
    chord = torch.cdist(candidates, where, compute_mode="donot_use_mm_for_euclid_dist")
    distance_km = 2 * torch.asin((chord / 2).clamp(max=1)) * (EARTH_RADIUS_M / 1000)
    earned = (torch.exp(-distance_km / score_km) * probabilities[:, None]).sum(dim=2)
    return cells.gather(1, earned.argmax(dim=1, keepdim=True)).squeeze(1)


def fit_weights(
    log_probabilities: Mapping[str, Tensor],
    classes: I32,
    parents: I32,
    levels: Sequence[str],
    positions: Tensor,
    centres: Tensor,
    score_km: float,
) -> dict[str, float]:
    """Weights of the levels, by photos that were not trained on.

    Args:
        log_probabilities: of each level, (N, classes).
        classes: int, (N,): the finest cell of each; where it was dropped a photo says nothing of how sure answers are.
        parents: as above.
        levels: as above.
        positions: of the photos, unit vectors, (N, 3).
        centres: of the finest cells, likewise, (F, 3).
        score_km: an answer earns exp(-error / score_km).

    Returns:
        By level; all 1 where there is no photo.
    """
    rows = slice(0, _MOST_PHOTOS)
    said = {level: log_probabilities[level][rows].float() for level in levels}
    if not len(said[levels[-1]]):
        return dict.fromkeys(levels, 1.0)
    chosen = _relative(said, parents, levels, positions[rows], centres, score_km)
    scale = _scale(said, classes[rows], parents, levels, chosen)
    return {level: round(weight * scale, 4) for level, weight in chosen.items()}


def _relative(
    said: Mapping[str, Tensor], parents: I32, levels: Sequence[str], positions: Tensor, centres: Tensor, score_km: float
) -> dict[str, float]:
    """How much each level counts beside the others: changed one by one from equal, as long as answers get nearer."""

    def earned(weights: Mapping[str, float]) -> float:
        answers = hierarchy_log_probabilities(said, parents, levels, weights).argmax(dim=1)
        chord = (centres[answers] - positions).norm(dim=1)
        distance_km = 2 * torch.asin((chord / 2).clamp(max=1)) * (EARTH_RADIUS_M / 1000)
        return float(torch.exp(-distance_km / score_km).mean())

    best = dict.fromkeys(levels, 1.0)
    most = earned(best)
    for _ in range(_ROUNDS if len(levels) > 1 else 0):
        before = most
        for level in levels:
            for factor in _FACTORS:
                tried = {**best, level: best[level] * factor}
                found = earned(tried) if sum(tried.values()) > 0 else 0.0
                if found > most + _LEAST_GAIN:
                    best, most = tried, found
        if most == before:
            break
    return best


def _scale(said: Mapping[str, Tensor], classes: I32, parents: I32, levels: Sequence[str], weights: Mapping[str, float]) -> float:
    """What all weights are multiplied by so that the true cells are likeliest."""
    known = torch.from_numpy(np.flatnonzero(classes != DROPPED))
    if not len(known):
        return 1.0
    scores = hierarchy_log_probabilities({level: said[level][known] for level in levels}, parents, levels, weights)
    wanted = torch.from_numpy(classes.astype(np.int64))[known]
    log_scale = torch.zeros((), requires_grad=True)
    search = torch.optim.LBFGS([log_scale], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(scores * log_scale.exp(), wanted)
        loss.backward()
        return loss

    search.step(closure)
    found = float(log_scale.detach().exp())
    return found if np.isfinite(found) and 0.01 < found < 100 else 1.0
