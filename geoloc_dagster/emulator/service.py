"""The emulated street-view service without HTTP: which panorama a request means, and what there is to say about it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoloc_dagster.emulator.answers import (
    COPYRIGHT,
    Answer,
    Status,
    encode_classes,
    encode_jpeg,
    grey_jpeg,
    jpeg_answer,
    json_answer,
    status_answer,
)
from geoloc_dagster.emulator.faults import Endpoint
from geoloc_dagster.emulator.limits import Clock
from geoloc_dagster.emulator.materials import CLASSES
from geoloc_dagster.emulator.panoids import PanoramaIds
from geoloc_dagster.emulator.parameters import ParameterError, Target, ViewRequest, read_size, read_target, read_view

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City, Place, Snapshot, View


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a request means.

    Attributes:
        what: it in words that stay the same when panorama ids change.
        status: OK where the rest is known; what to answer otherwise.
        message: why it is not OK, for people, where that is not obvious.
        place: where the panorama is.
        snapshot: the panorama.
        view: of a request for a picture, with its heading.
    """

    what: str
    status: Status
    message: str | None = None
    place: Place | None = None
    snapshot: Snapshot | None = None
    view: ViewRequest | None = None


class StreetView:
    """Answers requests about one city.

    Args:
        city: what there is to see, at any time.
        seed: of the panorama ids.
        clock: a panorama exists once its month is over.
    """

    def __init__(self, city: City, seed: int, clock: Clock) -> None:
        self._city = city
        self._clock = clock
        self._ids = PanoramaIds(seed)

    def resolve(self, endpoint: Endpoint, query: Mapping[str, str]) -> Resolved:
        """Find what a request is about; takes well under a millisecond."""
        try:
            target = read_target(query)
            view = read_view(query) if endpoint in ("image", "class_map") else None
        except ParameterError as error:
            what = query.get("location", "")[:80] if error.status == "NOT_FOUND" else "invalid"
            return Resolved(what, error.status, error.detail)
        if target.pano_id is not None:
            what, found = self._by_id(target.pano_id, outdated=endpoint == "class_map")
        else:
            what, found = self._by_position(target)
        if view is not None and found is not None:
            view = _with_heading(view, found[1], target)
        if view is not None:
            where = what if found is None else _name(found[1])
            what = f"{where}/{_view_name(view)}"
        if found is None:
            return Resolved(what, "ZERO_RESULTS")
        return Resolved(what, "OK", None, *found, view)

    def answer(self, endpoint: Endpoint, query: Mapping[str, str], resolved: Resolved) -> Answer:
        """The answer to a request, apart from keys and quotas; a picture takes some ten milliseconds of CPU."""
        if resolved.place is None or resolved.snapshot is None:
            if endpoint == "image" and query.get("return_error_code", "").lower() != "true":
                return jpeg_answer(grey_jpeg(*_grey_size(query)), resolved.status)
            return status_answer(endpoint, resolved.status, resolved.message)
        if endpoint == "image":
            return jpeg_answer(encode_jpeg(self._seen(resolved.snapshot, resolved.view).rgb))
        if endpoint == "class_map":
            png = encode_classes(self._seen(resolved.snapshot, resolved.view).classes, CLASSES)
            return Answer("OK", 200, "image/png", png)
        if endpoint == "history":
            newest_first = reversed(self._existing(resolved.place))
            return json_answer({"status": "OK", "panoramas": [self._describe(snapshot) for snapshot in newest_first]})
        return json_answer({"copyright": COPYRIGHT, **self._describe(resolved.snapshot), "status": "OK"})

    def _by_id(self, pano_id: str, *, outdated: bool) -> tuple[str, tuple[Place, Snapshot] | None]:
        """Its name and the panorama; a name alone where the id is no longer the right one, unless `outdated` ones count."""
        identity = self._ids.decode(pano_id)
        place = None if identity is None else self._city.place(identity.place_id)
        if identity is None or place is None or identity.number >= len(place.snapshots):
            return "unknown", None
        snapshot = place.snapshots[identity.number]
        current = self._ids.generation(identity.place_id, identity.number, self._clock.today())
        known = (outdated or identity.generation == current) and snapshot in self._existing(place)
        return _name(snapshot), (place, snapshot) if known else None

    def _by_position(self, target: Target) -> tuple[str, tuple[Place, Snapshot] | None]:
        """The position in words, and the newest panorama of the place nearest to it."""
        assert target.position is not None
        lat_deg, lng_deg = target.position
        place = self._city.nearest(lat_deg, lng_deg, target.radius_m)
        existing = [] if place is None else self._existing(place)
        found = None if place is None or not existing else (place, existing[-1])
        return f"{lat_deg:.7f},{lng_deg:.7f}", found

    def _existing(self, place: Place) -> list[Snapshot]:
        """The panoramas of a place that exist today, oldest first."""
        today = self._clock.today()
        return [snapshot for snapshot in place.snapshots if _month(snapshot.captured_on) < _month(today)]

    def _describe(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "date": f"{snapshot.captured_on:%Y-%m}",
            "location": {"lat": snapshot.lat_deg, "lng": snapshot.lng_deg},
            "pano_id": self._ids.current(snapshot.place_id, snapshot.number, self._clock.today()),
        }

    def _seen(self, snapshot: Snapshot, view: ViewRequest | None) -> View:
        assert view is not None
        assert view.heading_deg is not None
        return self._city.render(
            snapshot.lat_deg,
            snapshot.lng_deg,
            heading_deg=view.heading_deg,
            pitch_deg=view.pitch_deg,
            fov_deg=view.fov_deg,
            width=view.width,
            height=view.height,
            date=snapshot.captured_on,
        )


def _month(day: dt.date) -> int:
    return day.year * 12 + day.month


def _name(snapshot: Snapshot) -> str:
    return f"{snapshot.place_id}/{snapshot.number}"


def _view_name(view: ViewRequest) -> str:
    heading = "-" if view.heading_deg is None else f"{view.heading_deg:g}"
    return f"{heading}/{view.pitch_deg:g}/{view.fov_deg:g}/{view.width}x{view.height}"


def _with_heading(view: ViewRequest, snapshot: Snapshot, target: Target) -> ViewRequest:
    """The view with a heading: the one asked for, else towards the position asked for, else north."""
    if view.heading_deg is not None:
        return view
    heading_deg = 0.0 if target.position is None else _bearing_deg(snapshot, *target.position)
    return ViewRequest(heading_deg, view.pitch_deg, view.fov_deg, view.width, view.height)


def _bearing_deg(snapshot: Snapshot, lat_deg: float, lng_deg: float) -> float:
    """From a camera to a position at most a kilometre away, [0, 360), in hundredths."""
    east = (lng_deg - snapshot.lng_deg) * math.cos(math.radians(snapshot.lat_deg))
    return round(math.degrees(math.atan2(east, lat_deg - snapshot.lat_deg)) % 360, 2) % 360


def _grey_size(query: Mapping[str, str]) -> tuple[int, int]:
    try:
        return read_size(query)
    except ParameterError:
        return 640, 640
