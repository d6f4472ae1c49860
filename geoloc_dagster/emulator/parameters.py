"""Reading the query of a street-view request, as strictly as the documented parameters allow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from geoloc_dagster.emulator.answers import Status

MIN_SIDE_PX, MAX_SIDE_PX = 16, 640
MIN_FOV_DEG, MAX_FOV_DEG = 10.0, 120.0
MAX_RADIUS_M = 1000.0
"""A larger `radius` is taken as this one."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,30})?")
_POSITION = re.compile(r"\s*([+-]?[0-9]{1,18}(?:\.[0-9]{0,30})?)\s*,\s*([+-]?[0-9]{1,18}(?:\.[0-9]{0,30})?)\s*")
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


class ParameterError(Exception):
    """A query that cannot be answered.

    Attributes:
        status: what the service says to it.
        detail: which parameter, and what it should be.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status: Status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look for a panorama: by its id, or around a position, degrees; the id counts where both are given."""

    pano_id: str | None
    position: tuple[float, float] | None
    radius_m: float


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """Which picture of a panorama, degrees and pixels; without a heading the camera looks at the requested position."""

    heading_deg: float | None
    pitch_deg: float
    fov_deg: float
    width: int
    height: int


def read_target(query: Mapping[str, str]) -> Target:
    """The `pano`, `location`, `radius` and `source` of a request.

    Raises:
        ParameterError: NOT_FOUND for a location that is no position, INVALID_REQUEST for anything malformed or missing.
    """
    radius = query.get("radius", "50")
    if not re.fullmatch(r"[0-9]{1,9}", radius):
        raise ParameterError("INVALID_REQUEST", "radius must be a whole number of metres, 0 or more")
    if query.get("source", "default") not in ("default", "outdoor"):
        raise ParameterError("INVALID_REQUEST", "source must be default or outdoor")
    pano_id, location = query.get("pano"), query.get("location")
    if not pano_id and not (location or "").strip():
        raise ParameterError("INVALID_REQUEST", "location or pano is required")
    position = None if location is None or (pano_id and not location.strip()) else _position(location)
    return Target(pano_id or None, position, min(float(radius), MAX_RADIUS_M))


def _position(location: str) -> tuple[float, float]:
    match = _POSITION.fullmatch(location)
    if match is None:
        raise ParameterError("NOT_FOUND", "no such address; this service knows positions, `lat,lng`")
    lat_deg, lng_deg = float(match[1]), float(match[2])
    if abs(lat_deg) > 90 or abs(lng_deg) > 180:
        raise ParameterError("INVALID_REQUEST", "location must be latitude,longitude within -90..90,-180..180")
    return lat_deg, lng_deg


def read_view(query: Mapping[str, str]) -> ViewRequest:
    """The `size`, `heading`, `pitch` and `fov` of a request for a picture; a side of more than 640 pixels becomes 640.

    Raises:
        ParameterError: INVALID_REQUEST for a value that is malformed or out of range, and for a missing size.
    """
    width, height = read_size(query)
    return ViewRequest(
        heading_deg=_number(query, "heading", 0, 360) if "heading" in query else None,
        pitch_deg=_number(query, "pitch", -90, 90, default=0),
        fov_deg=_number(query, "fov", MIN_FOV_DEG, MAX_FOV_DEG, default=90),
        width=width,
        height=height,
    )


def read_size(query: Mapping[str, str]) -> tuple[int, int]:
    """(width, height) of the picture that is asked for, pixels.

    Raises:
        ParameterError: there is no size, it is not `WxH`, or a side has less than 16 pixels.
    """
    match = _SIZE.fullmatch(query.get("size", ""))
    width, height = (0, 0) if match is None else (int(match[1]), int(match[2]))
    if min(width, height) < MIN_SIDE_PX:
        raise ParameterError("INVALID_REQUEST", f"size is required, as WIDTHxHEIGHT in pixels, {MIN_SIDE_PX} or more each")
    return min(width, MAX_SIDE_PX), min(height, MAX_SIDE_PX)


def _number(query: Mapping[str, str], name: str, low: float, high: float, default: float | None = None) -> float:
    text = query.get(name)
    if text is None and default is not None:
        return default
    value = float(text) if text is not None and _NUMBER.fullmatch(text) else None
    if value is None or not low <= value <= high:
        raise ParameterError("INVALID_REQUEST", f"{name} must be a number from {low:g} to {high:g}")
    return value
