"""The picture that leaves: without EXIF and other remarks, upright, and otherwise untouched."""

from __future__ import annotations

import io

from PIL import ImageOps

from geoloc_dagster.imagery.quality import open_header

_ORIENTATION = 0x0112
_QUALITY = 95
_KEPT = {0xE0, 0xEE}  # JFIF, and Adobe's colour transform, without which colours change
_ICC, _SCAN, _END, _FILL = 0xE2, 0xDA, 0xD9, 0xFF


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
        profile = picture.info.get("icc_profile") if picture.mode == "RGB" else None  # one of another space would not fit
        ImageOps.exif_transpose(picture).convert("RGB").save(buffer, "JPEG", quality=_QUALITY, icc_profile=profile)
        return buffer.getvalue(), "jpg"


def _without_remarks(jpeg: bytes) -> bytes:
    """The same JPEG without application segments (EXIF, XMP, IPTC) and comments, but with what its colours mean.

    Whatever lies behind the end of the picture goes too: previews and second pictures there carry remarks of their own.
    """
    kept = bytearray(jpeg[:2])
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == _FILL:
            position += 1
            continue
        if marker == _END:
            break
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if marker == _SCAN:
            end = _end_of_scan(jpeg, end)
        if not _is_remark(marker, jpeg[position + 4 : position + 16]):
            kept += jpeg[position:end]
        position = end
    return bytes(kept) + b"\xff\xd9"


def _is_remark(marker: int, start: bytes) -> bool:
    if marker == _ICC and start.startswith(b"ICC_PROFILE\0"):
        return False
    return (0xE0 <= marker <= 0xEF and marker not in _KEPT) or marker == 0xFE


def _end_of_scan(jpeg: bytes, position: int) -> int:
    """Where the marker after the pixels of one scan lies: escaped bytes and restarts belong to the pixels."""
    while (position := jpeg.find(b"\xff", position)) >= 0 and position + 1 < len(jpeg):
        following = jpeg[position + 1]
        if following not in (0x00, _FILL) and not 0xD0 <= following <= 0xD7:
            return position
        position += 1 if following == _FILL else 2
    return len(jpeg)
