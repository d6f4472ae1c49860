"""Predictions and true positions from the CSVs in which both are published.

Predictions: `img_id,p_key,pred_class,pred_lat,pred_lng,confidence`. Positions: the columns of MP-16, YFCC and Im2GPS with scene
labels, `IMG_ID,AUTHOR,LAT,LON,S3_Label,…`, in any case. Whatever cannot be used is named by its line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.evaluation.geolocation import F64, Positions
from geoloc_dagster.storage import refuse_pickles

UNKNOWN = "unknown"
_SUFFIX = re.compile(r"\.(jpe?g|png|webp|gif|tiff?|bmp)$", re.IGNORECASE)
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("img_id", "image_id", "photo_id", "id"),
    "lat": ("lat", "latitude", "lat_deg"),
    "lng": ("lon", "lng", "long", "longitude", "lng_deg"),
    "author": ("author", "creator", "owner"),
    "scene": ("s3_label",),
}
_ABSENT = ("", "nan", "none", "null")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True, eq=False)
class PhotoTable:
    """Photos with known positions, N of them.

    Attributes:
        ids: as written.
        authors: (N,); a photo without one is a group of its own.
        scenes: (N,) of `SCENES`, or `UNKNOWN`.
        bad: rows that were left out.
        n_without_author: photos whose author is not known.
    """

    ids: list[str]
    positions: Positions
    authors: npt.NDArray[np.str_]
    scenes: npt.NDArray[np.str_]
    bad: tuple[BadRow, ...]
    n_without_author: int


@dataclass(frozen=True, slots=True, eq=False)
class PredictionTable:
    """Rows of predictions, M of them, over all levels; `lat_deg` and `lng_deg` are NaN where a row gives no answer."""

    ids: list[str]
    p_keys: list[str]
    positions: Positions
    confidences: F64
    bad: tuple[BadRow, ...]


def read_photos(path: Path) -> PhotoTable:
    """Read a table of photos with positions; names without folders or suffix are unique in it.

    Raises:
        PhotoListError: it is no CSV, or lacks the columns of id, latitude or longitude.
        UnsafeFileError: it is a pickle.
    """
    columns, rows = _rows(path)
    at = {name: next((columns[alias] for alias in aliases if alias in columns), -1) for name, aliases in _NAMES.items()}
    for name in ("id", "lat", "lng"):
        if at[name] < 0:
            raise PhotoListError(f"{path} has no column {_NAMES[name][0]}", "It needs IMG_ID, LAT and LON.")
    kept: list[tuple[str, float, float, str, str]] = []
    bad: list[BadRow] = []
    seen: set[str] = set()
    for line, row in rows:
        id_, lat_text, lng_text, author, scene = (_cell(row, at[name]) for name in ("id", "lat", "lng", "author", "scene"))
        reason, lat, lng = _position(lat_text, lng_text)
        if not flat_name(id_) or flat_name(id_) in seen:
            reason = f"{id_} came before" if id_ else "has no id"
        if reason:
            bad.append(BadRow(line, reason))
            continue
        seen.add(flat_name(id_))
        kept.append((id_, lat, lng, author, _scene(scene)))
    alone = [author.lower() in _ABSENT for *_, author, _ in kept]
    return PhotoTable(
        [id_ for id_, *_ in kept],
        Positions(np.array([lat for _, lat, *_ in kept], np.float64), np.array([lng for _, _, lng, *_ in kept], np.float64)),
        np.array([f"photo {row[0]}" if by_itself else row[3] for row, by_itself in zip(kept, alone, strict=True)], np.str_),
        np.array([scene for *_, scene in kept], np.str_),
        tuple(bad),
        sum(alone),
    )


def read_predictions(path: Path) -> PredictionTable:
    """Read predictions; an empty or NaN position is a photo without an answer, not a bad row.

    Raises:
        PhotoListError: it is no CSV, or lacks one of `img_id`, `p_key`, `pred_lat`, `pred_lng`.
        UnsafeFileError: it is a pickle.
    """
    columns, rows = _rows(path)
    for name in ("img_id", "p_key", "pred_lat", "pred_lng"):
        if name not in columns:
            raise PhotoListError(f"{path} has no column {name}", "It needs img_id,p_key,pred_class,pred_lat,pred_lng,confidence.")
    at = [columns.get(name, -1) for name in ("img_id", "p_key", "pred_lat", "pred_lng", "confidence")]
    kept: list[tuple[str, str, float, float, float]] = []
    bad: list[BadRow] = []
    for line, row in rows:
        id_, key, lat_text, lng_text, confidence = (_cell(row, i) for i in at)
        reason, lat, lng = _position(lat_text, lng_text, may_be_absent=True)
        if not id_ or not key:
            reason = "has no img_id or no p_key"
        if reason:
            bad.append(BadRow(line, reason))
        else:
            kept.append((id_, key, lat, lng, _number(confidence)))
    numbers = np.array([row[2:] for row in kept], np.float64).reshape(len(kept), 3)
    return PredictionTable(
        [row[0] for row in kept], [row[1] for row in kept], Positions(numbers[:, 0], numbers[:, 1]), numbers[:, 2], tuple(bad)
    )


def flat_name(id_: str) -> str:
    """A photo's name without folders or suffix: `45/77/3228511372.jpg` and `45_77_3228511372.JPG` are one."""
    return "_".join(path_parts(id_))


def path_parts(id_: str) -> list[str]:
    """The folders and the name of an id, without the suffix of a picture."""
    path = _SUFFIX.sub("", id_.strip().replace("\\", "/"))
    return [part for part in path.split("/") if part not in ("", ".", "..")]


def _rows(path: Path) -> tuple[Mapping[str, int], Iterator[tuple[int, list[str]]]]:
    """Columns by their names in small letters, and the rows by line."""
    refuse_pickles(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoListError(f"{path} cannot be read: {error}", "Name a CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = _read(reader, path)
    header = next(rows, [])
    return {name.strip().lower(): i for i, name in enumerate(header)}, ((reader.line_num, row) for row in rows if row)


def _read(reader: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise PhotoListError(f"{path} line {reader.line_num}: {error}", "Name a CSV in UTF-8.") from error


def _cell(row: Sequence[str], column: int) -> str:
    """Empty where the column, or this row's part of it, is missing."""
    return row[column].strip() if 0 <= column < len(row) else ""


def _number(text: str) -> float:
    """NaN where it is no finite number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _position(lat_text: str, lng_text: str, *, may_be_absent: bool = False) -> tuple[str, float, float]:
    """Why it cannot be used, or nothing; and the position, NaN where there is none."""
    lat, lng = _number(lat_text), _number(lng_text)
    absent = may_be_absent and lat_text.lower() in _ABSENT and lng_text.lower() in _ABSENT
    if absent or (abs(lat) <= 90 and abs(lng) <= 180):
        return "", lat, lng
    return f"({lat_text}, {lng_text}) is no position", math.nan, math.nan


def _scene(written: str) -> str:
    number = _number(written)
    return SCENES[int(number)] if number in (0, 1, 2) else UNKNOWN
