"""A tiny city on disk: crops, a catalog that describes them, and an encoder that tells its places apart."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_dagster import storage
from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.tables import replace_batch

BATCHES = ("100m-0000", "100m-0001", "75m-0000")
PLACES_PER_BATCH = 4
DATES = (date(2015, 6, 1), date(2019, 6, 1), date(2022, 9, 1))


@dataclass
class FakeEncoder:
    """Colours of a coarse raster, shuffled by the model's name: places are told apart, models are not compatible."""

    model_version: str = "retrieval-aaaaaaaaaaaa"
    dimension: int = 48
    image_size: int = 32
    calls: list[int] = field(default_factory=list)

    def embed(self, pictures: np.ndarray, batch_size: int = 64) -> np.ndarray:
        self.calls.append(len(pictures))
        n, channels, side, _ = pictures.shape
        raster = pictures.reshape(n, channels, 4, side // 4, 4, side // 4).mean(axis=(3, 5)).reshape(n, -1) - 127.5
        seed = int.from_bytes(hashlib.sha256(self.model_version.encode()).digest()[:4])
        shuffled = raster[:, np.random.default_rng(seed).permutation(48)[: self.dimension]]
        return (shuffled / np.linalg.norm(shuffled, axis=1, keepdims=True)).astype(np.float32)


def jpeg(place: int, day: int = 0, size: int = 32) -> bytes:
    """The street view of a place on a day: its own colours, with that day's weather."""
    rng = np.random.default_rng(place)
    raster = rng.integers(0, 256, (4, 4, 3)).astype(float) + np.random.default_rng((place, day, 1)).normal(0, 6, (4, 4, 3))
    image = Image.fromarray(np.clip(raster, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def position(place: int) -> tuple[float, float]:
    """Places lie about 110 m apart in a row."""
    return 59.32 + 0.001 * place, 18.06


@dataclass(frozen=True)
class City:
    """Paths below one folder and the catalog of what lies there."""

    root: Path
    catalog: pa.Table

    @property
    def crops(self) -> Path:
        return self.root / "tables" / "crops.lance"

    @property
    def embeddings(self) -> Path:
        return self.root / "tables" / "embeddings.lance"

    @property
    def local_features(self) -> Path:
        return self.root / "tables" / "local_features.lance"

    @property
    def indexes(self) -> Path:
        return self.root / "index"


def build_city(root: Path) -> City:
    """Write the crops of three batches and the catalog. Place 0 has one undecodable crop, place 1 one that is not usable."""
    rows: list[dict[str, Any]] = []
    for number, batch in enumerate(BATCHES):
        of_batch = list(_crops_of(batch, range(number * PLACES_PER_BATCH, (number + 1) * PLACES_PER_BATCH)))
        replace_batch(root / "tables" / "crops.lance", pa.Table.from_pylist(of_batch, schema=CROPS), batch)
        rows += of_batch
    catalog = pa.Table.from_pylist([_catalog_row(row) for row in rows], schema=CATALOG)
    storage.write_parquet(root / "dataset" / "catalog.parquet", catalog)
    return City(root, catalog)


def _crops_of(batch: str, places: range) -> Iterator[dict[str, Any]]:
    for place in places:
        lat, lng = position(place)
        for day, taken in enumerate(DATES):
            image = None if (place, day) == (0, 0) else jpeg(place, day)
            yield {
                "capture_id": f"c{place:02d}-{day}",
                "batch": batch,
                "image": image,
                "sha256": None if image is None else hashlib.sha256(image).hexdigest(),
                "capture_sha256": "0" * 64,
                "flags": ["undecodable"] if image is None else [],
                "source": "test",
                "location_id": str(place),
                "lat_deg": lat,
                "lng_deg": lng,
                "captured_on": taken,
                "rotation": 0,
                "licence": "CC-BY-4.0",
                "attribution": "A. Photographer",
            }


def _catalog_row(crop: dict[str, Any]) -> dict[str, Any]:
    usable = crop["sha256"] is not None and crop["capture_id"] != "c01-0"
    own = {"series": crop["batch"].split("-")[0], "district": "old town", "view": "r0", "year": crop["captured_on"].year}
    return {**crop, **own, "split": "train", "usable": usable, "is_query": False}


def flip_byte(path: Path, rng: np.random.Generator) -> str:
    """Change one byte of a file to another value; say what was done."""
    content = bytearray(path.read_bytes())
    position = int(rng.integers(len(content)))
    content[position] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    return f"byte {position} of {path}"
