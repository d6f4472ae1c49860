"""A classifier that others trained, as a model of ours: their state dict, a map of its keys, their cells, and a recipe.

A key map is YAML: `keys` says which beginning of their names becomes which of ours, the longest that fits counting; `ignore`
names beginnings that are left behind, such as a classifier that the levels' heads replaced. Nothing is guessed: a tensor that is
neither mapped nor ignored, and one of ours that none fills, is an error.

Their class numbers are those of their cell CSVs, and ours the order of cell ids, so the rows of the heads change places.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from geoloc_dagster.errors import RecipeError, WeightsError
from geoloc_dagster.geo.cell_csv import ImportedLevel
from geoloc_dagster.geo.distance import WORLD_SCORE_M
from geoloc_dagster.geo.partitioning import Partitioning, fingerprint_of_levels, parent_table
from geoloc_dagster.geo.partitioning_folder import write_partitioning
from geoloc_dagster.guards import parse_yaml
from geoloc_dagster.learning.backbones import read_state_dict
from geoloc_dagster.learning.cells_model import CELLS_FOLDER, HIERARCHY_FILE
from geoloc_dagster.learning.cells_network import build_cells_network
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.encoder import WEIGHTS_FILE
from geoloc_dagster.learning.loop import TrainedModel, training_facts, write_model
from geoloc_dagster.learning.photo_rows import levels_of
from geoloc_dagster.storage import sha256_file, write_json

_SHOWN = 3


class KeyMap(BaseModel):
    """How the names of others' tensors become ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keys: dict[str, str] = Field(min_length=1, description="Beginning of their name -> beginning of ours.")
    ignore: list[str] = Field(default_factory=list, description="Beginnings of names that are left behind.")

    def ours(self, name: str) -> str | None:
        """Our name of a tensor; None where it is left behind.

        Raises:
            KeyError: it is neither mapped nor ignored.
        """
        fitting = [theirs for theirs in (*self.keys, *self.ignore) if name.startswith(theirs)]
        if not fitting:
            raise KeyError(name)
        longest = max(fitting, key=len)
        return self.keys[longest] + name[len(longest) :] if longest in self.keys else None


def read_key_map(path: Path) -> KeyMap:
    """Read a key map.

    Raises:
        RecipeError: it cannot be read, or says something else.
    """
    try:
        return KeyMap.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read the key map {path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        remedy = "It is YAML such as {keys: {'model.': 'backbone.body.', 'classifier.0.': 'heads.coarse.'}, ignore: ['fc.']}."
        raise RecipeError(f"{path}: {where}: {first['msg']}", remedy) from error


def import_cells_model(
    weights: Path,
    key_map: KeyMap,
    recipe: CellsRecipe,
    levels: Sequence[ImportedLevel],
    out_folder: Path,
    *,
    now: dt.datetime,
) -> TrainedModel:
    """Write others' classifier as `out_folder/<model_version>/`.

    Args:
        weights: safetensors, or a state dict that torch saved.
        key_map: names.
        recipe: backbone, heads and inference that the weights belong to.
        levels: their cells, coarsest first.
        out_folder: of the models of this recipe.
        now: aware.

    Raises:
        WeightsError: a tensor is not mapped, is missing, or has another shape; or a head has fewer rows than there are cells.
        PartitioningError: the levels do not belong together.
        UnsafeFileError: the file is a pickle.
    """
    cells = [level.level for level in levels]
    partitioning = Partitioning(tuple(cells), parent_table(cells), fingerprint_of_levels(cells))
    names = levels_of(recipe, partitioning)
    state = _renamed(read_state_dict(weights), key_map, weights)
    for level in levels:
        if level.level.name in names:
            _reorder(state, level, weights)
    network = build_cells_network(recipe, {name: len(partitioning.level(name)) for name in names}, load_weights=False)
    _fill(network, state, weights)
    equal = dict.fromkeys(names, 1.0)
    facts = training_facts(recipe, {}, rows=0, epochs=0, steps=0, samples=0, seconds=0, attempts=1) | {
        "imported_from": {"file": weights.name, "sha256": sha256_file(weights)},
        "cells_fingerprint": partitioning.fingerprint,
        "rows_sha256": "imported",
        "hierarchy_weights": equal,
        "finished_at": now.isoformat(),
    }

    def also(folder: Path) -> None:
        write_partitioning(folder / CELLS_FOLDER, partitioning)
        write_json(folder / HIERARCHY_FILE, {"weights": equal, "fitted_on": 0, "score_km": WORLD_SCORE_M / 1000})

    return write_model(out_folder, recipe, {WEIGHTS_FILE: network}, facts, also)


def _renamed(theirs: Mapping[str, Tensor], key_map: KeyMap, path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, value in theirs.items():
        try:
            ours = key_map.ours(name)
        except KeyError:
            unknown.append(name)
            continue
        if ours is not None and ours in state:
            raise WeightsError(f"two tensors of {path} become {ours}; the second is {name}", "Mend the key map.")
        if ours is not None:
            state[ours] = value
    if unknown:
        raise WeightsError(
            f"{len(unknown)} tensors of {path} are neither mapped nor ignored: {_some(unknown)}",
            "Name them below `keys` or `ignore` of the key map.",
        )
    return state


def _reorder(state: dict[str, Tensor], level: ImportedLevel, path: Path) -> None:
    """Bring the rows of a head from their class numbers to the order of the cells."""
    order = torch.from_numpy(level.published.astype("int64"))
    for part in ("weight", "bias"):
        name = f"heads.{level.level.name}.{part}"
        if name not in state:
            raise WeightsError(f"{path} has no tensor that becomes {name}", "Map the head of this level in the key map.")
        if len(state[name]) <= int(order.max()):
            raise WeightsError(
                f"the head of level `{level.level.name}` has {len(state[name]):,} rows, "
                f"its cells go up to class {int(order.max()):,}",
                "The cells are not those of this model, or two levels are exchanged in the key map.",
            )
        state[name] = state[name][order]


def _fill(network: Any, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if missing or extra:
        which, names = ("lacks", missing) if missing else ("has, and the recipe's network does not,", extra)
        raise WeightsError(
            f"{path} {which} {len(names)} tensors, e.g. {_some(names)}", "Mend the key map, or the recipe's backbone."
        )
    shapes = [name for name, value in wanted.items() if value.shape != state[name].shape]
    if shapes:
        first = shapes[0]
        raise WeightsError(f"{first} of {path} has shape {tuple(state[first].shape)}, not {tuple(wanted[first].shape)}")
    network.load_state_dict(state)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
