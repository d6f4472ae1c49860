"""What the camera wrote into a photo: where and when it was taken, in which direction, and by whom (CIPA DC-008, EXIF 2.32).

It positions photos of one's own collection; photos that somebody asks about are never read like this.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from geoloc_dagster.imagery.quality import BROKEN

_FORMATS = ("JPEG", "PNG", "WEBP", "MPO")
_GPS, _IFD, _BASE = ExifTags.GPS, ExifTags.IFD, ExifTags.Base
_DATE = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})")


class NoExifError(Exception):
    """The photo does not say where it was taken, or says what cannot be; the message says which."""


@dataclass(frozen=True, slots=True)
class PhotoExif:
    """What a photo says of itself; degrees WGS84, the heading clockwise from true north."""

    lat_deg: float
    lng_deg: float
    captured_on: dt.date | None = None
    heading_deg: float | None = None
    creator: str | None = None


def read_exif(content: bytes) -> PhotoExif:
    """Read the EXIF of a JPEG, PNG or WebP; its beginning is enough where that holds the EXIF, as it does in a JPEG.

    Altitude is passed over, and a heading from magnetic north is: how far that is off is not written.

    Raises:
        NoExifError: not a picture, no position, or one that is none: a part without a denominator, without its hemisphere, beyond
            90 or 180 degrees, or exactly (0, 0), which cameras write where they know none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF and of large pictures: nothing is decoded
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                exif = image.getexif()
                base, gps, camera = dict(exif), exif.get_ifd(_IFD.GPSInfo), exif.get_ifd(_IFD.Exif)
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise NoExifError(f"it is no picture whose EXIF can be read ({type(error).__name__})") from None
    lat_deg, lng_deg = _position(gps)
    return PhotoExif(lat_deg, lng_deg, _date(camera, base), _heading(gps), _text(base.get(_BASE.Artist)) or None)


def _position(gps: Mapping[int, Any]) -> tuple[float, float]:
    if _GPS.GPSLatitude not in gps and _GPS.GPSLongitude not in gps:
        raise NoExifError("it has no position in its EXIF")
    lat_deg = _degrees(gps, _GPS.GPSLatitude, _GPS.GPSLatitudeRef, "NS", 90)
    lng_deg = _degrees(gps, _GPS.GPSLongitude, _GPS.GPSLongitudeRef, "EW", 180)
    if lat_deg == lng_deg == 0:
        raise NoExifError("its position is (0, 0), which cameras write where they know none")
    return lat_deg, lng_deg


def _degrees(gps: Mapping[int, Any], tag: int, reference: int, sides: str, most: float) -> float:
    """Degrees, minutes and seconds, of which the later ones may be missing, on one side of the equator or of Greenwich."""
    name = "latitude" if sides == "NS" else "longitude"
    side = _text(gps.get(reference))[:1].upper()
    if side not in tuple(sides):
        raise NoExifError(f"its {name} does not say whether it is {sides[0]} or {sides[1]}")
    value = gps.get(tag)
    parts = list(value) if isinstance(value, tuple | list) else [value]
    numbers = [_number(part) for part in parts[:3]]
    degrees = sum(number / 60**place for place, number in enumerate(numbers))
    if not numbers or not all(number >= 0 for number in numbers) or not degrees <= most:  # also where one is not a number
        raise NoExifError(f"its {name} {parts[:3]!r} is no angle of 0 to {most} degrees"[:200])
    return degrees if side == sides[0] else -degrees


def _number(value: Any) -> float:
    """A rational as a number; not a number where it has no denominator, or is no rational."""
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def _date(camera: Mapping[int, Any], base: Mapping[int, Any]) -> dt.date | None:
    """When it was taken, else when it was digitised; `DateTime` is when the file was changed and says nothing."""
    for value in (camera.get(_BASE.DateTimeOriginal), base.get(_BASE.DateTimeOriginal), camera.get(_BASE.DateTimeDigitized)):
        match = _DATE.match(_text(value))
        try:
            if match is not None:
                return dt.date(*map(int, match.groups()))
        except ValueError:
            continue
    return None


def _heading(gps: Mapping[int, Any]) -> float | None:
    heading_deg = _number(gps.get(_GPS.GPSImgDirection))
    magnetic = _text(gps.get(_GPS.GPSImgDirectionRef))[:1].upper() == "M"
    return heading_deg % 360 if math.isfinite(heading_deg) and not magnetic else None


def _text(value: Any) -> str:
    """Text without what fills it up; cameras write bytes as well."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return " ".join(text.replace("\0", " ").split())[:200]
