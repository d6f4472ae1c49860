"""From what experts say to a probability that one can believe, and when not to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
_EDGE = 1e-6
_RIDGE = 1e-3
_FOLDS = 10
_RIDGE_OF_SIGNS = 0.03  # few photos, many signs that say nearly the same


@dataclass(frozen=True, slots=True)
class BetaMap:
    """p -> logistic(a log p - b log(1 - p) + c), with a and b at least 0, so that surer stays surer.

    Source: Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, probability: npt.ArrayLike) -> F64:
        """The calibrated probability, in the shape given."""
        p = np.clip(np.asarray(probability, np.float64), _EDGE, 1 - _EDGE)
        return 1 / (1 + np.exp(-(self.a * np.log(p) - self.b * np.log1p(-p) + self.c)))


def fit_beta_map(probability: F64, came_true: Bool) -> BetaMap:
    """The map under which what came true is likeliest; none where everything or nothing did."""
    if came_true.all() or not came_true.any():
        return BetaMap()
    from scipy.optimize import minimize  # only who fits waits for it

    p = np.clip(probability, _EDGE, 1 - _EDGE)
    columns = np.column_stack([np.log(p), -np.log1p(-p), np.ones_like(p)])
    sign = np.where(came_true, 1.0, -1.0)

    def loss(values: F64) -> tuple[float, F64]:
        margin = sign * (columns @ values)
        away = values - np.array([1.0, 1.0, 0.0])
        slope = -(sign / (1 + np.exp(np.minimum(margin, 500)))) @ columns / len(p) + 2 * _RIDGE * away
        return float(np.logaddexp(0, -margin).mean() + _RIDGE * away @ away), slope

    found = minimize(loss, np.array([1.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
    a, b, c = (round(float(value), 5) for value in found.x)
    return BetaMap(a, b, c)


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Whether a photo looks like one of the region, by signs in which its own photos differ from others.

    Attributes:
        means: of each sign, over what the weights were learned from.
        spreads: their standard deviations.
        weights: of the signs in their standard deviations.
        threshold: of their weighed sum; photos below are said to be from elsewhere.
        refused: share of the region's own photos that lies below.
    """

    means: dict[str, float]
    spreads: dict[str, float]
    weights: dict[str, float]
    threshold: float
    refused: float

    def score(self, signs: Mapping[str, F64]) -> F64:
        """The weighed sum of the signs, (N,): the log-odds of a photo of the region, but for a constant."""
        parts = [(signs[name] - self.means[name]) / self.spreads[name] * weight for name, weight in self.weights.items()]
        return np.sum(parts, axis=0)

    def is_outside(self, signs: Mapping[str, F64]) -> Bool:
        """Which photos look like none of the region."""
        return self.score(signs) < self.threshold


def fit_familiarity(
    own: Mapping[str, F64], strange: Mapping[str, F64], places: npt.NDArray[np.str_], refused: float
) -> Familiarity:
    """Weights of the signs, by logistic regression, and the threshold below which the given share of the region's own lies.

    The threshold is that of scores which each tenth of the places gets from weights that the others gave: of those that it was
    fitted on itself a regression thinks too well.

    Args:
        own: signs of photos of the region, (N,) each.
        strange: the same of photos that stand for those of elsewhere, in the same order.
        places: of the photos, (N,); at least two.
        refused: share of the region's own.
    """
    from sklearn.model_selection import GroupKFold  # only who fits waits for it

    scores = np.empty(len(places))
    folds = GroupKFold(min(_FOLDS, len(np.unique(places))))
    for learned, tried in folds.split(places, groups=places):
        known = _weigh({name: values[learned] for name, values in own.items()}, {n: v[learned] for n, v in strange.items()})
        scores[tried] = known.score({name: values[tried] for name, values in own.items()})
    return replace(_weigh(own, strange), threshold=round(float(np.quantile(scores, refused)), 6), refused=refused)


def _weigh(own: Mapping[str, F64], strange: Mapping[str, F64]) -> Familiarity:
    from sklearn.linear_model import LogisticRegression  # only who fits waits for it

    both = {name: np.concatenate([values, strange[name]]) for name, values in own.items()}
    means = {name: round(float(values.mean()), 6) for name, values in both.items()}
    spreads = {name: round(max(float(values.std()), _EDGE), 6) for name, values in both.items()}
    columns = np.column_stack([(values - means[name]) / spreads[name] for name, values in both.items()])
    is_own = np.repeat([True, False], len(columns) // 2)
    found = LogisticRegression(C=_RIDGE_OF_SIGNS, max_iter=1_000).fit(columns, is_own)
    weights = {name: round(float(weight), 6) for name, weight in zip(both, found.coef_[0], strict=True)}
    return Familiarity(means, spreads, weights, 0.0, 0.0)


def halves_by_place(places: Sequence[str] | npt.NDArray[np.str_], seed: int) -> Bool:
    """Half of the photos, so that all of a place are in the same half: one half fits weights, the other calibrates."""
    names, code = np.unique(np.asarray(places), return_inverse=True)
    first = np.random.default_rng(seed).permutation(len(names)) < (len(names) + 1) // 2
    return first[code]
