"""Photos with EXIF as cameras write it, made by Pillow in folders of a test."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

GPS, IFD, BASE = ExifTags.GPS, ExifTags.IFD, ExifTags.Base


def dms(degrees: float) -> tuple[Any, ...]:
    """Degrees, minutes and seconds of an absolute value, as rationals."""
    from PIL.TiffImagePlugin import IFDRational

    value = abs(degrees)
    minutes = value % 1 * 60
    return IFDRational(int(value)), IFDRational(int(minutes)), IFDRational(round(minutes % 1 * 60 * 10_000), 10_000)


def at(lat_deg: float, lng_deg: float) -> dict[int, Any]:
    """The tags of a position."""
    return {
        GPS.GPSLatitudeRef: "N" if lat_deg >= 0 else "S",
        GPS.GPSLatitude: dms(lat_deg),
        GPS.GPSLongitudeRef: "E" if lng_deg >= 0 else "W",
        GPS.GPSLongitude: dms(lng_deg),
    }


def photo(
    gps: Mapping[int, Any] | None = None,
    *,
    camera: Mapping[int, Any] | None = None,
    base: Mapping[int, Any] | None = None,
    big_endian: bool = False,
    encoding: str = "JPEG",
    seed: int = 0,
    size: tuple[int, int] = (96, 72),
) -> bytes:
    """A picture with these tags; none of a kind that is empty."""
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif.update(base or {})
    for ifd, tags in ((IFD.GPSInfo, gps), (IFD.Exif, camera)):
        if tags:
            exif.get_ifd(ifd).update(tags)
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size).save(
        stream, encoding, exif=exif.tobytes()
    )
    return stream.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
