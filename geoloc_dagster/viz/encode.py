"""Pictures small enough to live in an event log: every one leaves through `fit_bytes`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageColor

MAX_BYTES = 50_000
MAX_FILE_BYTES = 150_000  # of a picture full of figures that lies in a folder and in no event log
_SMALLEST_SIDE = 32
_SHRINK = 0.85
_QUALITIES = (85, 75, 65, 55, 46)

Kind = Literal["png", "jpeg", "webp"]


def fit_bytes(image: Image.Image, kind: Kind, max_bytes: int = MAX_BYTES, keep: Sequence[str] = ()) -> bytes:
    """Encode a picture in at most `max_bytes`, as good as fits.

    First fewer colours (PNG) or a lower quality (JPEG, WebP) are tried, then a smaller picture.

    Args:
        image: any mode; it becomes RGB.
        kind: the format.
        max_bytes: cap.
        keep: colours, as `#rrggbb`, that a reduced palette must hold exactly, however rare: they carry meaning.

    Raises:
        ValueError: not even a picture of 32 pixels fits.
    """
    image = image.convert("RGB")
    while min(image.size) >= _SMALLEST_SIDE:
        data = fit_unshrunk(image, kind, max_bytes, keep)
        if data is not None:
            return data
        size = (round(image.width * _SHRINK), round(image.height * _SHRINK))
        image = image.resize(size, Image.Resampling.LANCZOS)
    raise ValueError(f"no picture fits in {max_bytes} bytes")


def fit_unshrunk(image: Image.Image, kind: Kind, max_bytes: int = MAX_BYTES, keep: Sequence[str] = ()) -> bytes | None:
    """The best encoding at full size in at most `max_bytes`; None where the picture would have to shrink."""
    return next((data for data in _encodings(image.convert("RGB"), kind, keep) if len(data) <= max_bytes), None)


def _encodings(image: Image.Image, kind: Kind, keep: Sequence[str]) -> Iterator[bytes]:
    if kind == "png":
        yield _save(image, "PNG", optimize=True)
        for colours in (256, 64):
            yield _save(_reduced(image, colours, keep), "PNG", optimize=True)
    elif kind == "jpeg":
        for quality in _QUALITIES:
            yield _save(image, "JPEG", quality=quality, optimize=True, progressive=True)
    else:
        for quality in _QUALITIES:
            yield _save(image, "WEBP", quality=quality, method=4)


def _reduced(image: Image.Image, colours: int, keep: Sequence[str]) -> Image.Image:
    """The picture in a palette of the colours to keep and, for the rest, of those that its pixels need most."""
    common = image.quantize(colours - len(keep), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    kept = [ImageColor.getrgb(colour)[:3] for colour in keep]
    entries = [channel for colour in kept for channel in colour] + (common.getpalette() or [])
    palette = Image.new("P", (1, 1))
    palette.putpalette(entries[: 3 * colours])
    index = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    pixels = np.asarray(image)
    for i, colour in enumerate(kept):  # quantize() finds a near entry, not always the nearest
        index[(pixels == colour).all(axis=2)] = i
    reduced = Image.fromarray(index)
    reduced.putpalette(entries[: 3 * colours])
    return reduced


def _save(image: Image.Image, form: str, **options: int | bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
