"""The gate: whether a newly evaluated model replaces the champion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import paired_bootstrap

Measure = Literal["R@1", "GeoScore"]
_KEYS: dict[Measure, str] = {"R@1": "recall_at_1", "GeoScore": "geo_score_share"}


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """How one model did, query by query: the per-query table of its evaluation.

    `queries` needs the columns `capture_id`, `location_id` and either `first_hit_rank` (1 = found at once, 0 = not found) or
    `merit` (0 to 1, such as GeoScore over 5000); `measure` is the name of that which is averaged.
    `n_gallery` is the size of the gallery that was searched, where known.
    """

    model_version: str
    queries: pa.Table
    n_gallery: int | None = None
    measure: Measure = "R@1"


@dataclass(frozen=True, slots=True)
class GateSettings:
    """When a candidate replaces the champion.

    Attributes:
        margin: The candidate is refused unless the 95 % interval of its gain in recall@1 lies above minus this.
        min_shared: Both must have been asked at least this share of the candidate's queries.
        bootstrap: Resamples of the places.
        seed: Of the resampling.
    """

    margin: float = 0.02
    min_shared: float = 0.5
    bootstrap: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GateResult:
    """The decision, in a sentence for people and in numbers for metadata."""

    promote: bool
    reason: str
    numbers: dict[str, float]


def gate(candidate: ModelEvaluation, champion: ModelEvaluation | None, settings: GateSettings | None = None) -> GateResult:
    """Decide whether a candidate replaces the champion, by what it is measured by on the queries that both were asked.

    The first model passes. A later one passes when it found more, and when the 95 % interval of the gain (paired bootstrap
    over places) excludes a loss of more than the margin.

    Raises:
        NotEnoughDataError: the candidate's evaluation has no queries.
    """
    settings = settings or GateSettings()
    hits = _hits(candidate)
    recall = float(np.mean([found for found, _ in hits.values()]))
    if champion is None:
        reason = f"{candidate.model_version} is the first model: {candidate.measure} {recall:.1%} on {len(hits)} queries"
        return GateResult(True, reason, {_KEYS[candidate.measure]: recall})
    if champion.model_version == candidate.model_version:
        return GateResult(False, f"{candidate.model_version} is the champion already", {_KEYS[candidate.measure]: recall})
    others = _hits(champion)
    shared = sorted(hits.keys() & others.keys())
    if len(shared) < max(1, settings.min_shared * len(hits)):
        reason = (
            f"{candidate.model_version} and {champion.model_version} share only {len(shared)} of {len(hits)} queries; "
            "evaluate the champion on the current catalog before comparing"
        )
        return GateResult(False, reason, {_KEYS[candidate.measure]: recall, "shared_queries": len(shared)})
    ours, theirs = (np.array([source[capture][0] for capture in shared]) for source in (hits, others))
    places = np.array([hits[capture][1] for capture in shared])
    change = paired_bootstrap(ours, theirs, places, settings.bootstrap, settings.seed)
    passed, verdict = _verdict(change.difference, change.low, change.high, settings.margin)
    reason = (
        f"{candidate.model_version} {verdict}: {candidate.measure} {ours.mean():.1%} "
        f"against {theirs.mean():.1%} of {champion.model_version} "
        f"on {len(shared)} shared queries of {change.n_places} places, {_points(change.difference)} points "
        f"(95 % interval {_points(change.low)} to {_points(change.high)}){_galleries(candidate, champion)}"
    )
    numbers = {
        _KEYS[candidate.measure]: float(ours.mean()),
        f"champion_{_KEYS[candidate.measure]}": float(theirs.mean()),
        "shared_queries": float(len(shared)),
    }
    return GateResult(passed, reason, numbers | {"difference": change.difference, "low": change.low, "high": change.high})


def _verdict(difference: float, low: float, high: float, margin: float) -> tuple[bool, str]:
    if high < 0:
        return False, "is significantly worse"
    if difference <= 0:
        return False, "is not better"
    if low <= -margin:
        return False, f"may be worse by more than {margin * 100:g} points"
    return True, "is better"


def _points(share: float) -> str:
    return f"{share * 100:+.1f}"


def _galleries(candidate: ModelEvaluation, champion: ModelEvaluation) -> str:
    if candidate.n_gallery == champion.n_gallery or candidate.n_gallery is None or champion.n_gallery is None:
        return ""
    return f"; the galleries differ ({candidate.n_gallery} and {champion.n_gallery} pictures), which favours the smaller"


def _hits(evaluation: ModelEvaluation) -> dict[str, tuple[float, str]]:
    """Query -> what it earned, 0 to 1, and the place."""
    merits = "merit" in evaluation.queries.column_names
    names = ("capture_id", "location_id", "merit" if merits else "first_hit_rank")
    columns = [evaluation.queries[name].to_pylist() for name in names]
    if not columns[0]:
        raise NotEnoughDataError(f"the evaluation of {evaluation.model_version} has no queries")
    return {
        capture: (float(value) if merits else float(value == 1), place) for capture, place, value in zip(*columns, strict=True)
    }
