"""Evaluate a sequence model on the splits that it was not trained on: beside chance, and beside itself asked with one view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.benchmark_sets import MeasuredSet, write_measured_set
from geoloc_dagster.evaluation.geolocation import FULL_SCORE, HIERARCHY, Positions, Scale, errors_m, geo_score, scale_of
from geoloc_dagster.evaluation.recipe import HELD_OUT, RecipeEvaluation, evaluation_folder, older_champion
from geoloc_dagster.evaluation.run import credit
from geoloc_dagster.evaluation.sequence_views import AskedSequences, ask_sequences, mean_outcomes, measure_sequences
from geoloc_dagster.evaluation.tables import length
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.learning.sequence_model import SequenceModel, load_sequence_model
from geoloc_dagster.learning.sequence_rows import SequenceRows, select_sequences
from geoloc_dagster.storage import atomic_folder, read_json, read_parquet, write_manifest, write_parquet
from geoloc_dagster.tables import table_version
from geoloc_dagster.viz.sheets import Tile, contact_sheet

Progress = Callable[[int, int], None]
_SHEET, _SHEET_VIEWS = 6, 8


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
    catalog = read_parquet(layout.catalog)
    champion = older_champion(layout, recipe, training, layout.champion_of("sequence"))
    if champion is not None:  # gates compare models on the same catalog
        evaluate_sequence_model(settings, layout, recipe, champion, catalog, progress)
    return evaluate_sequence_model(settings, layout, recipe, training.folder, catalog, progress)


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


def _rows_of(model: SequenceModel, catalog: pa.Table, split: str) -> SequenceRows:
    return select_sequences(model.recipe, catalog, model.partitioning, [split], labelled=False)


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
    single = asked.single_errors_m(model)
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
        "single_view_merit": mean_outcomes(single, scale)[:, -1] / FULL_SCORE,
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
