"""How much each expert counts in the product: fitted on photos that no expert learned from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.prediction.experts import F32, F64, I64, log_sum

_MOST_PHOTOS = 2_000
_MOST_WEIGHT = 4.0


def fit_weights(said: Mapping[str, F32], grid: AnswerGrid, truth: I64, *, seed: int = 0) -> tuple[dict[str, float], float]:
    """Weights of the experts and of the prior, 0 or more, under which the true cells are likeliest.

    The likelihood is concave in the weights, so that there is one best answer; it also is what calibrates: of one expert alone
    the weight is the inverse of a temperature (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

    Args:
        said: log-probabilities of each expert over the grid, (N, cells).
        grid: the cells.
        truth: the true cell of each photo, (N,); -1 where it is off the grid, which says nothing.
        seed: of the choice of photos where there are more than 2,000.

    Returns:
        Weights by expert, and that of the prior; all 1 where no photo says anything.
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(truth >= 0))[:_MOST_PHOTOS]
    names = list(said)
    if not rows.size:
        return dict.fromkeys(names, 1.0), 1.0
    prior = np.log(grid.prior).astype(np.float32)
    terms = [np.broadcast_to(prior, (rows.size, len(grid))), *(said[name][rows] - prior for name in names)]
    at_truth = np.stack([term[np.arange(rows.size), truth[rows]] for term in terms]).astype(np.float64)

    def loss(weights: F64) -> tuple[float, F64]:
        total = sum(np.float32(weight) * term for weight, term in zip(weights, terms, strict=True))
        norm = log_sum(np.asarray(total, np.float32))
        probabilities = np.exp(total - norm)
        expected = np.array([float(np.einsum("ng,ng->", probabilities, term)) for term in terms])
        value = float(norm.astype(np.float64).sum() - weights @ at_truth.sum(axis=1))
        return value / rows.size, (expected - at_truth.sum(axis=1)) / rows.size

    start = np.array([1.0, *[1.0 / len(names)] * len(names)])
    from scipy.optimize import minimize  # only who fits waits for it

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, _MOST_WEIGHT)] * len(start), options={"maxiter": 60})
    weights = [round(float(weight), 4) for weight in found.x]
    return dict(zip(names, weights[1:], strict=True)), weights[0]
