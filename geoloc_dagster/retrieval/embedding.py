"""One vector per crop of the champion, batch by batch.

The table holds the vectors of one model per batch; a batch is replaced whole, in one commit. It can always be computed
again from the crops, so a table that is damaged, or whose vectors have another dimension, is started afresh: the index
refuses to be built until every batch is back, and the last good release stays served meanwhile.

A batch is cut into pieces, which write their vectors, uncommitted, wherever the engine does them; the step commits all of them.
On a CPU all cores decode some crops and then embed them: decoding beside the model takes a core from it, and the others wait for
the slowest at every layer. On a GPU the next crops are decoded while it works.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.dataset.pictures import COLUMNS, Pixels, channels_first, decode_row, verify_picture
from geoloc_dagster.dataset.schema import embeddings_schema
from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.retrieval.encoder import Encoder, Pictures
from geoloc_dagster.retrieval.rebuilt import sound_table
from geoloc_dagster.scale.engine import LOCAL, UNIT, Engine, Tick, counted
from geoloc_dagster.tables import open_table, replace_batch_files, write_uncommitted

_AHEAD = 2
_READ_ROWS = UNIT  # crops held in memory at once: about 40 MB of pixels at 224 px


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """What one batch got: its vectors, the crops without a picture, and the table's version afterwards."""

    batch: str
    model_version: str
    rows: int
    undecodable: int
    table_version: int
    changed: bool


def table_schema(dimension: int) -> pa.Schema:
    """Schema of the embeddings table: a vector, and the sha256 of the crop that it was made from."""
    return embeddings_schema(dimension).append(pa.field("crop_sha256", pa.string(), nullable=False))


def embed_batch(
    encoder: Encoder,
    crops_path: Path,
    embeddings_path: Path,
    batch: str,
    *,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
    model_folder: Path | None = None,
) -> EmbeddingResult:
    """Embed every crop of one batch that has a picture and make the vectors the batch's only ones.

    A rerun with the same crops and the same model writes nothing.

    Args:
        encoder: The champion.
        crops_path: Lance table of crops.
        embeddings_path: Lance table of vectors, created when absent.
        batch: The batch's key.
        batch_size: Pictures per forward pass.
        progress: Called with (pictures done, pictures in all).
        engine: Does the pieces of the batch.
        model_folder: Of the encoder, from which other processes load it; without it this one does everything.

    Raises:
        IntegrityError: a crop is not the one that was written.
        ModelMismatchError: the encoder returned vectors of another shape, or ones that are not of length 1.
        EngineError: the pieces were lost; the vectors of before stay.
    """
    crops = open_table(crops_path)
    if crops is None:
        raise IntegrityError(f"{crops_path} is missing", "Materialise `crops` first.")
    names = crops.to_table(columns=["capture_id", "sha256", "_rowoffset"], filter=f"batch = '{batch}'")
    pictured = [row for row in names.to_pylist() if row["sha256"] is not None]
    sums = {str(row["capture_id"]): str(row["sha256"]) for row in pictured}
    undecodable = names.num_rows - len(sums)
    table = _sound_table(embeddings_path, encoder.dimension)
    if table is not None and _is_current(table, batch, encoder.model_version, sums):
        return EmbeddingResult(batch, encoder.model_version, len(sums), undecodable, int(table.version), changed=False)
    engine = engine if model_folder is not None else LOCAL
    source = Loading(model_folder, encoder.model_version) if engine.elsewhere and model_folder else Loaded(encoder)
    offsets = [int(row["_rowoffset"]) for row in pictured]
    version = int(crops.version)
    pieces = [
        EmbeddingPiece(source, crops_path, version, tuple(offsets[part.start : part.stop]), embeddings_path, batch, batch_size)
        for part in engine.cut(len(offsets))
    ]
    tick = counted(progress, len(offsets))
    written = engine.map(embed_piece, pieces, tick, gpu=True)
    fragments = [fragment for piece in written for fragment in piece]
    committed = replace_batch_files(embeddings_path, fragments, batch, table_schema(encoder.dimension))
    return EmbeddingResult(batch, encoder.model_version, len(offsets), undecodable, committed, changed=True)


