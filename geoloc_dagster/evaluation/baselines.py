"""What a model has to beat: a tiny grey thumbnail, chance, and its own backbone before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from geoloc_dagster.dataset.pictures import CropReader, stack_pictures
from geoloc_dagster.evaluation.protocol import Vectors

THUMBNAIL_SIDE = 24


class Embeds(Protocol):
    """Anything that turns pictures into descriptors; trained, untrained or not learned at all."""

    @property
    def image_size(self) -> int | None:
        """Side in pixels at which pictures are read; None for as large as they are."""
        ...

    def embed(self, pictures: Any, /) -> np.ndarray:
        """(N, 3, S, S) uint8 pictures, an array or a tensor, to (N, D) float32 descriptors."""
        ...


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> np.ndarray:
    """The picture as `side` x `side` grey values with mean 0 and length 1: (side * side,) float32.

    A picture of one even colour gives zeros, which are similar to nothing.
    """
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), np.float32).ravel()
    grey -= grey.mean()
    length = float(np.linalg.norm(grey))
    return grey / length if length > 0 else grey


class ThumbnailEncoder:
    """The thumbnail with the interface of a trained encoder."""

    model_version = "thumbnail"
    image_size = None
    dimension = THUMBNAIL_SIDE**2

    def embed(self, pictures: Any, /) -> np.ndarray:
        """(N, 3, S, S) uint8 pictures to (N, 576) float32 descriptors."""
        pictures = np.asarray(pictures)
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != np.uint8:
            raise ValueError(f"expected uint8 pictures of shape (N, 3, S, S), not {pictures.dtype} {pictures.shape}")
        rows = [thumbnail(Image.fromarray(np.ascontiguousarray(p.transpose(1, 2, 0)))) for p in pictures]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)


def random_vectors(capture_ids: Sequence[str], *, dimension: int = 64, seed: int = 0) -> Vectors:
    """Directions drawn at random: what chance gives on this split."""
    rng = np.random.default_rng(seed)
    return Vectors(tuple(capture_ids), rng.standard_normal((len(capture_ids), dimension), np.float32))


def embed_crops(
    encoder: Embeds,
    crops_path: Path,
    capture_ids: Sequence[str],
    *,
    batch_rows: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """Descriptors of the named crops, read from the table in batches so that memory stays bounded.

    Pass an encoder with fresh weights to learn what the backbone is worth before training. Crops without a decodable
    picture get no vector.

    Raises:
        IntegrityError: a crop is missing from the table, or its bytes have changed.
    """
    reader = CropReader(crops_path)
    names: list[str] = []
    parts: list[np.ndarray] = []
    for start in range(0, len(capture_ids), batch_rows):
        rows = [row for row in reader.rows(capture_ids[start : start + batch_rows]) if row["image"] is not None]
        if rows:
            names.extend(row["capture_id"] for row in rows)
            parts.append(np.asarray(encoder.embed(stack_pictures(rows, encoder.image_size)), np.float32))
        if progress is not None:
            progress(min(start + batch_rows, len(capture_ids)), len(capture_ids))
    return Vectors(tuple(names), np.concatenate(parts) if parts else np.empty((0, 1), np.float32))
