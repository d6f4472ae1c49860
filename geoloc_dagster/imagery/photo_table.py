"""Reading lists of photos: CSV and Parquet in the forms in which collections are published, every bad row named.

Known forms: a `url` column with whatever else; MP-16, YFCC25600 and Im2GPS as re-published with scene labels (IMG_ID, AUTHOR,
LAT, LON, S3_Label, …, no URL: a second list of `id,url` is joined, or the URL is made from the id); two columns without a header.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.imagery.addresses import split_url
from geoloc_dagster.imagery.licences import spdx_of
from geoloc_dagster.imagery.provider import Precision

MAX_URL = 2_000
_MOST_PROBLEMS = 10_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIX = re.compile(r"\.(jpe?g|png|webp|gif|tiff?)$", re.IGNORECASE)
_FLICKR = re.compile(r"(?P<photo>\d+)_(?P<secret>[0-9a-f]+)_(?P<server>\d+)_(?P<owner>\d+@N\d\d)")
_NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url", "photo_url", "download_url"),
    "id": ("id", "img_id", "image_id", "photo_id", "photoid"),
    "lat": ("lat", "lat_deg", "latitude"),
    "lng": ("lng", "lng_deg", "lon", "long", "longitude"),
    "date": ("date", "captured_on", "captured_at", "date_taken", "datetaken"),
    "author": ("author", "creator", "owner"),
    "licence": ("licence", "license", "license_url"),
    "attribution": ("attribution", "credit"),
    "heading": ("heading", "heading_deg", "compass_angle"),
}
_UNKNOWN = ("", "nan", "none", "null", "n/a")


@dataclass(frozen=True, slots=True)
class Photo:
    """One row of a list; `photo_id` is safe in file names and queries."""

    photo_id: str
    url: str
    lat_deg: float | None = None
    lng_deg: float | None = None
    captured_on: dt.date | None = None
    precision: Precision = "unknown"
    creator: str | None = None
    licence: str | None = None
    attribution: str | None = None
    heading_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass
class PhotoTable:
    """What the lists hold: the photos in their order, and the rows that are none.

    Attributes:
        problems: the first ten thousand.
        bad_rows: all of them.
    """

    photos: list[Photo] = field(default_factory=list[Photo])
    problems: list[Problem] = field(default_factory=list[Problem])
    bad_rows: int = 0

    def refuse(self, file: str, line: int, reason: str) -> None:
        """Leave a row out."""
        self.bad_rows += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(file, line, reason))


class _BadRowError(Exception):
    """The row cannot be used; the message says why."""


def read_photo_lists(
    files: Sequence[Path],
    *,
    urls: Sequence[Path] = (),
    columns: Mapping[str, str] | None = None,
    url_template: str | None = None,
    need_position: bool = True,
) -> PhotoTable:
    """Read lists, in their order; a photo that occurs twice is a bad row.

    Args:
        files: CSV (comma, semicolon or tab; UTF-8) or Parquet.
        urls: further lists of ids and URLs, for lists without.
        columns: names of columns, by what they hold: url, id, lat, lng, date, author, licence, attribution, heading; the usual
            names are found without.
        url_template: makes the URL of a row without one from its id: `{id}` as published, and of ids in the form of Im2GPS
            `{photo}`, `{secret}` and `{server}`.
        need_position: whether a row without a position is a bad one.

    Raises:
        PhotoListError: a file is missing, or no such list.
    """
    known = _read_urls(urls, columns or {})
    table, seen = PhotoTable(), dict[str, tuple[str, int]]()
    for path in files:
        rows = _Rows(path, columns or {}, can_lack_url=bool(known) or url_template is not None, need_position=need_position)
        for line, row in rows:
            try:
                if isinstance(row, str):
                    raise _BadRowError(row)
                photo = _photo(row, known, url_template, need_position)
                if photo.photo_id in seen:
                    other, first = seen[photo.photo_id]
                    raise _BadRowError(f"the id {photo.photo_id} is that of line {first} of {other}")
            except _BadRowError as error:
                table.refuse(path.name, line, str(error))
                continue
            seen[photo.photo_id] = (path.name, line)
            table.photos.append(photo)
    return table


def safe_id(published: str) -> str | None:
    """`22/6a/12345.jpg` as `22_6a_12345`, `…_78841376@N00.jpg` as `…_78841376-N00`; None for what is still no safe name."""
    text = _SUFFIX.sub("", published.strip()).replace("/", "_").replace("@", "-")
    return text if _ID.fullmatch(text) else None


def id_of_url(url: str) -> str:
    """The id of a photo of which only the URL is known."""
    return "u" + hashlib.blake2b(url.encode(), digest_size=12).hexdigest()


def _photo(row: Mapping[str, str], known: Mapping[str, str], template: str | None, need_position: bool) -> Photo:
    published = row.get("id", "")
    photo_id = safe_id(published) if published else None
    if published and photo_id is None:
        raise _BadRowError(f"the id {published[:80]!r} is not of letters, digits, _ and -, or longer than 64")
    url = row.get("url") or known.get(photo_id or "") or _made_url(published, template)
    if not url:
        raise _BadRowError("it has no URL")
    if len(url) > MAX_URL or split_url(url) is None or any(character <= " " for character in url):
        raise _BadRowError(f"{url[:80]!r} is no http(s) URL")
    lat_deg, lng_deg = _position(row, need_position)
    captured_on, precision = _date(row.get("date", ""))
    return Photo(
        photo_id or id_of_url(url),
        url,
        lat_deg,
        lng_deg,
        captured_on,
        precision,
        row.get("author") or None,
        spdx_of(row["licence"]) if row.get("licence") else None,
        row.get("attribution") or None,
        _heading(row.get("heading", "")),
    )


def _made_url(published: str, template: str | None) -> str | None:
    if template is None or not published:
        return None
    parts = _FLICKR.search(published)
    try:
        return template.format(id=published, **({} if parts is None else parts.groupdict()))
    except (KeyError, IndexError, ValueError):
        return None


def _position(row: Mapping[str, str], needed: bool) -> tuple[float | None, float | None]:
    texts = (row.get("lat", ""), row.get("lng", ""))
    if not any(texts) and not needed:
        return None, None
    try:
        lat_deg, lng_deg = (float(text) for text in texts)
    except ValueError:
        raise _BadRowError(f"its position {texts!r} is not two numbers") from None
    if not (math.isfinite(lat_deg) and math.isfinite(lng_deg) and abs(lat_deg) <= 90 and abs(lng_deg) <= 180):
        raise _BadRowError(f"its position ({lat_deg:g}, {lng_deg:g}) is not on Earth")
    return lat_deg, lng_deg


def _date(text: str) -> tuple[dt.date | None, Precision]:
    """A day, a month (its first day), or nothing where it is neither: a list knows the places better than the dates."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}", text):
            return dt.date.fromisoformat(f"{text}-01"), "month"
        return dt.date.fromisoformat(text[:10]), "day"
    except ValueError:
        return None, "unknown"


def _heading(text: str) -> float | None:
    try:
        heading_deg = float(text)
    except ValueError:
        return None
    return heading_deg % 360 if math.isfinite(heading_deg) else None


def _read_urls(files: Sequence[Path], columns: Mapping[str, str]) -> dict[str, str]:
    """URLs by safe id."""
    known: dict[str, str] = {}
    for path in files:
        for _, row in _Rows(path, columns, can_lack_url=False, need_position=False):
            if not isinstance(row, str) and (photo_id := safe_id(row.get("id", ""))) is not None:
                known[photo_id] = row.get("url", "")
    return known


class _Rows:
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
            names = next(reader)
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
        for what, usual in _NAMES.items():
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
