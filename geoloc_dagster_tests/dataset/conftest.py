"""Crops tables for the tests of this folder: small ones of drawn pictures, and the real Stockholm crops."""

from __future__ import annotations

import calendar
import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset.catalog import build_catalog
from geoloc_dagster.dataset.schema import CROPS
from geoloc_dagster.imagery.quality import GreyStatistics, phash64
from geoloc_dagster.tables import append_rows

TRAIN_SOURCES = ["Cropped_Training_*"]
TEST_SOURCES = ["Cropped_Validation_*"]
MONTHS = list(calendar.month_name)
_NAME = re.compile(r"(?P<location>\d+)_(?P<rotation>[0-3])_\d+_(?P<month>[A-Z][a-z]+) (?P<year>\d{4})_.+\.jpg")


def make_settings(**sections: Any) -> Settings:
    """Settings of a region around the old town of Stockholm, with some sections replaced."""
    region = {"name": "stockholm", "boundary": "region.geojson", "start_point": (59.32494, 18.06936), "metric_crs": "EPSG:3006"}
    return Settings.model_validate({"region": region, **sections})


def scene(seed: int, side: int = 64) -> np.ndarray:
    """A drawn RGB picture with large shapes, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(rgb: np.ndarray, quality: int = 92, scale: float = 1.0) -> bytes:
    image = Image.fromarray(rgb)
    size = round(image.width * scale)
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def crop_row(capture_id: str, picture: bytes | None, location_id: str, **values: Any) -> dict[str, Any]:
    """One row of the crops table; hash and flags are found in the picture."""
    row: dict[str, Any] = {
        "capture_id": capture_id,
        "batch": "100m-0000",
        "image": picture,
        "capture_sha256": None,
        "source": "drawn",
        "pano_id": None,
        "location_id": location_id,
        "lat_deg": 59.3,
        "lng_deg": 18.05,
        "captured_on": date(2022, 9, 1),
        "heading_deg": None,
        "rotation": 0,
        "licence": "CC0-1.0",
        "attribution": "drawn",
    }
    found: dict[str, Any] = {"sha256": None, "phash": None, "brightness": None, "contrast": None, "flags": ["undecodable"]}
    return row | (found if picture is None else _look(picture)) | values


def _look(picture: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(picture)) as image:
        image.draft("L", image.size)
        grey = np.asarray(image.convert("L"))
    statistics = GreyStatistics.of(grey)
    return {
        "sha256": hashlib.sha256(picture).hexdigest(),
        "phash": phash64(grey),
        "brightness": statistics.mean,
        "contrast": statistics.deviation,
        "flags": statistics.flags(),
    }


def write_crops(path: Path, rows: list[dict[str, Any]]) -> Path:
    append_rows(path, pa.Table.from_pylist(rows, schema=CROPS))
    return path


def registered(rows: list[dict[str, Any]], series: str = "100m") -> pd.DataFrame:
    """The locations of these rows, as registered."""
    ids = sorted({row["location_id"] for row in rows})
    return pd.DataFrame({"location_id": ids, "series": series})


@pytest.fixture
def catalog_of(tmp_path: Path) -> Callable[..., pa.Table]:
    """Build the catalog of some rows: `catalog_of(rows, splits={...}, catalog={...})`."""

    def build(rows: list[dict[str, Any]], **sections: Any) -> pa.Table:
        crops = write_crops(tmp_path / "crops.lance", rows)
        return build_catalog(crops, registered(rows), make_settings(**sections))

    return build


@dataclass(frozen=True)
class Stockholm:
    """The real crops as a table, their locations, and the catalog built from them."""

    crops: Path
    locations: pd.DataFrame
    settings: Settings
    catalog: pa.Table

    @property
    def frame(self) -> pd.DataFrame:
        return self.catalog.to_pandas()

    def flagged(self, flag: str) -> pd.DataFrame:
        frame = self.frame
        return frame[[flag in row for row in frame["flags"]]]


@pytest.fixture(scope="session")
def stockholm(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Stockholm:
    """The 14,142 published crops, split as published: training v1 and v2 against validation v1."""
    folder = shared_data / "stockholm"
    locations = read_locations(folder / "buffer_csvs")
    places = locations.set_index("location_id").to_dict("index")
    crops = tmp_path_factory.mktemp("stockholm") / "crops.lance"
    with ThreadPoolExecutor(2) as pool:
        members = _members(folder / "images")
        while chunk := list(islice(members, 2048)):
            write_crops(crops, list(pool.map(lambda member: _published_row(*member, places), chunk)))
    splits = {"by": "source", "train": TRAIN_SOURCES, "test": TEST_SOURCES, "dev_share": 0}
    settings = make_settings(splits=splits)
    return Stockholm(crops, locations, settings, build_catalog(crops, locations, settings))


def read_locations(folder: Path) -> pd.DataFrame:
    frames = []
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path, usecols=["new_order_idx", "Latitude", "Longitude"])
        frame.columns = ["location_id", "lat_deg", "lng_deg"]
        frames.append(frame.assign(series=f"{path.stem.rsplit('_', 1)[1]}m"))
    locations = pd.concat(frames, ignore_index=True)
    return locations.assign(location_id=locations["location_id"].astype(str))


def _members(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield path.stem, Path(member.name).name, stream.read()


def _published_row(source: str, name: str, picture: bytes, places: dict[Any, Any]) -> dict[str, Any]:
    match = _NAME.fullmatch(name)
    assert match is not None, name
    place = places[match["location"]]
    return crop_row(
        f"{source}/{name}",
        picture,
        match["location"],
        source=source,
        batch=f"{place['series']}-0000",
        lat_deg=float(place["lat_deg"]),
        lng_deg=float(place["lng_deg"]),
        captured_on=date(int(match["year"]), MONTHS.index(match["month"]), 1),
        rotation=int(match["rotation"]),
    )
