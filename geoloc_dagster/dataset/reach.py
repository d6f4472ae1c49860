"""How far from a collected picture a photo is still found, learned from the queries of an evaluation, place by place.

The share of photos found falls off with the distance d to the nearest collected picture as c * exp(-(d / s)^2 / 2): c is what is
found where a picture was taken on the spot, s the *reach* in metres. Where houses look alike the reach is short, and only
denser pictures help; where each looks different it is long, and they would add nothing. c is of the whole region; s is known
by place as a distribution over a few lengths, in which queries nearby weigh most and the region's own reach is the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

REACHES_M: Final[F64] = np.geomspace(8.0, 400.0, 28)
NEARBY_M: Final = 250.0  # standard deviation of the weight of a query
PRIOR_SPREAD: Final = 0.5  # of the natural logarithm of the reach, between parts of a region
ASSUMED_REACH_M: Final = 40.0  # before anything was measured
_CEILINGS: Final[F64] = np.linspace(0.05, 1.0, 20)
_BLOCK: Final = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The reach at some points.

    Attributes:
        ceiling: share found where a picture was taken on the spot, 0 to 1.
        weights: (P, len(REACHES_M)), each row a distribution over `REACHES_M`.
        places: that it was learned from; 0 where it is assumed.
    """

    ceiling: float
    weights: F64
    places: int

    def found(self, points: npt.NDArray[np.int64], distance_m: F64) -> F64:
        """(N,) expected share of photos found at these points, with the nearest picture that far away; metres, inf for none."""
        decay = np.exp(-0.5 * (distance_m[:, None] / REACHES_M) ** 2)
        return self.ceiling * (self.weights[points] * decay).sum(axis=1)

    def typical_m(self) -> F64:
        """(P,) the reach of each point in one number: the geometric mean, metres."""
        return np.exp(self.weights @ np.log(REACHES_M))


def assumed_reach(points: int) -> Reach:
    """The same everywhere: what coverage alone can tell, before there is an evaluation."""
    prior = _prior(ASSUMED_REACH_M)
    return Reach(1.0, np.tile(prior, (points, 1)), 0)


def learn_reach(
    points_m: F64, queries_m: F64, nearest_m: F64, found: npt.NDArray[np.bool_], places: npt.NDArray[np.str_]
) -> Reach:
    """Fit the region's ceiling and typical reach by maximum likelihood, then the reach at each point by its queries nearby.

    Args:
        points_m: (P, 2 or 3) where it is wanted, metres in any Cartesian system.
        queries_m: (Q, 2 or 3) in the same.
        nearest_m: (Q,) distance from the query to the nearest picture that could be found.
        found: (Q,) whether the best match was near enough.
        places: (Q,) of the queries; each place weighs as much as another, since its queries are found or missed together.

    Raises:
        ValueError: there is no query.
    """
    if len(found) == 0:
        raise ValueError("a reach is learned from at least one query")
    _, code, counts = np.unique(places, return_inverse=True, return_counts=True)
    each = 1.0 / counts[code]
    shares = _CEILINGS[:, None, None] * np.exp(-0.5 * (nearest_m[None, :, None] / REACHES_M) ** 2)
    likelihood = np.log(np.where(found[None, :, None], np.clip(shares, 1e-3, None), np.clip(1 - shares, 1e-3, None)))
    priors = np.stack([_prior(float(reach_m)) for reach_m in REACHES_M])
    of_region = np.einsum("q,aqr->ar", each, np.log(np.exp(likelihood) @ priors.T))  # parts of the region may differ
    best, typical = np.unravel_index(int(of_region.argmax()), of_region.shape)
    log_prior = np.log(priors[typical])
    weights = np.empty((len(points_m), len(REACHES_M)))
    for start in range(0, len(points_m), _BLOCK):
        apart = ((points_m[start : start + _BLOCK, None] - queries_m[None]) ** 2).sum(axis=2)
        score = log_prior + (np.exp(-0.5 * apart / NEARBY_M**2) * each) @ likelihood[best]
        score -= score.max(axis=1, keepdims=True)
        weights[start : start + _BLOCK] = np.exp(score)
    return Reach(float(_CEILINGS[best]), weights / weights.sum(axis=1, keepdims=True), len(counts))


def _prior(reach_m: float) -> F64:
    density = np.exp(-0.5 * (np.log(REACHES_M / reach_m) / PRIOR_SPREAD) ** 2)
    return density / density.sum()
