"""A tiny globe: towns whose photos have a colour each and districts with a pattern each, labelled with cells and scenes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_dagster.dataset.cells import FINGERPRINT, Labels
from geoloc_dagster.dataset.class_maps import encode_map
from geoloc_dagster.dataset.schema import CATALOG, CROPS, SCENE_LABELS, SEGMENTATION_MAPS
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import LevelRule, partition
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.tables import append_rows

TOWNS = ((59.3, 18.0), (48.8, 2.3), (-33.9, 18.4), (35.7, 139.7), (40.7, -74.0), (-1.3, 36.8))
RULES = (LevelRule("coarse", 4, 60), LevelRule("fine", 4, 20))


@dataclass(frozen=True)
class Globe:
    """Crops and class maps, catalog and labels of a tiny globe."""

    crops: Path
    maps: Path
    catalog: pa.Table
    labels: Labels
    pixels: np.ndarray


def make_globe(folder: Path, photos: int = 240, seed: int = 0, *, grey: bool = False) -> Globe:
    """Write crops and class maps below `folder`; every fifth photo is of dev, every sixth of test; `grey` photos tell nothing.

    A class map tells the town above and the district below, whatever the photo shows.
    """
    rng = np.random.default_rng(seed)
    crops: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    scenes = rng.dirichlet([0.3, 0.3, 0.3], photos).astype(np.float32)
    pixels = np.empty((photos, 3, 36, 36), np.uint8)
    for number in range(photos):
        town, district = number % len(TOWNS), int(rng.integers(2))
        lat_deg, lng_deg = TOWNS[town][0] + district * 0.6 + rng.normal(0, 0.02), TOWNS[town][1] + rng.normal(0, 0.02)
        image = town_photo(None if grey else town, district, int(scenes[number].argmax()), rng)
        pixels[number] = np.asarray(Image.open(io.BytesIO(image)).resize((36, 36))).transpose(2, 0, 1)
        split = "test" if number % 6 == 5 - (number // 6) % 6 else "dev" if number % 5 == 0 else "train"
        both = {
            "capture_id": f"p{number:04d}",
            "batch": "photos-0000",
            "sha256": hashlib.sha256(image).hexdigest(),
            "flags": [],
            "source": "made",
            "location_id": f"p{number:04d}",
            "lat_deg": lat_deg,
            "lng_deg": lng_deg,
            "licence": "CC0-1.0",
            "attribution": "nobody",
        }
        crops.append(both | {"image": image})
        rows.append(
            both | {"series": "photos", "district": "none", "view": "v", "split": split, "usable": True, "is_query": False}
        )
        maps.append(map_row(f"p{number:04d}", both["sha256"], town, district))
    append_rows(folder / "crops.lance", pa.Table.from_pylist(crops, schema=CROPS))
    append_rows(folder / "maps.lance", pa.Table.from_pylist(maps, schema=SEGMENTATION_MAPS))
    catalog = pa.Table.from_pylist(rows, schema=CATALOG)
    return Globe(folder / "crops.lance", folder / "maps.lance", catalog, labels_of(catalog, scenes), pixels)


def labels_of(catalog: pa.Table, scenes: np.ndarray) -> Labels:
    """Cells made of the split train."""
    frame: Any = catalog.to_pandas()
    train = frame["split"] == "train"
    cells = partition(frame["lat_deg"][train], frame["lng_deg"][train], RULES)
    leaves = s2.leaf_ids(frame["lat_deg"], frame["lng_deg"])
    columns: dict[str, Any] = {level.name: level.classes(leaves) for level in cells.levels}
    table = pa.table({"capture_id": frame["capture_id"], **columns})
    probabilities = {f"prob_{name}": scenes[:, n] for n, name in enumerate(("indoor", "natural", "urban"))}
    return Labels(
        cells,
        table.replace_schema_metadata({FINGERPRINT: cells.fingerprint.encode()}),
        pa.table({"capture_id": frame["capture_id"], **probabilities}),
    )


def map_row(capture_id: str, sha256: str, town: int, district: int) -> dict[str, Any]:
    classes = np.full((48, 48), town, np.uint8)
    classes[24:] = 7 + district
    both = {"capture_id": capture_id, "batch": "photos-0000", "crop_sha256": sha256, "source": "made"}
    return both | {"class_map": encode_map(classes), "width": 48, "height": 48}


def town_photo(town: int | None, district: int, scene: int, rng: np.random.Generator) -> bytes:
    values = np.full((48, 48, 3), 120.0)
    if town is not None:
        values[...] = np.array([(town & 1) * 160 + 40, (town >> 1 & 1) * 160 + 40, (town >> 2 & 1) * 160 + 40])
    if district and town is not None:
        values[24:] = 250 - values[24:]
    values[: 8 * (scene + 1), :8] = 255
    values += rng.normal(0, 10, values.shape)
    stream = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_scene_labels(path: Path, globe: Globe) -> None:
    """The scenes of its photos as the asset writes them."""
    assert globe.labels.scenes is not None
    rows = [{"batch": "photos-0000", "source": "list", **row} for row in globe.labels.scenes.to_pylist()]
    append_rows(path, pa.Table.from_pylist(rows, schema=SCENE_LABELS))


def multitask_recipe(**changes: object) -> MultitaskRecipe:
    """Two small branches that train in seconds."""
    values: dict[str, Any] = {
        "name": "tiny_scenes",
        "data": {"image_size": 32, "stored_size": 36},
        "backbone": {"name": "vit_basic", "patch": 8, "width": 32, "depth": 2, "heads": 2},
        "branches": {"shared_width": 16},
        "augmentation": {"min_scale": 0.9, "mirror": 0.5},
        "optimiser": {"name": "adamw", "learning_rate": 0.003, "warmup_epochs": 1},
        "budget": {"epochs": 12, "batch_size": 32},
    }
    return MultitaskRecipe.model_validate(values | changes)


def cells_recipe(**changes: object) -> CellsRecipe:
    """A recipe that trains in seconds."""
    values: dict[str, Any] = {
        "name": "tiny_cells",
        "kind": "cells",
        "data": {"image_size": 32, "stored_size": 36},
        "backbone": {"name": "resnet_basic", "channels": [8, 16, 16, 32], "blocks": [1, 1, 1, 1]},
        "heads": {"scene": {}},
        "augmentation": {"min_scale": 0.9},
        "optimiser": {"name": "adamw", "learning_rate": 0.01},
        "budget": {"epochs": 12, "batch_size": 32},
    }
    return CellsRecipe.model_validate(values | changes)
