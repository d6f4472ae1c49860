"""What becomes of a downloaded picture before it is kept: refused, kept as it came, or made smaller and encoded again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geoloc_dagster.errors import ImageError
from geoloc_dagster.imagery.jpeg_header import MAX_PIXELS, jpeg_size
from geoloc_dagster.imagery.provider import RequestFailedError

if TYPE_CHECKING:  # pictures that stay as they came need neither
    from PIL import Image

Side = Literal["shorter", "longer"]
_AVERAGED_FIRST = 2.5
_ENCODERS = {"jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as it is kept."""

    image: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Ingest:
    """How pictures are kept.

    Attributes:
        min_side_px: a picture whose shorter side is below this is refused.
        resize: which side `size_px` is of; None keeps the size. Smaller pictures are never made larger.
        size_px: of that side.
        encoding: in which pictures are encoded again; None keeps the bytes where the size is kept, and stands for JPEG else.
        quality: of JPEG and WebP.
    """

    min_side_px: int = 0
    resize: Side | None = None
    size_px: int = 0
    encoding: Literal["jpeg", "webp", "png"] | None = None
    quality: int = 95

    @property
    def keeps_bytes(self) -> bool:
        """Whether pictures stay as they came."""
        return self.resize is None and self.encoding is None

    def prepare(self, content: bytes) -> Prepared:
        """The picture as it is kept. One that is encoded again is turned as its EXIF says, and loses it.

        Raises:
            RequestFailedError: `too_small`, `too_large`, `not_an_image` (an animation as well) or `undecodable`.
        """
        size = jpeg_size(content) if self.keeps_bytes else None
        if size is not None and size[0] * size[1] <= MAX_PIXELS:
            self._refuse_small(*size)
            return Prepared(content, *size)
        from geoloc_dagster.imagery.quality import BROKEN

        image = _opened(content)
        self._refuse_small(*image.size)
        if self.keeps_bytes:
            return Prepared(content, *image.size)
        try:
            return self._encoded(image)
        except BROKEN as error:
            raise RequestFailedError("undecodable", f"the picture is truncated or broken: {error}", retryable=False) from None

    def _refuse_small(self, width: int, height: int) -> None:
        if min(width, height) < self.min_side_px:
            detail = f"{width} x {height} pixels; the shorter side is to have {self.min_side_px}"
            raise RequestFailedError("too_small", detail, retryable=False)

    def _encoded(self, image: Image.Image) -> Prepared:
        from PIL import ImageOps

        size = self._size(*image.size)
        encoding = _ENCODERS[self.encoding or "jpeg"]
        profile = image.info.get("icc_profile") if image.mode in ("RGB", "YCbCr") else None
        image = _eight_bits(image)
        if size != image.size:
            image = _resized(image, size)
        image = ImageOps.exif_transpose(image)
        image.info.clear()
        stream = io.BytesIO()
        image.save(stream, encoding, icc_profile=profile, **({} if encoding == "PNG" else {"quality": self.quality}))
        return Prepared(stream.getvalue(), image.width, image.height)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.resize is None:
            return width, height
        side = min(width, height) if self.resize == "shorter" else max(width, height)
        if side <= self.size_px:
            return width, height
        return max(1, round(width * self.size_px / side)), max(1, round(height * self.size_px / side))


def _opened(content: bytes) -> Image.Image:
    from geoloc_dagster.imagery.quality import open_header

    try:
        image = open_header(content)
    except ImageError as error:
        kind = "too_large" if "pixels" in error.cause else "undecodable"
        raise RequestFailedError(kind, error.cause, retryable=False) from None
    if getattr(image, "is_animated", False) and image.format != "MPO":  # the first picture of an MPO is the picture
        raise RequestFailedError("not_an_image", "it is an animation", retryable=False)
    return image


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As an area average would have it, to 40 dB and better, at less than its cost.

    Where much is to go, whole halves or thirds are averaged first, which is quick, and the rest is filtered; just above two that
    would leave nearly nothing to filter, and blur instead.
    """
    from PIL import Image

    if min(image.width / size[0], image.height / size[1]) >= _AVERAGED_FIRST:
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)
    return image.resize(size, Image.Resampling.HAMMING)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Three channels of eight bits, on white where it is transparent; of 16 bits the upper eight."""
    from PIL import Image

    image.load()
    if image.mode in ("RGB", "YCbCr"):
        return image
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def suffix_of(content: bytes) -> str:
    """`.jpg`, `.png` or `.webp`, by the first bytes of a picture."""
    if content[:2] == b"\xff\xd8":
        return ".jpg"
    return ".png" if content[:4] == b"\x89PNG" else ".webp"
