"""What each pixel of each crop shows: as a model sees it, or as the emulator drew it.

One batch is replaced in one commit, or not at all; nothing is done where neither the crops nor the source of the maps changed.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.class_maps import CLASSES, ClassMaps, decode_map, encode_map, resize_map
from geoloc_dagster.dataset.crops import are_crops_of, crop_picture
from geoloc_dagster.dataset.pictures import CropReader, stack_pictures
from geoloc_dagster.dataset.receipts import fingerprint, read_receipt, receipt_path
from geoloc_dagster.dataset.schema import SEGMENTATION_MAPS
from geoloc_dagster.errors import CollectionSourceError, IntegrityError, ModelMismatchError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.emulated_maps import COLUMNS, fetch_maps
from geoloc_dagster.storage import write_json
from geoloc_dagster.tables import open_table, replace_batch, table_version

if TYPE_CHECKING:
    from geoloc_dagster.imagery.client import ServiceClient

_PICTURES_AT_ONCE = 16
_MAPS_AT_ONCE = 128
_STATED = [name for name in SEGMENTATION_MAPS.names if name != "class_map"]


class Segmenter(Protocol):
    """What tells classes of pixels apart."""

    @property
    def model_version(self) -> str:
        """Which model it is, its weights and the mapping of its categories; stands in `source` of its maps."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures that it takes, pixels."""
        ...

    def class_maps(self, pictures: npt.NDArray[np.uint8]) -> ClassMaps:
        """Class of each pixel, (N, size, size) uint8, of RGB pictures (N, 3, size, size)."""
        ...


class MapSource(Protocol):
    """Where the maps of one batch come from."""

    @property
    def name(self) -> str:
        """Stands in `source` of the maps; another name means other maps."""
        ...

    def maps(self, capture_ids: Sequence[str]) -> Iterator[dict[str, ClassMaps | None]]:
        """Maps of captures as large as their crops, some at a time; None for a capture of which there is none."""
        ...


@dataclass(frozen=True, slots=True)
class MapResult:
    """The class maps of one batch.

    Attributes:
        rows: crops of the batch.
        maps: crops that have a map.
        shares: of all pixels, by class; zeros where there is no map.
        showing: maps in which a class occurs.
        bytes_per_map: on average, compressed.
        table_version: version of the table that holds them.
        changed: False where the table held exactly these maps already.
    """

    rows: int
    maps: int
    shares: dict[str, float]
    showing: dict[str, int]
    bytes_per_map: float
    table_version: int
    changed: bool


def write_segmentation_maps(
    crops_path: Path,
    maps_path: Path,
    batch: str,
    source: MapSource,
    progress: Callable[[int, int], None] | None = None,
) -> MapResult:
    """Make the class maps of one batch the only ones of that batch, in one commit.

    Args:
        crops_path: the crops table.
        maps_path: the table of class maps; written where it is missing.
        batch: key of the batch, e.g. `100m-0003`.
        source: where they come from.
        progress: called with (crops done, crops that have a picture).

    Raises:
        IntegrityError: the crops table is missing, or a crop has changed since it was made.
        ModelMismatchError: a model's maps are no class maps of these pictures.
        CollectionSourceError: the emulator's maps cannot be had, all of them or some.
        DiskFullError: the maps of before stay.
    """
    failpoint("maps.begun")
    BatchKey.parse(batch)
    crops = _crops_of(crops_path, batch)
    inputs = fingerprint([source.name], *zip(*[(crop["capture_id"], crop["sha256"]) for crop in crops], strict=True))
    receipt = receipt_path(maps_path, batch)
    held = _held(maps_path, batch)
    if held is not None and read_receipt(receipt) == {"inputs": inputs, "maps": _digest(held)}:
        return _result(held, table_version(maps_path), changed=False)
    rows = {crop["capture_id"]: _row_of(crop, batch) for crop in crops}
    pictured = [crop["capture_id"] for crop in crops if crop["sha256"]]
    done = 0
    for some in source.maps(pictured):
        for capture_id, classes in some.items():
            if classes is not None:
                height, width = classes.shape
                encoded = encode_map(classes)
                rows[capture_id] |= {"class_map": encoded, "width": width, "height": height, "source": source.name}
        done += len(some)
        if progress is not None:
            progress(done, len(pictured))
    table = pa.Table.from_pylist(list(rows.values()), schema=SEGMENTATION_MAPS)
    failpoint("maps.made")
    version = replace_batch(maps_path, table, batch)
    failpoint("maps.written")
    write_json(receipt, {"inputs": inputs, "maps": _digest(table)})
    return _result(table, version, changed=True)


class SegmenterMaps:
    """Maps as a model sees the crops.

    Raises:
        IntegrityError: there are no crops.
    """

    def __init__(self, segmenter: Segmenter, crops_path: Path) -> None:
        self._segmenter = segmenter
        self._reader = CropReader(crops_path)

    @property
    def name(self) -> str:
        """The version of the model."""
        return self._segmenter.model_version

    def maps(self, capture_ids: Sequence[str]) -> Iterator[dict[str, ClassMaps | None]]:
        """Maps of captures as large as their crops."""
        for first in range(0, len(capture_ids), _PICTURES_AT_ONCE):
            rows = self._reader.rows(capture_ids[first : first + _PICTURES_AT_ONCE])
            seen = self._segmenter.class_maps(stack_pictures(rows, self._segmenter.size))
            self._check(seen, len(rows))
            sides = [Image.open(io.BytesIO(row["image"])).width for row in rows]
            yield {row["capture_id"]: resize_map(one, side) for row, one, side in zip(rows, seen, sides, strict=True)}

    def _check(self, seen: ClassMaps, count: int) -> None:
        size = self._segmenter.size
        if seen.dtype != np.uint8 or seen.shape != (count, size, size) or int(seen.max(initial=0)) >= len(CLASSES):
            raise ModelMismatchError(
                f"{self.name} gives no class maps of {count} pictures of {size} px (shape {seen.shape}, {seen.dtype})",
                "Name a model of semantic segmentation in `segmentation.model`.",
            )


