"""Pictures out of the crops table: all at once where they fit memory, streamed by worker processes where they do not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from geoloc_dagster.errors import ImageError, IntegrityError
from geoloc_dagster.storage import open_table

_CHUNK = 256
Progress = Callable[[int, int], None]


def decode_picture(encoded: bytes, size: int) -> np.ndarray:
    """Decode a picture to RGB, `size` x `size` x 3, uint8; large JPEGs are reduced while decoding.

    Raises:
        ImageError: not a picture, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (size, size))
            rgb = image.convert("RGB")
            if rgb.size != (size, size):
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(rgb)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"not a readable picture: {error}") from error


class CropReader:
    """Random access to the pictures of a crops table by capture id.

    Raises:
        IntegrityError: the table is missing, or has no such capture.
    """

    def __init__(self, crops_path: Path, *, version: int | None = None) -> None:
        table = open_table(crops_path, version)
        if table is None:
            raise IntegrityError(f"{crops_path} is missing", "Materialise `crops` first.")
        self.path = crops_path
        self.version = int(table.version)
        self._table: lance.LanceDataset = table
        ids = table.to_table(columns=["capture_id"]).column("capture_id").to_pylist()
        self._offset = {capture_id: offset for offset, capture_id in enumerate(ids)}

    def read(
        self, capture_ids: Sequence[str], size: int, *, verify: bool = True, expected_sha256: Mapping[str, str] | None = None
    ) -> Tensor:
        """Pictures in the order of `capture_ids`, N x 3 x size x size, uint8.

        Args:
            capture_ids: which; may repeat.
            size: side in pixels.
            verify: compare every picture with the sha256 of its row before it is decoded.
            expected_sha256: by capture id; a row that says otherwise was changed since the caller's table was made.

        Raises:
            IntegrityError: an unknown capture, or bytes that are not the ones recorded; names the capture.
            ImageError: a picture that cannot be decoded; names the capture.
        """
        offsets = np.array([self._offset_of(capture_id) for capture_id in capture_ids], dtype=np.int64)
        unique, inverse = np.unique(offsets, return_inverse=True)
        rows = self._table.take(unique.tolist(), columns=["capture_id", "image", "sha256"]).to_pylist()
        for row in rows:
            self._check(row, verify, expected_sha256)
        pictures = torch.from_numpy(np.stack([self._decode(row, size) for row in rows]))
        return pictures[torch.from_numpy(inverse)].permute(0, 3, 1, 2).contiguous()

    def _offset_of(self, capture_id: str) -> int:
        try:
            return self._offset[capture_id]
        except KeyError:
            raise IntegrityError(
                f"{self.path} has no crop of capture {capture_id}", "Materialise `crops`, then `catalog`, again."
            ) from None

    def _check(self, row: dict[str, Any], verify: bool, expected: Mapping[str, str] | None) -> None:
        capture_id = row["capture_id"]
        if row["image"] is None:
            raise ImageError(f"the crop of capture {capture_id} has no picture", "Leave rows flagged `undecodable` out.")
        if verify and hashlib.sha256(row["image"]).hexdigest() != row["sha256"]:
            raise IntegrityError(f"the crop of capture {capture_id} in {self.path} has changed since it was written")
        if expected is not None and expected.get(capture_id, row["sha256"]) != row["sha256"]:
            raise IntegrityError(
                f"the crop of capture {capture_id} is not the one that the catalog lists", "Materialise `catalog` again."
            )

    def _decode(self, row: dict[str, Any], size: int) -> np.ndarray:
        try:
            return decode_picture(row["image"], size)
        except ImageError as error:
            raise ImageError(f"the crop of capture {row['capture_id']}: {error.cause}") from error


def read_pictures(
    crops_path: Path,
    capture_ids: Sequence[str],
    size: int,
    *,
    verify: bool = True,
    expected_sha256: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Read pictures into one uint8 tensor, N x 3 x size x size, in the order of `capture_ids`; see `CropReader.read`."""
    reader = CropReader(crops_path)
    pictures = torch.empty((len(capture_ids), 3, size, size), dtype=torch.uint8)
    starts = range(0, len(capture_ids), _CHUNK)

    def fill(start: int) -> int:
        part = capture_ids[start : start + _CHUNK]
        pictures[start : start + len(part)] = reader.read(part, size, verify=verify, expected_sha256=expected_sha256)
        return len(part)

    done = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for count in pool.map(fill, starts):
            done += count
            if progress is not None:
                progress(done, len(capture_ids))
    return pictures


class MemoryPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures held in memory; an item is (picture, row number)."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pictures[index], torch.tensor(index)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(indices)
        return self.pictures[rows], rows


class StreamedPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures read from the crops table when asked for; opens the table in each worker, since Lance is not fork-safe."""

    def __init__(self, crops_path: Path, capture_ids: Sequence[str], size: int, expected_sha256: Mapping[str, str]) -> None:
        self.crops_path = crops_path
        self.capture_ids = list(capture_ids)
        self.size = size
        self.expected_sha256 = dict(expected_sha256)
        self._reader: CropReader | None = None

    def __len__(self) -> int:
        return len(self.capture_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pictures, rows = self.__getitems__([index])
        return pictures[0], rows[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        if self._reader is None:
            self._reader = CropReader(self.crops_path)
        wanted = [self.capture_ids[index] for index in indices]
        return self._reader.read(wanted, self.size, expected_sha256=self.expected_sha256), torch.tensor(indices)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def keep_batch(batch: Any) -> Any:
    """Collate function of data sets that return whole batches."""
    return batch
