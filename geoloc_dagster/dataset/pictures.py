"""Crops as pixels: read by capture id, compared with their checksums, decoded in one way for everybody.

Training, evaluation and the index must see the same pixels: another way of resizing moves every vector a little.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoloc_dagster.errors import ImageError, IntegrityError
from geoloc_dagster.tables import open_table

Pixels = npt.NDArray[np.uint8]
COLUMNS = ["capture_id", "image", "sha256"]
_REMEDY = "Materialise `crops` for its batch again; the last good release stays served."


def decode_picture(encoded: bytes, size: int | None = None) -> Pixels:
    """Decode a picture to RGB, `size` x `size` x 3, uint8, or as large as it is; large JPEGs are reduced while decoding.

    Raises:
        ImageError: not a picture, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if size is not None:
                image.draft("RGB", (size, size))
            rgb = image.convert("RGB")
            if size is not None and rgb.size != (size, size):
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(rgb)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"not a readable picture: {error}") from error


def stack_pictures(rows: Sequence[Mapping[str, Any]], size: int | None = None) -> Pixels:
    """Decode rows that have a picture: (N, 3, size, size) uint8.

    Raises:
        ImageError: a picture cannot be decoded; names the capture.
    """
    return channels_first([decode_row(row, size) for row in rows])


def decode_row(row: Mapping[str, Any], size: int | None = None) -> Pixels:
    """`decode_picture` of a row's crop; an error names the capture."""
    try:
        return decode_picture(row["image"], size)
    except ImageError as error:
        raise ImageError(f"the crop of capture {row['capture_id']}: {error.cause}") from error


def channels_first(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one size, each H x W x 3, as one array N x 3 x H x W."""
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))


def verify_picture(path: Path, row: Mapping[str, Any]) -> None:
    """Compare the bytes of a crop with the checksum of its row.

    Raises:
        IntegrityError: they differ; names the table and the capture.
    """
    if row["image"] is not None and hashlib.sha256(row["image"]).hexdigest() != row["sha256"]:
        raise IntegrityError(
            f"the crop of capture {row['capture_id']} in {path} has changed since it was written (sha256 differs)", _REMEDY
        )


class CropReader:
    """Random access to one version of a crops table; holds its capture ids in memory, never its pictures.

    Raises:
        IntegrityError: the table is missing.
    """

    def __init__(self, crops_path: Path) -> None:
        table = open_table(crops_path)
        if table is None:
            raise IntegrityError(f"{crops_path} is missing", "Materialise `crops` first.")
        self._path = crops_path
        self._table = table
        ids = table.to_table(columns=["capture_id"])["capture_id"].to_pylist()
        self._offset = {capture_id: offset for offset, capture_id in enumerate(ids)}

    def rows(self, capture_ids: Sequence[str], expected_sha256: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Rows of `COLUMNS` in the order asked for, each checked; `image` is None where nothing could be decoded.

        Args:
            capture_ids: which; may repeat.
            expected_sha256: by capture id; a row that says otherwise was changed since the caller's table was made.

        Raises:
            IntegrityError: an unknown capture, or bytes that are not the ones recorded; names the capture.
        """
        absent = [capture_id for capture_id in capture_ids if capture_id not in self._offset]
        if absent:
            raise IntegrityError(f"{len(absent):,} captures are not in {self._path}, the first is {absent[0]}", _REMEDY)
        offsets = sorted({self._offset[capture_id] for capture_id in capture_ids})
        taken = {row["capture_id"]: row for row in self._table.take(offsets, columns=COLUMNS).to_pylist()} if offsets else {}
        for capture_id, row in taken.items():
            verify_picture(self._path, row)
            if expected_sha256 is not None and expected_sha256.get(capture_id, row["sha256"]) != row["sha256"]:
                raise IntegrityError(
                    f"the crop of capture {capture_id} is not the one that the catalog lists", "Materialise `catalog` again."
                )
        return [taken[capture_id] for capture_id in capture_ids]

    def encoded(self, capture_ids: Sequence[str]) -> dict[str, bytes | None]:
        """The encoded crops by capture id, in the order asked for; None where a capture has no picture."""
        return {row["capture_id"]: row["image"] for row in self.rows(capture_ids)}

    def pictures(self, capture_ids: Sequence[str], size: int, expected_sha256: Mapping[str, str] | None = None) -> Pixels:
        """Pictures in the order of `capture_ids`: (N, 3, size, size) uint8.

        Raises:
            ImageError: a capture has no picture, or one that cannot be decoded; names the capture.
        """
        rows = self.rows(capture_ids, expected_sha256)
        for row in rows:
            if row["image"] is None:
                raise ImageError(f"the crop of capture {row['capture_id']} has no picture", "Leave `undecodable` rows out.")
        return stack_pictures(rows, size)
