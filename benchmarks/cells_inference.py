"""What `geoloc predict --image-dir` costs beside the bare model: photos per second of both, in turns, in one run.

    python benchmarks/cells_inference.py [--photos 256] [--rounds 5] [--batch-size 64] [--backbone resnet50]

The bare model is the same network on tensors that lie ready, batch by batch, with nothing read, decoded or written. The folder
holds JPEGs of 500 x 375 pixels, as photo collections have them. Weights are random: they do not change how long it takes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from geoloc_dagster.geo.partitioning import LevelRule, partition
from geoloc_dagster.learning.cells_model import CellsModel
from geoloc_dagster.learning.cells_network import build_cells_network, views_of
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.prediction.image_folder import predict_folders

RULES = (LevelRule("coarse", 50, 5_000), LevelRule("middle", 50, 2_000), LevelRule("fine", 50, 1_000))


def write_photos(folder: Path, photos: int) -> None:
    """JPEGs with the detail of photos, not of noise."""
    rng = np.random.default_rng(0)
    for number in range(photos):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        detail = np.clip(np.asarray(small, np.float32) + rng.normal(0, 6, (375, 500, 3)), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(detail).save(stream, "JPEG", quality=85)
        (folder / f"{number:05d}.jpg").write_bytes(stream.getvalue())


def build_model(backbone: str) -> CellsModel:
    """A classifier with about as many cells as the published partitionings have."""
    rng = np.random.default_rng(1)
    centres = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 4_000))), rng.uniform(-180, 180, 4_000)], axis=1)
    at = centres[rng.integers(0, len(centres), 4_000_000)] + rng.normal(0, 0.3, (4_000_000, 2))
    cells = partition(np.clip(at[:, 0], -90, 90), (at[:, 1] + 180) % 360 - 180, RULES)
    recipe = CellsRecipe.model_validate(
        {"name": "bench", "kind": "cells", "backbone": {"library": "torchvision", "name": backbone}, "inference": {"crops": 1}}
    )
    classes = {level.name: len(level) for level in cells.levels}
    print(f"{backbone}, {classes}, {torch.get_num_threads()} threads")
    network = build_cells_network(recipe, classes)
    return CellsModel(
        recipe=recipe,
        partitioning=cells,
        network=network,
        model_version="bench",
        weights=dict.fromkeys(classes, 1.0),
        inference=recipe.inference,
    )


def main() -> None:
    """Print photos per second of both, and the ratio of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--backbone", default="resnet50")
    options = parser.parse_args()
    model = build_model(options.backbone)
    pictures = torch.randint(0, 256, (options.batch_size, 3, model.size, model.size), dtype=torch.uint8)
    batches = -(-options.photos // options.batch_size)

    def bare() -> float:
        with torch.inference_mode():
            inputs = views_of(pictures, model.recipe.data, 1)[0]
            began = time.perf_counter()
            for _ in range(batches):
                model.network(inputs)
        return batches * options.batch_size / (time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_photos(folder, batches * options.batch_size)

        def whole() -> float:
            out = folder / "answers.csv"
            began = time.perf_counter()
            predict_folders(model, [folder], out, batch_size=options.batch_size, workers=options.workers)
            return batches * options.batch_size / (time.perf_counter() - began)

        bare()
        turns = [(bare(), whole()) for _ in range(options.rounds)]
    ratios = [ours / alone for alone, ours in turns]
    print("| | photos/s |\n|---|---:|")
    print(f"| bare model | {statistics.median(alone for alone, _ in turns):.1f} |")
    print(f"| folder to CSV | {statistics.median(ours for _, ours in turns):.1f} |")
    print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})")


if __name__ == "__main__":
    main()
