"""Small models of every kind with random weights, written as trainings write theirs: enough to ask, untrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.geo.partitioning import LevelRule, Partitioning, partition
from geoloc_dagster.geo.region_classes import region_classes, write_classes
from geoloc_dagster.learning.aggregation import build_network
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE, scene_weights_file
from geoloc_dagster.learning.cells_network import build_cells_network
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.loop import write_model
from geoloc_dagster.learning.multitask_network import build_multitask_network
from geoloc_dagster.learning.recipe import AnyRecipe
from geoloc_dagster.learning.sequence_network import build_sequence_network
from geoloc_dagster.storage import write_json
from geoloc_dagster_tests.learning.city import tiny_recipe
from geoloc_dagster_tests.learning.crossroads import sequence_recipe, squares
from geoloc_dagster_tests.learning.globe import RULES, TOWNS, cells_recipe, multitask_recipe

_FACTS = {"recipe_hash": "-", "rows_sha256": "-", "metrics": {}, "trained_on_rows": 30, "seconds": 1.0, "epochs": 1}


def write_small_model(kind: str, out: Path, seed: int = 0, **changes: Any) -> Path:
    """The folder of a model, below `out/<recipe>`.

    Args:
        kind: encoder, cells, crops, routed, scenes, or one of sequence: mean, attention, lstm, gru (this one over polygons).
        out: folder of checkpoints.
        seed: of its weights.
        changes: of its recipe.
    """
    if kind == "encoder":
        return _write(out, small_encoder(**changes), build_network, seed)
    classes = _squares() if kind == "gru" else _cells()
    if kind == "scenes":
        return _write(out, multitask_recipe(**changes), build_multitask_network, seed, classes)
    if kind in ("cells", "crops"):
        return _write(
            out, cells_recipe(inference={"crops": 5 if kind == "crops" else 1}, **changes), build_cells_network, seed, classes
        )
    if kind == "routed":
        recipe = cells_recipe(name="routed", scene_networks={"base": "tiny_cells"}, **changes)
        return _write(out, recipe, build_cells_network, seed, classes, [scene_weights_file(scene) for scene in SCENES])
    encoder = {"kind": kind, "width": 32, "attention_heads": 2, "dropout": 0.0}
    recipe = sequence_recipe(encoder=encoder, heads={"classes": "grid_cells" if kind == "gru" else "s2_cells"}, **changes)
    return _write(out, recipe, build_sequence_network, seed, classes)


def small_encoder(**changes: Any) -> Any:
    """A recipe of retrieval with all that is exported: GeM, a whitening, and pictures normalised by themselves."""
    head = {"pooling": "gem", "dimension": 16, "whitening": {"dimension": 8}}
    data = {"image_size": 32, "stored_size": 36, "normalise": "picture"}
    return tiny_recipe(**({"head": head, "data": data} | changes))


def write_small_cells(out: Path, lat_deg: Any, lng_deg: Any, seed: int = 0) -> Path:
    """A classifier of cells around some positions."""
    rules = (LevelRule("coarse", 1, 60), LevelRule("fine", 1, 20))
    return _write(out, cells_recipe(), build_cells_network, seed, partition(lat_deg, lng_deg, rules))


def _write(
    out: Path, recipe: AnyRecipe, build: Any, seed: int, classes: Partitioning | None = None, further: list[str] | None = None
) -> Path:
    counts = () if classes is None else ({level.name: len(level) for level in classes.levels},)

    def also(folder: Path) -> None:
        if classes is not None:
            write_classes(folder / CELLS_FOLDER, classes)
            weights = {level.name: 0.7 + 0.6 * number for number, level in enumerate(classes.levels)}
            write_json(folder / HIERARCHY_FILE, {"weights": weights, "score_km": 100})

    files = [WEIGHTS_FILE, *(further or [])]
    networks = {file: _stirred(build(recipe, *counts, load_weights=False), seed + n) for n, file in enumerate(files)}
    return write_model(out / recipe.name, recipe, networks, _FACTS, also).folder


def _stirred(network: nn.Module, seed: int) -> nn.Module:
    """Every weight and every statistic is random, so that none of them can be left out or mixed up unseen."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*network.parameters(), *(buffer for buffer in network.buffers() if buffer.is_floating_point())]:
            noise = torch.randn(value.shape, generator=random)
            value.add_(0.1 * noise.abs() if value.ndim < 2 else 0.1 * noise)
    return network


def _positions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    towns = np.array(TOWNS)[np.arange(200) % len(TOWNS)]
    return towns[:, 0] + 0.6 * rng.integers(2, size=200) + rng.normal(0, 0.02, 200), towns[:, 1] + rng.normal(0, 0.02, 200)


def _cells() -> Partitioning:
    return partition(*_positions(), RULES)


def _squares() -> Partitioning:
    return region_classes(squares(), *_positions())
