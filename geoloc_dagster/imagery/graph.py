"""Pictures as Mapillary's Graph API describes them, and its refusals.

Contract: https://www.mapillary.com/developer/api-documentation. Positions and headings that the service worked out count before
those that the camera said. Whatever an entity leaves out is None here; only one without id, place or picture is none.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THUMBS_PX = {"thumb_1024_url": 1_024, "thumb_2048_url": 2_048, "thumb_original_url": 1 << 20}
"""Widths of the pictures of an image, pixels; a smaller original is not made larger."""
FIELDS = (
    "camera_parameters", "camera_type", "captured_at", "compass_angle", "computed_compass_angle", "computed_geometry", "creator",
    "geometry", "height", "is_pano", "sequence", *THUMBS_PX, "width",
)  # fmt: skip
BAD_TOKEN = 190
LIMITS = (4, 17, 32, 613)
"""Codes of refusals that say that too much was asked."""
_ALL_ROUND = ("spherical", "equirectangular")


@dataclass(frozen=True, slots=True)
class Image:
    """One picture.

    Attributes:
        image_id: decimal.
        sequence_id: of the drive or walk that it belongs to.
        lat_deg: where the camera stood.
        lng_deg: likewise.
        taken_at: aware; None where the service does not say.
        heading_deg: of the picture's middle, clockwise from north; None where nobody knows.
        fov_deg: horizontal field of view; None where nobody knows.
        is_360: whether it can be cut into views of any heading.
        creator: name of the account; None where it is gone.
        thumbs: addresses of the picture by field; they expire, and are never stored.
        pitch_deg: 0; no field says it, and panoramas are taken as level.
    """

    image_id: str
    sequence_id: str | None
    lat_deg: float
    lng_deg: float
    taken_at: dt.datetime | None
    heading_deg: float | None
    fov_deg: float | None
    is_360: bool
    creator: str | None
    thumbs: Mapping[str, str]
    pitch_deg: float = 0.0

    @property
    def captured_on(self) -> dt.date | None:
        """The day (UTC)."""
        return None if self.taken_at is None else self.taken_at.date()

    @property
    def permalink(self) -> str:
        """The page of the photo."""
        return f"https://www.mapillary.com/app/?pKey={self.image_id}&focus=photo"

    @property
    def attribution(self) -> str:
        """Whom to name; without a name where the account is gone."""
        return "Photo from Mapillary, CC BY-SA" + (f", by @{self.creator}" if self.creator else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an envelope of errors says."""

    code: int
    message: str


def read_image(entity: Any) -> Image | None:
    """An image of an answer; None for what is no picture: without id, position or a picture's address."""
    said = _mapping(entity)
    where = _position(said.get("computed_geometry")) or _position(said.get("geometry"))
    thumbs = {name: str(said[name]) for name in THUMBS_PX if said.get(name)}
    if not (str(said.get("id") or "") and where and thumbs):
        return None
    kind = said.get("camera_type")
    heading_deg = _number(said.get("computed_compass_angle"))
    heading_deg = _number(said.get("compass_angle")) if heading_deg is None else heading_deg
    is_360 = kind in _ALL_ROUND or (kind is None and said.get("is_pano") is True)
    return Image(
        image_id=str(said["id"]),
        sequence_id=str(said["sequence"]) if said.get("sequence") else None,
        lat_deg=where[0],
        lng_deg=where[1],
        taken_at=instant(said.get("captured_at")),
        heading_deg=None if heading_deg is None else heading_deg % 360,
        fov_deg=360.0 if is_360 else _fov_deg(said),
        is_360=is_360,
        creator=str(_mapping(said.get("creator")).get("username") or "").strip() or None,
        thumbs=thumbs,
    )


def instant(value: object) -> dt.datetime | None:
    """A time in milliseconds since 1970; None where it is absent or nonsense."""
    milliseconds = _number(value)
    if milliseconds is None or milliseconds <= 0:
        return None
    try:
        return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None


def read_refusal(body: bytes) -> Refusal | None:
    """The envelope of errors; None where the body holds none."""
    try:
        said = _mapping(_mapping(json.loads(body)).get("error"))
    except ValueError:
        return None
    code = said.get("code")
    return Refusal(code, str(said.get("message", ""))) if isinstance(code, int) else None


def _fov_deg(said: Mapping[str, Any]) -> float | None:
    """Of a flat picture from its focal length, which is a share of its longer side; None where it is not said."""
    optics = said.get("camera_parameters")
    numbers = [_number(value) for value in optics] if isinstance(optics, Sequence) and not isinstance(optics, str) else []
    focal = numbers[0] if numbers else None
    width, height = _number(said.get("width")), _number(said.get("height"))
    if not (focal and width and height and focal > 0 and width > 0):
        return None
    half_width = width / max(width, height) / 2 / focal
    if said.get("camera_type") == "fisheye":  # equidistant: the angle grows with the distance from the middle
        return min(360.0, 2 * math.degrees(half_width))
    return 2 * math.degrees(math.atan(half_width))


def _position(geometry: Any) -> tuple[float, float] | None:
    """(lat, lng), degrees."""
    spot = _mapping(geometry).get("coordinates")
    numbers = [_number(value) for value in spot[:2]] if isinstance(spot, list) and len(spot) > 1 else []
    lng_deg, lat_deg = numbers if numbers else (None, None)
    if lat_deg is None or lng_deg is None or abs(lat_deg) > 90 or abs(lng_deg) > 180:
        return None
    return lat_deg, lng_deg


def _number(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
