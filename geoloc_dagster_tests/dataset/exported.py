"""A captures table to export from, and each format's own reader: capture_id -> (picture, latitude)."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.tables import append_rows
from geoloc_dagster_tests.imagery.pictures import jpeg, street

Read = dict[str, tuple[bytes, float]]
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
GPS, ORIENTATION = 0x8825, 0x0112


def with_exif(seed: int, orientation: int = 1, size: tuple[int, int] = (48, 32)) -> bytes:
    """A JPEG that says where it was taken, and how it lies."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(GPS)[1] = "N"
    buffer = io.BytesIO()
    street(seed, *size).save(buffer, "JPEG", exif=exif, comment=b"taken by somebody")
    return buffer.getvalue()


def fill(
    layout: Layout,
    count: int,
    *,
    licences: Sequence[str] = ("CC-BY-SA-4.0",),
    per_batch: int = 20,
    side: int = 32,
    wrong_checksum_of: int | None = None,
) -> None:
    """Captures of `count` views, four of each place; every third picture carries EXIF."""
    rows = [_row(number, licences[number % len(licences)], per_batch, side) for number in range(count)]
    if wrong_checksum_of is not None:
        rows[wrong_checksum_of]["sha256"] = "0" * 64
    append_rows(layout.panoramas, pa.Table.from_pylist(rows, schema=CAPTURES))


def _row(number: int, licence: str, per_batch: int, side: int) -> dict[str, Any]:
    image = with_exif(number) if number % 3 == 0 else jpeg(number, side)
    return {
        "capture_id": hashlib.sha256(str(number).encode()).hexdigest()[:32],
        "batch": f"{'100m' if number % 2 else '75m'}-{number // per_batch:04d}",
        "image": image,
        "sha256": hashlib.sha256(image).hexdigest(),
        "provider": "panoramax",
        "source": "panoramax",
        "location_id": f"59.3,18.{number // 4:04d}/ä",
        "lat_deg": 59.3 + number * 1e-4,
        "lng_deg": 18.0,
        "captured_on": None if number % 7 == 0 else dt.date(2020 + number % 5, 6, 1),
        "capture_precision": "day",
        "heading_deg": float(number % 4 * 90),
        "pitch_deg": 0.0,
        "fov_deg": 90.0,
        "fetched_at": NOW,
        "run_id": "one",
        "source_url": f"https://panoramax.example/{number}",
        "licence": licence,
        "attribution": "Photos by @ann\tand others",
        "creator": "ann",
        "status": "ok",
    }


def read_webdataset(folder: Path) -> Read:
    import webdataset

    found: Read = {}
    for sample in webdataset.WebDataset([str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=False):
        found[sample["__key__"]] = (sample["jpg"], json.loads(sample["json"])["lat_deg"])
    return found


def read_imagefolder(folder: Path) -> Read:
    import csv

    from torchvision.datasets import ImageFolder

    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        latitudes = {row["capture_id"]: float(row["lat_deg"]) for row in csv.DictReader(stream)}
    dataset = ImageFolder(str(folder / "images"))
    assert dataset[0][0].size
    return {Path(path).stem: (Path(path).read_bytes(), latitudes[Path(path).stem]) for path, _ in dataset.samples}


def read_msgpack(folder: Path) -> Read:
    import msgpack

    found: Read = {}
    for path in sorted(folder.glob("*.msg")):
        with path.open("rb") as stream:
            for entry in msgpack.Unpacker(stream):
                found[entry["id"]] = (entry["image"], entry["latitude"])
    return found


def read_parquet(folder: Path) -> Read:
    import geopandas as gpd

    found: Read = {}
    for path in sorted(folder.glob("*.parquet")):
        frame = gpd.read_parquet(path)
        for row in frame.itertuples():
            found[row.capture_id] = (row.image, row.geometry.y)
    return found


def read_stac(folder: Path) -> Read:
    import pystac

    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    return {
        item.id: (Path(item.get_assets()["image"].get_absolute_href()).read_bytes(), item.geometry["coordinates"][1])
        for item in collection.get_items()
    }


def read_croissant(folder: Path) -> Read:
    import mlcroissant

    records = mlcroissant.Dataset(jsonld=str(folder / "croissant.json")).records("captures")
    found: Read = {}
    for record in records:
        key = record["captures/capture_id"].decode()
        found[key] = ((folder / "images" / f"{key}.jpg").read_bytes(), float(record["captures/lat_deg"]))
    return found


READERS: dict[str, Callable[[Path], Read]] = {
    "webdataset": read_webdataset,
    "imagefolder": read_imagefolder,
    "msgpack": read_msgpack,
    "parquet": read_parquet,
    "stac": read_stac,
    "croissant": read_croissant,
}
