"""Searching the emulated Panoramax as its STAC API does: one answer without pages, and collections page by page.

Boxes, geometries, places, dates, ids and collections count; `filter` and `sortby` are refused, not passed over.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import Any

from geoloc_dagster.emulator.contributors import Contributors, Picture

_MOST, _MOST_ITEMS = 10_000, 1_000
_LIMIT, _ITEMS = "10", "100"
_M_PER_DEG = 111_320.0
Box = tuple[float, float, float, float]


class RefusedError(Exception):
    """The request is malformed; the message says how."""


def search(contributors: Contributors, query: Mapping[str, str], root: str) -> dict[str, Any]:
    """What `/search` answers; with a box or a geometry the nearest to its centre come first.

    Raises:
        RefusedError: a parameter is malformed, missing or not known here.
    """
    limit = _integer(query.get("limit", _LIMIT), "limit", _MOST)
    for name in ("filter", "sortby"):
        if name in query:
            raise RefusedError(f"{name} is not known here")
    low, high = _interval(query.get("datetime"))
    wanted = query["collections"].split(",") if "collections" in query else None
    found = [
        picture
        for picture in _candidates(contributors, query, wanted)
        if (low is None or picture.taken_at >= low)
        and (high is None or picture.taken_at <= high)
        and (wanted is None or picture.collection_id in wanted)
    ]
    features = [contributors.describe(picture, root) for picture in found[:limit]]
    return {"type": "FeatureCollection", "features": features, "links": [{"rel": "root", "href": f"{root}/api/"}]}


def items(contributors: Contributors, collection_id: str, query: Mapping[str, str], root: str) -> dict[str, Any] | None:
    """One page of a collection, with a link to the next one where there is one; None where there is no such collection.

    Raises:
        RefusedError: a parameter is malformed.
    """
    limit = _integer(query.get("limit", _ITEMS), "limit", _MOST_ITEMS)
    after = _integer(query["after"], "after", 1 << 20) if "after" in query else 0
    pictures = contributors.collection(collection_id)
    if pictures is None:
        return None
    here = f"{root}/api/collections/{collection_id}/items"
    links = [{"rel": "root", "href": f"{root}/api/"}, {"rel": "self", "href": here}]
    if after + limit < len(pictures):
        links.append({"rel": "next", "href": f"{here}?limit={limit}&after={after + limit}"})
    features = [contributors.describe(picture, root) for picture in pictures[after : after + limit]]
    return {"type": "FeatureCollection", "features": features, "links": links}


def posted(headers: Mapping[bytes, bytes], body: bytes) -> dict[str, str]:
    """The query of a search that was posted.

    Raises:
        RefusedError: it is no JSON object, or not called JSON.
    """
    if headers.get(b"content-type", b"").split(b";")[0] != b"application/json":
        raise RefusedError("a search is posted as application/json")
    try:
        said = json.loads(body)
        return {name: _text(value) for name, value in said.items()}
    except (ValueError, AttributeError):
        raise RefusedError("that is no JSON object") from None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _candidates(contributors: Contributors, query: Mapping[str, str], wanted: list[str] | None) -> list[Picture]:
    """The pictures of the place that is asked for, in the order of the answer."""
    if "ids" in query:
        return [picture for one in query["ids"].split(",") if (picture := contributors.picture(one)) is not None]
    if "place_position" in query:
        return _of_place(contributors, query)
    if "intersects" in query:
        return _touching(contributors, query["intersects"])
    if "bbox" not in query and wanted is not None:
        return [picture for one in wanted for picture in contributors.collection(one) or ()]
    west, south, east, north = box = _bbox(query.get("bbox", ""))
    return _nearest_first(contributors.within(*box), (south + north) / 2, (west + east) / 2)


def _touching(contributors: Contributors, text: str) -> list[Picture]:
    import shapely

    try:
        shape = shapely.from_geojson(text)
    except shapely.errors.GEOSException:
        raise RefusedError("intersects is a GeoJSON geometry") from None
    west, south, east, north = shape.bounds
    inside = [p for p in contributors.within(west, south, east, north) if shape.intersects(_spot(p))]
    return _nearest_first(inside, shape.centroid.y, shape.centroid.x)


def _spot(picture: Picture) -> Any:
    import shapely

    return shapely.Point(picture.snapshot.lng_deg, picture.snapshot.lat_deg)


def _of_place(contributors: Contributors, query: Mapping[str, str]) -> list[Picture]:
    """Pictures that show a place: near it, and those that do not go all round look at it."""
    try:
        lng, lat = (float(part) for part in query["place_position"].split(","))
        least_m, most_m = (float(part) for part in query.get("place_distance", "3-15").split("-"))
    except ValueError:
        raise RefusedError("place_position is lon,lat, and place_distance min-max in metres") from None
    tolerance_deg = _integer(query.get("place_fov_tolerance", "30"), "place_fov_tolerance", 180, 2)
    reach_deg = most_m / _M_PER_DEG
    wide_deg = reach_deg / math.cos(math.radians(lat))
    near = contributors.within(lng - wide_deg, lat - reach_deg, lng + wide_deg, lat + reach_deg)

    def shows(picture: Picture) -> bool:
        east_m = (lng - picture.snapshot.lng_deg) * _M_PER_DEG * math.cos(math.radians(lat))
        north_m = (lat - picture.snapshot.lat_deg) * _M_PER_DEG
        turn_deg = (math.degrees(math.atan2(east_m, north_m)) - picture.heading_deg + 180) % 360 - 180
        looks = picture.is_360 or (picture.has_compass and abs(turn_deg) <= tolerance_deg / 2)
        return looks and least_m <= math.hypot(east_m, north_m) <= most_m

    return _nearest_first([picture for picture in near if shows(picture)], lat, lng)


def _nearest_first(pictures: list[Picture], lat: float, lng: float) -> list[Picture]:
    def gap(picture: Picture) -> float:
        return (picture.snapshot.lat_deg - lat) ** 2 + (picture.snapshot.lng_deg - lng) ** 2

    return sorted(pictures, key=lambda picture: (gap(picture), picture.item_id))


def _interval(text: str | None) -> tuple[dt.datetime | None, dt.datetime | None]:
    """The ends of an interval, None where it is open; both the same for an instant."""
    if text is None:
        return None, None
    low, _, high = text.partition("/")
    try:
        ends = [None if part in ("", "..") else dt.datetime.fromisoformat(part) for part in (low, high if "/" in text else low)]
    except ValueError:
        raise RefusedError("datetime is an instant of RFC 3339, or two with a slash between them") from None
    aware = [end if end is None or end.tzinfo else end.replace(tzinfo=dt.UTC) for end in ends]
    return aware[0], aware[1]


def _integer(text: str, name: str, high: int, low: int = 1) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise RefusedError(f"{name} is a number from {low} to {high}")
    return int(text)


def _bbox(text: str) -> Box:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise RefusedError("bbox is four numbers: west, south, east, north") from None
    if not (west <= east and south <= north):
        raise RefusedError("bbox is west, south, east, north")
    return west, south, east, north
