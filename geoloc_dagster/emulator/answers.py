"""What the emulated service says: statuses, and the HTTP answers that carry them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from geoloc_dagster.emulator.faults import Endpoint

Status = Literal[
    "OK", "ZERO_RESULTS", "NOT_FOUND", "OVER_QUERY_LIMIT", "REQUEST_DENIED", "INVALID_REQUEST", "UNKNOWN_ERROR"
]  # fmt: skip
COPYRIGHT = "© Emulated City"
JPEG_QUALITY = 85

_IMAGE_HTTP_STATUS: dict[Status, int] = {
    "ZERO_RESULTS": 404,
    "NOT_FOUND": 404,
    "INVALID_REQUEST": 400,
    "REQUEST_DENIED": 403,
    "OVER_QUERY_LIMIT": 429,
    "UNKNOWN_ERROR": 500,
}
_GREY_RGB = (226, 224, 220)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        outcome: what the log of hits calls it: a status, or the name of a fault.
        status: HTTP status code.
        media_type: its Content-Type.
        body: all of it.
        headers: further ones, in lower case.
    """

    outcome: str
    status: int
    media_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def with_retry_after(self, value: str) -> Answer:
        """The same, with a Retry-After header."""
        return replace(self, headers=(*self.headers, ("retry-after", value)))


def json_answer(content: Mapping[str, Any], outcome: str = "OK") -> Answer:
    """An answer in JSON; its HTTP status is 200 whatever it says."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(outcome, 200, "application/json; charset=utf-8", body)


def text_answer(status: int, text: str, outcome: str) -> Answer:
    """A short answer for people, which is how the image endpoint reports errors."""
    return Answer(outcome, status, "text/plain; charset=utf-8", text.encode())


def jpeg_answer(body: bytes, outcome: str = "OK") -> Answer:
    """A picture."""
    return Answer(outcome, 200, "image/jpeg", body)


def status_answer(endpoint: Endpoint, status: Status, message: str | None = None) -> Answer:
    """A status other than OK: JSON for metadata and history, an HTTP status with a text for all others."""
    if endpoint not in ("metadata", "history"):
        return text_answer(_IMAGE_HTTP_STATUS[status], status if message is None else f"{status}: {message}", status)
    content = {"status": status} if message is None else {"error_message": message, "status": status}
    return json_answer(content, status)


def encode_jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    """A picture as JPEG; the same bytes for the same pixels.

    Args:
        rgb: uint8 (height, width, 3).
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_classes(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> bytes:
    """A class map as a PNG of one channel, whose text `classes` names the classes in the order of their numbers.

    Args:
        classes: uint8 (height, width).
        names: without commas.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text("classes", ",".join(names))
    buffer = io.BytesIO()
    Image.fromarray(classes).save(buffer, "PNG", pnginfo=said)
    return buffer.getvalue()


@lru_cache(maxsize=64)
def grey_jpeg(width: int = 640, height: int = 640) -> bytes:
    """The picture that stands for "no imagery here": grey, with a line of text."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, height), _GREY_RGB)
    ImageDraw.Draw(picture).text((width / 2, height / 2), "No imagery here", fill=(120, 118, 115), anchor="mm")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
