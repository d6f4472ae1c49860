"""From captures to crops: square pictures of one size, encoded, with what was found in each of them.

A capture that cannot be decoded gives a row without a picture, flagged `undecodable`. A capture that already is a square
JPEG of the wanted size is not encoded again. No crop carries EXIF or other remarks; all are upright and in sRGB. One batch is
replaced in one commit, or not at all; its pieces are written, but not committed, wherever the engine does them.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.receipts import fingerprint, read_receipt, receipt_path
from geoloc_dagster.dataset.remarks import without_remarks
from geoloc_dagster.dataset.schema import CROPS
from geoloc_dagster.errors import GateError, ImageError, IntegrityError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.quality import (
    GreyStatistics,
    decode,
    decode_opened,
    is_srgb,
    is_upright,
    open_header,
    phash64_many,
    thumbnail,
    to_grey,
)
from geoloc_dagster.scale.engine import LOCAL, Engine, Tick, counted
from geoloc_dagster.storage import write_json
from geoloc_dagster.tables import discard_files, open_table, replace_batch_files, table_version, write_uncommitted

_log = logging.getLogger(__name__)
_CHUNK_ROWS = 128  # captures in memory at a time; crops are 60 times smaller than screenshots
_RECIPE_VERSION = 2  # raise it when the same captures and settings would give other crops
_COPIED = [
    "capture_id",
    "batch",
    "source",
    "pano_id",
    "location_id",
    "lat_deg",
    "lng_deg",
    "captured_on",
    "heading_deg",
    "rotation",
    "licence",
    "attribution",
]

_FACTS = pa.schema([CROPS.field(name) for name in ("capture_id", "capture_sha256", "sha256", "flags")])


@dataclass(frozen=True, slots=True)
class CropResult:
    """The crops of one batch.

    Attributes:
        rows: crops of the batch, undecodable ones included.
        decodable_share: share of rows with a picture; 1.0 for a batch without rows.
        flags: rows per flag.
        table_version: version of the table that holds them.
        changed: False where the table held exactly these crops already.
    """

    rows: int
    decodable_share: float
    flags: dict[str, int]
    table_version: int
    changed: bool


def crop_picture(
    image: Image.Image,
    size: int,
    box: tuple[int, int, int, int] | None,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Cut out `box` (left, top, right, bottom; pixels), or the centre square, and scale it to `size` x `size`.

    A picture that already has that size is returned as it is: collections mix screenshots and finished crops.

    Raises:
        ImageError: the box reaches out of the picture.
    """
    if image.size == (size, size):
        return image
    if box is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    if not (0 <= box[0] < box[2] <= image.width and 0 <= box[1] < box[3] <= image.height):
        raise ImageError(
            f"the crop box {box} does not fit into a picture of {image.width} x {image.height} pixels",
            "Correct `crops.box`, or leave it out for the centre square.",
        )
    # Cut first: `resize(box=...)` would let pixels from beyond the box into its edges.
    return image.crop(box).resize((size, size), resampling)


def make_crops(captures: pa.Table, settings: CropSettings) -> pa.Table:
    """Crop the captures of a table with the columns of CAPTURES; rows without bytes give no crop.

    Raises:
        IntegrityError: the bytes of a capture are not those that were collected.
        ImageError: the crop box of the settings does not fit a picture.
    """
    rows: list[dict[str, Any]] = []
    thumbnails: dict[int, np.ndarray] = {}
    for capture in captures.to_pylist():
        if capture["image"] is None:
            continue
        columns, small = _crop_columns(capture, settings)
        if small is not None:
            thumbnails[len(rows)] = small
        rows.append({name: capture[name] for name in _COPIED} | columns)
    if thumbnails:
        for row, phash in zip(thumbnails, phash64_many(np.stack(list(thumbnails.values()))), strict=True):
            rows[row]["phash"] = int(phash)
    return pa.Table.from_pylist(rows, schema=CROPS)


