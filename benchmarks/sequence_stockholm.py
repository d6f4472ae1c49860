"""Four headings of a place and date as one against a single view, on the published Stockholm collection.

Needs the data root of a finished `geoloc run --config examples/stockholm/geoloc.yaml`, whose catalog and crops it uses.
Classes are S2 cells of the training places, down to districts; rotations 0 to 3 count as 90 degrees from an unknown heading.
Measured on the validation places, none of which was seen: the share of places and dates put into the right cell, and the
distances, by one model asked with all views and with each single one of the same place and date; intervals by place, paired.

    python benchmarks/sequence_stockholm.py --data-root examples/stockholm/data --epochs 10
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoloc_dagster.config import Layout
from geoloc_dagster.evaluation.bootstrap import paired_differences
from geoloc_dagster.evaluation.geolocation import city_scale
from geoloc_dagster.evaluation.sequence_views import AskedSequences, ask_sequences, measure_sequences
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import LevelRule, Partitioning, partition
from geoloc_dagster.learning.encoder import RECIPE_FILE
from geoloc_dagster.learning.recipe import parse_recipe
from geoloc_dagster.learning.registry import newest_training, require_training
from geoloc_dagster.learning.sequence_model import SequenceModel, load_sequence_model
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.learning.sequence_rows import select_sequences
from geoloc_dagster.learning.sequence_training import train_sequence
from geoloc_dagster.storage import read_parquet, write_json

DATA = Path(__file__).parents[1] / "examples" / "stockholm" / "data"
RULES = (LevelRule("district", 6, 60), LevelRule("quarter", 6, 20))  # places of training in each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--encoder", choices=["attention", "mean", "lstm", "gru"], default="attention")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--start-from", help="A recipe of that region; its backbone is kept as it is, and only the rest learned.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, help="Where models are kept. Default: benchmarks/ below the data root.")
    parser.add_argument("--out", type=Path, help="JSON of every figure.")
    arguments = parser.parse_args()

    layout = Layout(arguments.data_root)
    catalog = read_parquet(layout.catalog)
    places: Any = catalog.select(["location_id", "lat_deg", "lng_deg", "split", "usable"]).to_pandas()
    train = places[(places["split"] == "train") & places["usable"]].drop_duplicates("location_id")
    cells = partition(train["lat_deg"], train["lng_deg"], RULES, lvl_min=11, lvl_max=16)
    print({level.name: len(level) for level in cells.levels}, f"{len(train)} places of training", flush=True)
    recipe, base = recipe_of(arguments.encoder, arguments.epochs, arguments.seed), None
    if arguments.start_from is not None:
        base = require_training(layout.checkpoints / arguments.start_from).folder
        recipe = frozen_on(recipe, base)
    out = (arguments.models or layout.root / "benchmarks") / f"sequence-{recipe.recipe_hash()}"
    done = newest_training(out)
    folder = done.folder if done else train_sequence(recipe, catalog, cells, layout.crops, out, base=base, progress=told()).folder
    model = load_sequence_model(folder)
    rows = select_sequences(recipe, catalog, cells, ["test"], labelled=False)
    lat, lng = train["lat_deg"], train["lng_deg"]
    scale = city_scale(float(great_circle_m(lat.min(), lng.min(), lat.max(), lng.max())))
    asked = ask_sequences(model, rows, layout.crops)
    measured = measure_sequences(f"sequence ({arguments.encoder}) on validation", model, asked, catalog, scale, bootstrap=2000)
    for table in measured.tables:
        print(table.markdown(), "\n")
    cells_right = right_cells(model, cells, asked)
    print(cells_right)
    if arguments.out is not None:
        stamp = dt.datetime.now(dt.UTC).date().isoformat()
        write_json(arguments.out, {"date": stamp, "recipe": recipe.model_dump(), **measured.summary, "right_cells": cells_right})


def recipe_of(encoder: str, epochs: int, seed: int) -> SequenceRecipe:
    """A slim ResNet from scratch over pictures of 96 pixels, as the retrieval recipe has it."""
    return SequenceRecipe.model_validate(
        {
            "name": "sequence_stockholm",
            "data": {"image_size": 96, "stored_size": 112},
            "views": {"at_most": 4, "dropout": 0.25},
            "backbone": {"name": "resnet_basic", "channels": [32, 64, 128, 256], "blocks": [1, 1, 1, 1]},
            "encoder": {"kind": encoder, "width": 128},
            "heads": {"classes": "s2_cells", "smoothing": {"tau_km": 0.3}},
            "optimiser": {"learning_rate": 0.002, "weight_decay": 0.01},
            "budget": {"epochs": epochs, "batch_size": 24},
            "seed": seed,
        }
    )


def frozen_on(recipe: SequenceRecipe, base: Path) -> SequenceRecipe:
    """The recipe over the backbone of a trained model, which stays as it is."""
    trained = parse_recipe((base / RECIPE_FILE).read_text(encoding="utf-8"), base / RECIPE_FILE)
    data = recipe.data.model_copy(update={"normalise": trained.data.normalise, "image_size": trained.data.image_size})
    values = recipe.model_dump() | {"backbone": trained.backbone.model_dump(), "start_from": trained.name, "frozen": True}
    return SequenceRecipe.model_validate(values | {"data": data.model_dump()})


def right_cells(model: SequenceModel, cells: Partitioning, asked: AskedSequences) -> dict[str, Any]:
    """Per level: the share in the right cell with all views and with single ones, and the paired difference by place.

    Places in no cell are left out.
    """
    whole = model.said_of(asked.features, asked.rows.headings, asked.present)
    places, found = np.array(asked.rows.location_ids), dict[str, Any]()
    for number, level in enumerate(model.levels):
        truth = asked.rows.classes[:, number]
        known = (truth >= 0) & (asked.present.sum(dim=1) > 1).numpy()
        right = whole[level].argmax(1).numpy() == truth
        single = np.zeros(len(truth))
        for slot in range(asked.present.shape[1]):
            alone = torch.zeros_like(asked.present)
            alone[:, slot] = asked.present[:, slot]
            some = alone.any(dim=1)
            said = model.said_of(asked.features, asked.rows.headings, torch.where(some[:, None], alone, asked.present))
            single += (said[level].argmax(1).numpy() == truth) * some.numpy()
        single /= asked.present.sum(dim=1).numpy()
        gain = paired_differences((right - single)[known][:, None], places[known], 2000, 0)[0]
        commonest = int(np.argmax(cells.level(level).counts))
        found[level] = {
            "classes": len(cells.level(level)),
            "all_views": float(right[known].mean()),
            "single_view": float(single[known].mean()),
            "commonest_cell": float((truth[known] == commonest).mean()),
            **gain.as_dict(),
        }
    return found


def told() -> Any:
    """A line of progress every tenth of the way."""
    said = [0]

    def progress(done: int, total: int) -> None:
        if done * 10 // total > said[0]:
            said[0] = done * 10 // total
            print(f"  {done:,} of {total:,} steps", flush=True)

    return progress


if __name__ == "__main__":
    main()
