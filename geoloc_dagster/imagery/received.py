"""Whether the bytes that came are a whole picture of something, and what it is called where they are not."""

from __future__ import annotations

from geoloc_dagster.imagery.client import Answer
from geoloc_dagster.imagery.provider import Failure, Panorama, RequestFailedError, View

_GREY_SHARE, _GREY_NOISE = 0.9, 6
_GREY_MAX_BYTES = 20_000  # the picture that says "no imagery" compresses well; larger ones need not be looked at


def failure_of(error: RequestFailedError, panorama: Panorama, view: View) -> Failure:
    """The failure of one view for which asking failed."""
    return Failure(error.kind, error.detail, panorama, view, retryable=error.retryable, asked=error.asked)


def check_picture(answer: Answer) -> None:
    """Raise `RequestFailedError` where the body is not a whole picture of something; made for `ServiceClient.get`."""
    body = answer.body
    if not body:
        raise RequestFailedError("truncated", "an empty answer", retryable=True)
    if body[:2] == b"\xff\xd8":
        whole = b"\xff\xd9" in body[-64:]
    elif body[:8] == b"\x89PNG\r\n\x1a\n":
        whole = b"IEND" in body[-16:]
    elif body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        whole = len(body) >= 8 + int.from_bytes(body[4:8], "little")
    else:
        raise RequestFailedError("not_an_image", f"it begins with {body[:16]!r}", retryable=False)
    if not whole:
        raise RequestFailedError("truncated", f"the picture ends after {len(body):,} bytes", retryable=True)
    if len(body) <= _GREY_MAX_BYTES and _is_blank(body):
        raise RequestFailedError("no_imagery", "the picture is the grey one that says so", retryable=False)


def _is_blank(body: bytes) -> bool:
    """Whether nearly all of a picture is one light grey."""
    import io

    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body)) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((64, 64), Image.Resampling.NEAREST)).reshape(-1, 3).astype(np.int16)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False  # whoever decodes it will say what is wrong with it
    usual = np.median(pixels, axis=0)
    same = np.abs(pixels - usual).max(axis=1) <= _GREY_NOISE
    return bool(same.mean() >= _GREY_SHARE and 150 < usual.mean() < 250 and np.ptp(usual) <= 2 * _GREY_NOISE)
