"""f*: what the classifiers of all levels say together about the cells of the finest, in log space.

score(fine cell) = sum over levels of weight * log p(the level's cell that holds it); all weights 1 is the product of the paper
(Müller-Budack et al., ECCV 2018, section 3.3). Fitted weights are the maximum of likelihood of a log-linear model on photos that
were not trained on, which also takes the overconfidence out of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from geoloc_dagster.geo.partitioning import DROPPED, I32

_STEPS = 60
_LEAST, _MOST = 0.0, 5.0


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
    columns = torch.from_numpy(parents.astype(np.int64)).to(device)
    total = torch.zeros((len(log_probabilities[levels[-1]]), len(parents)), device=device)
    for number, level in enumerate(levels):
        total = total + weights[level] * log_probabilities[level].float()[:, columns[:, number]]
    return torch.log_softmax(total, dim=1)


def fit_weights(
    log_probabilities: Mapping[str, Tensor], classes: I32, parents: I32, levels: Sequence[str], *, block: int = 2048
) -> dict[str, float]:
    """Weights between 0 and 5 under which the finest cells of photos are likeliest.

    Args:
        log_probabilities: as above, of photos that were not trained on.
        classes: int, (N,): the finest cell of each; photos whose cell was dropped say nothing.
        parents: as above.
        levels: as above.
        block: photos at once; bounds the memory.

    Returns:
        By level; all 1 where no photo has a class.
    """
    known = torch.from_numpy(np.flatnonzero(classes != DROPPED))
    if not len(known):
        return dict.fromkeys(levels, 1.0)
    targets = torch.from_numpy(classes.astype(np.int64))[known]
    columns = torch.from_numpy(parents.astype(np.int64))
    raw = torch.ones(len(levels), requires_grad=True)
    search = torch.optim.LBFGS([raw], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = torch.zeros(())
        for start in range(0, len(known), block):
            rows, wanted = known[start : start + block], targets[start : start + block]
            parts = [log_probabilities[level][rows].float()[:, columns[:, n]] for n, level in enumerate(levels)]
            scores = torch.stack([weight * part for weight, part in zip(raw.clamp(_LEAST, _MOST), parts, strict=True)]).sum(0)
            part_loss = torch.nn.functional.cross_entropy(scores, wanted, reduction="sum") / len(known)
            part_loss.backward()
            loss = loss + part_loss.detach()
        return loss

    search.step(closure)
    fitted = raw.detach().clamp(_LEAST, _MOST)
    if not torch.isfinite(fitted).all() or float(fitted.sum()) == 0:
        return dict.fromkeys(levels, 1.0)
    return {level: round(float(weight), 4) for level, weight in zip(levels, fitted, strict=True)}
