"""From an untrusted photo to what an encoder reads. It stays in memory.

Of its EXIF only the orientation is used, never the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from geoloc_dagster.errors import ImageError, NotEnoughDataError
from geoloc_dagster.imagery.quality import decode, is_srgb, is_upright, open_header
from geoloc_dagster.retrieval.encoder import Pictures

MAX_BYTES = 100_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".mpo"})


def read_photo(photo: bytes | Path) -> bytes:
    """The photo's bytes, at most `MAX_BYTES` of them."""
    if isinstance(photo, Path):
        try:
            size = photo.stat().st_size
            if size > MAX_BYTES:
                raise ImageError(f"{photo} has {size:,} bytes, more than {MAX_BYTES:,}")
            return photo.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read {photo}: {error.strerror}", "Give the path of a JPEG, PNG or WebP file.") from error
    if len(photo) > MAX_BYTES:
        raise ImageError(f"the photo has {len(photo):,} bytes, more than {MAX_BYTES:,}")
    return photo


def find_photos(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Photos below some folders as (id, file), sorted; an id is the path below its folder.

    Raises:
        ImageError: a folder is missing.
        NotEnoughDataError: there is no photo in any.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder", "Name a folder of photos.")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found += [(path.relative_to(folder).as_posix(), path) for path in files if not path.name.startswith(".")]
    if not found:
        raise NotEnoughDataError(
            f"there are no photos in {', '.join(map(str, folders))}", "It looks for JPEG, PNG and WebP files."
        )
    return found


def as_picture(content: bytes, size: int) -> Pictures:
    """The centre square of a photo as the encoder reads it: uint8 (3, size, size), channels last in memory.

    A photo that is square, upright and in sRGB takes exactly the way of a crop of the gallery, so that one of those gives its
    own vector.

    Raises:
        ImageError: not a picture, truncated, or too large.
    """
    from geoloc_dagster.dataset.pictures import decode_picture

    image = decode(content)  # the one place that looks at untrusted bytes, with its limits
    with open_header(content) as stored:
        is_like_a_crop = image.width == image.height and is_upright(stored) and is_srgb(stored)
    if is_like_a_crop:
        pixels = decode_picture(content, size)
    else:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        pixels = np.array(square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
    return pixels.transpose(2, 0, 1)
