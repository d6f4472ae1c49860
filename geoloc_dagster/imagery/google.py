"""Street views by the metadata and image APIs of the Street View Static API, Google's or an emulated city's.

Contract: https://developers.google.com/maps/documentation/streetview/metadata and …/request-streetview. The API knows the newest
panorama of a place only; an emulated city also tells the older ones (`has_history`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

from geoloc_dagster.errors import ServiceKeyError
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.ahead import ahead
from geoloc_dagster.imagery.client import Answer, OverQuotaError, ServiceClient
from geoloc_dagster.imagery.provider import (
    Capture,
    Failure,
    Location,
    Negative,
    Panorama,
    Precision,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.purse import IMAGE_CHARGE
from geoloc_dagster.imagery.received import check_picture, failure_of

METADATA_PATH = "/maps/api/streetview/metadata"
IMAGE_PATH = "/maps/api/streetview"
HISTORY_PATH = "/maps/api/streetview/history"
SAME_PLACE_M = 15  # a panorama further away than this is of another place
_NOTHING = ("ZERO_RESULTS", "NOT_FOUND")
_MONTH = re.compile(r"(?P<year>\d{4})-(?P<month>0[1-9]|1[0-2])(?:-\d{2})?")


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the service says of one position: `OK` with everything else, or `ZERO_RESULTS` or `NOT_FOUND` with nothing."""

    status: str
    pano_id: str | None = None
    lat_deg: float | None = None
    lng_deg: float | None = None
    captured_on: dt.date | None = None
    copyright: str | None = None