# --- its pieces ------------------------------------------------------------------------------------------------------
class EncoderSource(Protocol):
    """Where a piece has its encoder from."""

    def encoder(self) -> Encoder:
        """The encoder, ready to embed."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """An encoder of this process."""

    held: Encoder

    def encoder(self) -> Encoder:
        """The encoder itself."""
        return self.held


@dataclass(frozen=True, slots=True)
class Loading:
    """The folder of a trained model, for a process that may not have loaded it yet."""

    folder: Path
    model_version: str

    def encoder(self) -> Encoder:
        """The encoder, loaded once per process.

        Raises:
            IntegrityError: a file has changed.
            ModelMismatchError: another model lies there by now.
        """
        encoder = _load_once(self.folder, self.model_version)
        if encoder.model_version != self.model_version:
            raise ModelMismatchError(f"{self.folder} holds {encoder.model_version}, and {self.model_version} is to embed")
        return encoder


@functools.lru_cache(maxsize=1)
def _load_once(folder: Path, model_version: str) -> Encoder:
    from geoloc_dagster.learning.encoder import load_encoder

    return load_encoder(folder)


@dataclass(frozen=True, slots=True)
class EmbeddingPiece:
    """Some crops of a batch that are to be embedded.

    Attributes:
        source: of the encoder.
        crops_path: the crops table.
        version: of it.
        offsets: of the crops in that version.
        embeddings_path: the table of vectors.
        batch: its key.
        batch_size: pictures per forward pass.
    """

    source: EncoderSource
    crops_path: Path
    version: int
    offsets: tuple[int, ...]
    embeddings_path: Path
    batch: str
    batch_size: int

    @property
    def rows(self) -> int:
        """How many crops."""
        return len(self.offsets)


def embed_piece(piece: EmbeddingPiece, tick: Tick) -> list[str]:
    """Embed some crops and write the vectors, uncommitted; what commits them. Raises as `embed_batch` does."""
    encoder = piece.source.encoder()
    ahead = _AHEAD if getattr(encoder, "on_gpu", False) else 0

    def vectors() -> Iterator[pa.RecordBatch]:
        for rows, pictures in _read_crops(piece, encoder.image_size, ahead=ahead):
            yield from _vector_rows(encoder, piece.batch, rows, pictures, piece.batch_size).to_batches()
            tick(len(rows))

    return write_uncommitted(piece.embeddings_path, vectors(), table_schema(encoder.dimension), seal=True)


# --- the table -------------------------------------------------------------------------------------------------------
def _sound_table(path: Path, dimension: int) -> Any | None:
    """The table, or None after discarding one that is damaged or holds vectors of another dimension."""

    def wrong(table: Any) -> str:
        same = table.schema.field("vector").type.list_size == dimension
        return "" if same else f"its vectors do not have dimension {dimension}"

    return sound_table(path, wrong)


def _is_current(table: Any, batch: str, model_version: str, wanted: dict[str, str]) -> bool:
    held = table.to_table(columns=["capture_id", "crop_sha256", "model_version"], filter=f"batch = '{batch}'")
    if held.num_rows != len(wanted) or set(held["model_version"].to_pylist()) - {model_version}:
        return False
    return dict(zip(held["capture_id"].to_pylist(), held["crop_sha256"].to_pylist(), strict=True)) == wanted


def _vector_rows(encoder: Encoder, batch: str, rows: list[dict[str, Any]], pictures: Pictures, batch_size: int) -> pa.Table:
    vectors = np.ascontiguousarray(encoder.embed(pictures, batch_size), dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=-1) if vectors.ndim == 2 else np.zeros(1)
    if vectors.shape != (len(rows), encoder.dimension) or not np.allclose(norms, 1, atol=1e-3):
        raise ModelMismatchError(
            f"{encoder.model_version} returned vectors of shape {vectors.shape}, lengths {norms.min():.3g} to {norms.max():.3g}; "
            f"expected ({len(rows)}, {encoder.dimension}) of length 1",
            "Train the recipe again; this model cannot be served.",
        )
    columns = {
        "capture_id": [row["capture_id"] for row in rows],
        "batch": [batch] * len(rows),
        "model_version": [encoder.model_version] * len(rows),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), encoder.dimension),
        "crop_sha256": [row["sha256"] for row in rows],
    }
    return pa.table(columns, schema=table_schema(encoder.dimension))


# --- the crops -------------------------------------------------------------------------------------------------------
def _read_crops(piece: EmbeddingPiece, size: int, *, ahead: int = 0) -> Iterator[tuple[list[dict[str, Any]], Pictures]]:
    """Stream (rows, uint8 N,3,size,size) of a piece's crops, each verified against its row.

    Args:
        piece: whose crops have pictures.
        size: side of the pictures.
        ahead: how many parts are decoded while one is embedded.
    """

    def picture(row: dict[str, Any]) -> Pixels:
        verify_picture(piece.crops_path, row)
        return decode_row(row, size)

    crops = open_table(piece.crops_path, piece.version)
    if crops is None:
        raise IntegrityError(f"{piece.crops_path} is missing", "Materialise `crops` first.")
    waiting: deque[tuple[list[dict[str, Any]], list[Future[Pixels]]]] = deque()
    with ThreadPoolExecutor(processes_by_default()) as pool:  # Pillow decodes without holding the interpreter
        try:
            for first in range(0, piece.rows, _READ_ROWS):
                rows = crops.take(list(piece.offsets[first : first + _READ_ROWS]), columns=COLUMNS).to_pylist()
                waiting.append((rows, [pool.submit(picture, row) for row in rows]))
                if len(waiting) > ahead:
                    yield _decoded(*waiting.popleft())
            while waiting:
                yield _decoded(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(rows: list[dict[str, Any]], pictures: list[Future[Pixels]]) -> tuple[list[dict[str, Any]], Pictures]:
    return rows, channels_first([picture.result() for picture in pictures])
