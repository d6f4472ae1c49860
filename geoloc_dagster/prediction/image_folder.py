"""Folders of photos to a CSV of answers: decoded by threads, batch by batch; what cannot be read is named.

On a CPU a batch is decoded by all cores and then answered by all cores: decoding beside the model takes a core from it, and
the others wait for the slowest at every layer. On a GPU the next batches are decoded while it works.

`img_id,p_key,pred_class,pred_lat,pred_lng,confidence`, a row per photo and `p_key`: each level, and `hierarchy`.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.errors import ImageError
from geoloc_dagster.learning.cells_model import CellAnswers
from geoloc_dagster.learning.photo_models import AnyPhotoModel
from geoloc_dagster.prediction.photo import as_picture, find_photos, read_photo
from geoloc_dagster.retrieval.encoder import Pictures
from geoloc_dagster.storage import atomic_path

COLUMNS = ("img_id", "p_key", "pred_class", "pred_lat", "pred_lng", "confidence")
_AHEAD = 3
_Photo = tuple[str, Pictures | None, str]


@dataclass(frozen=True, slots=True)
class FolderPredictions:
    """What became of the photos of some folders.

    Attributes:
        answered: photos with rows in the CSV.
        unreadable: (photo, why) of those without.
    """

    answered: int
    unreadable: list[tuple[str, str]]


def predict_folders(
    model: AnyPhotoModel,
    folders: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FolderPredictions:
    """Answer every photo of some folders; `out` appears when all are answered.

    Args:
        model: that is asked.
        folders: searched with all below them.
        out: CSV of `COLUMNS`.
        batch_size: photos at once.
        workers: threads that decode; by default one for each core, four at most.
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
        threads = workers or processes_by_default()
        ahead = 0 if model.device == "cpu" else _AHEAD
        for pictures, ids, failures in decoded(photos, model.size, batch_size, workers=threads, ahead=ahead):
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
    photos: Sequence[tuple[str, Path]], size: int, batch_size: int, *, workers: int, ahead: int
) -> Iterator[tuple[torch.Tensor, list[str], list[tuple[str, str]]]]:
    """Batches in the order of the photos: pictures N x 3 x size x size, their ids, and (id, why) of those that are none.

    Args:
        photos: (id, file) of each.
        size: side of the pictures in pixels.
        batch_size: photos of a batch.
        workers: threads; Pillow decodes and resizes without holding the interpreter.
        ahead: batches that are decoded while one is answered.
    """
    waiting: deque[list[Future[_Photo]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(photos), batch_size):
                waiting.append([pool.submit(_read, photo, path, size) for photo, path in photos[start : start + batch_size]])
                if len(waiting) > ahead:
                    yield _together(waiting.popleft())
            while waiting:
                yield _together(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _read(photo: str, path: Path, size: int) -> _Photo:
    try:
        return photo, as_picture(read_photo(path), size), ""
    except ImageError as error:
        return photo, None, error.cause


def _together(batch: list[Future[_Photo]]) -> tuple[torch.Tensor, list[str], list[tuple[str, str]]]:
    items = [future.result() for future in batch]
    good = [(photo, pixels) for photo, pixels, _ in items if pixels is not None]
    if not good:
        return torch.empty(0), [], [(photo, why) for photo, _, why in items]
    channels_last = np.stack([pixels.transpose(1, 2, 0) for _, pixels in good])
    pictures = torch.from_numpy(channels_last).permute(0, 3, 1, 2)
    return pictures, [photo for photo, _ in good], [(photo, why) for photo, pixels, why in items if pixels is None]