def _crop_columns(capture: dict[str, Any], settings: CropSettings) -> tuple[dict[str, Any], np.ndarray | None]:
    """The columns that depend on the picture, and its grey thumbnail where it could be decoded."""
    content: bytes = capture["image"]
    if hashlib.sha256(content).hexdigest() != capture["sha256"]:
        raise IntegrityError(f"the picture of capture {capture['capture_id']} has changed since it was collected")
    try:
        header = open_header(content)
        picture = decode_opened(header)
    except ImageError as error:
        _log.warning("capture %s: %s", capture["capture_id"], error.cause)
        return {"capture_sha256": capture["sha256"], "flags": ["undecodable"]}, None
    if _is_crop_already(header, settings.size):
        encoded, crop = without_remarks(content), picture
    else:
        encoded, crop = _encode(crop_picture(picture, settings.size, settings.box), settings.jpeg_quality)
    grey = to_grey(np.asarray(crop))
    statistics = GreyStatistics.of(grey)
    columns = {
        "image": encoded,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "capture_sha256": capture["sha256"],
        "brightness": statistics.mean,
        "contrast": statistics.deviation,
        "flags": statistics.flags(),
    }
    return columns, thumbnail(grey)


def _is_crop_already(header: Image.Image, size: int) -> bool:
    """Whether the pixels of a picture can be stored as they are."""
    fits = header.size == (size, size) and header.format == "JPEG" and header.mode in ("RGB", "L")
    return fits and is_upright(header) and is_srgb(header)


def _encode(crop: Image.Image, quality: int) -> tuple[bytes, Image.Image]:
    """JPEG bytes, and the pixels that they will give: what is measured is what is stored."""
    stream = io.BytesIO()
    crop.save(stream, "JPEG", quality=quality)
    return stream.getvalue(), decode(stream.getvalue())


def write_crops(
    captures_path: Path,
    crops_path: Path,
    batch: str,
    settings: CropSettings,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
) -> CropResult:
    """Make the crops of one batch the only ones of that batch, in one commit; nothing is done where nothing changed.

    Captures are read, decoded and written a chunk at a time.

    Args:
        captures_path: the captures table.
        crops_path: the crops table; written where it is missing.
        batch: key of the batch, e.g. `100m-0003`.
        settings: size, box and quality of the crops.
        progress: called with (captures done, captures) after each chunk, or after each piece that is done elsewhere.
        engine: that does the pieces of the batch.

    Raises:
        IntegrityError: the captures table is missing, or bytes in it have changed since they were collected.
        ImageError: the crop box does not fit a picture.
        GateError: fewer captures than `settings.min_decodable_share` can be decoded; the crops of before stay.
        DiskFullError: the crops of before stay.
        EngineError: the pieces were lost; the crops of before stay.
    """
    failpoint("crops.begun")
    BatchKey.parse(batch)
    captures = open_table(captures_path)
    if captures is None:
        raise IntegrityError(f"{captures_path} is missing", "Materialise the captures of a batch first.")
    of_batch = f"batch = '{batch}'"
    listed = captures.to_table(columns=["capture_id", "sha256", "_rowoffset"], filter=f"{of_batch} AND sha256 IS NOT NULL")
    inputs = _input_digest(listed, settings)
    receipt = receipt_path(crops_path, batch)
    held = _held(crops_path, of_batch)
    if held is not None and read_receipt(receipt) == {"inputs": inputs, "crops": _digest(held)}:
        _refuse_undecodable(held, batch, settings)
        return _result(held, table_version(crops_path), changed=False)
    offsets: list[int] = listed["_rowoffset"].to_pylist()
    pieces = [
        CropPiece(captures_path, int(captures.version), tuple(offsets[part.start : part.stop]), crops_path, settings)
        for part in engine.cut(len(offsets))
    ]
    written = engine.map(crop_piece, pieces, counted(progress, len(offsets)))
    crops = pa.concat_tables([_FACTS.empty_table(), *(piece.facts for piece in written)])
    fragments = [fragment for piece in written for fragment in piece.fragments]
    try:
        _refuse_undecodable(crops, batch, settings)
    except GateError:
        discard_files(crops_path, fragments)
        raise
    failpoint("crops.made")
    version = replace_batch_files(crops_path, fragments, batch, CROPS)
    failpoint("crops.written")
    write_json(receipt, {"inputs": inputs, "crops": _digest(crops)})
    return _result(crops, version, changed=True)


