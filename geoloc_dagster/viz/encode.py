"""Pictures small enough to live in an event log: every one leaves through `fit_bytes`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Literal

from PIL import Image

MAX_BYTES = 50_000
_SMALLEST_SIDE = 32
_SHRINK = 0.88


def fit_bytes(image: Image.Image, kind: Literal["png", "jpeg", "webp"], max_bytes: int = MAX_BYTES) -> bytes:
    """Encode a picture in at most `max_bytes`, as good as fits.

    First fewer colours (PNG) or a lower quality (JPEG, WebP) are tried, then a smaller picture.

    Raises:
        ValueError: not even a picture of 32 pixels fits.
    """
    image = image.convert("RGB")
    while min(image.size) >= _SMALLEST_SIDE:
        for data in _encodings(image, kind):
            if len(data) <= max_bytes:
                return data
        size = (round(image.width * _SHRINK), round(image.height * _SHRINK))
        image = image.resize(size, Image.Resampling.LANCZOS)
    raise ValueError(f"no picture fits in {max_bytes} bytes")


def _encodings(image: Image.Image, kind: Literal["png", "jpeg", "webp"]) -> Iterator[bytes]:
    if kind == "png":
        yield _save(image, "PNG", optimize=True)
        for colours in (256, 128, 64, 32):
            yield _save(image.quantize(colours, dither=Image.Dither.NONE), "PNG", optimize=True)
    elif kind == "jpeg":
        for quality in (85, 78, 70, 62, 54):
            yield _save(image, "JPEG", quality=quality, optimize=True, progressive=True)
    else:
        for quality in (85, 78, 70, 62, 54):
            yield _save(image, "WEBP", quality=quality, method=4)


def _save(image: Image.Image, form: str, **options: int | bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
