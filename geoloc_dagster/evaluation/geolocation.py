"""How far answers lie from the truth: shares within radii, GeoScore, and whether the hierarchy earns its place.

A photo without an answer is a miss at every radius, scores nothing and is infinitely far in the median. Intervals resample
groups, which are photographers or places, because the photos of one are found or missed together.

Source: the radii of Hays and Efros, IM2GPS, CVPR 2008, as used by every later table; GeoScore of the game GeoGuessr, as in
Haas et al., PIGEON, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import Interval, PairedDifference, intervals, paired_differences
from geoloc_dagster.geo.distance import EARTH_RADIUS_M, WORLD_SCORE_M, great_circle_m
from geoloc_dagster.geo.partitioning import HIERARCHY

F64 = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "neither"]

FULL_SCORE = 5000.0
WORLD_RADII_M = (1_000, 25_000, 200_000, 750_000, 2_500_000)
CITY_RADII_M = (10, 25, 50, 100, 250, 1_000)
MIN_GROUPS = 5  # a bootstrap over fewer says nothing, so nothing is called better or worse by it
SIGNIFICANT_P = 0.05


@dataclass(frozen=True, slots=True)
class Scale:
    """What is near and what is far.

    Attributes:
        radii_m: ascending.
        score_m: the error at which GeoScore has fallen to 5000 / e.
        area_m2: of what the answers can lie in.
    """

    radii_m: tuple[int, ...]
    score_m: float
    area_m2: float


WORLD = Scale(WORLD_RADII_M, WORLD_SCORE_M, 4 * np.pi * EARTH_RADIUS_M**2)


def city_scale(diagonal_m: float, radii_m: tuple[int, ...] = CITY_RADII_M) -> Scale:
    """The scale of a region of that diagonal; its score falls as the game's does on a map of that size: to 1 / e at a tenth."""
    if not diagonal_m > 0:
        raise ValueError(f"a region has a diagonal, not {diagonal_m} m")
    return Scale(radii_m, diagonal_m / 10, diagonal_m**2 / 2)


def scale_of(score_m: float) -> Scale:
    """The scale by the error at which a GeoScore has fallen to 1 / e (`geo.distance.score_m`)."""
    return WORLD if score_m >= WORLD_SCORE_M else city_scale(10 * score_m)


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """(N,) degrees each; both not-a-number where there is no answer."""

    lat_deg: F64
    lng_deg: F64

    def __len__(self) -> int:
        return len(self.lat_deg)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Positions:
        """Those rows, in that order."""
        return Positions(self.lat_deg[rows], self.lng_deg[rows])


@dataclass(frozen=True, slots=True)
class Shares:
    """Figures that are means: radius in metres -> share, and the mean GeoScore."""

    within_m: dict[int, Interval]
    score: Interval


