"""Writing rows to a CSV or Parquet file piece by piece, under a temporary name until all are there."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.storage import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

_SPECIAL = '[",\r\n]'


@contextlib.contextmanager
def rows_file(path: Path) -> Generator[Callable[[pa.RecordBatch], None]]:
    """Give a function that adds rows; the file gets its name when all are written.

    Args:
        path: ends in `.csv` or `.parquet`, which says what it is.

    Raises:
        PhotoListError: it ends in something else.
        DiskFullError, DataRootError: it cannot be written.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise PhotoListError(f"{path} ends neither in .csv nor in .parquet", "Give --output one of these endings.")
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        yield (_csv if path.suffix.lower() == ".csv" else _parquet)(temporary, stack)


def _csv(path: Path, stack: contextlib.ExitStack) -> Callable[[pa.RecordBatch], None]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    stream = stack.enter_context(path.open("wb"))
    plain = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
    begun = False

    def add(rows: pa.RecordBatch) -> None:
        nonlocal begun
        if not begun:
            stream.write(_lines([rows.schema.names]))
            begun = True
        texts = [column for column in rows.columns if pa.types.is_string(column.type)]
        others = [column for column in rows.columns if not pa.types.is_string(column.type) and pa.types.is_nested(column.type)]
        if others or any(pc.any(pc.match_substring_regex(column, _SPECIAL)).as_py() for column in texts):  # type: ignore[attr-defined]
            stream.write(_lines(zip(*(column.to_pylist() for column in rows.columns), strict=True)))
        else:  # a tenth of the time
            arrow_csv.write_csv(rows, stream, plain)

    return add


def _lines(rows: object) -> bytes:
    import io

    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


def _parquet(path: Path, stack: contextlib.ExitStack) -> Callable[[pa.RecordBatch], None]:
    import pyarrow.parquet as pq

    writers: list[pq.ParquetWriter] = []

    def add(rows: pa.RecordBatch) -> None:
        if not writers:
            writer = pq.ParquetWriter(path, rows.schema, compression="zstd", write_page_checksum=True)
            writers.append(stack.enter_context(writer))
        writers[0].write_batch(rows)

    return add
