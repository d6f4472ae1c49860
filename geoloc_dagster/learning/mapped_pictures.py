"""Pictures with the class maps of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geoloc_dagster.dataset.class_maps import ClassMapReader
from geoloc_dagster.learning.pictures import MemoryPictures, StreamedPictures

_CHUNK = 1024


class MappedPictures(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """An item is (picture, class map, row number); maps are held as their pictures are, in memory or read when asked for.

    Args:
        pictures: in the order of the rows.
        maps_path: the table of class maps.
        capture_ids: of the rows.
        size: side of the maps, pixels.
        expected_sha256: of the crops, by capture id.

    Raises:
        IntegrityError: a capture has no map, or one of another crop.
    """

    def __init__(
        self,
        pictures: MemoryPictures | StreamedPictures,
        maps_path: Path,
        capture_ids: Sequence[str],
        size: int,
        expected_sha256: Mapping[str, str],
    ) -> None:
        self.pictures, self._maps_path, self._size = pictures, maps_path, size
        self._capture_ids, self._expected = list(capture_ids), dict(expected_sha256)
        self._reader: ClassMapReader | None = None
        self._held = None if isinstance(pictures, StreamedPictures) else self._all()

    @property
    def streamed(self) -> bool:
        """Whether they are read when asked for."""
        return self._held is None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        pictures, maps, rows = self.__getitems__([index])
        return pictures[0], maps[0], rows[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        pictures, rows = self.pictures.__getitems__(indices)
        return pictures, self._read(indices) if self._held is None else self._held[rows], rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def _all(self) -> Tensor:
        maps = torch.empty((len(self._capture_ids), self._size, self._size), dtype=torch.uint8)
        for start in range(0, len(maps), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(maps)))
            maps[rows.start : rows.stop] = self._read(list(rows))
        return maps

    def _read(self, indices: list[int]) -> Tensor:
        if self._reader is None:
            self._reader = ClassMapReader(self._maps_path)
        wanted = [self._capture_ids[index] for index in indices]
        return torch.from_numpy(self._reader.maps(wanted, self._size, self._expected))
