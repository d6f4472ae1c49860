"""Whether `confidence` can be trusted: which share is right when only the surest are answered, and whether 0.7 means 70 %.

Right means within a chosen radius. Sources: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017
(risk and coverage); Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.bootstrap import Interval, intervals
from geoloc_dagster.evaluation.geolocation import F64, MIN_GROUPS
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.tables import NONE, TextTable, percent

COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """What answering only above a threshold gives.

    Attributes:
        confidence: answered where at least this sure; None where answers without a confidence, or none at all, take part.
        coverage: share of all photos that this answers, those of equal confidence all in.
        share: of these within the radius.
        n_photos: these.
        n_groups: of them.
    """

    confidence: float | None
    coverage: float
    share: Interval
    n_photos: int
    n_groups: int


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """The share within a radius as less sure answers are let in, from the surest down.

    Attributes:
        radius_m: what is right.
        confidences: (K,) distinct, descending; photos without an answer or a confidence come after, as NaN.
        coverages: (K,) share of all photos that are at least this sure, up to 1.
        shares: (K,) of these within the radius.
        area: mean of the share over all coverages: 1 where all is right.
        area_random: the same if confidence said nothing, which is the share of all photos.
        area_best: the same if every right answer were surer than every wrong one.
        points: at the usual coverages.
    """

    radius_m: int
    confidences: F64
    coverages: F64
    shares: F64
    area: float
    area_random: float
    area_best: float
    points: tuple[CoveragePoint, ...]

    @property
    def gain(self) -> float:
        """How much of what confidence could tell it tells: 0 as if drawn at random, 1 the best order, below 0 misleading."""
        possible = self.area_best - self.area_random
        return (self.area - self.area_random) / possible if possible > 0 else 0.0

    def threshold_for(self, wanted_share: float) -> tuple[float, float] | None:
        """(confidence, coverage) that answers most photos with at least that share of them right; None where none does."""
        fitting = np.flatnonzero((self.shares >= wanted_share) & np.isfinite(self.confidences))
        return (float(self.confidences[fitting[-1]]), float(self.coverages[fitting[-1]])) if fitting.size else None


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about equal confidence: how sure they are on average, and which share is right."""

    low: float
    high: float
    n_photos: int
    n_groups: int
    confidence: float
    share: Interval


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against truth over answers that have one.

    Attributes:
        bins: those that are not empty, in order.
        ece: mean distance between confidence and share, weighted by photos: 0 where confidence is a probability.
        n_photos: with an answer and a confidence.
    """

    radius_m: int
    bins: tuple[Bin, ...]
    ece: float
    n_photos: int


def risk_coverage(
    error_m: F64,
    confidence: F64,
    groups: npt.NDArray[np.str_],
    radius_m: int,
    *,
    coverages: tuple[float, ...] = COVERAGES,
    bootstrap: int = 1000,
    seed: int = 0,
) -> RiskCoverage:
    """Let answers in from the surest down; equal confidences come in together, so the order of photos is of no account.

    Args:
        error_m: (N,) infinite without an answer; those photos come last, and are wrong.
        confidence: (N,) any numbers, larger where surer; NaN comes after all others that have an answer.
        groups: (N,) unit of the bootstrap.
        radius_m: within which an answer is right.
        coverages: at which points are given.
        bootstrap: resamples.
        seed: of the resampling.
    """
    right = error_m <= radius_m
    order = _sureness(error_m, confidence)
    steps, code, sizes = np.unique(-order, return_inverse=True, return_counts=True)
    found = np.bincount(code, weights=right).astype(np.float64)
    n, answered = np.cumsum(sizes), np.cumsum(found)
    known = np.unique(confidence[np.isfinite(error_m) & np.isfinite(confidence)])[::-1]
    thresholds = np.concatenate([known, np.full(len(steps) - len(known), np.nan)])
    points = [
        _point(code <= step, right, groups, float(thresholds[step]), bootstrap, seed)
        for step in np.minimum(np.searchsorted(n, np.ceil(np.array(coverages) * len(right) - 1e-9)), len(n) - 1)
    ]
    best = np.sort(right)[::-1].astype(np.float64)
    return RiskCoverage(
        radius_m,
        thresholds,
        n / len(right),
        answered / n,
        _area(sizes, found),
        float(right.mean()),
        _area(np.ones(len(right), np.int64), best),
        tuple(points),
    )


def reliability(
    error_m: F64,
    confidence: F64,
    groups: npt.NDArray[np.str_],
    radius_m: int,
    *,
    bins: int = 10,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Bins of equal width from 0 to 1 over the answers that have a confidence.

    Raises:
        ValueError: a confidence is not from 0 to 1.
    """
    rows = np.isfinite(error_m) & ~np.isnan(confidence)
    sure, right, units = confidence[rows], error_m[rows] <= radius_m, groups[rows]
    if sure.size and not (sure.min() >= 0 and sure.max() <= 1):
        raise ValueError(f"confidence goes from 0 to 1, not from {sure.min()} to {sure.max()}")
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    made: list[Bin] = []
    for i in np.unique(place).tolist():
        here = place == i
        share = intervals(right[here, None], units[here], bootstrap, seed)[0]
        groups_here = len(np.unique(units[here]))
        made.append(Bin(i / bins, (i + 1) / bins, int(here.sum()), groups_here, float(sure[here].mean()), share))
    ece = sum(one.n_photos * abs(one.confidence - one.share.value) for one in made) / max(1, len(sure))
    return Reliability(radius_m, tuple(made), float(ece), len(sure))


