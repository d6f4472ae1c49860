"""The picture that leaves: without EXIF and other remarks, upright, and otherwise untouched."""

from __future__ import annotations

import io

from PIL import ImageOps

from geoloc_dagster.imagery.quality import open_header

_ORIENTATION = 0x0112
_QUALITY = 95
_KEPT = {0xE0, 0xEE}  # JFIF, and Adobe's colour transform, without which colours change


def derivative(image: bytes) -> tuple[bytes, str]:
    """(bytes, extension) of a picture as it may be passed on.

    A JPEG loses its remarks without being encoded again, unless EXIF says that it lies on its side; other formats become JPEG.

    Raises:
        ImageError: it is no picture.
    """
    with open_header(image) as picture:
        upright = picture.getexif().get(_ORIENTATION, 1) == 1
        if picture.format == "JPEG" and upright:
            return _without_remarks(image), "jpg"
        buffer = io.BytesIO()
        ImageOps.exif_transpose(picture).convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue(), "jpg"


def _without_remarks(jpeg: bytes) -> bytes:
    """The same JPEG without application segments (EXIF, XMP, IPTC, colour profiles) and comments."""
    kept = bytearray(jpeg[:2])
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == 0xDA:  # the pixels follow
            break
        length = 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        remark = (0xE0 <= marker <= 0xEF and marker not in _KEPT) or marker == 0xFE
        if not remark:
            kept += jpeg[position : position + length]
        position += length
    return bytes(kept) + jpeg[position:]
