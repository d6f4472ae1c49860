"""Buffer CSVs: locations as one file per spacing, in the columns in which they were first published.

`new_order_idx` is the location's id, `Location_idx` the grid point that was looked up at `Location`, `Latitude` and `Longitude`
the place of the panorama found there. `SWEREF_Points` holds that place in the region's metric CRS, whatever CRS that is.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pyproj import Transformer

from geoloc_dagster.errors import BufferCsvError
from geoloc_dagster.geo.batches import buffer_series
from geoloc_dagster.geo.buffers import LOCATION_COLUMNS
from geoloc_dagster.storage import refuse_pickles, write_bytes

COLUMNS = [
    "new_order_idx",
    "sorted_idx",
    "Location_idx",
    "Location",
    "Copyright",
    "Date",
    "Latitude",
    "Longitude",
    "PanoID",
    "Status",
    "Google Location",
    "dist_to_start_point",
    "points",
    "SWEREF_Points",
]
NEGATIVE_COLUMNS = ["Location_idx", "Location"]
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE = re.compile(r".*_buffer_(?P<spacing_m>[1-9]\d{0,4})\.csv")
_POINT = re.compile(r"POINT \((?P<x>[-+.\deE]+) (?P<y>[-+.\deE]+)\)")
T = TypeVar("T")


def read_buffer_csv(path: Path) -> pd.DataFrame:
    """Read one buffer file.

    Returns:
        The columns of `build_buffers` and sorted_idx (the lookup's published place in the order from the start point). The
        series comes from the file's name, the rank from the order of its rows; captured_on is a date, the first of the month
        where only the month is known, or None.

    Raises:
        BufferCsvError: naming the line and the column.
        UnsafeFileError: the file is a pickle.
    """
    named = _FILE.fullmatch(path.name)
    if named is None:
        raise BufferCsvError(f"{path} does not say its spacing", "Name it like new_order_buffer_100.csv.")
    rows = [_location(path, line, row) for line, row in _rows(path, COLUMNS)]
    frame = pd.DataFrame(rows, columns=[*LOCATION_COLUMNS, "sorted_idx"])
    frame = frame.assign(series=buffer_series(int(named["spacing_m"])), rank=np.arange(len(frame), dtype=np.int64))
    if not frame["location_id"].is_unique:
        twice = frame.loc[frame["location_id"].duplicated(), "location_id"].iloc[0]
        raise BufferCsvError(f"{path} lists the location {twice} twice", "Keep one of the two rows; ids are unique.")
    return frame


def read_negatives(path: Path) -> pd.DataFrame:
    """Read grid points that had no street view: columns lookup_id, lat_deg, lng_deg (of the request).

    Raises:
        BufferCsvError: naming the line and the column.
        UnsafeFileError: the file is a pickle.
    """
    rows = [
        (_field(path, line, row, "Location_idx", _identifier), *_field(path, line, row, "Location", _lat_lng))
        for line, row in _rows(path, NEGATIVE_COLUMNS)
    ]
    return pd.DataFrame(rows, columns=["lookup_id", "lat_deg", "lng_deg"])


def write_buffer_csv(path: Path, frame: pd.DataFrame, *, metric_crs: str) -> Path:
    """Write locations of one series in the published columns, atomically.

    Args:
        path: must end in `_buffer_{spacing}.csv` to be read again.
        frame: the columns of `build_buffers`, and sorted_idx where it is known; the row's rank is written without it.
        metric_crs: of the last column, e.g. "EPSG:3006".
    """
    to_metric = Transformer.from_crs("OGC:CRS84", metric_crs, always_xy=True)
    x, y = to_metric.transform(frame["lng_deg"].to_numpy(np.float64), frame["lat_deg"].to_numpy(np.float64))
    rows = zip(frame.to_dict("records"), x, y, strict=True)
    lines = [_line(COLUMNS), *(_line(_fields(row, float(east), float(north))) for row, east, north in rows)]
    return write_bytes(path, "".join(lines).encode())


def _line(fields: list[str]) -> str:
    """One line ending in a line feed; written with both ends first, because only characters of the end are quoted."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _fields(row: dict[Any, Any], east_m: float, north_m: float) -> list[str]:
    """One line, in the order of `COLUMNS`."""
    lat, lng = float(row["lat_deg"]), float(row["lng_deg"])
    sorted_idx: Any = row.get("sorted_idx")
    rank: Any = row["rank"]
    return [
        str(row["location_id"]),
        str(int(rank if _missing(sorted_idx) else sorted_idx)),
        str(row["lookup_id"]),
        _position_text(row["requested_lat_deg"], row["requested_lng_deg"]),
        _text(row["copyright"]),
        _date_text(row["captured_on"]),
        repr(lat),
        repr(lng),
        _text(row["pano_id"]),
        "OK",
        _position_text(lat, lng),
        repr(float(row["dist_to_start_m"])),
        f"POINT ({lng!r} {lat!r})",
        f"POINT ({east_m!r} {north_m!r})",
    ]


# --- lines ---------------------------------------------------------------------------------------------------------------
def _rows(path: Path, required: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines as dicts, with their number in the file; every line has as many fields as the header."""
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header, required)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise BufferCsvError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields instead of {len(header)}; the line may be cut off"
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise BufferCsvError(f"{path}, line {reader.line_num}: {error}; the line may be cut off") from error


def _decoded(path: Path) -> str:
    if not path.is_file():
        raise BufferCsvError(f"{path} does not exist or is not a file", "Correct the path; it is relative to geoloc.yaml.")
    refuse_pickles(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BufferCsvError(f"{path} is not UTF-8 (byte {error.start})") from error


def _check_header(path: Path, header: list[str], required: list[str]) -> None:
    if not header:
        raise BufferCsvError(f"{path} is empty")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise BufferCsvError(f"{path} is separated by {'semicolons' if ';' in header[0] else 'tabs'}, not commas")
    missing = [column for column in required if column not in header]
    if missing:
        raise BufferCsvError(f"{path} lacks the column {', '.join(repr(column) for column in missing)}")
    if len(set(header)) != len(header):
        raise BufferCsvError(f"{path} names a column twice")


# --- values --------------------------------------------------------------------------------------------------------------
def _location(path: Path, line: int, row: dict[str, str]) -> dict[str, Any]:
    def field(column: str, parse: Callable[[str], T]) -> T:
        return _field(path, line, row, column, parse)

    requested = field("Location", _lat_lng) if row["Location"] else (None, None)
    field("Status", _ok)
    field("points", _point)
    field("SWEREF_Points", _point)
    return {
        "location_id": field("new_order_idx", _identifier),
        "lookup_id": field("Location_idx", _identifier),
        "lat_deg": field("Latitude", _latitude),
        "lng_deg": field("Longitude", _longitude),
        "pano_id": field("PanoID", str) or None,
        "captured_on": field("Date", _date),
        "requested_lat_deg": requested[0],
        "requested_lng_deg": requested[1],
        "copyright": row["Copyright"] or None,
        "dist_to_start_m": field("dist_to_start_point", _finite),
        "sorted_idx": field("sorted_idx", int),
    }


def _field(path: Path, line: int, row: dict[str, str], column: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(row[column])
    except ValueError as error:
        raise BufferCsvError(f"{path}, line {line}, column {column!r}: {row[column][:80]!r} is malformed ({error})") from error


def _identifier(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise ValueError("an id is 1 to 64 letters, digits, _ or -")
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _latitude(text: str) -> float:
    value = _finite(text)
    if abs(value) > 90:
        raise ValueError("a latitude is between -90 and 90")
    return value


def _longitude(text: str) -> float:
    value = _finite(text)
    if abs(value) > 180:
        raise ValueError("a longitude is between -180 and 180")
    return value


def _lat_lng(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError("expected 'lat, lng'")
    return _latitude(parts[0]), _longitude(parts[1])


def _point(text: str) -> None:
    found = _POINT.fullmatch(text)
    if found is None:
        raise ValueError("expected 'POINT (x y)'")
    for value in found.groups():
        _finite(value)


def _ok(text: str) -> None:
    if text != "OK":
        raise ValueError("a buffer holds only lookups with the status OK")


def _date(text: str) -> dt.date | None:
    if text == "":
        return None
    return dt.date.fromisoformat(f"{text}-01" if len(text) == 7 else text)


def _date_text(value: Any) -> str:
    if _missing(value):
        return ""
    return f"{value:%Y-%m}" if value.day == 1 else f"{value:%Y-%m-%d}"


def _position_text(lat_deg: Any, lng_deg: Any) -> str:
    return "" if _missing(lat_deg) or _missing(lng_deg) else f"{float(lat_deg)!r}, {float(lng_deg)!r}"


def _text(value: Any) -> str:
    return "" if _missing(value) else str(value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