def coverage_table(curve: RiskCoverage) -> TextTable:
    """Which share is right when only the surest are answered."""
    rows = [
        [
            f"{100 * point.coverage:.0f} %",
            NONE if point.confidence is None else f"{point.confidence:.3f}",
            f"{point.n_photos:,}",
            percent(point.share) if point.n_groups >= MIN_GROUPS else f"{100 * point.share.value:.1f}",
        ]
        for point in curve.points
    ]
    name = radius_name(curve.radius_m)
    title = f"Only the surest answered, within {name} (area {curve.area:.3f}, {curve.gain:.0%} of what an ideal order gains)"
    return TextTable(title, ["answered", "confidence from", "photos", f"within {name}, %"], rows)


def reliability_table(result: Reliability) -> TextTable:
    """Confidence against the share within the radius."""
    rows = [
        [
            f"{one.low:.1f}–{one.high:.1f}",
            f"{one.n_photos:,}",
            f"{100 * one.confidence:.1f}",
            percent(one.share) if one.n_groups >= MIN_GROUPS else f"{100 * one.share.value:.1f}",
        ]
        for one in result.bins
    ]
    name = radius_name(result.radius_m)
    title = f"Confidence against the share within {name} (ECE {result.ece:.3f}, {result.n_photos:,} photos)"
    return TextTable(title, ["confidence", "photos", "mean confidence, %", f"within {name}, %"], rows)


def summarise_confidence(curve: RiskCoverage, result: Reliability | None = None) -> dict[str, Any]:
    """Both as plain JSON values."""
    said: dict[str, Any] = {
        "radius_m": curve.radius_m,
        "area": curve.area,
        "area_random": curve.area_random,
        "area_best": curve.area_best,
        "gain": curve.gain,
        "points": [
            {"confidence": p.confidence, "coverage": p.coverage, "n_photos": p.n_photos, **p.share.as_dict()}
            for p in curve.points
        ],
    }
    if result is not None:
        said["ece"] = result.ece
        said["bins"] = [
            {"low_edge": b.low, "high_edge": b.high, "n_photos": b.n_photos, "confidence": b.confidence, **b.share.as_dict()}
            for b in result.bins
        ]
    return said


def _point(
    rows: npt.NDArray[np.bool_],
    right: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.str_],
    threshold: float,
    bootstrap: int,
    seed: int,
) -> CoveragePoint:
    share = intervals(right[rows, None], groups[rows], bootstrap, seed)[0]
    limit = threshold if np.isfinite(threshold) else None
    return CoveragePoint(limit, float(rows.mean()), share, int(rows.sum()), len(np.unique(groups[rows])))


def _sureness(error_m: F64, confidence: F64) -> npt.NDArray[np.int64]:
    """(N,) ranks, larger where surer: 0 without an answer, 1 without a confidence."""
    answered = np.isfinite(error_m)
    has = answered & np.isfinite(confidence)
    rank = np.where(answered, 1, 0)
    rank[has] = 2 + np.unique(confidence[has], return_inverse=True)[1]
    return rank


def _area(sizes: npt.NDArray[np.int64], found: F64) -> float:
    """Mean over k = 1 … N of the share right among the first k, in expectation where k falls within equal confidences."""
    n = int(sizes.sum())
    per_photo = np.repeat(found / sizes, sizes)
    return float(np.mean(np.cumsum(per_photo) / np.arange(1, n + 1)))
