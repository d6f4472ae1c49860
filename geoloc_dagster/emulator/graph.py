"""What the emulated Graph API says: entities with the fields that were asked for, bounded samples, and its envelope of errors."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from geoloc_dagster.emulator.answers import Answer, json_answer
from geoloc_dagster.emulator.bands import band_height
from geoloc_dagster.emulator.walkers import FLAT_FOCAL, FLAT_PX, THUMBS_PX, Picture, Walkers

MOST_IDS = 50
SAMPLE = 100
"""A search for a box gives at most so many images, evenly picked, and no further page."""
_MOST, _LARGEST_DEG2 = 2_000, 0.01
_PLAIN = re.compile(r"[a-z0-9_]+(?:\{[a-z0-9_,]*\})?")


class RefusedError(Exception):
    """The request cannot be answered; the message says why."""

    def __init__(self, message: str, code: int = 100) -> None:
        super().__init__(message)
        self.code = code


def error(status: int, code: int, message: str, kind: str = "GraphMethodException") -> Answer:
    """A refusal in the envelope of the Graph API."""
    said = {"message": message, "type": kind, "code": code, "fbtrace_id": "A0emulated"}
    outcome = {4: "OVER_QUERY_LIMIT", 190: "REQUEST_DENIED"}.get(code, "INVALID_REQUEST")
    return Answer(outcome, status, "application/json; charset=utf-8", json.dumps({"error": said}).encode())


def answered(answer: Callable[[], Answer | dict[str, Any]]) -> Answer:
    """An answer, or its refusal."""
    try:
        said = answer()
    except RefusedError as refusal:
        return error(400, refusal.code, str(refusal))
    return said if isinstance(said, Answer) else json_answer(said)


def entity(walkers: Walkers, image_id: str, query: Mapping[str, str], root: str) -> dict[str, Any]:
    """One image, as a plain object."""
    picture = walkers.public(image_id)
    if picture is None:
        raise RefusedError(f"Unsupported get request. Object with ID '{image_id}' does not exist")
    return describe(walkers, picture, _fields(query), root)


def batch(walkers: Walkers, query: Mapping[str, str], root: str) -> dict[str, Any]:
    """Images by their ids; those that do not exist are left out."""
    ids = [one for one in query["image_ids"].split(",") if one]
    if len(ids) > MOST_IDS:
        raise RefusedError(f"Too many IDs: {len(ids)}, at most {MOST_IDS} may be requested")
    fields = _fields(query)
    found = [picture for one in dict.fromkeys(ids) if (picture := walkers.public(one)) is not None]
    return {"data": [describe(walkers, picture, fields, root) for picture in found]}


def search(walkers: Walkers, query: Mapping[str, str], root: str) -> dict[str, Any]:
    """A sample of a box: bounded, not complete, without pages."""
    west, south, east, north = _bbox(query.get("bbox", ""))
    limit = _integer(query.get("limit", str(SAMPLE)))
    low, high = (_instant_ms(query.get(name)) for name in ("start_captured_at", "end_captured_at"))
    found = [
        picture
        for picture in walkers.within(west, south, east, north)
        if walkers.public(picture.image_id) is not None
        and query.get("is_pano", str(picture.is_pano).lower()) == str(picture.is_pano).lower()
        and (low is None or picture.captured_ms >= low)
        and (high is None or picture.captured_ms <= high)
    ]
    most = min(limit, SAMPLE)
    sample = found if len(found) <= most else [found[index * len(found) // most] for index in range(most)]
    fields = _fields(query)
    return {"data": [describe(walkers, picture, fields, root) for picture in sample]}


def sequence(walkers: Walkers, sequence_id: str) -> dict[str, Any]:
    """The ids of a sequence, in the order in which its images were taken."""
    if not sequence_id:
        raise RefusedError("The parameter sequence_id is required")
    return {"data": [{"id": picture.image_id} for picture in walkers.sequence(sequence_id) if walkers.public(picture.image_id)]}


def describe(walkers: Walkers, picture: Picture, fields: list[str], root: str) -> dict[str, Any]:
    """The id and those of the fields that the image has.

    Raises:
        RefusedError: a field does not exist.
    """
    width = THUMBS_PX["original"] if picture.is_pano else FLAT_PX[0]
    everything: dict[str, Any] = {
        "altitude": 30.0,
        "camera_parameters": [] if picture.is_pano else [FLAT_FOCAL, 0.0, 0.0],
        "camera_type": picture.camera_type,
        "captured_at": picture.captured_ms,
        "compass_angle": picture.raw_heading_deg,
        "computed_compass_angle": picture.heading_deg if picture.is_computed else None,
        "computed_geometry": _point(picture.snapshot.lat_deg, picture.snapshot.lng_deg) if picture.is_computed else None,
        "creator": None if picture.creator_id is None else {"username": picture.creator, "id": str(picture.creator_id)},
        "exif_orientation": 1,
        "geometry": _point(*picture.raw),
        "height": band_height(width) if picture.is_pano else FLAT_PX[1],
        "is_pano": picture.is_pano,
        "make": "Emulated",
        "model": "Walker 3",
        "organization": None if picture.organization_id is None else {"id": str(picture.organization_id)},
        "quality_score": picture.quality_score,
        "sequence": picture.sequence_id,
        "width": width,
        **{f"thumb_{size}_url": walkers.address(picture, size, root) for size in THUMBS_PX},
    }
    unknown = [name for name in fields if name not in everything and name != "id"]
    if unknown:
        raise RefusedError(f"Tried accessing nonexisting field ({unknown[0]})")
    said = {name: everything[name] for name in fields if name != "id" and everything[name] is not None}
    return {**said, "id": picture.image_id}


def _fields(query: Mapping[str, str]) -> list[str]:
    return [name.split("{")[0] for name in _PLAIN.findall(query.get("fields", ""))]


def _point(lat_deg: float, lng_deg: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [lng_deg, lat_deg]}


def _bbox(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise RefusedError("bbox is four numbers: minLon,minLat,maxLon,maxLat") from None
    if not (west <= east and south <= north):
        raise RefusedError("bbox is minLon,minLat,maxLon,maxLat")
    if (east - west) * (north - south) >= _LARGEST_DEG2:
        raise RefusedError(f"bbox must have an area of less than {_LARGEST_DEG2} square degrees")
    return west, south, east, north


def _integer(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise RefusedError(f"limit is a number from 1 to {_MOST}")
    return int(text)


def _instant_ms(text: str | None) -> float | None:
    try:
        instant = None if text is None else dt.datetime.fromisoformat(text)
    except ValueError:
        raise RefusedError("a time is written in ISO 8601") from None
    return None if instant is None else (instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)).timestamp() * 1000
