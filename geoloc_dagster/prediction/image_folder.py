"""Folders of photos to a CSV of answers: decoded by worker processes while the model works; what cannot be read is named.

`img_id,p_key,pred_class,pred_lat,pred_lng,confidence`, a row per photo and `p_key`: each level, and `hierarchy`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geoloc_dagster.errors import ImageError, NotEnoughDataError
from geoloc_dagster.learning.cells_model import CellAnswers, CellsModel
from geoloc_dagster.prediction.photo import as_picture, read_photo
from geoloc_dagster.storage import atomic_path

COLUMNS = ("img_id", "p_key", "pred_class", "pred_lat", "pred_lng", "confidence")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".mpo"})


@dataclass(frozen=True, slots=True)
class FolderPredictions:
    """What became of the photos of some folders.

    Attributes:
        answered: photos with rows in the CSV.
        unreadable: (photo, why) of those without.
    """

    answered: int
    unreadable: list[tuple[str, str]]


def find_photos(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Photos below some folders as (id, file), sorted; an id is the path below its folder.

    Raises:
        ImageError: a folder is missing.
        NotEnoughDataError: there is no photo in any.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder", "Name a folder of photos.")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found += [(path.relative_to(folder).as_posix(), path) for path in files if not path.name.startswith(".")]
    if not found:
        raise NotEnoughDataError(
            f"there are no photos in {', '.join(map(str, folders))}", "It looks for JPEG, PNG and WebP files."
        )
    return found


def predict_folders(
    model: CellsModel,
    folders: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 64,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderPredictions:
    """Answer every photo of some folders; `out` appears when all are answered.

    Args:
        model: that is asked.
        folders: searched with all below them.
        out: CSV of `COLUMNS`.
        batch_size: photos at once.
        workers: processes that decode; 0 decodes between the batches.
        progress: called with (photos done, photos).

    Raises:
        ImageError, NotEnoughDataError: there is nothing to answer.
    """
    photos = find_photos(folders)
    unreadable: list[tuple[str, str]] = []
    answered = done = 0
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for pictures, ids, failures in decoded(photos, model.size, batch_size, workers):
            if ids:
                writer.writerows(answer_rows(ids, model.answers(pictures, batch_size=batch_size)))
            unreadable += failures
            answered += len(ids)
            done += len(ids) + len(failures)
            if progress is not None:
                progress(done, len(photos))
    return FolderPredictions(answered, unreadable)


def answer_rows(ids: Sequence[str], answers: dict[str, CellAnswers]) -> Iterator[list[str]]:
    """Rows of the CSV, all answers of a photo together; degrees to 6 decimals (10 cm)."""
    for row, photo in enumerate(ids):
        for p_key, said in answers.items():
            position = (f"{said.lat_deg[row]:.6f}", f"{said.lng_deg[row]:.6f}")
            yield [photo, p_key, str(said.classes[row]), *position, f"{said.confidence[row]:.6f}"]


def decoded(
    photos: Sequence[tuple[str, Path]], size: int, batch_size: int, workers: int
) -> Iterator[tuple[torch.Tensor, list[str], list[tuple[str, str]]]]:
    """Batches in the order of the photos: pictures N x 3 x size x size, their ids, and (id, why) of those that are none."""
    loader: Any = DataLoader(
        _Files(photos, size),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        multiprocessing_context="fork" if workers else None,  # decoding uses no thread pool that a fork would break
        prefetch_factor=4 if workers else None,
    )
    yield from loader


class _Files(Dataset[tuple[str, np.ndarray | None, str]]):
    def __init__(self, photos: Sequence[tuple[str, Path]], size: int) -> None:
        self._photos, self._size = photos, size

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray | None, str]:
        photo, path = self._photos[index]
        try:
            return photo, as_picture(read_photo(path), self._size), ""
        except ImageError as error:
            return photo, None, error.cause


def _collate(items: list[tuple[str, np.ndarray | None, str]]) -> tuple[torch.Tensor, list[str], list[tuple[str, str]]]:
    good = [(photo, pixels) for photo, pixels, _ in items if pixels is not None]
    pictures = torch.from_numpy(np.stack([pixels for _, pixels in good])) if good else torch.empty(0)
    return pictures, [photo for photo, _ in good], [(photo, why) for photo, pixels, why in items if pixels is None]
