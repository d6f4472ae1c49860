"""Reading lists of photos: CSV and Parquet in the forms in which collections are published, every bad row named.

Known forms: a `url` column with whatever else; MP-16, YFCC25600 and Im2GPS as re-published with scene labels (IMG_ID, AUTHOR,
LAT, LON, S3_Label, …, no URL: a second list of `id,url` is joined, or the URL is made from the id); two columns without a header.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoloc_dagster.imagery.addresses import split_url
from geoloc_dagster.imagery.licences import spdx_of
from geoloc_dagster.imagery.photo_ids import id_of_name, id_of_url, safe_id
from geoloc_dagster.imagery.photo_rows import Rows
from geoloc_dagster.imagery.photo_scenes import BadSceneError, scene_of
from geoloc_dagster.imagery.provider import Precision

MAX_URL = 2_000
_MOST_PROBLEMS = 10_000
_FLICKR = re.compile(r"(?P<photo>\d+)_(?P<secret>[0-9a-f]+)_(?P<server>\d+)_(?P<owner>\d+@N\d\d)")


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
    scene_3: int | None = None
    scene_16: int | None = None
    scene_365: int | None = None
    prob_indoor: float | None = None
    prob_natural: float | None = None
    prob_urban: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that cannot be used, or only without its scene, and why; `line` is 0 where it is a file of its own."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@dataclass
class PhotoTable:
    """What the lists hold: the photos in their order, and the rows that are none.

    Attributes:
        problems: the first ten thousand.
        bad_rows: rows that are no photos.
        bad_scenes: photos of which the list says a scene that cannot be; they are without one.
    """

    photos: list[Photo] = field(default_factory=list[Photo])
    problems: list[Problem] = field(default_factory=list[Problem])
    bad_rows: int = 0
    bad_scenes: int = 0

    def refuse(self, file: str, line: int, reason: str) -> None:
        """Leave a row out."""
        self.bad_rows += 1
        self._say(file, line, reason)

    def doubt(self, file: str, line: int, reason: str) -> None:
        """Leave the scene of a photo out."""
        self.bad_scenes += 1
        self._say(file, line, reason)

    def _say(self, file: str, line: int, reason: str) -> None:
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
    local_url: Callable[[str], str | None] | None = None,
) -> PhotoTable:
    """Read lists, in their order; a photo that occurs twice is a bad row.

    Args:
        files: CSV (comma, semicolon or tab; UTF-8) or Parquet.
        urls: further lists of ids and URLs, for lists without.
        columns: names of columns, by what they hold: url, id, lat, lng, date, author, licence, attribution, heading, and the
            six of the scene (see `photo_scenes`); the usual names are found without.
        url_template: makes the URL of a row without one from its id: `{id}` as published, and of ids in the form of Im2GPS
            `{photo}`, `{secret}` and `{server}`.
        need_position: whether a row without a position is a bad one.
        local_url: says where the photo of an id lies on this machine, in place of a URL; None where it does not.

    Raises:
        PhotoListError: a file is missing, or no such list.
    """
    known = _read_urls(urls, columns or {})
    table, seen = PhotoTable(), dict[str, tuple[str, int]]()
    for path in files:
        rows = Rows(
            path,
            columns or {},
            can_lack_url=bool(known) or url_template is not None or local_url is not None,
            need_position=need_position,
        )
        for line, row in rows:
            try:
                if isinstance(row, str):
                    raise _BadRowError(row)
                scene, doubt = _scene(row)
                local = local_url(row.get("id", "")) if local_url is not None and not row.get("url") else None
                photo = _photo(row, known, url_template, need_position, scene, local)
                if photo.photo_id in seen:
                    other, first = seen[photo.photo_id]
                    raise _BadRowError(f"the id {photo.photo_id} is that of line {first} of {other}")
            except _BadRowError as error:
                table.refuse(path.name, line, str(error))
                continue
            if doubt:
                table.doubt(path.name, line, doubt)
            seen[photo.photo_id] = (path.name, line)
            table.photos.append(photo)
    return table


def _scene(row: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """What the row says of the scene; nothing, and why, where that cannot be."""
    try:
        return scene_of(row), None
    except BadSceneError as error:
        return {}, str(error)


def _photo(
    row: Mapping[str, str],
    known: Mapping[str, str],
    template: str | None,
    need_position: bool,
    scene: Mapping[str, Any],
    local: str | None,
) -> Photo:
    published = row.get("id", "")
    photo_id = safe_id(published) if published else None
    if photo_id is None and local is not None:
        photo_id = id_of_name(published)
    if published and photo_id is None:
        raise _BadRowError(f"the id {published[:80]!r} is not of letters, digits, _ and -, or longer than 64")
    url = local or row.get("url") or known.get(photo_id or "") or _made_url(published, template)
    if not url:
        raise _BadRowError("it has no URL")
    if local is None:
        _check_url(url)
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
        **scene,
    )


def _check_url(url: str) -> None:
    if len(url) > MAX_URL or split_url(url) is None or any(character <= " " for character in url):
        raise _BadRowError(f"{url[:80]!r} is no http(s) URL")


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
        for _, row in Rows(path, columns, can_lack_url=False, need_position=False):
            if not isinstance(row, str) and (photo_id := safe_id(row.get("id", ""))) is not None:
                known[photo_id] = row.get("url", "")
    return known
