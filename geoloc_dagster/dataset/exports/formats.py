"""The formats: how one shard of pictures is written, and what the whole needs at the end.

A shard is written to a temporary name and renamed, so that it is there whole or not at all. Formats:
WebDataset (https://github.com/webdataset/webdataset), ImageFolder (torchvision), MessagePack shards as geo-localization code
reads them, GeoParquet (https://geoparquet.org), STAC 1.0 (https://stacspec.org), Croissant 1.0 (https://docs.mlcommons.org/croissant).
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from geoloc_dagster.storage import atomic_path, sha256_file, write_bytes, write_geoparquet, write_json

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known of an export once all its shards are written.

    Attributes:
        name: of the dataset.
        licence: of the whole.
        rows: pictures.
        facts: of every picture, without bytes, a table of `Pictures.facts`.
        redistributable: whether it may be passed on.
    """

    name: str
    licence: str
    rows: int
    facts: Any
    redistributable: bool

    def records(self) -> Iterable[Row]:
        """The facts of each picture, in order."""
        for batch in self.facts.drop_columns(["offset"]).to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield plain(row)


class Format(Protocol):
    """One way to write pictures."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """The files of a shard, in the order of `shard`; `rows` may lack the pictures."""
        ...

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """Write one shard and return its files; rows hold `image` (JPEG bytes) and the facts."""
        ...

    def finish(self, folder: Path, whole: Whole) -> None:
        """Write what describes the whole."""
        ...


def plain(row: Row) -> Row:
    """The facts of a row as JSON knows them."""
    facts = {name: value for name, value in row.items() if name not in ("image", "offset")}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in facts.items()}


class WebDataset:
    """`00000.tar` …: `<capture_id>.jpg` and `.json` side by side."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One tar file."""
        return [folder / f"{number:05d}.tar"]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One tar file, the same bytes for the same rows."""
        (path,) = self.files(folder, number, rows)
        with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                _add(tar, f"{row['capture_id']}.jpg", row["image"])
                _add(tar, f"{row['capture_id']}.json", json.dumps(plain(row), ensure_ascii=False).encode())
        return [path]

    def finish(self, folder: Path, whole: Whole) -> None:
        """Nothing more is needed."""


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


class ImageFolder:
    """`images/<location>/<capture_id>.jpg`: a place is a class."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One per picture."""
        return [folder / "images" / quote(row["location_id"], safe="") / f"{row['capture_id']}.jpg" for row in rows]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file per picture."""
        return [write_bytes(path, row["image"]) for path, row in zip(self.files(folder, number, rows), rows, strict=True)]

    def finish(self, folder: Path, whole: Whole) -> None:
        """The facts beside the pictures."""
        _write_csv(folder / "metadata.csv", whole)


class MessagePack:
    """`shard_0.msg` …: one map per picture with id, image, latitude and longitude, and the facts."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file."""
        return [folder / f"shard_{number}.msg"]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file of maps, one after the other."""
        import msgpack

        packer: Any = msgpack.Packer()
        (path,) = self.files(folder, number, rows)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            for row in rows:
                place = {"latitude": row["lat_deg"], "longitude": row["lng_deg"]}
                stream.write(packer.pack({"id": row["capture_id"], "image": row["image"], **place, **plain(row)}))
        return [path]

    def finish(self, folder: Path, whole: Whole) -> None:
        """Nothing more is needed."""


class Parquet:
    """`part-00000.parquet` …: GeoParquet with the encoded pictures."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file."""
        return [folder / f"part-{number:05d}.parquet"]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file with page checksums."""
        import geopandas as gpd
        import pandas as pd

        frame: Any = pd.DataFrame(list(rows))
        frame["image"] = [row["image"] for row in rows]
        points = gpd.points_from_xy(frame["lng_deg"], frame["lat_deg"], crs="EPSG:4326")
        (path,) = self.files(folder, number, rows)
        return [write_geoparquet(path, gpd.GeoDataFrame(frame, geometry=points))]

    def finish(self, folder: Path, whole: Whole) -> None:
        """Nothing more is needed."""


class Stac:
    """A static catalogue: `collection.json`, one item and one picture per capture."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """Picture and item of each row in turn."""
        kinds = (("images", "jpg"), ("items", "json"))
        return [folder / kind / f"{number:05d}" / f"{row['capture_id']}.{ending}" for row in rows for kind, ending in kinds]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """A folder of items and a folder of pictures per shard."""
        files = self.files(folder, number, rows)
        for picture, item, row in zip(files[::2], files[1::2], rows, strict=True):
            write_bytes(picture, row["image"])
            write_json(item, _item(row, number))
        return files

    def finish(self, folder: Path, whole: Whole) -> None:
        """The collection with a link to each item."""
        lats, lngs, days = (whole.facts[name].to_pylist() for name in ("lat_deg", "lng_deg", "captured_on"))
        known = sorted(f"{day.isoformat()}T00:00:00Z" for day in days if day is not None)
        items = sorted(path.relative_to(folder).as_posix() for path in (folder / "items").rglob("*.json"))
        links: list[dict[str, str]] = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
        links += [{"rel": "item", "href": f"./{item}", "type": "application/geo+json"} for item in items]
        write_json(
            folder / "collection.json",
            {
                "type": "Collection",
                "stac_version": "1.0.0",
                "id": whole.name,
                "description": f"{whole.rows:,} street views of {whole.name}.",
                "license": _stac_licence(whole.licence),
                "extent": {
                    "spatial": {"bbox": [[min(lngs), min(lats), max(lngs), max(lats)]]},
                    "temporal": {"interval": [[known[0], known[-1]] if known else [None, None]]},
                },
                "links": links,
            },
        )


def _item(row: Row, number: int) -> Row:
    day = row["captured_on"]
    facts = plain(row)
    properties: Row = {
        "datetime": None if day is None else f"{day.isoformat()}T00:00:00Z",
        "license": _stac_licence(row["licence"]),
        "view:azimuth": row["heading_deg"],
        **{f"geoloc:{name}": facts[name] for name in ("location_id", "attribution", "creator", "source_url", "pano_id")},
    }
    if day is None:  # a picture without a date must give an interval; this one says the least
        properties |= {"start_datetime": "2000-01-01T00:00:00Z", "end_datetime": "2100-01-01T00:00:00Z"}
    lng, lat = row["lng_deg"], row["lat_deg"]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/view/v1.0.0/schema.json"],
        "id": row["capture_id"],
        "geometry": {"type": "Point", "coordinates": [lng, lat]},
        "bbox": [lng, lat, lng, lat],
        "properties": {name: value for name, value in properties.items() if value is not None or name == "datetime"},
        "links": [{"rel": "root", "href": "../../collection.json"}, {"rel": "collection", "href": "../../collection.json"}],
        "assets": {
            "image": {
                "href": f"../../images/{number:05d}/{row['capture_id']}.jpg",
                "type": "image/jpeg",
                "roles": ["data"],
            }
        },
    }


def _stac_licence(licence: str) -> str:
    """STAC 1.0 knows SPDX ids, `proprietary` and `various`; what nobody asserts is proprietary to be safe."""
    return "proprietary" if licence == "NOASSERTION" else licence


class Croissant:
    """Pictures, `records.csv`, and `croissant.json` that describes both, with the fields of responsible use."""

    def files(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One per picture."""
        return [folder / "images" / f"{row['capture_id']}.jpg" for row in rows]

    def shard(self, folder: Path, number: int, rows: Sequence[Row]) -> list[Path]:
        """One file per picture."""
        return [write_bytes(path, row["image"]) for path, row in zip(self.files(folder, number, rows), rows, strict=True)]

    def finish(self, folder: Path, whole: Whole) -> None:
        """The records, then their description with the records' checksum."""
        from geoloc_dagster.dataset.exports.croissant import describe

        columns = _write_csv(folder / "records.csv", whole)
        write_json(folder / "croissant.json", describe(whole, columns, sha256_file(folder / "records.csv")))


def _write_csv(path: Path, whole: Whole) -> list[str]:
    """The facts as CSV; its columns."""
    columns: list[str] = []
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer: Any = None
        for row in whole.records():
            if writer is None:
                columns = list(row)
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
            writer.writerow(row)
    return columns


FORMATS: dict[str, Format] = {
    "webdataset": WebDataset(),
    "imagefolder": ImageFolder(),
    "msgpack": MessagePack(),
    "parquet": Parquet(),
    "stac": Stac(),
    "croissant": Croissant(),
}
