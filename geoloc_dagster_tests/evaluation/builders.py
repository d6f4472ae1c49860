"""Small catalogs and crop tables with known answers."""

from __future__ import annotations

import hashlib
import io
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.tables import append_rows

METRES_PER_DEGREE = 111_195.08


def row(capture_id: str, location_id: str, captured_on: date | None, **changes: Any) -> dict[str, Any]:
    """A usable gallery row of the test split at the equator; `north_m` moves it."""
    north_m = changes.pop("north_m", 0.0)
    return {
        "capture_id": capture_id,
        "batch": "100m-0000",
        "series": "100m",
        "source": "made",
        "location_id": location_id,
        "lat_deg": north_m / METRES_PER_DEGREE,
        "lng_deg": 18.0,
        "district": "Centre",
        "view": "r0",
        "captured_on": captured_on,
        "year": None if captured_on is None else captured_on.year,
        "flags": [],
        "split": "test",
        "usable": True,
        "is_query": False,
        "near_train_m": 500.0,
        "licence": "CC0-1.0",
        "attribution": "Test City",
        **changes,
    }


def catalog(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, CATALOG)


def city(places: int, dates: int = 3, views: int = 2) -> list[dict[str, Any]]:
    """`places` places 200 m apart with `views` views on `dates` dates; the newest picture of each view asks."""
    return [
        row(
            f"p{p:03d}v{v}d{d}",
            f"{p:03d}",
            date(2015 + d, 6, 1),
            view=f"r{v}",
            north_m=200.0 * p,
            is_query=d == dates - 1,
        )
        for p in range(places)
        for v in range(views)
        for d in range(dates)
    ]


def picture(seed: int, size: int = 48) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_crops(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A crop for every row: pictures of one place look alike, those of different places do not."""
    crops = []
    for r in rows:
        image = picture(int(r["location_id"]))
        fields = {name: r[name] for name in CROPS.names if name in r}
        crops.append({**fields, "image": image, "sha256": hashlib.sha256(image).hexdigest()})
    append_rows(path, pa.Table.from_pylist(crops, CROPS))
    return path
