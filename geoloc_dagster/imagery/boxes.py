"""Boxes to blur, from a file that was made elsewhere: by a detector, or by hand.

One row per box, as JSON (a list of objects), CSV or Parquet, by the file's ending. A row names its picture by `capture_id`, or by
`pano_id` and `heading_deg`, and its sides by `left`, `top`, `right`, `bottom`. Other columns are left alone.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from geoloc_dagster.config import Settings
from geoloc_dagster.errors import ConfigError, IntegrityError
from geoloc_dagster.imagery.blur import Box, CaptureFacts, Unit
from geoloc_dagster.storage import read_parquet

_Key = tuple[str, float]
_COLUMNS = ("capture_id", "pano_id", "heading_deg", "left", "top", "right", "bottom")


def _or_none(value: Any) -> Any:
    """What an empty cell of a CSV, and a missing value of a frame that was saved as Parquet, stand for."""
    return None if value == "" or value != value else value


Word = Annotated[str | None, BeforeValidator(_or_none)]
Side = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BoxRow(BaseModel):
    """One row of the file."""

    capture_id: Word = None
    pano_id: Word = None
    heading_deg: Annotated[float | None, BeforeValidator(_or_none)] = None
    left: Side
    top: Side
    right: Side
    bottom: Side

    @model_validator(mode="after")
    def _names_a_picture_and_is_a_box(self) -> Self:
        if self.capture_id is None and (self.pano_id is None or self.heading_deg is None):
            raise ValueError("a row names its picture by capture_id, or by pano_id and heading_deg")
        if self.heading_deg is not None and not math.isfinite(self.heading_deg):
            raise ValueError("heading_deg must be finite")
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("left must be less than right, and top less than bottom")
        return self


class BoxesFile:
    """A `Redactor` whose boxes are given.

    Args:
        path: ends in .json, .csv or .parquet.
        unit: of all sides in it.

    Raises:
        ConfigError: the file is missing or cannot be read, or a row is no box; names the row.
    """

    def __init__(self, path: Path, unit: Unit) -> None:
        self._by_capture: defaultdict[str, list[Box]] = defaultdict(list)
        self._by_heading: defaultdict[_Key, list[Box]] = defaultdict(list)
        for number, row in enumerate(_rows(path), start=1):
            self._add(_parsed(row, unit, path, number), unit)

    def boxes(self, image: bytes, facts: CaptureFacts) -> Sequence[Box]:
        """The boxes of that picture, by either of its names."""
        found = list(self._by_capture.get(facts.capture_id, ()))
        if facts.pano_id is not None and facts.heading_deg is not None:
            found += self._by_heading.get(_key(facts.pano_id, facts.heading_deg), ())
        return found

    def _add(self, row: BoxRow, unit: Unit) -> None:
        box = Box(row.left, row.top, row.right, row.bottom, unit)
        if row.capture_id is not None:
            self._by_capture[row.capture_id].append(box)
        elif row.pano_id is not None and row.heading_deg is not None:
            self._by_heading[_key(row.pano_id, row.heading_deg)].append(box)


def boxes_to_blur(settings: Settings) -> tuple[Path, Unit] | None:
    """What `capture.blur` names: a file and its unit; None where it is off."""
    blur = settings.capture.blur
    return None if blur.boxes is None else (settings.resolve(blur.boxes), blur.unit)


def build_redactor(named: tuple[Path, Unit] | None) -> BoxesFile | None:
    """The redactor of `boxes_to_blur`; raises ConfigError as it does."""
    return None if named is None else BoxesFile(*named)


def _key(pano_id: str, heading_deg: float) -> _Key:
    return pano_id, round(heading_deg % 360, 1) % 360


def _parsed(row: Any, unit: Unit, path: Path, number: int) -> BoxRow:
    try:
        known = {name: value for name, value in row.items() if name in _COLUMNS} if isinstance(row, Mapping) else row
        box = BoxRow.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(path, f"row {number}: {where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from error
    if unit == "relative" and max(box.right, box.bottom) > 1:
        raise _bad(path, f"row {number}: a relative box reaches from 0 to 1; `capture.blur.unit` may have to be `pixels`")
    return box


def _rows(path: Path) -> Iterable[Any]:
    try:
        match path.suffix.lower():
            case ".json":
                rows: Any = json.loads(path.read_bytes())
            case ".csv":
                with path.open(newline="", encoding="utf-8-sig") as stream:
                    rows = list(csv.DictReader(stream))
            case ".parquet":
                rows = read_parquet(path).to_pylist() if path.is_file() else path.read_bytes()
            case other:
                raise _bad(path, f"{other or 'no ending'} is none of .json, .csv and .parquet")
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError, csv.Error, IntegrityError) as error:
        raise _bad(path, str(error)) from error
    if not isinstance(rows, list):
        raise _bad(path, "it holds no list of boxes")
    return rows


def _bad(path: Path, what: str) -> ConfigError:
    return ConfigError(f"the boxes to blur in {path} cannot be used: {what}", "Correct that file; nothing was fetched.")
