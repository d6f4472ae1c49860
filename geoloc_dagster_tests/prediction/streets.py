"""A city of many places on disk, a third of them in each split, whose newest pictures ask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.tables import replace_batch
from geoloc_dagster_tests.retrieval.city import DATES, jpeg

PLACES = 120
BATCH = "100m-0000"
_SPLITS = ("train", "dev", "test")


def place_position(place: int) -> tuple[float, float]:
    """Places lie about 110 m apart, in rows of twelve."""
    return 59.31 + 0.001 * (place // 12), 18.05 + 0.002 * (place % 12)


def write_streets(layout: Layout, picture: Callable[[int, int], bytes] = jpeg) -> pa.Table:
    """Write crops and catalog; every third place is of dev, and of test. `picture` takes place and day."""
    rows: list[dict[str, Any]] = []
    for place in range(PLACES):
        lat_deg, lng_deg = place_position(place)
        for day, taken in enumerate(DATES):
            image = picture(place, day)
            rows.append(
                {
                    "capture_id": f"c{place:03d}-{day}",
                    "batch": BATCH,
                    "image": image,
                    "sha256": hashlib.sha256(image).hexdigest(),
                    "capture_sha256": "0" * 64,
                    "flags": [],
                    "source": "test",
                    "location_id": str(place),
                    "lat_deg": lat_deg,
                    "lng_deg": lng_deg,
                    "captured_on": taken,
                    "rotation": 0,
                    "licence": "CC-BY-4.0",
                    "attribution": "A. Photographer",
                    "series": "100m",
                    "district": "old town" if place < PLACES // 2 else "new town",
                    "view": "r0",
                    "year": taken.year,
                    "split": _SPLITS[place % 3],
                    "usable": True,
                    "is_query": taken == DATES[-1],
                }
            )
    replace_batch(layout.crops, pa.Table.from_pylist(rows, schema=CROPS), BATCH)
    catalog = pa.Table.from_pylist(rows, schema=CATALOG)
    storage.write_parquet(layout.catalog, catalog)
    return catalog
