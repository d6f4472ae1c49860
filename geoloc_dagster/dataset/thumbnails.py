"""Small grey thumbnails of crops, read in batches: enough to tell whether two crops are one and the same picture."""

from __future__ import annotations

import io
from collections.abc import Callable

import lance
import numpy as np
import numpy.typing as npt
from PIL import Image

_BATCH_ROWS = 512


def read_thumbnails(
    dataset: lance.LanceDataset,
    offsets: npt.NDArray[np.int64],
    side: int,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """Thumbnails of the rows at these offsets, shape (n, side, side); pictures are held for one batch of rows at a time."""
    thumbnails = np.empty((len(offsets), side, side), dtype=np.uint8)
    for start in range(0, len(offsets), _BATCH_ROWS):
        batch = offsets[start : start + _BATCH_ROWS]
        pictures = dataset.take(batch.tolist(), columns=["image"]).column("image").to_pylist()
        for k, encoded in enumerate(pictures, start):
            thumbnails[k] = thumbnail(encoded, side)
        if progress is not None:
            progress(min(start + _BATCH_ROWS, len(offsets)), len(offsets))
    return thumbnails


def thumbnail(encoded: bytes, side: int) -> npt.NDArray[np.uint8]:
    """Grey means over `side` x `side` fields of one encoded picture.

    Decoded at full size: reducing while decoding shifts sizes that are no multiple of 8, and one copy in forty was missed.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX))
