"""Taking everything out of a JPEG that is not its picture, without encoding it again.

Markers: ITU-T T.81 annex B; JFIF: ITU-T T.871; ICC profiles: ICC.1 annex B.4.
"""

from __future__ import annotations

_JFIF, _ICC, _ADOBE, _COMMENT = 0xE0, 0xE2, 0xEE, 0xFE
_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
_JFIF_BYTES = 14  # identifier, version, density and the size of a thumbnail


def without_remarks(jpeg: bytes) -> bytes:
    """The same JPEG without EXIF, XMP, IPTC, thumbnails and comments, but with what its colours mean.

    Whatever lies behind the end of the picture goes too: previews and second pictures there carry remarks of their own.
    A JPEG that has nothing of the kind comes back byte for byte.
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
        kept += _kept(marker, jpeg[position:end])
        position = end
    return bytes(kept) + b"\xff\xd9"


def _kept(marker: int, segment: bytes) -> bytes:
    """What stays of a segment: all of it, a JFIF header without its thumbnail, or nothing."""
    start = segment[4:16]
    if marker == _JFIF:
        return _without_thumbnail(segment) if start.startswith(b"JFIF\0") else b""
    if marker == _ICC:
        return segment if start.startswith(b"ICC_PROFILE\0") else b""
    if marker == _ADOBE:
        return segment if start.startswith(b"Adobe") else b""
    return b"" if 0xE0 <= marker <= 0xEF or marker == _COMMENT else segment


def _without_thumbnail(segment: bytes) -> bytes:
    """The JFIF header alone; a segment that holds nothing else comes back as it is."""
    if len(segment) <= 4 + _JFIF_BYTES:
        return segment
    return segment[:2] + (2 + _JFIF_BYTES).to_bytes(2, "big") + segment[4:16] + b"\0\0"


def _end_of_scan(jpeg: bytes, position: int) -> int:
    """Where the marker after the pixels of one scan lies: escaped bytes and restarts belong to the pixels."""
    while (position := jpeg.find(b"\xff", position)) >= 0 and position + 1 < len(jpeg):
        following = jpeg[position + 1]
        if following not in (0x00, _FILL) and not 0xD0 <= following <= 0xD7:
            return position
        position += 1 if following == _FILL else 2
    return len(jpeg)
