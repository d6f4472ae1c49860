"""Class maps of crops: what each pixel shows, one number of one common list, whatever saw it.

A map is kept as a PNG of one byte per pixel whose palette shows the classes: any viewer opens it in colour, and the bytes of
its pixels are the class numbers themselves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoloc_dagster.dataset.schema import MAP_CLASSES
from geoloc_dagster.errors import ImageError, IntegrityError
from geoloc_dagster.tables import open_table

if TYPE_CHECKING:
    import lance

CLASSES = MAP_CLASSES
"""Names of the classes, in the order of their numbers; what fits none of them is `other`."""
COLOURS = (
    (60, 60, 66),
    (120, 190, 240),
    (205, 105, 70),
    (170, 165, 175),
    (70, 150, 60),
    (30, 75, 190),
    (245, 200, 30),
    (225, 30, 120),
    (125, 45, 170),
)
"""How each class is shown, RGB."""

# Up to 16 colours, pixels are packed two to a byte; reading these took four times as long.
_BYTE_PER_PIXEL = [0, 0, 0] * (17 - len(COLOURS))
ClassMaps = npt.NDArray[np.uint8]
_REMEDY = "Materialise `segmentation_maps` for every batch."


def numbers_of(names: Sequence[str]) -> ClassMaps:
    """Numbers of the common list for the numbers of another: `numbers_of(names)[map]` translates a map.

    Args:
        names: the other list, in the order of its numbers, in any case; a name that is not in the common list is `other`.

    Returns:
        uint8, shape (256,); numbers that the other list lacks are `other` too.
    """
    table = np.zeros(256, np.uint8)
    for number, name in enumerate(names):
        table[number] = CLASSES.index(name.lower()) if name.lower() in CLASSES else 0
    return table


def encode_map(classes: ClassMaps) -> bytes:
    """Compress a map of class numbers, uint8 (H, W), without loss.

    Raises:
        ValueError: a number is no class.
    """
    if int(classes.max(initial=0)) >= len(CLASSES):
        raise ValueError(f"class {int(classes.max())} of {len(CLASSES)}")
    stream = io.BytesIO()
    image = Image.fromarray(classes)
    image.putpalette([channel for colour in COLOURS for channel in colour] + _BYTE_PER_PIXEL)
    image.save(stream, "PNG")
    return stream.getvalue()


def decode_map(encoded: bytes) -> ClassMaps:
    """The class numbers of a map, uint8 (H, W).

    Raises:
        ImageError: not a picture of one byte per pixel, or a truncated one.
    """
    return np.asarray(_opened(encoded))


def _opened(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"not a readable class map: {error}") from error
    if image.mode not in ("P", "L"):
        raise ImageError(f"not a class map: its pixels are {image.mode}, not one number each")
    return image


def resize_map(classes: ClassMaps, size: int) -> ClassMaps:
    """A map as `size` x `size`, each pixel with the class of the nearest one; classes are never mixed."""
    if classes.shape == (size, size):
        return classes
    return np.asarray(Image.fromarray(classes).resize((size, size), Image.Resampling.NEAREST))


class ClassMapReader:
    """Random access to one version of the table of class maps; holds its capture ids in memory, never its maps.

    Raises:
        IntegrityError: the table is missing, or was written with another list of classes.
    """

    def __init__(self, table_path: Path) -> None:
        table = open_table(table_path)
        if table is None:
            raise IntegrityError(f"{table_path} is missing", "Materialise `segmentation_maps` first.")
        _check_classes(table_path, table)
        self._path, self._table = table_path, table
        ids = table.to_table(columns=["capture_id"])["capture_id"].to_pylist()
        self._offset = {capture_id: offset for offset, capture_id in enumerate(ids)}

    def encoded(self, capture_ids: Sequence[str], expected_sha256: Mapping[str, str] | None = None) -> dict[str, bytes]:
        """The compressed maps by capture id.

        Args:
            capture_ids: which; may repeat.
            expected_sha256: checksum of the crop by capture id; a map of another crop was made before that one.

        Raises:
            IntegrityError: some have no map, or maps belong to other crops; says how many.
        """
        offsets = sorted({self._offset[one] for one in capture_ids if one in self._offset})
        columns = ["capture_id", "class_map", "crop_sha256"]
        taken = self._table.take(offsets, columns=columns).to_pylist() if offsets else []
        held = {row["capture_id"]: row for row in taken if row["class_map"] is not None}
        absent = sorted(set(capture_ids) - set(held))
        if absent:
            raise IntegrityError(f"{len(absent):,} captures have no class map in {self._path}, the first is {absent[0]}", _REMEDY)
        if expected_sha256 is not None:
            stale = [one for one, row in held.items() if expected_sha256.get(one, row["crop_sha256"]) != row["crop_sha256"]]
            if stale:
                cause = f"{len(stale):,} class maps in {self._path} belong to other crops than the ones in use"
                raise IntegrityError(f"{cause}, the first is that of {stale[0]}", _REMEDY)
        return {capture_id: row["class_map"] for capture_id, row in held.items()}

    def maps(self, capture_ids: Sequence[str], size: int, expected_sha256: Mapping[str, str] | None = None) -> ClassMaps:
        """Maps in the order of `capture_ids`: (N, size, size) uint8, resized to the nearest pixel.

        Raises:
            IntegrityError: as for `encoded`; or a map is damaged, or holds numbers that are no class.
        """
        encoded = self.encoded(capture_ids, expected_sha256)
        maps = np.zeros((len(capture_ids), size, size), np.uint8)
        for place, capture_id in enumerate(capture_ids):
            maps[place] = resize_map(self._decoded(capture_id, encoded[capture_id]), size)
        return maps

    def _decoded(self, capture_id: str, encoded: bytes) -> ClassMaps:
        try:
            classes = decode_map(encoded)
        except ImageError as error:
            raise IntegrityError(f"the class map of {capture_id} in {self._path}: {error.cause}", _REMEDY) from error
        if int(classes.max(initial=0)) >= len(CLASSES):
            raise IntegrityError(f"the class map of {capture_id} in {self._path} holds numbers that are no class", _REMEDY)
        return classes


def read_class_maps(
    table_path: Path, capture_ids: Sequence[str], size: int, expected_sha256: Mapping[str, str] | None = None
) -> ClassMaps:
    """Maps of some captures, in their order: (N, size, size) uint8; see `ClassMapReader`, which opens the table once for many.

    Raises:
        IntegrityError: the table is missing, some have no map, or maps belong to other crops.
    """
    return ClassMapReader(table_path).maps(capture_ids, size, expected_sha256)


def _check_classes(path: Path, table: lance.LanceDataset) -> None:
    written = tuple(json.loads((table.schema.metadata or {}).get(b"classes", b"[]")))
    if written != CLASSES:
        raise IntegrityError(f"{path} was written with other classes: {', '.join(written) or 'it names none'}", _REMEDY)