@dataclass(frozen=True, slots=True)
class CropPiece:
    """Some captures of a batch that are to be cropped.

    Attributes:
        captures_path: the captures table.
        version: of it.
        offsets: of the captures in that version.
        crops_path: the crops table.
        settings: of the crops.
    """

    captures_path: Path
    version: int
    offsets: tuple[int, ...]
    crops_path: Path
    settings: CropSettings

    @property
    def rows(self) -> int:
        """How many captures."""
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class WrittenCrops:
    """Crops that lie beside their table and are not committed yet.

    Attributes:
        fragments: what commits them.
        facts: of each crop, what the batch is judged and remembered by; no pictures.
    """

    fragments: list[str]
    facts: pa.Table


def crop_piece(piece: CropPiece, tick: Tick) -> WrittenCrops:
    """Crop some captures and write the crops, uncommitted; raises as `write_crops` does."""
    captures = open_table(piece.captures_path, piece.version)
    if captures is None:
        raise IntegrityError(f"{piece.captures_path} is missing", "Materialise the captures of a batch first.")
    facts = [_FACTS.empty_table()]

    def crops() -> Iterator[pa.RecordBatch]:
        for first in range(0, piece.rows, _CHUNK_ROWS):
            offsets = piece.offsets[first : first + _CHUNK_ROWS]
            made = make_crops(captures.take(list(offsets), columns=[*_COPIED, "image", "sha256"]), piece.settings)
            facts.append(made.select(_FACTS.names))
            yield from made.to_batches()
            tick(len(offsets))

    fragments = write_uncommitted(piece.crops_path, crops(), CROPS, seal=True)
    return WrittenCrops(fragments, pa.concat_tables(facts))


def are_crops_of(captures_path: Path, crops_path: Path, batch: str, settings: CropSettings) -> bool:
    """Whether the crops of a batch are those that its captures give under these settings, as far as they were noted."""
    captures, noted = open_table(captures_path), read_receipt(receipt_path(crops_path, batch))
    if captures is None or not noted:
        return False
    wanted = f"batch = '{batch}' AND sha256 IS NOT NULL"
    return noted["inputs"] == _input_digest(captures.to_table(columns=["capture_id", "sha256"], filter=wanted), settings)


def _refuse_undecodable(crops: pa.Table, batch: str, settings: CropSettings) -> None:
    """The gate of a batch; called before anything is committed."""
    result = _result(crops, 0, changed=False)
    if result.decodable_share < settings.min_decodable_share:
        raise GateError(
            f"batch {batch}: {result.decodable_share:.1%} of {result.rows} captures can be decoded "
            f"(crops.min_decodable_share is {settings.min_decodable_share:.1%})"
        )


def _held(crops_path: Path, of_batch: str) -> pa.Table | None:
    table = open_table(crops_path)
    return None if table is None else table.to_table(columns=_FACTS.names, filter=of_batch)


def _input_digest(captures: pa.Table, settings: CropSettings) -> str:
    """Fingerprint of everything that decides what the crops of a batch are."""
    recipe = f"{_RECIPE_VERSION} {settings.size} {settings.box} {settings.jpeg_quality}"
    return fingerprint([recipe], captures["capture_id"].to_pylist(), captures["sha256"].to_pylist())


def _digest(crops: pa.Table) -> str:
    """Fingerprint of the crops of a batch, whatever their order."""
    columns = (crops[name].to_pylist() for name in ("capture_id", "capture_sha256", "sha256"))
    return fingerprint([], *columns)


def _result(crops: pa.Table, version: int, *, changed: bool) -> CropResult:
    flags = Counter(flag for row in crops["flags"].to_pylist() for flag in row)
    rows = crops.num_rows
    share = 1.0 if rows == 0 else 1 - flags["undecodable"] / rows
    return CropResult(rows, share, dict(sorted(flags.items())), version, changed)
