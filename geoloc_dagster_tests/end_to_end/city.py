"""A small made-up city in the Stockholm naming: a polygon, a buffer CSV, a tar of street views over the years, a config."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from geoloc_dagster.geo.buffer_csv import write_buffer_csv

START = (60.1000, 19.9400)
MONTHS = ("September 2022", "July 2019", "May 2014")
ROTATIONS = 4
SIDE = 64


def write_city(folder: Path, name: str = "aland", places: int = 24, seed: int = 0) -> Path:
    """Write the region's folder; returns the path of its `geoloc.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    lat, lng = _positions(places)
    _write_boundary(folder / "region.geojson")
    _write_buffer(folder / "new_order_buffer_100.csv", lat, lng)
    _write_pictures(folder / "views.tar", places, seed)
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / "small.yaml").write_text(yaml.safe_dump(recipe()))
    (folder / "geoloc.yaml").write_text(yaml.safe_dump(config(name)))
    (folder / "definitions.py").write_text(
        "from pathlib import Path\n\nfrom geoloc_dagster.defs import build_definitions\n\n"
        'defs = build_definitions(config=Path(__file__).with_name("geoloc.yaml"))\n'
    )
    return folder / "geoloc.yaml"


def recipe() -> dict[str, object]:
    return {
        "version": 1,
        "name": "small",
        "data": {"image_size": 32, "stored_size": 36},
        "backbone": {"library": "torchvision", "name": "resnet18", "weights": "none"},
        "head": {"dimension": 32},
        "loss": {"multi_similarity": {}},
        "sampler": {"places": 8, "pictures_per_place": 2},
        "budget": {"epochs": 1},
    }


def config(name: str) -> dict[str, object]:
    return {
        "version": 1,
        "data_root": "data",
        "region": {"name": name, "boundary": "region.geojson", "start_point": list(START)},
        "grid": {"spacing_m": 100},
        "coverage": {"files": ["new_order_buffer_100.csv"]},
        "buffers": {"spacings_m": [100], "batch_size": 10, "files": ["new_order_buffer_100.csv"]},
        "capture": {"sources": ["views.tar"], "licence": "CC-BY-4.0", "attribution": "© Nobody"},
        "crops": {"size": SIDE},
        "splits": {"by": "blocks", "block_m": 250, "guard_m": 0, "test_share": 0.3, "dev_share": 0.0},
        "automation": {"retrain_after_rows": 50},
        "recipes": ["small"],
    }


def photo(folder: Path) -> Path:
    """One street view of the collection, as a file of its own."""
    with tarfile.open(folder / "views.tar") as archive:
        member = next(entry for entry in archive if entry.isfile())
        content = archive.extractfile(member).read()
    path = folder / "photo.jpg"
    path.write_bytes(content)
    return path


def _positions(places: int) -> tuple[np.ndarray, np.ndarray]:
    side = int(np.ceil(np.sqrt(places)))
    rows, columns = np.divmod(np.arange(places), side)
    return START[0] + rows * 150 / 111_320, START[1] + columns * 150 / (111_320 * np.cos(np.radians(START[0])))


def _write_boundary(path: Path) -> None:
    south, west = START[0] - 0.005, START[1] - 0.01
    north, east = START[0] + 0.02, START[1] + 0.03
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def _write_buffer(path: Path, lat: np.ndarray, lng: np.ndarray) -> None:
    count = len(lat)
    frame = pd.DataFrame(
        {
            "location_id": [str(i) for i in range(count)],
            "series": "100m",
            "rank": np.arange(count),
            "lookup_id": [str(1000 + i) for i in range(count)],
            "lat_deg": lat,
            "lng_deg": lng,
            "pano_id": [f"pano{i:018d}" for i in range(count)],
            "captured_on": [pd.Timestamp(2022, 9, 1).date()] * count,
            "requested_lat_deg": lat,
            "requested_lng_deg": lng,
            "copyright": "© Nobody",
            "dist_to_start_m": np.arange(count, dtype=float),
        }
    )
    write_buffer_csv(path, frame, metric_crs="EPSG:32634")


def _write_pictures(path: Path, places: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as archive:
        for place in range(places):
            for rotation in range(ROTATIONS):
                scene = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for n, month in enumerate(MONTHS):
                    noise = rng.normal(0, 12, (SIDE, SIDE, 3)) + rng.normal(0, 20)
                    view = np.clip(np.asarray(scene, float) + noise, 0, 255).astype(np.uint8)
                    stream = io.BytesIO()
                    Image.fromarray(view).save(stream, "JPEG", quality=90)
                    entry = tarfile.TarInfo(f"views/{place:03d}/{place}_{rotation}_{n}_{month}_2023-12-31 11:38:{n:02d}.jpg")
                    entry.size = stream.tell()
                    stream.seek(0)
                    archive.addfile(entry, stream)
