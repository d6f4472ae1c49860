"""A tiny city: places that can be told apart, with crops and a catalog as the learning code expects them."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.tables import append_rows

VIEWS = 2
DATES = 3


@dataclass(frozen=True)
class City:
    """Crops table and catalog of a tiny city."""

    crops: Path
    catalog: pa.Table
    capture_ids: list[str]


def picture(pattern: np.ndarray, rng: np.random.Generator, size: int = 48) -> bytes:
    """One date of a view: its pattern of blocks, brighter or darker, with noise; JPEG."""
    blocks = np.kron(pattern, np.ones((size // 6, size // 6, 1)))
    values = blocks * rng.uniform(0.8, 1.2) + rng.normal(0, 8, (size, size, 3))
    stream = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_city(folder: Path, locations: int = 8, *, dev_locations: int = 0, seed: int = 0) -> City:
    """Write a crops table below `folder`; the last `dev_locations` are of the dev split."""
    rng = np.random.default_rng(seed)
    crops, rows = [], []
    for location in range(locations):
        for view in range(VIEWS):
            pattern = rng.uniform(30, 220, (6, 6, 3))
            for date in range(DATES):
                image = picture(pattern, rng)
                crop, row = _rows(location, view, date, image, "dev" if location >= locations - dev_locations else "train")
                crops.append(crop)
                rows.append(row)
    path = folder / "crops.lance"
    append_rows(path, pa.Table.from_pylist(crops, schema=CROPS))
    catalog = pa.Table.from_pylist(rows, schema=CATALOG)
    return City(path, catalog, catalog.column("capture_id").to_pylist())


def _rows(location: int, view: int, date: int, image: bytes, split: str) -> tuple[dict, dict]:
    both = {
        "capture_id": f"c{location:03d}-{view}-{date}",
        "batch": "100m-0000",
        "sha256": hashlib.sha256(image).hexdigest(),
        "flags": [],
        "source": "made",
        "location_id": str(location),
        "lat_deg": 59.3 + location * 0.002,
        "lng_deg": 18.0,
        "captured_on": dt.date(2015 + date, 6, 1),
        "licence": "CC0-1.0",
        "attribution": "nobody",
    }
    row = both | {
        "series": "100m",
        "district": "old town",
        "view": f"r{view}",
        "split": split,
        "usable": True,
        "is_query": date == DATES - 1,
    }
    return both | {"image": image}, row


def tiny_recipe(**changes: object) -> Recipe:
    """A recipe that trains in about a second."""
    values = {
        "name": "tiny",
        "data": {"image_size": 32, "stored_size": 36},
        "backbone": {"name": "resnet_basic", "channels": [8, 8, 16, 16], "blocks": [1, 1, 1, 1]},
        "head": {"pooling": "grid", "channels": 8, "dimension": 16, "dropout": 0.1},
        "loss": {"multi_similarity": {}, "cosface": {}},
        "sampler": {"places": 4, "pictures_per_place": 3},
        "augmentation": {"erase": 0.2, "blur": 0.2, "grey": 0.1, "colour_cast": 0.1},
        "budget": {"epochs": 2},
    }
    return Recipe.model_validate(values | changes)