class GoogleStreetView:
    """The provider `google`, or `emulator` under another address.

    Args:
        client: asks the service; its etiquette applies.
        terms: under which terms pictures may be kept.
        name: of the provider, in tables and configuration.
        key: needed by the real service.
        signing_secret: requests are signed where it is given.
        radius_m: how far a lookup may snap.
        outdoor_only: leave out views from inside buildings.
        size: (width, height) of pictures, pixels.
        history: every date of a place, or the newest only.
        has_history: whether the service tells older panoramas.

    Raises:
        ServiceKeyError: `google` is asked without a key.
    """

    def __init__(
        self,
        client: ServiceClient,
        terms: Terms,
        *,
        name: str = "google",
        key: str | None = None,
        signing_secret: str | None = None,
        radius_m: int = 50,
        outdoor_only: bool = True,
        size: tuple[int, int] = (640, 640),
        history: Literal["all", "newest"] = "all",
        has_history: bool = False,
    ) -> None:
        if name == "google" and not key:
            raise ServiceKeyError("`google` is asked without a key")
        client.use_key(key, signing_secret)
        self._client = client
        self._terms = terms
        self._name = name
        self._radius_m = radius_m
        self._source = {"source": "outdoor"} if outdoor_only else dict[str, str]()
        self._size = size
        self._history = history
        self._has_history = has_history

    @property
    def name(self) -> str:
        """`google` or `emulator`."""
        return self._name

    @property
    def terms(self) -> Terms:
        """The terms of the service, with the permission on record."""
        return self._terms

    def session(self) -> AbstractAsyncContextManager[None]:
        """Connections for one run."""
        return self._client.session()

    async def lookup(self, lat_deg: float, lng_deg: float) -> Lookup:
        """The newest panorama nearest to a position, or that there is none within the radius.

        Raises:
            RequestFailedError, CollectionStopped, ServiceKeyError, ServiceBlockedError, ServiceUnavailableError: as the client.
        """
        return await self._lookup(lat_deg, lng_deg, self._radius_m)

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The newest panorama at each location, asked for ahead by as many as may be in flight."""
        async for answer in ahead(self._find_one, locations, self._client.etiquette.concurrency):
            yield answer

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every panorama of that place, newest first; only this one where the service tells no others."""
        if self._history == "newest" or not self._has_history:
            return [panorama]
        location = panorama.location
        params = {"location": _position(location.lat_deg, location.lng_deg), "radius": str(SAME_PLACE_M)}
        body = await self._json(HISTORY_PATH, params)
        entries: list[dict[str, Any]] = body.get("panoramas", []) if body["status"] == "OK" else []
        try:
            return [self._panorama(location, entry) for entry in entries]
        except (KeyError, TypeError, ValueError) as error:
            raise RequestFailedError("invalid_answer", f"history without {error}", retryable=True) from None

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One picture per view, in their order, asked for at the same time.

        A panorama id may be of yesterday: where it is unknown, the place is asked for its new id once.
        """
        refreshed: asyncio.Task[Panorama | None] | None = None

        async def one(view: View) -> Capture | Failure:
            nonlocal refreshed
            try:
                return await self._capture(panorama, view)
            except RequestFailedError as failure:
                if failure.kind != "no_imagery":
                    return failure_of(failure, panorama, view)
                if refreshed is None:
                    refreshed = asyncio.create_task(self._refresh(panorama))
            try:
                current = await refreshed
                if current is None:
                    return Failure("no_imagery", "the service has no picture of it any more", panorama, view)
                return replace(await self._capture(current, view), panorama=current)
            except RequestFailedError as failure:
                return failure_of(failure, panorama, view)

        answers = await asyncio.gather(*map(one, views), return_exceptions=True)
        for answer in answers:
            if not isinstance(answer, BaseException):
                yield answer
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _refresh(self, panorama: Panorama) -> Panorama | None:
        """The same panorama under the id that it has now; None where that is not another one."""
        newest = await self._find_one(panorama.location)
        if isinstance(newest, RequestFailedError):
            raise newest
        found = [] if isinstance(newest, Negative) else await self.history(newest)
        same = [one for one in found if one.captured_on == panorama.captured_on and one.pano_id != panorama.pano_id]
        return same[0] if same else None

    async def _find_one(self, location: Location) -> Panorama | Negative | RequestFailedError:
        try:
            found = await self._lookup(location.lat_deg, location.lng_deg, SAME_PLACE_M)
        except RequestFailedError as failure:
            return failure
        if found.status != "OK" or found.lat_deg is None or found.lng_deg is None:
            return Negative(location, found.status)
        moved_m = float(geodesic_m(location.lat_deg, location.lng_deg, found.lat_deg, found.lng_deg))
        if moved_m > SAME_PLACE_M:
            return Negative(location, f"the nearest panorama is {moved_m:.0f} m away")
        precision: Precision = "unknown" if found.captured_on is None else "month"
        return replace(self._blank(location, found.captured_on, precision), pano_id=found.pano_id, **_spot(found))

    def _panorama(self, location: Location, entry: dict[str, Any]) -> Panorama:
        captured_on = _month(entry.get("date"))
        where = entry["location"]
        return replace(
            self._blank(location, captured_on, "unknown" if captured_on is None else "month"),
            pano_id=str(entry["pano_id"]),
            lat_deg=float(where["lat"]),
            lng_deg=float(where["lng"]),
        )

    def _blank(self, location: Location, captured_on: dt.date | None, precision: Precision) -> Panorama:
        return Panorama(location, self._name, captured_on, precision, f"{self._size[0]}x{self._size[1]}")

    async def _lookup(self, lat_deg: float, lng_deg: float, radius_m: int) -> Lookup:
        body = await self._json(METADATA_PATH, {"location": _position(lat_deg, lng_deg), "radius": str(radius_m), **self._source})
        if body["status"] != "OK":
            return Lookup(body["status"])
        try:
            where = body["location"]
            lat, lng = float(where["lat"]), float(where["lng"])
            if not (math.isfinite(lat) and math.isfinite(lng)):
                raise ValueError("a finite position")
            return Lookup("OK", str(body["pano_id"]), lat, lng, _month(body.get("date")), body.get("copyright"))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestFailedError("invalid_answer", f"metadata without {error}", retryable=True) from None

    async def _json(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        answer = await self._client.get(path, params, expect="json", check=self._check_status)
        return json.loads(answer.body)

    def _check_status(self, answer: Answer) -> None:
        """Every status of the metadata API ends as its own class."""
        try:
            body = json.loads(answer.body)
            status = body["status"]
        except (ValueError, TypeError, KeyError):
            raise RequestFailedError("invalid_answer", f"no status in {answer.body[:80]!r}", retryable=True) from None
        said = str(body.get("error_message", "")) or str(status)
        if status == "OVER_QUERY_LIMIT":
            raise OverQuotaError(said)
        if status == "REQUEST_DENIED":
            raise ServiceKeyError(f"`{self._name}` refused the request: {self._client.without_secrets(said)}")
        if status == "INVALID_REQUEST":
            raise RequestFailedError("invalid_request", said, retryable=False)
        if status == "UNKNOWN_ERROR":
            raise RequestFailedError("server_error", said, retryable=True)
        if status != "OK" and status not in _NOTHING:
            raise RequestFailedError("invalid_answer", f"unknown status {status!r}", retryable=True)

    async def _capture(self, panorama: Panorama, view: View) -> Capture:
        params = {
            "size": f"{self._size[0]}x{self._size[1]}",
            "pano": panorama.pano_id or "",
            "heading": _number(view.heading_deg or 0.0),
            "fov": _number(view.fov_deg),
            "pitch": _number(view.pitch_deg),
            "return_error_code": "true",
        }
        answer = await self._client.get(IMAGE_PATH, params, expect="image", charge=IMAGE_CHARGE, check=check_picture)
        return Capture(panorama, view, answer.body, source_url=answer.url)


def _month(value: object) -> dt.date | None:
    """The first of a month written as `2014-04`; None where it is absent or written otherwise."""
    match = _MONTH.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else dt.date(int(match["year"]), int(match["month"]), 1)


def _spot(found: Lookup) -> dict[str, Any]:
    return {"lat_deg": found.lat_deg, "lng_deg": found.lng_deg}


def _position(lat_deg: float, lng_deg: float) -> str:
    return f"{lat_deg:.7f},{lng_deg:.7f}"


def _number(value: float) -> str:
    return format(value, ".4f").rstrip("0").rstrip(".")
