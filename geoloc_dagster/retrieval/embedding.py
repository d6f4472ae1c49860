"""One vector per crop of the champion, batch by batch.

The table holds the vectors of one model per batch; a batch is replaced whole, in one commit. It can always be computed
again from the crops, so a table that is damaged, or whose vectors have another dimension, is started afresh: the index
refuses to be built until every batch is back, and the last good release stays served meanwhile.

On a CPU all cores decode some crops and then embed them: decoding beside the model takes a core from it, and the others wait for
the slowest at every layer. On a GPU the next crops are decoded while it works.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.dataset.pictures import COLUMNS, Pixels, channels_first, decode_row, verify_picture
from geoloc_dagster.dataset.schema import embeddings_schema
from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.retrieval.encoder import Encoder, Pictures

logger = logging.getLogger(__name__)

_AHEAD = 2
_READ_ROWS = 256  # crops held in memory at once: about 40 MB of pixels at 224 px


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

    Raises:
        IntegrityError: a crop is not the one that was written.
        ModelMismatchError: the encoder returned vectors of another shape, or ones that are not of length 1.
    """
    crops = storage.open_table(crops_path)
    if crops is None:
        raise IntegrityError(f"{crops_path} is missing", "Materialise `crops` first.")
    names = crops.to_table(columns=["capture_id", "sha256"], filter=f"batch = '{batch}'")
    sums = {str(row["capture_id"]): str(row["sha256"]) for row in names.to_pylist() if row["sha256"] is not None}
    undecodable = names.num_rows - len(sums)
    table = _sound_table(embeddings_path, encoder.dimension)
    if table is not None and _is_current(table, batch, encoder.model_version, sums):
        return EmbeddingResult(batch, encoder.model_version, len(sums), undecodable, int(table.version), changed=False)
    parts: list[pa.Table] = []
    done = 0
    ahead = _AHEAD if getattr(encoder, "on_gpu", False) else 0
    for rows, pictures in _read_crops(crops, crops_path, batch, encoder.image_size, ahead=ahead):
        parts.append(_vector_rows(encoder, batch, rows, pictures, batch_size))
        done += len(rows)
        if progress is not None:
            progress(done, len(sums))
    vectors = pa.concat_tables([table_schema(encoder.dimension).empty_table(), *parts])
    version = storage.replace_batch(embeddings_path, vectors, batch)
    return EmbeddingResult(batch, encoder.model_version, vectors.num_rows, undecodable, version, changed=True)


# --- the table -------------------------------------------------------------------------------------------------------
def _sound_table(path: Path, dimension: int) -> Any | None:
    """The table, or None after discarding one that is damaged or holds vectors of another dimension."""
    if not (path.exists() or storage.table_exists(path)):
        return None
    try:
        storage.verify_table(path)
        table = storage.open_table(path)
        if table is not None and table.schema.field("vector").type.list_size == dimension:
            return table
        reason = f"its vectors do not have dimension {dimension}"
    except (IntegrityError, OSError, ValueError, pa.ArrowException) as error:
        reason = str(error)
    logger.warning("Starting %s afresh, every batch must be embedded again: %s", path, reason)
    storage.remove_table(path)
    return None


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
def _read_crops(
    crops: Any, path: Path, batch: str, size: int, *, ahead: int = 0
) -> Iterator[tuple[list[dict[str, Any]], Pictures]]:
    """Stream (rows, uint8 N,3,size,size) of a batch's crops that have a picture, each verified against its row.

    Args:
        crops: Lance table.
        path: of it.
        batch: its key.
        size: side of the pictures.
        ahead: how many parts are decoded while one is embedded.
    """

    def picture(row: dict[str, Any]) -> Pixels:
        verify_picture(path, row)
        return decode_row(row, size)

    scanner = crops.scanner(columns=COLUMNS, filter=f"batch = '{batch}' AND sha256 IS NOT NULL", batch_size=_READ_ROWS)
    waiting: deque[tuple[list[dict[str, Any]], list[Future[Pixels]]]] = deque()
    with ThreadPoolExecutor(processes_by_default()) as pool:  # Pillow decodes without holding the interpreter
        try:
            for chunk in scanner.to_batches():
                rows = chunk.to_pylist()
                if rows:
                    waiting.append((rows, [pool.submit(picture, row) for row in rows]))
                if len(waiting) > ahead:
                    yield _decoded(*waiting.popleft())
            while waiting:
                yield _decoded(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(rows: list[dict[str, Any]], pictures: list[Future[Pixels]]) -> tuple[list[dict[str, Any]], Pictures]:
    return rows, channels_first([picture.result() for picture in pictures])