@dataclass(frozen=True, slots=True)
class Figures:
    """What answers of one kind reach.

    Attributes:
        within_m: radius in metres -> share of all photos.
        score: mean GeoScore, 0 to 5000.
        median_m: of all photos, those without an answer infinitely far; infinite where that is most of them, NaN if unknown.
        mean_m: of the photos that have an answer; NaN where none has.
        percentile_90_m: like the median.
    """

    within_m: dict[int, Interval]
    score: Interval
    median_m: float
    mean_m: float
    percentile_90_m: float
    n_photos: int
    n_unanswered: int
    n_groups: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The hierarchy against one level within one radius, on the same photos.

    Attributes:
        is_best: the level has the largest share of all levels within this radius.
        difference: share of the hierarchy less that of the level.
        verdict: of the hierarchy, at 5 %; `neither` also where there are fewer than five groups.
    """

    level: str
    radius_m: int
    is_best: bool
    difference: PairedDifference
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class GeolocationReport:
    """Figures by `p_key`, in the order of the answers, and what the hierarchy gains over each level."""

    scale: Scale
    bootstrap: int
    seed: int
    n_photos: int
    n_groups: int
    figures: dict[str, Figures]
    comparisons: tuple[Comparison, ...]


def evaluate_positions(
    truth: Positions,
    answers: Mapping[str, Positions],
    groups: npt.NDArray[np.str_],
    *,
    scale: Scale = WORLD,
    bootstrap: int = 1000,
    seed: int = 0,
) -> GeolocationReport:
    """Measure answers and compare the hierarchy with every level.

    The best level of a radius is chosen by its share on these same photos. That favours it: a hierarchy that is called worse than
    it may be its equal on other photos, and one that is called better is so all the more. Each verdict is at 5 % by itself.

    Args:
        truth: where the photos were taken, N of them.
        answers: `p_key` -> N positions, in the order of the photos.
        groups: (N,) photographer or place of each, the unit of the bootstrap.
        scale: radii and score.
        bootstrap: resamples; 0 leaves intervals and comparisons out.
        seed: of the resampling.

    Raises:
        NotEnoughDataError: there are no photos, or no answers.
        ValueError: lengths differ, or a position is not on the globe.
    """
    if not len(truth) or not answers:
        raise NotEnoughDataError(f"there is nothing to measure: {len(truth)} photos, {len(answers)} kinds of answers")
    errors = {key: errors_m(truth, answer) for key, answer in answers.items()}
    figures = {key: measure(error, groups, scale, bootstrap=bootstrap, seed=seed) for key, error in errors.items()}
    comparisons = _comparisons(errors, groups, scale, bootstrap, seed) if bootstrap else ()
    return GeolocationReport(scale, bootstrap, seed, len(truth), len(np.unique(groups)), figures, comparisons)


def errors_m(truth: Positions, answers: Positions) -> F64:
    """(N,) great-circle distances in metres; infinite where there is no answer.

    Raises:
        ValueError: lengths differ, or a position is not on the globe.
    """
    if len(truth) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(truth)} photos")
    _check(truth, "true position", np.zeros(len(truth), bool))
    unanswered = np.isnan(answers.lat_deg) & np.isnan(answers.lng_deg)
    _check(answers, "answer", unanswered)
    distance = great_circle_m(truth.lat_deg, truth.lng_deg, answers.lat_deg, answers.lng_deg)
    return np.where(unanswered, np.inf, distance)


def geo_score(error_m: npt.ArrayLike, scale: Scale = WORLD) -> F64:
    """5000 exp(-error / scale): 5000 at the place itself, 0 without an answer."""
    return FULL_SCORE * np.exp(-np.asarray(error_m, np.float64) / scale.score_m)


def measure(error_m: F64, groups: npt.NDArray[np.str_], scale: Scale, *, bootstrap: int = 1000, seed: int = 0) -> Figures:
    """The figures of (N,) errors in metres, infinite where there is no answer."""
    means = measure_shares(outcomes(error_m, scale), groups, scale, bootstrap, seed)
    answered = error_m[np.isfinite(error_m)]
    return Figures(
        means.within_m,
        means.score,
        _quantile(error_m, 0.5),
        float(answered.mean()) if answered.size else float("nan"),
        _quantile(error_m, 0.9),
        len(error_m),
        len(error_m) - len(answered),
        len(np.unique(groups)),
    )


def measure_shares(
    columns: F64,
    groups: npt.NDArray[np.str_],
    scale: Scale,
    bootstrap: int = 1000,
    seed: int = 0,
    weights: F64 | None = None,
) -> Shares:
    """Means of (N, radii + 1) columns, one per radius and then the score, with every photo weighing what it is given or alike."""
    *shares, score = intervals(columns, groups, bootstrap, seed, weights)
    return Shares(dict(zip(scale.radii_m, shares, strict=True)), score)


def outcomes(error_m: F64, scale: Scale) -> F64:
    """(N, radii + 1): 1 where the error is within each radius, else 0; and the score."""
    return np.column_stack([hits(error_m, scale).astype(np.float64), geo_score(error_m, scale)])


def hits(error_m: F64, scale: Scale) -> npt.NDArray[np.bool_]:
    """(N, radii): whether each error is at most each radius."""
    return error_m[:, None] <= np.asarray(scale.radii_m, np.float64)


def _comparisons(
    errors: Mapping[str, F64], groups: npt.NDArray[np.str_], scale: Scale, bootstrap: int, seed: int
) -> tuple[Comparison, ...]:
    levels = [key for key in errors if key != HIERARCHY]
    if HIERARCHY not in errors or not levels:
        return ()
    of_level = [hits(errors[level], scale) for level in levels]
    best = np.argmax([share.mean(axis=0) for share in of_level], axis=0)
    whole = hits(errors[HIERARCHY], scale).astype(float)
    changes = np.concatenate([whole - of_level[i] for i in range(len(levels))], axis=1)
    pairs = [(i, r) for i in range(len(levels)) for r in range(len(scale.radii_m))]
    return tuple(
        Comparison(levels[i], scale.radii_m[r], bool(best[r] == i), difference, verdict_of(difference))
        for (i, r), difference in zip(pairs, paired_differences(changes, groups, bootstrap, seed), strict=True)
    )


def verdict_of(difference: PairedDifference) -> Verdict:
    """Whether A is better or worse than B at 5 %, by its bootstrap over at least five groups."""
    if difference.n_places < MIN_GROUPS or difference.p >= SIGNIFICANT_P:
        return "neither"
    return "better" if difference.difference > 0 else "worse"


def _quantile(values: F64, share: float) -> float:
    """Linear between neighbours, as usual; infinite as soon as it leans on an infinite one."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    return float(below if below == above else below + (above - below) * (place % 1))


def _check(positions: Positions, what: str, allowed: npt.NDArray[np.bool_]) -> None:
    right = (np.abs(positions.lat_deg) <= 90) & (np.abs(positions.lng_deg) <= 180) | allowed
    if not right.all():
        bad = int(np.argmin(right))
        raise ValueError(f"{what} {bad} is ({positions.lat_deg[bad]}, {positions.lng_deg[bad]}), which is not on the globe")
