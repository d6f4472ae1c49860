"""Pictures, and what comes in their place: one function for each oddity, made from a seed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from geoloc_dagster.emulator.answers import Answer, grey_jpeg, jpeg_answer, text_answer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

_ORIENTATION, _GPS, _ARTIST = 0x0112, 0x8825, 0x013B
_PAGE = b"<!doctype html><html><head><title>Our photos</title></head><body><p>See all our photos.</p></body></html>"
_PROOF = b"<!doctype html><html><body><p>Unusual traffic.</p><form id='captcha'></form></body></html>"


@lru_cache(maxsize=512)
def ordinary(seed: int, width: int = 320, height: int = 240) -> bytes:
    """A photo of hills under a sky, about 10 kB."""
    return _encoded(_picture(seed, width, height), "JPEG", quality=85)


@lru_cache(maxsize=1)
def unavailable() -> bytes:
    """The picture that a photo host shows in place of one that is gone."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (500, 374), (221, 221, 221))
    ImageDraw.Draw(picture).text((250, 187), "This photo is no longer available", fill=(90, 90, 90), anchor="mm")
    return _encoded(picture, "PNG")


def _pixels(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    rng = np.random.default_rng(seed)
    x, y = np.arange(width) / width, np.arange(height)[:, None] / height
    waves = rng.uniform(1, 6, 4)[:, None] * x[None, :] * np.pi + rng.uniform(0, 6, 4)[:, None]
    ridge = 0.5 + 0.1 * np.sin(waves).sum(0)
    land = (y > ridge[None, :])[..., None]
    sky, ground = rng.uniform(120, 255, 3), rng.uniform(20, 160, 3)
    shade = rng.normal(0, 12, (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)[:height, :width, None]
    return np.clip(np.where(land, ground, sky * (1 - 0.3 * y[..., None])) + shade, 0, 255).astype(np.uint8)


def _picture(seed: int, width: int = 320, height: int = 240) -> Image:
    from PIL import Image

    return Image.fromarray(_pixels(seed, width, height))


def _encoded(picture: Image, encoding: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, encoding, **options)
    return stream.getvalue()


def _missing(seed: int) -> Answer:
    return Answer("NOT_FOUND", 404, "text/html", _PAGE)


def _gone(seed: int) -> Answer:
    return text_answer(410, "gone", "GONE")


def _forbidden(seed: int) -> Answer:
    return Answer("FORBIDDEN", 403, "text/html", _PAGE)


def _noai(seed: int) -> Answer:
    return replace(jpeg_answer(ordinary(seed)), headers=(("x-robots-tag", "noai, noimageai"),))


def _tdm(seed: int) -> Answer:
    return replace(jpeg_answer(ordinary(seed)), headers=(("tdm-reservation", "1"),))


def _truncated(seed: int) -> Answer:
    body = ordinary(seed)
    return jpeg_answer(body[: len(body) // 2])


def _page(seed: int) -> Answer:
    return Answer("PAGE", 200, "text/html", _PAGE)


def _proof(seed: int) -> Answer:
    return Answer("PAGE", 200, "text/html", _PROOF)


def _wrong_length(seed: int) -> Answer:
    return jpeg_answer(ordinary(seed), "wrong_length")


def _cmyk(seed: int) -> Answer:
    return jpeg_answer(_encoded(_picture(seed).convert("CMYK"), "JPEG", quality=90))


def _grey16(seed: int) -> Answer:
    import numpy as np
    from PIL import Image

    deep = np.asarray(_picture(seed).convert("L")).astype(np.uint16) * 257
    return Answer("OK", 200, "image/png", _encoded(Image.fromarray(deep), "PNG"))


def _turned(seed: int) -> Answer:
    """Lies on its side, and says so; it also says who took it where."""
    from PIL import Image

    picture = _picture(seed)
    exif = Image.Exif()
    exif[_ORIENTATION], exif[_ARTIST] = 6, "somebody"
    exif.get_ifd(_GPS)[1] = "N"
    return jpeg_answer(_encoded(picture.rotate(90, expand=True), "JPEG", quality=95, exif=exif))


def _gif(seed: int) -> Answer:
    frames = [_picture(seed + number, 160, 120) for number in range(3)]
    return Answer("OK", 200, "image/gif", _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))


def _webp(seed: int) -> Answer:
    frames = [_picture(seed + number, 160, 120) for number in range(3)]
    return Answer("OK", 200, "image/webp", _encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))


def _clear(seed: int) -> Answer:
    """A PNG that is transparent but for a square."""
    from PIL import Image

    picture = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    picture.paste((200, 30, 30, 255), (100, 80, 220, 160))
    return Answer("OK", 200, "image/png", _encoded(picture, "PNG"))


def _empty(seed: int) -> Answer:
    return jpeg_answer(b"")


def _bomb(seed: int) -> Answer:
    """About 50 kB that would take 1.2 GB of memory."""
    side = 20_000

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes((1 + side // 8) * side))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return Answer("OK", 200, "image/png", body)


def _small(seed: int) -> Answer:
    return jpeg_answer(ordinary(seed, 60, 40))


def _grey(seed: int) -> Answer:
    return jpeg_answer(grey_jpeg(500, 374))


ODD: dict[str, Callable[[int], Answer]] = {
    "missing": _missing,
    "gone": _gone,
    "forbidden": _forbidden,
    "noai": _noai,
    "tdm": _tdm,
    "truncated": _truncated,
    "page": _page,
    "proof": _proof,
    "wrong_length": _wrong_length,
    "cmyk": _cmyk,
    "grey16": _grey16,
    "turned": _turned,
    "gif": _gif,
    "webp": _webp,
    "clear": _clear,
    "empty": _empty,
    "bomb": _bomb,
    "small": _small,
    "grey": _grey,
}
"""What comes in place of an ordinary photo, by the name in its address."""
