"""Evaluate a classifier of scenes on the splits that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.cells import read_labels
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import intervals
from geoloc_dagster.evaluation.recipe import HELD_OUT, RecipeEvaluation, evaluation_folder
from geoloc_dagster.learning.cells_model import CellsModel, load_cells_model
from geoloc_dagster.learning.photo_rows import select_photos
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.storage import atomic_folder, read_json, read_parquet, write_json, write_manifest, write_parquet
from geoloc_dagster.viz.sheets import Tile, contact_sheet

_BLOCK = 256
_BOOTSTRAP = 1000
_SHEET = 12


def evaluate_scene_classifier(
    settings: Settings, layout: Layout, recipe: str, progress: Callable[[int, int], None] | None = None
) -> RecipeEvaluation:
    """Share of held-out photos whose scene is told right, overall and by scene, with intervals by photographer.

    Raises:
        NoReleaseError: the recipe has not been trained.
        NotEnoughDataError: no held-out split has photos with scenes.
    """
    training = require_training(layout.checkpoints / recipe)
    model = load_cells_model(training.folder)
    catalog = read_parquet(layout.catalog)
    metrics: dict[str, Any] = {}
    sheet = b""
    for split in (split for split in HELD_OUT if split not in model.recipe.data.splits):
        found = _measure(model, catalog, layout, split, progress)
        if found is None:
            continue
        summary, rows = found
        sheet = _sheet(rows, layout, settings.splits.seed, f"{recipe} on {split}")
        summary |= {"kind": "scenes", "set": f"{recipe} on {split}", "split": split, "baselines": {}}
        with atomic_folder(evaluation_folder(layout, recipe, model.model_version, split, leading=not metrics)) as made:
            write_json(made / "report.json", summary)
            write_parquet(made / "queries.parquet", rows)
            (made / "sheet.jpg").write_bytes(sheet)
            write_manifest(made, name=recipe, split=split)
        metrics[split] = summary
    if not metrics:
        raise NotEnoughDataError(f"recipe {recipe} cannot be evaluated: no held-out photo has a scene")
    first = next(iter(metrics))
    return RecipeEvaluation(
        folder=evaluation_folder(layout, recipe, model.model_version, first, leading=True),
        model_version=model.model_version,
        metrics=metrics,
        sheet=sheet,
        queries=int(metrics[first]["n_photos"]),
        mlflow_run_id=read_json(training.folder / "training.json").get("mlflow_run_id"),
    )


def _measure(
    model: CellsModel, catalog: pa.Table, layout: Layout, split: str, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, Any], pa.Table] | None:
    rows = select_photos(model.recipe, catalog, read_labels(layout), [split])
    if not len(rows):
        return None
    reader, parts = CropReader(layout.crops), list[Any]()
    for start in range(0, len(rows), _BLOCK):
        ids = rows.capture_ids[start : start + _BLOCK]
        parts.append(model.scenes(reader.pictures(ids, model.size, rows.sha256)))
        if progress is not None:
            progress(start + len(ids), len(rows))
    said, truth = np.concatenate(parts).argmax(1), rows.scenes.argmax(1)
    known: Any = catalog.select(["capture_id", "location_id", "creator"]).to_pandas().set_index("capture_id")
    known = known.loc[rows.capture_ids]
    groups = known["creator"].fillna(known["location_id"]).to_numpy(np.str_)
    summary = {"n_photos": len(rows)} | scene_figures(said, truth, groups)
    names = np.array(SCENES)
    table = pa.table({"capture_id": rows.capture_ids, "scene": names[truth], "said": names[said], "group": groups})
    return summary, table


def scene_figures(said: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], groups: npt.NDArray[np.str_]) -> dict[str, Any]:
    """The share of photos whose scene is told right, overall and by scene, and that of the commonest scene.

    Args:
        said: (N,) numbers of scenes.
        truth: likewise.
        groups: (N,) the photographer of each, resampled for intervals.
    """
    right = said == truth
    by_scene = {
        scene: intervals(right[truth == number][:, None], groups[truth == number], _BOOTSTRAP, 0)[0].as_dict()
        for number, scene in enumerate(SCENES)
        if (truth == number).any()
    }
    overall = intervals(right[:, None], groups, _BOOTSTRAP, 0)[0].as_dict()
    return {"accuracy": overall, "by_scene": by_scene, "commonest_scene": float(np.bincount(truth).max() / len(truth))}


def _sheet(rows: pa.Table, layout: Layout, seed: int, title: str) -> bytes:
    chosen = np.random.default_rng(seed).permutation(rows.num_rows)[:_SHEET]
    shown = rows.take(pa.array(chosen)).to_pylist()
    pictures = CropReader(layout.crops).encoded([row["capture_id"] for row in shown])
    tiles = [
        Tile(pictures[row["capture_id"]], (f"said: {row['said']}", f"is: {row['scene']}"), hit=row["said"] == row["scene"])
        for row in shown
    ]
    lines = [tiles[start : start + 4] for start in range(0, len(tiles), 4)]
    return contact_sheet(lines, title=title, subtitle=f"{len(tiles)} photos at random", first_is_query=False)
