"""Evaluate a sequence model on the splits that it was not trained on: beside chance, and beside itself asked with one view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.benchmark_sets import MeasuredSet, measure_matched, write_measured_set
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
    scale_of,
    verdict_of,
)
from geoloc_dagster.evaluation.geolocation_reports import figures_table, radius_name, summarise_figures
from geoloc_dagster.evaluation.photo_matching import Matched
from geoloc_dagster.evaluation.recipe import HELD_OUT, RecipeEvaluation, evaluation_folder
from geoloc_dagster.evaluation.run import credit
from geoloc_dagster.evaluation.tables import TextTable, length
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.learning.cells_model import CellAnswers
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.learning.sequence_model import SequenceModel, load_sequence_model
from geoloc_dagster.learning.sequence_network import in_slots
from geoloc_dagster.learning.sequence_rows import SequenceRows, select_sequences, usable_views
from geoloc_dagster.storage import atomic_folder, read_json, read_parquet, table_version, write_manifest, write_parquet
from geoloc_dagster.viz.sheets import Tile, contact_sheet

Progress = Callable[[int, int], None]
WORDS = ("places and dates", "places")
_BLOCK = 64
_SHEET, _SHEET_VIEWS = 6, 8


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


def evaluate_sequence_recipe(
    settings: Settings, layout: Layout, recipe: str, progress: Progress | None = None
) -> RecipeEvaluation:
    """Evaluate the newest model of a recipe.

    Raises:
        NoReleaseError: the recipe has not been trained.
        NotEnoughDataError: no held-out split has places.
        IntegrityError: the model, the catalog or a crop is not what was written.
    """
    training = require_training(layout.checkpoints / recipe)
    return evaluate_sequence_model(settings, layout, recipe, training.folder, read_parquet(layout.catalog), progress)


def evaluate_sequence_model(
    settings: Settings, layout: Layout, recipe: str, folder: Path, catalog: pa.Table, progress: Progress | None = None
) -> RecipeEvaluation:
    """Evaluate one model; raises as `evaluate_sequence_recipe` does."""
    model = load_sequence_model(folder)
    found = {split: _rows_of(model, catalog, split) for split in HELD_OUT if split not in model.recipe.data.splits}
    splits = [split for split, rows in found.items() if len(rows)]
    if not splits:
        raise NotEnoughDataError(f"recipe {recipe} cannot be evaluated: no split is held out of its training")
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    scale = scale_of(score_m(south, west, north, east))
    facts = {"recipe": recipe, "model_version": model.model_version, "crops_version": table_version(layout.crops)}
    metrics: dict[str, Any] = {}
    sheet = b""
    for split in splits:
        name = f"{recipe} on {split}"
        asked = ask_sequences(model, found[split], layout.crops, progress)
        measured = measure_sequences(name, model, asked, catalog, scale)
        sheet = _sheet(model, asked, catalog, layout, settings.splits.seed, name)
        out = evaluation_folder(layout, recipe, model.model_version, split, leading=split == splits[0])
        metrics[split] = _write(out, measured, model, asked, scale, {"split": split, "facts": facts}, sheet)
    return RecipeEvaluation(
        folder=evaluation_folder(layout, recipe, model.model_version, splits[0], leading=True),
        model_version=model.model_version,
        metrics=metrics,
        sheet=sheet,
        queries=int(metrics[splits[0]]["n_photos"]),
        mlflow_run_id=read_json(folder / "training.json").get("mlflow_run_id"),
    )


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
        figures_table(
            {f"{count} of its views": figures for count, figures in views.figures.items()}, "By number of views", "asked"
        ),
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
    single = np.stack([asked.errors_m(model, _only(asked.present, slot)) for slot in range(slots)], axis=1)
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
    alone = _mean_outcomes(single, scale)
    return ByViews(single, figures, paired_differences((whole - alone)[several], groups[several], bootstrap, seed))


def _rows_of(model: SequenceModel, catalog: pa.Table, split: str) -> SequenceRows:
    return select_sequences(model.recipe, catalog, model.partitioning, [split], labelled=False)


def _only(present: Tensor, slot: int) -> Tensor:
    chosen = torch.zeros_like(present)
    chosen[:, slot] = present[:, slot]
    return chosen


def _mean_outcomes(single_m: F64, scale: Scale) -> F64:
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


def _write(
    folder: Path,
    measured: MeasuredSet,
    model: SequenceModel,
    asked: AskedSequences,
    scale: Scale,
    said: dict[str, Any],
    sheet: bytes,
) -> dict[str, Any]:
    rows, answers = asked.rows, asked.answers(model)
    truth = Positions(rows.lat_deg, rows.lng_deg)
    single = np.stack([asked.errors_m(model, _only(asked.present, slot)) for slot in range(asked.present.shape[1])], axis=1)
    errors = {key: errors_m(truth, Positions(answer.lat_deg, answer.lng_deg)) for key, answer in answers.items()}
    columns: dict[str, Any] = {
        "capture_id": [rows.capture_ids[at] for at in rows.first],
        "location_id": rows.location_ids,
        "group": rows.location_ids,
        "date": rows.dates,
        "views": rows.counts,
        "lat_deg": rows.lat_deg,
        "lng_deg": rows.lng_deg,
        "merit": geo_score(errors[HIERARCHY], scale) / FULL_SCORE,
        "single_view_merit": _mean_outcomes(single, scale)[:, -1] / FULL_SCORE,
    }
    for key, answer in answers.items():
        columns |= {f"{key}_lat_deg": answer.lat_deg, f"{key}_lng_deg": answer.lng_deg}
        columns |= {f"{key}_confidence": answer.confidence, f"{key}_error_m": errors[key]}
    summary = measured.summary | said
    with atomic_folder(folder) as made:
        write_measured_set(replace(measured, summary=summary), made)
        write_parquet(made / "queries.parquet", pa.table(columns))
        (made / "sheet.jpg").write_bytes(sheet)
        write_manifest(made, name=measured.name, split=said["split"])
    return summary


def _sheet(model: SequenceModel, asked: AskedSequences, catalog: pa.Table, layout: Layout, seed: int, title: str) -> bytes:
    """Some places at random, a line of views each, with the error of their answer, the nearest first."""
    rows, error = asked.rows, asked.errors_m(model, asked.present)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:_SHEET]
    chosen = chosen[np.argsort(error[chosen], kind="stable")]
    shown = {row: rows.captures_of([row])[:_SHEET_VIEWS] for row in chosen.tolist()}
    pictures = CropReader(layout.crops).encoded([rows.capture_ids[at] for captures in shown.values() for at in captures])
    lines = [
        [
            Tile(
                pictures[rows.capture_ids[at]],
                (_looking(float(rows.headings_deg[at])), "" if number else f"{length(float(error[row]))} off"),
            )
            for number, at in enumerate(captures)
        ]
        for row, captures in shown.items()
    ]
    subtitle = (
        f"{len(chosen)} places at random, and how far off the answer is; half of all are within {length(float(np.median(error)))}"
    )
    credited = catalog.filter(pc.field("capture_id").isin(list(pictures)))
    return contact_sheet(lines, title=title, subtitle=subtitle, attribution="Pictures: " + credit(credited), first_is_query=False)


def _looking(heading_deg: float) -> str:
    return "heading unknown" if np.isnan(heading_deg) else f"{heading_deg:.0f}°"
