"""The gate: whether a newly evaluated model replaces the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import paired_bootstrap
from geoloc_dagster.prediction.part_gate import Part, PartSettings, PartVerdict, worse_parts

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
        parts: What a district or a capture year may lose.
    """

    margin: float = 0.02
    min_shared: float = 0.5
    bootstrap: int = 2000
    seed: int = 0
    parts: PartSettings = field(default_factory=PartSettings)


@dataclass(frozen=True, slots=True)
class GateResult:
    """The decision, in a sentence for people and in numbers for metadata."""

    promote: bool
    reason: str
    numbers: dict[str, float]


def gate(
    candidate: ModelEvaluation,
    champion: ModelEvaluation | None,
    settings: GateSettings | None = None,
    parts: Mapping[str, Mapping[str, str]] | None = None,
) -> GateResult:
    """Decide whether a candidate replaces the champion, by what it is measured by on the queries that both were asked.

    The first model passes. A later one passes when it found more, when the 95 % interval of the gain (paired bootstrap
    over places) excludes a loss of more than the margin, and when no part of the region is shown to lose more than its margin.

    Args:
        candidate: the newly evaluated model.
        champion: what it would replace.
        settings: margins and the like.
        parts: kind -> query -> part, e.g. its district; none are looked at without it.

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
    labels = {kind: np.array([of.get(query, "") for query in shared], np.str_) for kind, of in (parts or {}).items()}
    verdict_by_part = worse_parts(ours, theirs, places.astype(np.str_), labels, settings.parts)
    if passed and verdict_by_part.worse:
        passed, reason = False, f"{reason}, but it is worse in {_named(verdict_by_part, candidate.measure, settings.parts)}"
    numbers = {
        "parts_compared": float(verdict_by_part.looked_at),
        "parts_worse": float(len(verdict_by_part.worse)),
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


def _named(verdict: PartVerdict, measure: Measure, settings: PartSettings) -> str:
    """The parts that lose too much, the worst three by name and figures."""

    def one(part: Part) -> str:
        return (
            f"{part.kind} {part.name} ({measure} {part.ours:.1%} against {part.theirs:.1%} on {part.n_queries} queries of "
            f"{part.n_places} places, at best {_points(part.at_best)} points)"
        )

    more = f" and {len(verdict.worse) - 3} more" if len(verdict.worse) > 3 else ""
    allowed = f"{settings.margin * 100:g} points may be lost, intervals are for all {verdict.looked_at} parts together"
    return f"{', '.join(map(one, verdict.worse[:3]))}{more}; {allowed}"


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
