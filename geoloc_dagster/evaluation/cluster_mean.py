"""A mean over queries whose error counts the queries of one place together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class ClusterMean:
    """A mean and its standard error; infinite over a single place."""

    mean: float
    error: float
    n_queries: int
    n_places: int


def cluster_mean(values: npt.NDArray[np.float64], places: npt.NDArray[np.str_]) -> ClusterMean:
    """The ratio estimator of cluster sampling: the mean over queries, its variance by place (Cochran, 1977, section 9.A).

    Raises:
        ValueError: no queries, or not one place per query.
    """
    if len(values) == 0 or len(values) != len(places):
        raise ValueError(f"need one place for each of at least one query, not {len(places)} for {len(values)}")
    _, code, counts = np.unique(places, return_inverse=True, return_counts=True)
    mean, n = float(values.mean()), len(counts)
    if n == 1:
        return ClusterMean(mean, float("inf"), len(values), 1)
    residuals = np.bincount(code, weights=values) - mean * counts
    error = float(np.sqrt(n / (n - 1) * (residuals**2).sum())) / len(values)
    return ClusterMean(mean, error, len(values), n)


def t_quantile(level: float, places: int) -> float:
    """How many standard errors above its estimate a mean over so many places lies with that probability at most."""
    from scipy.stats import t

    return float(t.ppf(1 - level, max(1, places - 1)))
