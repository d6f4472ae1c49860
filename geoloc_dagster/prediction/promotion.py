"""Which of the trained recipes is served: the best newly evaluated model that passes the gate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.config.operation import PromotionSettings
from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.prediction.champion import Champion, promote, read_champion
from geoloc_dagster.prediction.gate import GateResult, GateSettings, ModelEvaluation, gate
from geoloc_dagster.prediction.part_gate import PartSettings

logger = logging.getLogger(__name__)
_REMEDY = "Materialise `evaluations` for that recipe again; the last good release stays served."


@dataclass(frozen=True, slots=True)
class PromotionOutcome:
    """Who is champion afterwards, whether that is new, and why."""

    champion: Champion
    promoted: bool
    reason: str


def promote_kinds(
    layout: Layout, recipes: Mapping[str, Sequence[str]], *, now: datetime, settings: GateSettings | None = None
) -> dict[str, PromotionOutcome]:
    """The champion of each kind that has recipes which place photos; raises as `promote_best` does.

    Args:
        layout: the region's paths.
        recipes: kind -> names.
        now: time of the promotion.
        settings: of the gates.
    """
    return {
        kind: promote_best(layout, names, now=now, settings=settings, pointer=layout.champion_of(kind))
        for kind, names in recipes.items()
        if names
    }


def gate_settings(settings: PromotionSettings) -> GateSettings:
    """The gates as the configuration has them."""
    parts = PartSettings(settings.part_margin, settings.part_min_queries, settings.part_min_places)
    return GateSettings(margin=settings.margin, parts=parts)


def promote_best(
    layout: Layout,
    recipes: Sequence[str],
    *,
    now: datetime,
    settings: GateSettings | None = None,
    pointer: Path | None = None,
) -> PromotionOutcome:
    """Put the newest evaluated model of every recipe of one kind to the gate, best first; the first to pass becomes champion.

    Where none passes, nothing is written. A champion whose files are damaged can neither be embedded nor served, so the best
    model that is intact takes its place.

    Raises:
        NotEnoughDataError: there is no champion yet and no recipe has been evaluated.
        IntegrityError: a file of an evaluation has changed, or the champion is damaged and nothing can take its place.
    """
    pointer = pointer or layout.champion
    found = [candidate for recipe in recipes if (candidate := _newest(layout, recipe)) is not None]
    candidates = sorted(found, key=lambda each: (-each.merit, each.evaluation.model_version))
    if not pointer.exists():
        return _promote_first(layout, pointer, candidates, recipes, now)
    try:
        champion = read_champion(layout, pointer)
    except IntegrityError as damage:
        return _replace_damaged(layout, pointer, candidates, damage, now)
    reasons = [f"{champion.model_version} stays champion"]
    for candidate in candidates:
        if candidate.evaluation.model_version == champion.model_version:
            continue
        result = _decide(layout, candidate.evaluation, champion, settings)
        if result.promote:
            return _promote(layout, pointer, candidate, result.reason, result.numbers, now)
        reasons.append(result.reason)
    return PromotionOutcome(
        champion, False, "; ".join(reasons if len(reasons) > 1 else [*reasons, "no other model is evaluated"])
    )


def _promote_first(
    layout: Layout, pointer: Path, candidates: list[_Candidate], recipes: Sequence[str], now: datetime
) -> PromotionOutcome:
    if not candidates:
        raise NotEnoughDataError(
            f"no model to promote: none of the recipes {', '.join(recipes)} has an evaluated checkpoint",
            "Materialise `checkpoints` and `evaluations` for a recipe first.",
        )
    result = gate(candidates[0].evaluation, None)
    return _promote(layout, pointer, candidates[0], result.reason, result.numbers, now)


def _replace_damaged(
    layout: Layout, pointer: Path, candidates: list[_Candidate], damage: IntegrityError, now: datetime
) -> PromotionOutcome:
    for candidate in candidates:
        result = gate(candidate.evaluation, None)
        try:
            earned = f"{candidate.evaluation.measure} {candidate.merit:.1%}"
            reason = f"{damage.cause}; {candidate.evaluation.model_version} takes its place ({earned})"
            return _promote(layout, pointer, candidate, reason, result.numbers, now)
        except IntegrityError:
            logger.warning("%s is damaged too and cannot be promoted", candidate.evaluation.model_version)
    raise damage


def _promote(
    layout: Layout, pointer: Path, candidate: _Candidate, reason: str, numbers: dict[str, float], now: datetime
) -> PromotionOutcome:
    evaluation = {**numbers, "queries": candidate.queries}
    champion = promote(layout, candidate.evaluation.model_version, evaluation, now, reason, pointer)
    return PromotionOutcome(champion, True, reason)


@dataclass(frozen=True, slots=True)
class _Candidate:
    evaluation: ModelEvaluation
    merit: float
    queries: int


def _newest(layout: Layout, recipe: str) -> _Candidate | None:
    """The recipe's newest training, if it has been evaluated."""
    training = newest_training(layout.checkpoints / recipe)
    return None if training is None else _read(layout, recipe, training.model_version)


def _read(layout: Layout, recipe: str, model_version: str) -> _Candidate | None:
    folder = layout.evaluations / recipe / model_version
    if not folder.is_dir():
        return None
    storage.verify_manifest(folder, remedy=_REMEDY)
    report: dict[str, Any] = storage.read_json(folder / "report.json")
    queries = storage.read_parquet(folder / "queries.parquet")
    if report.get("kind") in ("cells", "sequence"):
        evaluation = ModelEvaluation(model_version, queries, measure="GeoScore")
        return _Candidate(evaluation, float(report["merit"]), int(report["n_photos"]))
    evaluation = ModelEvaluation(model_version, queries, int(report["n_gallery"]))
    return _Candidate(evaluation, float(report["same_place"]["recall@1"]["value"]), int(report["n_queries"]))


def _decide(layout: Layout, candidate: ModelEvaluation, champion: Champion, settings: GateSettings | None) -> GateResult:
    own = _read(layout, champion.recipe, champion.model_version)
    if own is None:
        reason = f"{candidate.model_version} cannot be compared: the evaluation of {champion.model_version} is gone"
        return GateResult(False, reason, {})
    return gate(candidate, own.evaluation, settings, _parts(layout))


def _parts(layout: Layout) -> dict[str, dict[str, str]]:
    """District and capture year of every row of the catalog, as the gate takes them."""
    if not layout.catalog.is_file():
        return {}
    rows = storage.read_parquet(layout.catalog, ["capture_id", "district", "year"])
    names: list[str] = rows["capture_id"].to_pylist()
    years = ["" if year is None else str(year) for year in rows["year"].to_pylist()]
    districts = [district or "" for district in rows["district"].to_pylist()]
    return {"district": dict(zip(names, districts, strict=True)), "capture year": dict(zip(names, years, strict=True))}
