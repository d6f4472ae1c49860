"""Eight towns that no single view tells apart: each looks one of two ways to the north, east and south, and all three differ.

The two looks are the same in every direction, so that what a view shows says nothing without the heading.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
from PIL import Image
from shapely.geometry import box

from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.geo.grid_cells import describe_cells
from geoloc_dagster.geo.partitioning import LevelRule, Partitioning, partition
from geoloc_dagster.geo.region_classes import region_classes
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe
from geoloc_dagster.tables import append_rows

TOWNS = ((59.3, 18.0), (48.8, 2.3), (-33.9, 18.4), (35.7, 139.7), (40.7, -74.0), (-1.3, 36.8), (55.7, 37.6), (-34.6, -58.4))
HEADINGS = (0.0, 90.0, 180.0)
RULES = (LevelRule("coarse", 3, 1000), LevelRule("fine", 3, 20))  # four cells, of one to three towns each, and eight


@dataclass(frozen=True)
class Crossroads:
    """Crops table, catalog, classes, and the town of each place."""

    crops: Path
    catalog: pa.Table
    s2_cells: Partitioning
    grid: Partitioning
    towns: dict[str, int]


def look(town: int, heading: float) -> int:
    """Which of two ways a town looks in a direction."""
    return town >> HEADINGS.index(heading) & 1


def view(town: int, heading: float, rng: np.random.Generator) -> bytes:
    """A picture of 40 px: light above and dark below, or the other way round, with noise."""
    values = np.full((40, 40, 3), 60.0)
    values[:20] = 190
    if look(town, heading):
        values = values[::-1]
    stream = io.BytesIO()
    Image.fromarray((values + rng.normal(0, 12, values.shape)).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_crossroads(folder: Path, places: int = 160, seed: int = 0, headings: tuple[float, ...] = HEADINGS) -> Crossroads:
    """Write a crops table below `folder`; every fifth place is of dev, every fourth of test, whatever its town."""
    rng = np.random.default_rng(seed)
    crops: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    towns: dict[str, int] = {}
    for number in range(places):
        town, place, turn = number % len(TOWNS), f"p{number:04d}", number // len(TOWNS)
        towns[place] = town
        lat_deg, lng_deg = TOWNS[town][0] + rng.normal(0, 0.02), TOWNS[town][1] + rng.normal(0, 0.02)
        split = "test" if turn % 4 == 3 else "dev" if turn % 5 == 4 else "train"
        for heading in headings:
            image = view(town, heading, rng)
            both = {
                "capture_id": f"{place}-{heading:03.0f}",
                "batch": "made-0000",
                "sha256": hashlib.sha256(image).hexdigest(),
                "flags": [],
                "source": "made",
                "location_id": place,
                "lat_deg": lat_deg,
                "lng_deg": lng_deg,
                "captured_on": dt.date(2020, 5, 1),
                "heading_deg": heading,
                "licence": "CC0-1.0",
                "attribution": "nobody",
            }
            crops.append(both | {"image": image})
            named = {"series": "made", "district": "none", "view": f"h{heading:03.0f}", "split": split, "year": 2020}
            rows.append(both | named | {"usable": True, "is_query": False})
    append_rows(folder / "crops.lance", pa.Table.from_pylist(crops, schema=CROPS))
    catalog = pa.Table.from_pylist(rows, schema=CATALOG)
    frame: Any = catalog.to_pandas()
    train = frame[frame["split"] == "train"].drop_duplicates("location_id")
    where = train["lat_deg"].to_numpy(), train["lng_deg"].to_numpy()
    cells = partition(*where, RULES, lvl_min=0)
    return Crossroads(folder / "crops.lance", catalog, cells, region_classes(squares(), *where), towns)


def squares() -> gpd.GeoDataFrame:
    """A square of two degrees around each town, and one where nobody lives."""
    around = [*TOWNS, (0.0, 0.0)]
    shapes = [box(lng - 1, lat - 1, lng + 1, lat + 1) for lat, lng in around]
    return describe_cells(gpd.GeoDataFrame({"cell_id": np.arange(len(around)) * 10}, geometry=shapes, crs="OGC:CRS84"))


def sequence_recipe(**changes: object) -> SequenceRecipe:
    """A recipe that trains in seconds."""
    values: dict[str, Any] = {
        "name": "tiny_sequence",
        "kind": "sequence",
        "data": {"image_size": 16, "stored_size": 20},
        "backbone": {"name": "resnet_basic", "channels": [8, 16, 16, 32], "blocks": [1, 1, 1, 1]},
        "encoder": {"kind": "attention", "width": 32, "attention_heads": 2, "dropout": 0.0},
        "heads": {"classes": "s2_cells"},
        "views": {"dropout": 0.1, "unknown": 0.15},
        "augmentation": {"min_scale": 0.9},
        "optimiser": {"learning_rate": 0.01},
        "budget": {"epochs": 24, "batch_size": 16},
    }
    return SequenceRecipe.model_validate(values | changes)