class EmulatedMaps:
    """Maps of what an emulator drew, cut as the pictures were.

    Args:
        client: asks the emulator.
        captures_path: the captures table.
        crops: how their pictures were cut.

    Raises:
        IntegrityError: the captures table is missing, or the crops of the batch were cut in another way.
    """

    name = "emulator"

    def __init__(self, client: ServiceClient, captures_path: Path, crops_path: Path, batch: str, crops: CropSettings) -> None:
        if not are_crops_of(captures_path, crops_path, batch, crops):
            cause = f"the crops of {batch} were not made of the captures of now with the settings of now"
            raise IntegrityError(cause, "Materialise `crops` for this batch first; maps have to be cut in the same way.")
        self._client, self._crops = client, crops
        table = open_table(captures_path)
        rows = [] if table is None else table.to_table(columns=list(COLUMNS), filter=f"batch = '{batch}'").to_pylist()
        self._captures: dict[str, dict[str, Any]] = {row["capture_id"]: row for row in rows}

    def maps(self, capture_ids: Sequence[str]) -> Iterator[dict[str, ClassMaps | None]]:
        """Maps of captures as large as their crops.

        Raises:
            CollectionSourceError: a map cannot be had, or no emulator drew any of these pictures.
        """
        found = 0
        for first in range(0, len(capture_ids), _MAPS_AT_ONCE):
            some = capture_ids[first : first + _MAPS_AT_ONCE]
            whole = asyncio.run(fetch_maps(self._client, [self._captures[one] for one in some]))
            found += len(whole)
            yield {one: cut_map(whole[one], self._captures[one], self._crops) if one in whole else None for one in some}
        if capture_ids and not found:
            cause = f"no emulator drew any of the {len(capture_ids):,} pictures of this batch"
            raise CollectionSourceError(cause, "Set `segmentation.source: model`.")


def cut_map(classes: ClassMaps, capture: dict[str, Any], crops: CropSettings) -> ClassMaps:
    """The part of a whole picture's map that its crop shows, (crops.size, crops.size) uint8.

    Args:
        classes: uint8 (H, W), of the picture as it was drawn.
        capture: with `width` and `height`, to which the picture may have been scaled before it was stored.
        crops: how it was cut.

    Raises:
        IntegrityError: the map has another shape than the picture.
    """
    height, width = classes.shape
    if abs(width * capture["height"] - height * capture["width"]) > max(width, height):
        cause = (
            f"the map of {capture['capture_id']} has {width} x {height} px, its picture {capture['width']} x {capture['height']}"
        )
        raise IntegrityError(cause, "Is it the emulator that the pictures came from?")
    image, size = Image.fromarray(classes), (capture["width"], capture["height"])
    if image.size != size:
        image = image.resize(size, Image.Resampling.NEAREST)
    return np.asarray(crop_picture(image, crops.size, crops.box, Image.Resampling.NEAREST))


def _crops_of(crops_path: Path, batch: str) -> list[dict[str, Any]]:
    table = open_table(crops_path)
    if table is None:
        raise IntegrityError(f"{crops_path} is missing", "Materialise the crops of a batch first.")
    return table.to_table(columns=["capture_id", "sha256"], filter=f"batch = '{batch}'").to_pylist()


def _row_of(crop: dict[str, Any], batch: str) -> dict[str, Any]:
    return {"capture_id": crop["capture_id"], "batch": batch, "crop_sha256": crop["sha256"], "source": None}


def _held(maps_path: Path, batch: str) -> pa.Table | None:
    table = open_table(maps_path)
    return None if table is None else table.to_table(columns=SEGMENTATION_MAPS.names, filter=f"batch = '{batch}'")


def _digest(table: pa.Table) -> str:
    columns = [table[name].to_pylist() for name in _STATED]
    return fingerprint([], *columns, [fingerprint([str(encoded)]) for encoded in table["class_map"].to_pylist()])


def _result(table: pa.Table, version: int, *, changed: bool) -> MapResult:
    encoded = [one for one in table["class_map"].to_pylist() if one is not None]
    pixels, showing = np.zeros(len(CLASSES), np.int64), np.zeros(len(CLASSES), np.int64)
    for one in encoded:
        counts = np.bincount(decode_map(one).ravel(), minlength=len(CLASSES))
        pixels += counts
        showing += counts > 0
    shares = pixels / max(1, int(pixels.sum()))
    return MapResult(
        table.num_rows,
        len(encoded),
        dict(zip(CLASSES, shares.tolist(), strict=True)),
        dict(zip(CLASSES, showing.tolist(), strict=True)),
        sum(map(len, encoded)) / max(1, len(encoded)),
        version,
        changed,
    )
