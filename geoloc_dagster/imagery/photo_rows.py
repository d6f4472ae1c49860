"""The rows of lists of photos: CSV and Parquet, each row by what its columns hold, under whatever names they have."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.guards import refuse_claims
from geoloc_dagster.imagery.addresses import split_url

NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url", "photo_url", "download_url"),
    "id": ("id", "img_id", "image_id", "photo_id", "photoid"),
    "lat": ("lat", "lat_deg", "latitude"),
    "lng": ("lng", "lng_deg", "lon", "long", "longitude"),
    "date": ("date", "captured_on", "captured_at", "date_taken", "datetaken"),
    "author": ("author", "creator", "owner"),
    "licence": ("licence", "license", "license_url"),
    "attribution": ("attribution", "credit"),
    "heading": ("heading", "heading_deg", "compass_angle"),
    "scene_3": ("scene_3", "s3_label"),
    "scene_16": ("scene_16", "s16_label"),
    "scene_365": ("scene_365", "s365_label"),
    "prob_indoor": ("prob_indoor",),
    "prob_natural": ("prob_natural",),
    "prob_urban": ("prob_urban",),
}
_UNKNOWN = ("", "nan", "none", "null", "n/a")


class Rows:
    """The rows of one file with their lines: by what each column holds, or what is wrong with the row."""

    def __init__(self, path: Path, columns: Mapping[str, str], *, can_lack_url: bool, need_position: bool) -> None:
        self._path = path
        self._columns = columns
        self._can_lack_url = can_lack_url
        self._need_position = need_position

    def __iter__(self) -> Iterator[tuple[int, dict[str, str] | str]]:
        if not self._path.is_file():
            raise PhotoListError(f"{self._path} is missing")
        with self._path.open("rb") as stream:
            head = stream.read(4096)
        if head[:4] == b"PAR1":
            yield from self._parquet()
        elif b"\0" in head or not head.strip():
            raise PhotoListError(f"{self._path} is neither CSV nor Parquet" if head.strip() else f"{self._path} is empty")
        else:
            yield from self._csv(head.decode("utf-8-sig", "replace").splitlines()[0])

    def _csv(self, first: str) -> Iterator[tuple[int, dict[str, str] | str]]:
        delimiter = max(",;\t", key=first.count)
        with self._path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            try:
                names = next(reader)
            except csv.Error as error:
                raise PhotoListError(f"{self._path} has no line of names: {error}") from error
            places = self._places(names)
            if places is None:  # two columns without a header
                places = {"id": 0, "url": 1}
                yield 1, dict(zip(places, (cell.strip() for cell in names), strict=True))
                width = len(names)
            else:
                width = len(names)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, str(error)
                    continue
                if cells:
                    yield line, _named(cells, places, width)

    def _parquet(self) -> Iterator[tuple[int, dict[str, str] | str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self._path)
            refuse_claims(file, self._path)
            places = self._places(file.schema_arrow.names) or {}
            names = {what: file.schema_arrow.names[place] for what, place in places.items()}
            line = 0
            for batch in file.iter_batches(columns=list(names.values())):
                for row in batch.to_pylist():
                    line += 1
                    yield line, {what: _text(row[name]) for what, name in names.items()}
        except (OSError, pa.ArrowException) as error:
            raise PhotoListError(f"{self._path} cannot be read as Parquet: {error}") from error

    def _places(self, names: Sequence[str]) -> dict[str, int] | None:
        """Where each thing is; None for two columns of which the second holds a URL already."""
        lower = [name.strip().lower() for name in names]
        places: dict[str, int] = {}
        for what, usual in NAMES.items():
            wanted = [self._columns[what].lower()] if what in self._columns else usual
            found = next((name for name in wanted if name in lower), None)
            if found is not None:
                places[what] = lower.index(found)
            elif what in self._columns:
                raise PhotoListError(f"{self._path} has no column {self._columns[what]!r}; it has {_listed(names)}")
        if len(names) == 2 and not places and split_url(names[1].strip()) is not None:
            return None
        missing = [] if "url" in places or (self._can_lack_url and "id" in places) else ["url"]
        missing += [what for what in ("lat", "lng") if self._need_position and what not in places]
        if missing:
            raise PhotoListError(f"{self._path} is no list of photos: no column {' or '.join(missing)} among {_listed(names)}")
        return places


def _named(cells: list[str], places: Mapping[str, int], width: int) -> dict[str, str] | str:
    if len(cells) != width:
        return f"it has {len(cells)} columns, not {width}"
    row = {what: cells[place].strip() for what, place in places.items()}
    if any("\ufffd" in value for value in row.values()):
        return "it is not in UTF-8"
    return {what: "" if value.lower() in _UNKNOWN else value for what, value in row.items()}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value.isoformat() if isinstance(value, dt.date) else str(value).strip()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:30]) for name in list(names)[:12])
