"""Evaluate a classifier of photos on the splits that it was not trained on: per level and together, beside what cells allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.cells import read_labels
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.answered_photos import AnsweredPhotos, answer_photos, photo_columns
from geoloc_dagster.evaluation.benchmark_sets import MeasuredSet, measure_matched, write_measured_set
from geoloc_dagster.evaluation.bootstrap import paired_differences
from geoloc_dagster.evaluation.chance import largest_class, random_training
from geoloc_dagster.evaluation.colour_histogram import answer_by_colour, colour_histograms
from geoloc_dagster.evaluation.geolocation import (
    FULL_SCORE,
    HIERARCHY,
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
from geoloc_dagster.evaluation.recipe import HELD_OUT, RecipeEvaluation, evaluation_folder, older_champion
from geoloc_dagster.evaluation.run import credit
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.learning.cells_model import CellsModel
from geoloc_dagster.learning.photo_models import AnyPhotoModel, load_photo_model
from geoloc_dagster.learning.photo_rows import of_interest
from geoloc_dagster.learning.recipe import load_recipe
from geoloc_dagster.learning.registry import newest_training, require_training
from geoloc_dagster.storage import atomic_folder, read_json, read_parquet, write_manifest, write_parquet
from geoloc_dagster.tables import table_version
from geoloc_dagster.viz.sheets import Tile, contact_sheet

Progress = Callable[[int, int], None]
_BLOCK = 256
_COLOUR_SIDE, _COLOUR_TRAINING = 64, 20_000
_SHEET = 12


def evaluate_cells_recipe(settings: Settings, layout: Layout, recipe: str, progress: Progress | None = None) -> RecipeEvaluation:
    """Evaluate the newest model of a recipe; the champion again too where it is an older model of the same recipe.

    Raises:
        NoReleaseError: the recipe has not been trained.
        NotEnoughDataError: no held-out split has photos.
        IntegrityError: the model, the catalog or a crop is not what was written.
    """
    training = require_training(layout.checkpoints / recipe)
    catalog = read_parquet(layout.catalog)
    pointer = layout.champion_of(load_recipe(recipe, settings.folder).kind)
    champion = older_champion(layout, recipe, training, pointer)
    if champion is not None:
        _evaluate_model(settings, layout, recipe, champion, catalog, progress)
    return _evaluate_model(settings, layout, recipe, training.folder, catalog, progress)


def _evaluate_model(
    settings: Settings, layout: Layout, recipe: str, folder: Path, catalog: pa.Table, progress: Progress | None
) -> RecipeEvaluation:
    model = load_photo_model(folder)
    training: dict[str, Any] = read_json(folder / "training.json")
    usable = set(catalog.filter(pc.field("usable"))["split"].unique().to_pylist())
    splits = [split for split in HELD_OUT if split in usable and split not in model.recipe.data.splits]
    if not splits or not model.levels:
        raise NotEnoughDataError(
            f"recipe {recipe} cannot be evaluated: "
            + ("no split is held out of its training" if model.levels else "it has no levels")
        )
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    scale = scale_of(score_m(south, west, north, east))
    metrics: dict[str, Any] = {}
    sheet = b""
    for split in splits:
        every = answer_photos(model, catalog, read_labels(layout), layout, split, progress)
        wanted = of_interest(model.recipe, every.scenes)
        if not wanted.any():
            raise NotEnoughDataError(f"recipe {recipe} cannot be evaluated: no photo of {split} shows the scene of interest")
        answered = every.chosen(wanted)
        measured = measure_matched(f"{recipe} on {split}", answered.matched, model.partitioning, scale=scale)
        baselines = _baselines(model, catalog, layout, answered, scale)
        out = evaluation_folder(layout, recipe, model.model_version, split, leading=split == splits[0])
        facts = {"recipe": recipe, "model_version": model.model_version, "crops_version": table_version(layout.crops)}
        sheet = _sheet(answered, catalog, layout, settings.splits.seed, f"{recipe} on {split}")
        base = model.recipe.scene_networks if isinstance(model, CellsModel) else None
        if base is not None:
            measured = _with_base(measured, answered, scale, _queries_of(layout, base.base, split), base.base)
        others = every.chosen(~wanted)
        metrics[split] = _write(out, measured, answered, others, scale, baselines, split, facts, sheet)
    return RecipeEvaluation(
        folder=evaluation_folder(layout, recipe, model.model_version, splits[0], leading=True),
        model_version=model.model_version,
        metrics=metrics,
        sheet=sheet,
        queries=int(metrics[splits[0]]["n_photos"]),
        mlflow_run_id=training.get("mlflow_run_id"),
    )


def _baselines(
    model: AnyPhotoModel, catalog: pa.Table, layout: Layout, answered: AnsweredPhotos, scale: Scale
) -> dict[str, tuple[Positions | None, Any]]:
    """Name -> (its answers, its figures): colours, the fullest cell, and a training photo drawn at random."""
    train = catalog.filter(pc.field("usable") & pc.field("split").isin(model.recipe.data.splits)).sort_by("capture_id")
    chosen = np.sort(np.random.default_rng(0).permutation(train.num_rows)[:_COLOUR_TRAINING])
    train = train.take(pa.array(chosen))
    where = Positions(train["lat_deg"].to_numpy(), train["lng_deg"].to_numpy())
    reader = CropReader(layout.crops)

    def histograms(ids: list[str]) -> Any:
        blocks = (ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK))
        return np.concatenate([colour_histograms(reader.pictures(block, _COLOUR_SIDE)) for block in blocks])

    matched = answered.matched
    by_colour = answer_by_colour(histograms(answered.capture_ids), histograms(train["capture_id"].to_pylist()), where)
    fullest = largest_class(len(matched.ids), model.partitioning.level(model.levels[-1]))
    found: dict[str, tuple[Positions | None, Any]] = {
        name: (answers, measure(errors_m(matched.truth, answers), matched.groups, scale))
        for name, answers in (("colour histogram", by_colour), ("fullest cell", fullest))
    }
    found["random training photo"] = (None, random_training(matched.truth, where, matched.groups, scale=scale).shares)
    return found


def _write(
    folder: Path,
    measured: MeasuredSet,
    answered: AnsweredPhotos,
    others: AnsweredPhotos,
    scale: Scale,
    baselines: dict[str, tuple[Positions | None, Any]],
    split: str,
    facts: dict[str, Any],
    sheet: bytes,
) -> dict[str, Any]:
    matched = answered.matched
    merit = geo_score(errors_m(matched.truth, matched.answers[HIERARCHY]), scale) / FULL_SCORE
    figures = {name: figure for name, (answers, figure) in baselines.items() if answers is not None}
    shares = {name: figure for name, (answers, figure) in baselines.items() if answers is None}
    summary = measured.summary | {
        "kind": "cells",
        "split": split,
        "merit": float(merit.mean()),
        "scene": answered.scene_figures(),
        "n_of_other_scenes": len(others.capture_ids),
        "facts": facts,
        "baselines": {
            **{name: summarise_figures(figure) for name, figure in figures.items()},
            **{name: {"within_m": {str(r): s.as_dict() for r, s in share.within_m.items()}} for name, share in shares.items()},
        },
    }
    table = figures_table(figures, "Without a classifier", "answer")
    by_photo = photo_columns(answered, scale, of_interest=True)
    for name, (answers, _) in baselines.items():
        if answers is not None:
            column = pa.array(errors_m(matched.truth, answers))
            by_photo = by_photo.append_column(f"{name.replace(' ', '_')}_error_m", column)
    if len(others.capture_ids):
        by_photo = pa.concat_tables([by_photo, photo_columns(others, scale, of_interest=False)], promote_options="default")
    with atomic_folder(folder) as made:
        write_measured_set(replace(measured, tables=[*measured.tables, table], summary=summary), made)
        write_parquet(made / "queries.parquet", by_photo)
        (made / "sheet.jpg").write_bytes(sheet)
        write_manifest(made, name=measured.name, split=split)
    return summary


def _queries_of(layout: Layout, recipe: str, split: str) -> pa.Table | None:
    """What the newest model of a recipe answered on a split; None where that has not been evaluated."""
    newest = newest_training(layout.checkpoints / recipe)
    if newest is None:
        return None
    for path in sorted((layout.evaluations / recipe).glob(f"{newest.model_version}*/report.json")):
        if read_json(path)["split"] == split:
            return read_parquet(path.parent / "queries.parquet")
    return None


def _with_base(measured: MeasuredSet, answered: AnsweredPhotos, scale: Scale, base: pa.Table | None, name: str) -> MeasuredSet:
    """The same with what networks per scene gain over the one model that they start from, on the photos of both, paired."""
    if base is None or base["capture_id"].to_pylist() != answered.capture_ids:
        return measured
    matched = answered.matched
    ours = outcomes(errors_m(matched.truth, matched.answers[HIERARCHY]), scale)
    theirs = outcomes(base[f"{HIERARCHY}_error_m"].to_numpy(), scale)
    found = paired_differences(ours - theirs, matched.groups, measured.report.bootstrap, measured.report.seed)
    names = [*(radius_name(radius) for radius in scale.radii_m), "GeoScore"]
    units = [*(100.0 for _ in scale.radii_m), 1.0]
    row = [
        f"{unit * one.difference:+.1f} ({unit * one.low:+.1f} to {unit * one.high:+.1f}) {verdict_of(one)}"
        for unit, one in zip(units, found, strict=True)
    ]
    table = TextTable(f"Over the one model of `{name}`, percentage points and GeoScore", ["gain", *names], [["hierarchy", *row]])
    said = {what: one.as_dict() | {"verdict": verdict_of(one)} for what, one in zip(names, found, strict=True)}
    return replace(measured, tables=[*measured.tables, table], summary=measured.summary | {"over_base": said})


def _sheet(answered: AnsweredPhotos, catalog: pa.Table, layout: Layout, seed: int, title: str) -> bytes:
    """Some photos at random with the error of the hierarchy's answer, the nearest first."""
    matched = answered.matched
    error = errors_m(matched.truth, matched.answers[HIERARCHY])
    chosen = np.random.default_rng(seed).permutation(len(error))[:_SHEET]
    chosen = chosen[np.argsort(error[chosen], kind="stable")]
    pictures = CropReader(layout.crops).encoded([answered.capture_ids[i] for i in chosen])
    tiles = [
        Tile(
            pictures[answered.capture_ids[i]],
            (_away(float(error[i])), f"{matched.scenes[i]} · {matched.confidences[HIERARCHY][i]:.0%} sure"),
        )
        for i in chosen.tolist()
    ]
    lines = [tiles[start : start + 4] for start in range(0, len(tiles), 4)]
    median = _away(float(np.median(error)))
    subtitle = f"{len(chosen)} photos at random, and how far off the answer is; half of all are within {median}"
    shown = catalog.filter(pc.field("capture_id").isin(list(pictures)))
    return contact_sheet(lines, title=title, subtitle=subtitle, attribution="Pictures: " + credit(shown), first_is_query=False)


def _away(metres: float) -> str:
    return f"{metres:,.0f} m" if metres < 1000 else f"{metres / 1000:,.0f} km"
