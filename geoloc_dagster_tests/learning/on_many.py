"""What torchrun starts in the tests: one process of a training on several devices, of the tiny globe or the tiny city.

torchrun --standalone --nproc-per-node 2 -m geoloc_dagster_tests.learning.on_many cells OUT 2 [STEP to die at]
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.cells_training import train_cells
from geoloc_dagster.learning.loop import TrainedModel
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.training import train
from geoloc_dagster_tests.learning.city import make_city, tiny_recipe
from geoloc_dagster_tests.learning.globe import cells_recipe, make_globe

NO_BATCH_NORM = {"name": "test_vit"}  # whose batch statistics would be those of a share on the CPU


def recipe_for(kind: str, devices: int) -> CellsRecipe | Recipe:
    """The same training on one device or more."""
    common: dict[str, Any] = {"backbone": NO_BATCH_NORM, "compute": {"devices": devices}}
    if kind == "cells":
        heads = {"scene": {}, "smoothing": {"tau_km": 75}}
        return cells_recipe(budget={"epochs": 3, "batch_size": 32}, heads=heads, **common)
    stop = {"early_stop": {"every_epochs": 1, "patience": 3}} if kind == "stopping" else {}
    budget = {"epochs": 4, **stop}
    return tiny_recipe(head={"pooling": "gem", "dimension": 16}, budget=budget, **common)


def train_one(kind: str, out: Path, devices: int, die_at: int | None = None) -> TrainedModel:
    """Train on data made afresh, which are the same in every process."""

    def progress(done: int, total: int) -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    recipe = recipe_for(kind, devices)
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(recipe, CellsRecipe):
            globe = make_globe(Path(folder))
            return train_cells(recipe, globe.catalog, globe.labels, globe.crops, out, progress=progress)
        city = make_city(Path(folder), locations=12, dev_locations=4)
        return train(recipe, city.catalog, city.crops, out, progress=progress)


if __name__ == "__main__":
    train_one(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
