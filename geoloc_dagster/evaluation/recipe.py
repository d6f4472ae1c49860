"""Evaluate a recipe's newest model on the splits that it was not trained on, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.atlas import region_outlines
from geoloc_dagster.evaluation.baselines import ThumbnailEncoder, embed_crops
from geoloc_dagster.evaluation.protocol import Vectors
from geoloc_dagster.evaluation.run import evaluate_all
from geoloc_dagster.evaluation.unseen import unseen_gallery
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.learning.aggregation import build_network
from geoloc_dagster.learning.encoder import Encoder, load_encoder
from geoloc_dagster.learning.registry import Training, require_training
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import table_version

HELD_OUT = ("dev", "test")  # gates look at the first that can be evaluated, so that promotion does not select on test
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RecipeEvaluation:
    """What was found for one model, by split.

    Attributes:
        folder: of the leading split; gates and pictures come from there.
        metrics: split -> nested figures, JSON-ready.
        sheet: contact sheet of queries and neighbours, at most 50 kB.
        queries: of the leading split.
        mlflow_run_id: of the training, None where it was not tracked.
    """

    folder: Path
    model_version: str
    metrics: dict[str, Any]
    sheet: bytes
    queries: int
    mlflow_run_id: str | None


def evaluate_recipe(settings: Settings, layout: Layout, recipe: str, progress: Progress | None = None) -> RecipeEvaluation:
    """Evaluate the newest model of a recipe; the champion again too where it is an older model of the same recipe.

    The champion is repeated because gates compare models on the same catalog, and the catalog has grown since.

    Raises:
        NoReleaseError: the recipe has not been trained.
        NotEnoughDataError: no held-out split has queries.
        IntegrityError: the model, the catalog or a crop is not what was written.
    """
    training = require_training(layout.checkpoints / recipe)
    catalog = read_parquet(layout.catalog)
    champion = older_champion(layout, recipe, training)
    if champion is not None:
        _evaluate_model(settings, layout, recipe, champion, catalog, progress)
    return _evaluate_model(settings, layout, recipe, training.folder, catalog, progress)


def older_champion(layout: Layout, recipe: str, newest: Training, pointer: Path | None = None) -> Path | None:
    """The champion's folder where it is an older model of this recipe; of the kind whose pointer is given."""
    if not (pointer or layout.champion).is_file():
        return None
    champion = read_champion(layout, pointer)
    return champion.folder if champion.recipe == recipe and champion.model_version != newest.model_version else None


def _evaluate_model(
    settings: Settings, layout: Layout, recipe: str, model: Path, catalog: pa.Table, progress: Progress | None
) -> RecipeEvaluation:
    encoder = load_encoder(model)
    training: dict[str, Any] = read_json(model / "training.json")
    splits = _held_out(catalog, encoder.recipe.data.splits)
    untrained = Encoder(build_network(encoder.recipe, load_weights=True), encoder.recipe, "untrained")
    metrics: dict[str, Any] = {}
    boundary = read_boundary(layout.boundary)
    outlines = region_outlines(settings, catalog)
    galleries, elsewhere = _galleries(catalog, splits, encoder, layout)
    for split in splits:
        names = catalog.filter(pc.field("split") == split)["capture_id"].to_pylist()
        evaluation = evaluate_all(
            catalog,
            embed_crops(encoder, layout.crops, names, progress=progress).joined(elsewhere),
            evaluation_folder(layout, recipe, encoder.model_version, split, leading=split == splits[0]),
            name=recipe,
            crops_path=layout.crops,
            baselines={
                "untrained": embed_crops(untrained, layout.crops, names),
                "thumbnail": embed_crops(ThumbnailEncoder(), layout.crops, names),
            },
            geometry=boundary.geometry,
            split=split,
            seed=settings.splits.seed,
            gallery=galleries[split],
            outlines=outlines,
            facts={"recipe": recipe, "model_version": encoder.model_version, "crops_version": table_version(layout.crops)},
        )
        metrics[split] = evaluation.summary
    folder = evaluation_folder(layout, recipe, encoder.model_version, splits[0], leading=True)
    shown = evaluation_folder(layout, recipe, encoder.model_version, splits[-1], leading=len(splits) == 1)
    return RecipeEvaluation(
        folder=folder,
        model_version=encoder.model_version,
        metrics=metrics,
        sheet=(shown / "sheet.jpg").read_bytes(),
        queries=int(metrics[splits[0]]["n_queries"]),
        mlflow_run_id=training.get("mlflow_run_id"),
    )


def evaluation_folder(layout: Layout, recipe: str, model_version: str, split: str, *, leading: bool) -> Path:
    """Where the evaluation of one model on one split lies; the leading split has the plain name."""
    return layout.evaluations / recipe / (model_version if leading else f"{model_version}-{split}")


def _galleries(catalog: pa.Table, splits: Sequence[str], encoder: Encoder, layout: Layout) -> tuple[dict[str, pa.Table], Vectors]:
    """Split -> pictures of the training places that it does not ask about, one per view, with the vectors of all of them."""
    found = {split: unseen_gallery(catalog, split, encoder.recipe.data.splits, newest_only=True) for split in splits}
    names = sorted({name for gallery in found.values() for name in gallery["capture_id"].to_pylist()})
    return found, embed_crops(encoder, layout.crops, names)


def _held_out(catalog: pa.Table, trained_on: Sequence[str]) -> list[str]:
    queries = set(catalog.filter(pc.field("is_query"))["split"].unique().to_pylist())
    splits = [split for split in HELD_OUT if split in queries and split not in trained_on]
    if not splits:
        raise NotEnoughDataError(
            f"no split that the model was not trained on has queries (queries in: {', '.join(sorted(queries)) or 'none'})",
            "Give `splits:` a test share, or collect places with at least two dates.",
        )
    return splits
