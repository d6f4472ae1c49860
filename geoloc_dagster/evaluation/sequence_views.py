"""What several views of a place say beside one of them and beside chance: figures of a sequence model on unseen places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.evaluation.benchmark_sets import MeasuredSet, measure_matched
from geoloc_dagster.evaluation.bootstrap import PairedDifference, paired_differences
from geoloc_dagster.evaluation.chance import largest_class, random_training
from geoloc_dagster.evaluation.geolocation import (
    F64,
    FULL_SCORE,
    HIERARCHY,
    Figures,
    Positions,
    Scale,
    errors_m,
    geo_score,
    measure,
    outcomes,
    verdict_of,
)
from geoloc_dagster.evaluation.geolocation_reports import figures_table, radius_name, summarise_figures
from geoloc_dagster.evaluation.photo_matching import Matched
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.learning.cells_model import CellAnswers
from geoloc_dagster.learning.sequence_model import SequenceModel
from geoloc_dagster.learning.sequence_network import in_slots
from geoloc_dagster.learning.sequence_rows import SequenceRows, usable_views

Progress = Callable[[int, int], None]
WORDS = ("places and dates", "places")
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class AskedSequences:
    """The places and dates of one split, with what the backbone says of their views.

    Attributes:
        rows: N of them.
        features: (N, V, channels) float32.
        present: (N, V) bool.
    """

    rows: SequenceRows
    features: Tensor
    present: Tensor

    def answers(self, model: SequenceModel, present: Tensor | None = None) -> dict[str, CellAnswers]:
        """Of each level and all together, with all views or only those of `present`."""
        there = self.present if present is None else present
        said = model.said_of(self.features, self.rows.headings, there)
        return {p_key: model.answer(p_key, said[p_key]) for p_key in model.p_keys}

    def errors_m(self, model: SequenceModel, present: Tensor) -> F64:
        """(N,) great-circle errors of the answer of all levels, asked with some views; NaN where a row has none of them."""
        some = present.any(dim=1)
        answer = self.answers(model, torch.where(some[:, None], present, self.present))[HIERARCHY]
        truth = Positions(self.rows.lat_deg, self.rows.lng_deg)
        return np.where(some.numpy(), errors_m(truth, Positions(answer.lat_deg, answer.lng_deg)), np.nan)

    def single_errors_m(self, model: SequenceModel) -> F64:
        """(N, V) errors of the answer to each view alone; NaN where there is none."""
        slots = range(self.present.shape[1])
        return np.stack([self.errors_m(model, only_view(self.present, slot)) for slot in slots], axis=1)


@dataclass(frozen=True, slots=True)
class ByViews:
    """What views are worth.

    Attributes:
        single: (N, V) errors in metres of each view alone, NaN where there is none.
        figures: number of views, chosen at random -> figures of the places and dates that have as many.
        gain: per radius and of the score, what all views gain over one; None where no place has two.
    """

    single: F64
    figures: dict[int, Figures]
    gain: list[PairedDifference] | None


def ask_sequences(model: SequenceModel, rows: SequenceRows, crops: Path, progress: Progress | None = None) -> AskedSequences:
    """Send every view of some rows through the backbone once."""
    reader, parts = CropReader(crops), list[Tensor]()
    for start in range(0, len(rows), _BLOCK):
        chosen = range(start, min(start + _BLOCK, len(rows)))
        ids = [rows.capture_ids[at] for at in rows.captures_of(chosen)]
        parts.append(model.view_features(reader.pictures(ids, model.size, rows.sha256)))
        if progress is not None:
            progress(chosen.stop, len(rows))
    present = torch.from_numpy(rows.present)
    return AskedSequences(rows, in_slots(torch.cat(parts), present), present)


def measure_sequences(
    name: str,
    model: SequenceModel,
    asked: AskedSequences,
    catalog: pa.Table,
    scale: Scale,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> MeasuredSet:
    """All tables of one set: accuracy, what classes allow, chance, and what several views gain over one, paired by place."""
    matched = _matched(asked.rows, asked.answers(model))
    measured = measure_matched(name, matched, model.partitioning, scale=scale, bootstrap=bootstrap, seed=seed, words=WORDS)
    chance, shares = _chance(model, matched, catalog, scale)
    views = by_views(model, asked, scale, bootstrap=bootstrap, seed=seed)
    tables = [
        *measured.tables,
        figures_table(chance, "Without looking", "answer"),
        figures_table({f"{n} view{'s' * (n > 1)}": found for n, found in views.figures.items()}, "By number of views", "asked"),
    ]
    summary = measured.summary | {
        "kind": "sequence",
        "merit": float((geo_score(errors_m(matched.truth, matched.answers[HIERARCHY]), scale) / FULL_SCORE).mean()),
        "baselines": {**{key: summarise_figures(value) for key, value in chance.items()}, "random training place": shares},
        "by_views": {str(count): summarise_figures(figures) for count, figures in views.figures.items()},
    }
    if views.gain is not None:
        names = [*(radius_name(radius) for radius in scale.radii_m), "GeoScore"]
        tables.append(_gain_table(names, views.gain))
        said = {what: one.as_dict() | {"verdict": verdict_of(one)} for what, one in zip(names, views.gain, strict=True)}
        summary["over_single_view"] = said
    return replace(measured, tables=tables, summary=summary)


def by_views(model: SequenceModel, asked: AskedSequences, scale: Scale, *, bootstrap: int = 1000, seed: int = 0) -> ByViews:
    """What the same model says of fewer views of the same places and dates."""
    groups = np.array(asked.rows.location_ids, dtype=np.str_)
    slots = asked.present.shape[1]
    single = asked.single_errors_m(model)
    draws = torch.rand(asked.present.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~asked.present, 2.0)
    rank = draws.argsort(dim=1).argsort(dim=1)
    figures: dict[int, Figures] = {}
    for count in range(1, slots + 1):
        enough = (asked.present.sum(dim=1) >= count).numpy()
        errors = asked.errors_m(model, asked.present & (rank < count))
        figures[count] = measure(errors[enough], groups[enough], scale, bootstrap=bootstrap, seed=seed)
    several = (asked.present.sum(dim=1) > 1).numpy()
    if not several.any() or not bootstrap:
        return ByViews(single, figures, None)
    whole = outcomes(asked.errors_m(model, asked.present), scale)
    alone = mean_outcomes(single, scale)
    return ByViews(single, figures, paired_differences((whole - alone)[several], groups[several], bootstrap, seed))


def only_view(present: Tensor, slot: int) -> Tensor:
    """Of the views that are there, (N, V), those of one slot."""
    chosen = torch.zeros_like(present)
    chosen[:, slot] = present[:, slot]
    return chosen


def mean_outcomes(single_m: F64, scale: Scale) -> F64:
    """(N, radii + 1): of asking with one view of each row, on average over its views."""
    by_slot = np.stack([outcomes(np.nan_to_num(column, nan=np.inf), scale) for column in single_m.T])
    there = ~np.isnan(single_m.T)[..., None]
    return (by_slot * there).sum(axis=0) / there.sum(axis=0)


def _matched(rows: SequenceRows, answers: Mapping[str, CellAnswers]) -> Matched:
    return Matched(
        rows.names(),
        Positions(rows.lat_deg, rows.lng_deg),
        np.array(rows.location_ids, dtype=np.str_),
        np.full(len(rows), "unknown"),
        {key: Positions(said.lat_deg, said.lng_deg) for key, said in answers.items()},
        {key: said.confidence.astype(np.float64) for key, said in answers.items()},
        {key: [] for key in answers},
        [],
        [],
        (),
        (),
    )


def _chance(model: SequenceModel, matched: Matched, catalog: pa.Table, scale: Scale) -> tuple[dict[str, Figures], dict[str, Any]]:
    """The fullest class as the answer to everything; and a place of training drawn at random."""
    fullest = largest_class(len(matched.ids), model.finest)
    figures = {"fullest class": measure(errors_m(matched.truth, fullest), matched.groups, scale)}
    train: Any = usable_views(model.recipe, catalog, model.recipe.data.splits).drop_duplicates("location_id")
    where = Positions(train["lat_deg"].to_numpy(np.float64), train["lng_deg"].to_numpy(np.float64))
    shares = random_training(matched.truth, where, matched.groups, scale=scale).shares
    return figures, {"within_m": {str(radius): share.as_dict() for radius, share in shares.within_m.items()}}


def _gain_table(names: list[str], gain: list[PairedDifference]) -> TextTable:
    units = [*(100.0 for _ in names[:-1]), 1.0]
    row = [
        f"{unit * one.difference:+.1f} ({unit * one.low:+.1f} to {unit * one.high:+.1f}) {verdict_of(one)}"
        for unit, one in zip(units, gain, strict=True)
    ]
    return TextTable("All views over one of them, percentage points and GeoScore", ["gain", *names], [["all views", *row]])
