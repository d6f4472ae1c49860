"""The local features of every crop, batch by batch: they belong to no model, and are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.dataset.pictures import COLUMNS, decode_row, verify_picture
from geoloc_dagster.dataset.schema import LOCAL_FEATURES
from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.retrieval.local_features import SIDE, VERSION, local_features
from geoloc_dagster.retrieval.rebuilt import sound_table
from geoloc_dagster.scale.engine import LOCAL, UNIT, Engine, Tick, counted
from geoloc_dagster.tables import open_table, replace_batch_files, write_uncommitted


@dataclass(frozen=True, slots=True)
class LocalFeaturesResult:
    """What one batch got: pictures with features, these features, the table's version, and whether this call wrote it."""

    batch: str
    rows: int
    features: int
    table_version: int
    changed: bool


def make_local_features(
    crops_path: Path,
    out_path: Path,
    batch: str,
    *,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
) -> LocalFeaturesResult:
    """Make the features of every crop of a batch that has a picture, and make them the batch's only ones.

    A rerun with the same crops writes nothing.

    Args:
        crops_path: Lance table of crops.
        out_path: Lance table of features, created when absent.
        batch: its key.
        progress: called with (pictures done, pictures in all).
        engine: does the pieces of the batch.

    Raises:
        IntegrityError: a crop is not the one that was written.
        EngineError: the pieces were lost; the features of before stay.
    """
    crops = open_table(crops_path)
    if crops is None:
        raise IntegrityError(f"{crops_path} is missing", "Materialise `crops` first.")
    names = crops.to_table(columns=["capture_id", "sha256", "_rowoffset"], filter=f"batch = '{batch}'").to_pylist()
    pictured = [row for row in names if row["sha256"] is not None]
    table = sound_table(out_path, _wrong)
    if table is not None and _held(table, batch) == {(row["capture_id"], row["sha256"], VERSION) for row in pictured}:
        return LocalFeaturesResult(batch, len(pictured), _count(table, batch), int(table.version), changed=False)
    offsets = [int(row["_rowoffset"]) for row in pictured]
    pieces = [
        LocalFeaturesPiece(crops_path, int(crops.version), tuple(offsets[part.start : part.stop]), out_path, batch)
        for part in engine.cut(len(offsets))
    ]
    written = engine.map(make_piece, pieces, counted(progress, len(offsets)))
    version = replace_batch_files(out_path, [name for piece in written for name in piece], batch, LOCAL_FEATURES)
    made = open_table(out_path)
    return LocalFeaturesResult(batch, len(offsets), 0 if made is None else _count(made, batch), version, changed=True)


def _wrong(table: Any) -> str:
    return "" if table.schema.equals(LOCAL_FEATURES) else "its columns are others"


def _held(table: Any, batch: str) -> set[tuple[str, str, str]]:
    columns = ["capture_id", "crop_sha256", "model_version"]
    rows = table.to_table(columns=columns, filter=f"batch = '{batch}'").to_pylist()
    return {tuple(row[name] for name in columns) for row in rows}


def _count(table: Any, batch: str) -> int:
    return sum(table.to_table(columns=["count"], filter=f"batch = '{batch}'")["count"].to_pylist())


@dataclass(frozen=True, slots=True)
class LocalFeaturesPiece:
    """Some crops of a batch whose features are to be made; the fields are those of `embedding.EmbeddingPiece`."""

    crops_path: Path
    version: int
    offsets: tuple[int, ...]
    out_path: Path
    batch: str

    @property
    def rows(self) -> int:
        """How many crops."""
        return len(self.offsets)


def make_piece(piece: LocalFeaturesPiece, tick: Tick) -> list[str]:
    """Make the features of some crops and write them, uncommitted; what commits them. Raises as `make_local_features` does."""
    crops = open_table(piece.crops_path, piece.version)
    if crops is None:
        raise IntegrityError(f"{piece.crops_path} is missing", "Materialise `crops` first.")

    def made(row: dict[str, Any]) -> dict[str, Any]:
        verify_picture(piece.crops_path, row)
        found = local_features(decode_row(row, SIDE))
        return {
            "capture_id": row["capture_id"],
            "batch": piece.batch,
            "model_version": VERSION,
            "count": len(found),
            "features": found.tobytes(),
            "crop_sha256": row["sha256"],
        }

    def batches() -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(processes_by_default()) as pool:  # OpenCV works without holding the interpreter
            for first in range(0, piece.rows, UNIT):
                rows = crops.take(list(piece.offsets[first : first + UNIT]), columns=COLUMNS).to_pylist()
                yield from pa.Table.from_pylist(list(pool.map(made, rows)), schema=LOCAL_FEATURES).to_batches()
                tick(len(rows))

    return write_uncommitted(piece.out_path, batches(), LOCAL_FEATURES, seal=True)
