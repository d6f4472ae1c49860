"""Intervals and comparisons that respect that the queries of one place are not independent.

Four headings of one crossing are found or missed together, so resampling *queries* gives intervals that are too narrow.
Here places are drawn with replacement and bring all their queries along (cluster bootstrap, percentile intervals;
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS_PER_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval, of 95 % where nothing else is said."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain floats for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better A is than B on the same queries: `p` is two-sided, for "there is no difference"."""

    difference: float
    low: float
    high: float
    p: float
    n_queries: int
    n_places: int

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        return {
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "n_queries": self.n_queries,
            "n_places": self.n_places,
        }


def intervals(
    hits: np.ndarray, places: np.ndarray, n: int, seed: int, weights: np.ndarray | None = None, *, level: float = 0.95
) -> list[Interval]:
    """Mean of every column of `hits` with an interval by place.

    Args:
        hits: (Q, M) bool or numbers, one column per measure.
        places: (Q,) the place of every query.
        n: resamples; 0 gives intervals of no width.
        seed: of the resampling.
        weights: (Q,) positive, of the queries in the mean; None weighs all alike.
        level: of the interval.

    Raises:
        ValueError: no queries, or not one place per query.
    """
    sums, counts = _by_place(hits, places, weights)
    values = sums.sum(axis=0) / counts.sum()
    if n == 0:
        return [Interval(float(v), float(v), float(v)) for v in values]
    means = np.concatenate([(weights @ sums) / (weights @ counts)[:, None] for weights in _weights(len(counts), n, seed)])
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def quantile_intervals(values: np.ndarray, places: np.ndarray, shares: Sequence[float], n: int, seed: int) -> list[Interval]:
    """Quantiles of `values`, each with a 95 % interval by place.

    A quantile is the smallest value that at least that share of all is not above, so it is one of the values, infinite ones too.

    Args:
        values: (Q,) numbers, none of them NaN.
        places: (Q,) the place of every value.
        shares: above 0 and at most 1, e.g. 0.5 for the median.
        n: resamples; 0 gives intervals of no width.
        seed: of the resampling.

    Raises:
        ValueError: no values, not one place per value, or one that is not a number.
    """
    if len(values) == 0 or len(values) != len(places) or np.isnan(values).any():
        raise ValueError(f"need one place for each of at least one number, not {len(places)} for {len(values)}")
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, float)[order]
    found, code = np.unique(places, return_inverse=True)
    whole = ordered[np.ceil(np.asarray(shares) * len(ordered) - 1e-9).astype(int) - 1]
    if n == 0:
        return [Interval(float(v), float(v), float(v)) for v in whole]
    drawn = np.empty((n, len(shares)))
    most = max(1, _DRAWS_PER_BLOCK // len(ordered))
    done = 0
    for block in _weights(len(found), n, seed):
        for start in range(0, len(block), most):
            passed = np.cumsum(block[start : start + most][:, code[order]], axis=1)
            for column, share in enumerate(shares):
                first = np.argmax(passed >= share * passed[:, -1:] - 1e-9, axis=1)
                drawn[done : done + len(passed), column] = ordered[first]
            done += len(passed)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0, method="nearest")
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(whole, low, high, strict=True)]


def paired_bootstrap(hits_a: np.ndarray, hits_b: np.ndarray, places: np.ndarray, n: int, seed: int) -> PairedDifference:
    """The difference mean(A) - mean(B) on the same queries, resampling places.

    Args:
        hits_a: (Q,) bool of one descriptor.
        hits_b: (Q,) bool of the other, for the same queries in the same order.
        places: (Q,) the place of every query.
        n: resamples, at least 1.
        seed: of the resampling.

    Raises:
        ValueError: the three do not have one length, are empty, or n < 1.
    """
    if not len(hits_a) == len(hits_b) == len(places) or n < 1:
        raise ValueError(f"need as many hits as places and n >= 1: {len(hits_a)}, {len(hits_b)}, {len(places)}, n = {n}")
    change = np.asarray(hits_a, float) - np.asarray(hits_b, float)
    return paired_differences(change[:, None], places, n, seed)[0]


def paired_differences(changes: np.ndarray, places: np.ndarray, n: int, seed: int) -> list[PairedDifference]:
    """The mean of every column of `changes`, what A scores on a query less what B scores, resampling places once for all.

    Args:
        changes: (Q, M) numbers, one column per pair that is compared.
        places: (Q,) the place of every query.
        n: resamples, at least 1.
        seed: of the resampling.

    Raises:
        ValueError: no queries, or not one place per query.
    """
    sums, counts = _by_place(changes, places)
    drawn = np.concatenate([(weights @ sums) / (weights @ counts)[:, None] for weights in _weights(len(counts), n, seed)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    tail = np.minimum(np.count_nonzero(drawn <= 0, axis=0), np.count_nonzero(drawn >= 0, axis=0))
    p = np.minimum(1.0, 2 * (tail + 1) / (n + 1))
    columns = zip(np.mean(changes, axis=0).tolist(), low.tolist(), high.tolist(), p.tolist(), strict=True)
    return [PairedDifference(*column, len(changes), len(counts)) for column in columns]


def _by_place(hits: np.ndarray, places: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sums (P, M) and numbers (P,) of the queries of each place, which is all that a resample needs."""
    if len(hits) == 0 or len(hits) != len(places):
        raise ValueError(f"need one place for each of at least one query, not {len(places)} for {len(hits)}")
    _, code = np.unique(places, return_inverse=True)
    each = np.ones(len(hits)) if weights is None else np.asarray(weights, float)
    columns = np.asarray(hits, float).T
    return np.stack([np.bincount(code, weights=column * each) for column in columns], axis=1), np.bincount(code, weights=each)


def _weights(places: int, n: int, seed: int) -> Iterator[np.ndarray]:
    """How often each place is drawn: (b, P) blocks that together have n rows."""
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_PER_BLOCK // places)
    for start in range(0, n, block):
        b = min(block, n - start)
        drawn = rng.integers(0, places, size=(b, places), dtype=np.int32)
        drawn += (np.arange(b, dtype=np.int32) * np.int32(places))[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * places).reshape(b, places).astype(float)
