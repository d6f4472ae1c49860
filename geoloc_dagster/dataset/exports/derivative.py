"""The picture that leaves: upright, without EXIF and other remarks, and otherwise untouched."""

from __future__ import annotations

import io

from geoloc_dagster.dataset.remarks import without_remarks
from geoloc_dagster.imagery.quality import decode_opened, is_upright, open_header

_QUALITY = 95


def derivative(image: bytes) -> tuple[bytes, str]:
    """(bytes, extension) of a picture as it may be passed on.

    A JPEG loses its remarks without being encoded again, and keeps its colour profile. One that EXIF turns cannot be turned
    without loss at every size, and a reader that ignores EXIF would see it lying: just those are turned and encoded again, at
    high quality and in sRGB. Other formats become JPEG in the same way.

    Raises:
        ImageError: it is no picture, or a broken one that would have to be encoded again.
    """
    with open_header(image) as picture:
        if picture.format == "JPEG" and is_upright(picture):
            return without_remarks(image), "jpg"
        buffer = io.BytesIO()
        decode_opened(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling="4:4:4")
        return buffer.getvalue(), "jpg"
