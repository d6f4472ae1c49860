"""Blurring parts of pictures before they are stored, so that what was there is in no table, file or older version.

Off by default. Who finds the parts is a `Redactor`; `BoxesFile` reads them from a file that was made elsewhere. A box becomes at
most three by three cells of few colours, blurred into each other: too little is left to tell faces or number plates apart, also
for somebody who blurs every candidate in the same way and compares. Previews inside a file go with its other remarks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from PIL import Image, ImageFilter, ImageOps, JpegImagePlugin

from geoloc_dagster.errors import ImageError
from geoloc_dagster.imagery.provider import Capture, Failure
from geoloc_dagster.imagery.quality import decode_opened, is_upright, open_header

Unit = Literal["relative", "pixels"]
_CELLS = 3  # along the longer side of a box
_STEP = 64  # between the levels of a cell's colour
_BLOCK_PX = 16  # a JPEG spreads what it shows over blocks of at most that side
_KEPT_MODES = ("RGB", "L", "RGBA")
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture as it is to be seen, from its upper left corner.

    Attributes:
        left: in `unit`, as all sides; `relative` to the picture's width, 0 to 1, or pixels.
        top: likewise, of the height.
        right: beyond the last column.
        bottom: beyond the last row.
        unit: of the sides.
    """

    left: float
    top: float
    right: float
    bottom: float
    unit: Unit = "relative"

    def in_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), every pixel that the box touches; ImageError where it lies beside the picture."""
        x, y = (width, height) if self.unit == "relative" else (1, 1)
        left, top = max(0, math.floor(self.left * x)), max(0, math.floor(self.top * y))
        right, bottom = min(width, math.ceil(self.right * x)), min(height, math.ceil(self.bottom * y))
        if left >= right or top >= bottom:
            raise ImageError(f"{self} lies beside a picture of {width} x {height} pixels")
        return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """What is known of a picture before it is stored."""

    capture_id: str
    pano_id: str | None
    heading_deg: float | None


class Redactor(Protocol):
    """Says which parts of a picture are to be blurred."""

    def boxes(self, image: bytes, facts: CaptureFacts) -> Sequence[Box]:
        """The parts of this picture; none where it may be stored as it is. Raises ImageError where it cannot tell."""
        ...


def redact_capture(redactor: Redactor, capture: Capture, capture_id: str) -> tuple[Capture | Failure, int]:
    """(what may be stored, how many parts were blurred); a picture that cannot be blurred becomes a failure without bytes.

    Boxes that do not fit leave the view to be asked for again, once the boxes are right; a broken picture is broken for good.
    """
    facts = CaptureFacts(capture_id, capture.panorama.pano_id, capture.view.heading_deg)
    boxes = redactor.boxes(capture.image, facts)
    if not boxes:
        return capture, 0
    try:
        picture = _open(capture.image)
    except ImageError as error:
        return Failure("undecodable", str(error), capture.panorama, capture.view), 0
    try:
        return replace(capture, image=_blurred(picture, boxes)), len(boxes)
    except ImageError as error:
        return Failure("quality", error.cause, capture.panorama, capture.view, retryable=True), 0


def redact(image: bytes, boxes: Sequence[Box]) -> bytes:
    """The picture with its boxes blurred, upright, in its own format and without remarks; everywhere else it is the same.

    PNG and WebP keep every other pixel; a JPEG is encoded again with its own tables. There a box takes whole blocks: traces of
    what it shows lie all over them.

    Raises:
        ImageError: no picture, a broken one, or a box that lies beside it.
    """
    return _blurred(_open(image), boxes)


@dataclass(frozen=True, slots=True)
class _Opened:
    pixels: Image.Image
    header: Image.Image


def _open(content: bytes) -> _Opened:
    header = open_header(content)
    rgb = decode_opened(header)  # the one place that knows every way in which a picture can be broken
    if header.mode not in _KEPT_MODES:
        return _Opened(rgb, header)
    return _Opened(ImageOps.exif_transpose(header), header)


def _blurred(picture: _Opened, boxes: Sequence[Box]) -> bytes:
    pixels, header = picture.pixels, picture.header
    for box in boxes:
        sides = box.in_pixels(*pixels.size)
        if header.format == "JPEG":
            sides = _whole_blocks(sides, 0 if is_upright(header) else _BLOCK_PX)  # turned, blocks end at other pixels
        pixels.paste(_cells(pixels.crop(sides).convert("RGB")).convert("L" if pixels.mode == "L" else "RGB"), sides)
    profile = header.info.get("icc_profile") if pixels.mode == header.mode else None
    pixels.info = {}
    buffer = io.BytesIO()
    if header.format == "JPEG":
        pixels.save(buffer, "JPEG", icc_profile=profile, **_tables(header))
    elif header.format == "PNG":
        pixels.save(buffer, "PNG", icc_profile=profile)
    else:
        pixels.save(buffer, "WEBP", lossless=True, exact=True, icc_profile=profile)
    return buffer.getvalue()


def _whole_blocks(sides: tuple[int, int, int, int], more: int) -> tuple[int, int, int, int]:
    """The box, grown by so many pixels, with all blocks that it touches; what reaches out of the picture is cut when pasted."""
    left, top = max(0, sides[0] - more) // _BLOCK_PX, max(0, sides[1] - more) // _BLOCK_PX
    right, bottom = (sides[2] - 1 + more) // _BLOCK_PX, (sides[3] - 1 + more) // _BLOCK_PX
    return left * _BLOCK_PX, top * _BLOCK_PX, (right + 1) * _BLOCK_PX, (bottom + 1) * _BLOCK_PX


def _cells(part: Image.Image) -> Image.Image:
    """A few cells of few colours where there was a picture."""
    cell = max(part.size) / _CELLS
    size = (max(1, round(part.width / cell)), max(1, round(part.height / cell)))
    few = part.resize(size, Image.Resampling.BOX).point(
        [min(255, (level + _STEP // 2) // _STEP * _STEP) for level in range(256)] * 3
    )
    return few.resize(part.size, Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(cell / 3))


def _tables(header: Image.Image) -> dict[str, object]:
    """The settings under which a JPEG changes least when it is encoded again."""
    if not isinstance(header, JpegImagePlugin.JpegImageFile):
        return {"quality": _JPEG_QUALITY, "subsampling": "4:4:4"}
    tables, sampling = header.quantization, JpegImagePlugin.get_sampling(header)
    if header.mode not in ("RGB", "L") or max(max(table) for table in tables.values()) > 255:
        return {"quality": _JPEG_QUALITY, "subsampling": "4:4:4"}
    return {"qtables": tables, **({"subsampling": sampling} if sampling >= 0 else {})}
