"""Files of photos with positions, read in pieces: CSV (comma, semicolon or tab) or Parquet, with whatever else they hold.

A row whose position cannot be used is named and counted, never passed over: it comes with a position that is not-a-number. Only a
CSV row with too few or too many columns does not come at all; it is named and counted too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.guards import refuse_claims
from geoloc_dagster.storage import refuse_pickles

if TYPE_CHECKING:
    import pyarrow as pa

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_BLOCK = 1 << 23  # bytes of CSV at once
_ROWS = 1 << 17  # of Parquet at once
_MOST_PROBLEMS = 10_000
_USUAL = {
    "img_path": ("img_path", "img_id", "image_id", "photo_id", "id", "file", "filename", "path", "capture_id"),
    "lat": ("lat", "latitude", "lat_deg"),
    "lng": ("lng", "lon", "long", "longitude", "lng_deg"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that matter; those that are None are found by their usual names."""

    img_path: str | None = None
    lat: str | None = None
    lng: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a file, in its order.

    Attributes:
        rows: every column that was asked for; of a CSV all are text, as it stands there.
        lat_deg: not-a-number where the position cannot be used.
        lng_deg: likewise.
    """

    rows: pa.RecordBatch
    lat_deg: F64
    lng_deg: F64

    @property
    def placed(self) -> Bool:
        """Which rows have a position."""
        return ~np.isnan(self.lat_deg)


class PhotoFile:
    """A file of photos, to be read once or more.

    Args:
        path: CSV or Parquet.
        columns: names, where they are not the usual ones.
        need_position: whether columns of positions must be there; without them every position is not-a-number.

    Attributes:
        names: of all columns.
        img_path: the column that names the photo; None where there is none.
        rows: that were read so far, bad ones as well.
        bad_rows: those without a position that can be used.
        broken_rows: those of them with too few or too many columns.
        problems: what is wrong with the first of them, as lines to show.

    Raises:
        PhotoListError: the file is missing or no such list, or a column is not there.
        UnsafeFileError: it is a pickle.
    """

    def __init__(self, path: Path, columns: Columns = Columns(), *, need_position: bool = True) -> None:
        refuse_pickles(path)
        self.path = path
        self.is_parquet = _head(path)[:4] == b"PAR1"
        self._delimiter = ","
        self.names = self._parquet_names() if self.is_parquet else self._csv_names()
        self.img_path = self._column("img_path", columns.img_path)
        lat, lng = self._column("lat", columns.lat), self._column("lng", columns.lng)
        if need_position and (lat is None or lng is None):
            lacking = " and ".join(name for name, found in (("latitudes", lat), ("longitudes", lng)) if found is None)
            listed = ", ".join(self.names[:12])
            raise PhotoListError(f"{path} has no column of {lacking} among {listed}", "Name it: --column-lat, --column-lng.")
        self._placed = (lat, lng) if need_position and lat is not None and lng is not None else None
        self._start()

    def pieces(self, *, every_column: bool = True) -> Iterator[Piece]:
        """Read the file, in pieces; without `every_column` only what names and places the photos."""
        self._start()
        needed = {self.img_path, *(self._placed or ())}
        wanted = [name for name in self.names if every_column or name in needed]
        for rows in self._parquet(wanted) if self.is_parquet else self._csv(wanted):
            lat, lng = self._positions(rows)
            self.rows += rows.num_rows
            yield Piece(rows, lat, lng)
        self.rows += self.broken_rows

    def _positions(self, rows: pa.RecordBatch) -> tuple[F64, F64]:
        if self._placed is None:
            return np.full(rows.num_rows, np.nan), np.full(rows.num_rows, np.nan)
        lat, lng = (_numbers(rows[column]) for column in self._placed)
        good = (np.abs(lat) <= 90) & (np.abs(lng) <= 180)  # not-a-number fails as well
        for index in np.flatnonzero(~good).tolist():
            self._refuse(rows, index, self._placed)
        lat[~good] = lng[~good] = np.nan
        return lat, lng

    def _start(self) -> None:
        self.rows = self.bad_rows = self.broken_rows = 0
        self.problems: list[str] = []
        self._broken: list[int] = []

    def _refuse(self, rows: pa.RecordBatch, index: int, columns: tuple[str, str]) -> None:
        self.bad_rows += 1
        if len(self.problems) >= _MOST_PROBLEMS:
            return
        name = "" if self.img_path is None else f" ({rows[self.img_path][index].as_py()})"
        position = tuple(str(rows[column][index].as_py()) for column in columns)
        self._say(self._line(self.rows + index), f"its position {position} is none on the globe{name}")

    def _say(self, line: int, reason: str) -> None:
        unit = "row" if self.is_parquet else "line"
        self.problems.append(f"{self.path.name} {unit} {line}: {' '.join(reason.split())[:200]}")

    def _line(self, row: int) -> int:
        """Where the row stands in the file, rows that were left out counted in."""
        line = row + (1 if self.is_parquet else 2)
        for broken in self._broken:
            line += broken <= line
        return line

    def _csv(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv

        def leave_out(row: Any) -> str:
            self._broken.append(row.number)
            self.broken_rows += 1
            self.bad_rows += 1
            if len(self.problems) < _MOST_PROBLEMS:
                self._say(row.number, f"it has {row.actual_columns} columns, not {row.expected_columns}")
            return "skip"

        try:
            reader = csv.open_csv(
                self.path,
                csv.ReadOptions(use_threads=False, block_size=_BLOCK),  # in threads, rows have no numbers
                csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=leave_out),
                csv.ConvertOptions(
                    include_columns=wanted, column_types={name: pa.string() for name in wanted}, strings_can_be_null=False
                ),
            )
            yield from reader
        except (OSError, pa.ArrowException) as error:
            raise PhotoListError(f"{self.path} cannot be read as CSV: {error}") from error

    def _parquet(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path, page_checksum_verification=True)
            refuse_claims(file, self.path)
            yield from file.iter_batches(_ROWS, columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise PhotoListError(f"{self.path} cannot be read as Parquet: {error}") from error

    def _csv_names(self) -> list[str]:
        import csv

        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            first = stream.readline()
        self._delimiter = max(",;\t", key=first.count)
        try:
            names = next(csv.reader([first], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise PhotoListError(f"{self.path} cannot be read as CSV: {error}") from error
        if len(set(names)) < len(names):
            raise PhotoListError(f"{self.path} has two columns of one name in {', '.join(names)[:200]}")
        return names

    def _parquet_names(self) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(self.path).names)
        except (OSError, pa.ArrowException) as error:
            raise PhotoListError(f"{self.path} cannot be read as Parquet: {error}") from error

    def _column(self, what: str, named: str | None) -> str | None:
        if named is not None and named not in self.names:
            raise PhotoListError(f"{self.path} has no column {named!r}; it has {', '.join(self.names[:12])}")
        by_name = {name.strip().lower(): name for name in reversed(self.names)}
        return named or next((by_name[usual] for usual in _USUAL[what] if usual in by_name), None)


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise PhotoListError(f"{path} is missing")
    with path.open("rb") as stream:
        head = stream.read(4096)
    if not head.strip():
        raise PhotoListError(f"{path} is empty")
    if b"\0" in head and head[:4] != b"PAR1":
        raise PhotoListError(f"{path} is neither CSV nor Parquet")
    return head


def _numbers(column: pa.Array) -> F64:
    """A column as numbers, not-a-number where it holds none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)  # type: ignore[attr-defined]
        return np.array(column.cast(pa.float64()).fill_null(np.nan))
    except pa.ArrowInvalid:
        return np.array([_number(value) for value in column.to_pylist()])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
