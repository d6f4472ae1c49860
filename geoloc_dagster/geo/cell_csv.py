"""Cells of one level as CSV, in the columns in which they were first published.

`class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean`. Such files have gone through spreadsheets, which took tokens for
numbers; `cell_repair` finds those, and what they were.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geoloc_dagster.errors import PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_repair import REASONS, Kind, Verdict, WrittenCell, judge
from geoloc_dagster.geo.partitioning import I32, CellLevel
from geoloc_dagster.guards import refuse_larger
from geoloc_dagster.storage import refuse_pickles, write_bytes

COLUMNS = ("class_label", "hex_id", "imgs_per_cell", "latitude_mean", "longitude_mean")

_FILE_BYTES = 1 * 2**30
_MOST_LABELS, _MOST_PICTURES = 2**31, 2**62


@dataclass(frozen=True, slots=True)
class TokenDefect:
    """A row that is not as it was made.

    Attributes:
        line: of the file.
        written: the token as it stands there.
        kind: what is wrong.
        repaired: what the token must have been; None where that is not certain.
    """

    line: int
    written: str
    kind: Kind
    repaired: str | None

    @property
    def reason(self) -> str:
        """Why the row cannot be right."""
        return REASONS[self.kind]

    @property
    def remedy(self) -> str:
        """What was done about it, or is to be done."""
        if self.kind == "mean_outside":
            return "the cell's middle stands in for it"
        return f"read as {self.repaired}" if self.repaired else "left out; write the token as text"

    def __str__(self) -> str:
        return f"line {self.line}: {self.written!r} {self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class ImportedLevel:
    """The cells of a file.

    Attributes:
        level: cells with a right or repaired token, in the order of their ids.
        published: the class label of each in the file, by which models of others number them.
        defects: of tokens, in the order of the file.
    """

    level: CellLevel
    published: I32
    defects: tuple[TokenDefect, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    label: int
    written: str
    count: int
    lat_deg: float
    lng_deg: float


def read_cells_csv(path: Path, name: str, *, believed: bool = False) -> ImportedLevel:
    """Read one level.

    Args:
        path: of the file.
        name: of the level.
        believed: tokens are as they were written, so none is doubted.

    Raises:
        PartitioningError: naming the line: a column is missing, a value is none, or cells lie in each other.
        UnsafeFileError: the file is a pickle.
    """
    if not believed:
        return read_cells_csvs([(path, name)])[0]
    rows = list(_rows(path))
    try:
        ids = s2.from_tokens([row.written for row in rows]).tolist()
    except ValueError as error:
        raise PartitioningError(f"{path}: {error}") from error
    return _level(path, name, rows, [Verdict(id_, None) for id_ in ids])


def read_cells_csvs(files: Sequence[tuple[Path, str]]) -> list[ImportedLevel]:
    """Read levels that were made together, each from its file and under its name; raises as `read_cells_csv`."""
    read = [list(_rows(path)) for path, _ in files]
    leaves = [s2.leaf_ids([row.lat_deg for row in rows], [row.lng_deg for row in rows]).tolist() for rows in read]
    written = [
        [WrittenCell(row.written, row.count, leaf) for row, leaf in zip(rows, ids, strict=True)]
        for rows, ids in zip(read, leaves, strict=True)
    ]
    judged = zip(files, read, judge(written), strict=True)
    return [_level(path, name, rows, verdicts) for (path, name), rows, verdicts in judged]


def _level(path: Path, name: str, rows: Sequence[_Row], verdicts: Sequence[Verdict]) -> ImportedLevel:
    kept: list[tuple[int, _Row]] = []
    defects: list[TokenDefect] = []
    for row, verdict in zip(rows, verdicts, strict=True):
        token = None if verdict.cell is None else s2.tokens([verdict.cell])[0]
        if verdict.kind is not None:
            defects.append(TokenDefect(row.line, row.written, verdict.kind, token))
        if verdict.cell is not None:
            kept.append((verdict.cell, _centred(row, verdict.cell) if verdict.kind == "mean_outside" else row))
    kept.sort(key=lambda one: one[0])
    level = CellLevel(
        name,
        np.array([id_ for id_, _ in kept], np.uint64),
        np.array([row.count for _, row in kept], np.int64),
        np.array([row.lat_deg for _, row in kept], np.float64),
        np.array([row.lng_deg for _, row in kept], np.float64),
    )
    _refuse_overlaps(path, level, kept)
    return ImportedLevel(level, np.array([row.label for _, row in kept], np.int32), tuple(defects))


def write_cells_csv(path: Path, level: CellLevel) -> Path:
    """Write one level, atomically; its classes are its labels."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    columns = (s2.tokens(level.ids), level.counts.tolist(), level.lat_deg.tolist(), level.lng_deg.tolist())
    writer.writerows((label, *values) for label, values in enumerate(zip(*columns, strict=True)))
    return write_bytes(path, text.getvalue().encode())


def _centred(row: _Row, cell: int) -> _Row:
    lat_deg, lng_deg = s2.centres(np.array([cell], np.uint64))
    return replace(row, lat_deg=float(lat_deg[0]), lng_deg=float(lng_deg[0]))


def _rows(path: Path) -> Iterator[_Row]:
    refuse_pickles(path)
    refuse_larger(path, _FILE_BYTES)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PartitioningError(f"{path} cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in COLUMNS if column not in _names(reader, path)]
    if missing:
        raise PartitioningError(f"{path} has no column {missing[0]}", f"The columns are {','.join(COLUMNS)}.")
    for values in _values(reader, path):
        try:
            row = _Row(
                reader.line_num,
                int(values["class_label"]),
                values["hex_id"].strip(),
                int(values["imgs_per_cell"]),
                float(values["latitude_mean"]),
                float(values["longitude_mean"]),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise PartitioningError(f"{path} line {reader.line_num} is no cell: {error}") from error
        if not (abs(row.lat_deg) <= 90 and abs(row.lng_deg) <= 180):
            raise PartitioningError(f"{path} line {row.line}: ({row.lat_deg}, {row.lng_deg}) is not on the globe")
        if not (0 <= row.label < _MOST_LABELS and 0 <= row.count < _MOST_PICTURES):
            raise PartitioningError(
                f"{path} line {row.line}: class {row.label} of {row.count} pictures is none that there can be"
            )
        yield row


def _names(reader: csv.DictReader[str], path: Path) -> Sequence[str]:
    try:
        return reader.fieldnames or ()
    except csv.Error as error:
        raise PartitioningError(f"{path} has no line of names: {error}") from error


def _values(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise PartitioningError(f"{path} line {reader.line_num}: {error}") from error


def _refuse_overlaps(path: Path, level: CellLevel, kept: list[tuple[int, _Row]]) -> None:
    if not level.ids.size:
        raise PartitioningError(f"{path} holds no cell with a right token")
    first, last = s2.ranges(level.ids)
    reached = np.maximum.accumulate(last)
    within = np.flatnonzero(first[1:] <= reached[:-1])
    if within.size:
        row, before = kept[int(within[0]) + 1][1], kept[int(within[0])][1]
        raise PartitioningError(f"{path}: the cells of lines {before.line} and {row.line} lie in each other")
