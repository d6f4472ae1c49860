"""Pictures out of the crops table: all at once where they fit memory, streamed by worker processes where they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geoloc_dagster.dataset.pictures import CropReader

_CHUNK = 256
Progress = Callable[[int, int], None]


def read_pictures(
    crops_path: Path,
    capture_ids: Sequence[str],
    size: int,
    *,
    expected_sha256: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Read pictures into one uint8 tensor, N x 3 x size x size, in the order of `capture_ids`; see `CropReader.pictures`."""
    reader = CropReader(crops_path)
    pictures = torch.empty((len(capture_ids), 3, size, size), dtype=torch.uint8)
    starts = range(0, len(capture_ids), _CHUNK)

    def fill(start: int) -> int:
        part = capture_ids[start : start + _CHUNK]
        pictures[start : start + len(part)] = torch.from_numpy(reader.pictures(part, size, expected_sha256))
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
        pictures = self._reader.pictures(wanted, self.size, self.expected_sha256)
        return torch.from_numpy(pictures), torch.tensor(indices)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def keep_batch(batch: Any) -> Any:
    """Collate function of data sets that return whole batches."""
    return batch
