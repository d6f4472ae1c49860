"""Odd answers of services, one small file each below `odd/`, and what becomes of every one of them.

They are written by hand from the contracts. A file that no table here names fails a test.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from geoloc_dagster.errors import ServiceKeyError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.google import GoogleStreetView, Lookup
from geoloc_dagster.imagery.graph import Image, read_image
from geoloc_dagster.imagery.mapillary import Mapillary
from geoloc_dagster.imagery.open_pictures import own_views
from geoloc_dagster.imagery.panoramax import Panoramax
from geoloc_dagster.imagery.provider import (
    CollectionStopped,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.stac import Item, read_item

ODD = Path(__file__).parent / "odd"
HERE = Location("here", 59.33, 18.07)
MAY_1 = dt.date(2024, 5, 1)
APRIL = dt.date(2014, 4, 1)
QUICK = Etiquette(requests_per_second=500, burst=50, deadline_s=5, attempts=2, breaker_failures=100)
VIEWS = [View(0.0, None, 0.0, 90.0)]


def odd(provider: str, name: str) -> Any:
    return json.loads((ODD / provider / f"{name}.json").read_text())


def client(content: Any, status: int = 200) -> ServiceClient:
    """A client of a service that always says the same."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json=content)

    async def instantly(seconds: float) -> None:
        clock[0] += seconds
        await asyncio.sleep(0)

    clock = [0.0]
    transport = httpx2.MockTransport(handle)
    return ServiceClient("stub", "https://stub", QUICK, transport=transport, sleep=instantly, clock=lambda: clock[0])


def run(one: Any, ask: Callable[[Any], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with one.session():
            return await ask(one)

    return asyncio.run(inside())


async def first(one: Any) -> Any:
    (answer,) = [answer async for answer in one.find([HERE])]
    return answer


# --- Mapillary ------------------------------------------------------------------------------------------------------
def said(image: Image) -> dict[str, Any]:
    (view, *more) = own_views(image, 90.0) or (None,)
    return {
        "at": (image.lat_deg, image.lng_deg),
        "day": image.captured_on,
        "heading": image.heading_deg,
        "rotations": 1 + len(more) if view is not None and view.heading_deg is None else 0,
        "fov": None if image.fov_deg is None else round(image.fov_deg, 1),
        "whole": image.is_360,
        "creator": image.creator,
        "attribution": image.attribution,
        "sequence": image.sequence_id,
        "thumbs": len(image.thumbs),
    }


USUAL = {
    "at": (59.3300011, 18.0700012),
    "day": MAY_1,
    "heading": 88.25,
    "rotations": 0,
    "fov": 69.6,
    "whole": False,
    "creator": "walker_7",
    "attribution": "Photo from Mapillary, CC BY-SA, by @walker_7",
    "sequence": "Gt0example0sequence0aB",
    "thumbs": 3,
}
RAW = (59.33002, 18.07005)
NAMELESS = {"creator": None, "attribution": "Photo from Mapillary, CC BY-SA"}
MAPILLARY: dict[str, dict[str, Any] | None] = {  # what differs from the usual; None: it is no picture
    "whole": {},
    "missing_computed_geometry": {"at": RAW},
    "computed_geometry_without_numbers": {"at": RAW},
    "position_beyond_the_pole": None,
    "no_geometry": None,
    "missing_creator": NAMELESS,
    "creator_without_name": NAMELESS,
    "fisheye_camera": {"fov": 127.3},  # one view as it was taken, its field of view by the lens's own formula
    "camera_type_absent_but_panorama": {"whole": True, "fov": 360.0},
    "equirectangular": {"whole": True, "fov": 360.0},
    "is_pano_null": {},  # flat: nothing says that it goes all round
    "captured_at_absent": {"day": None},
    "captured_at_zero": {"day": None},
    "captured_at_as_text": {"day": None},
    "missing_computed_compass": {"heading": 91.5},
    "compass_missing": {"heading": None, "rotations": 1},
    "compass_negative": {"heading": 358.25},
    "organisation": {},  # the photographer is named, not the organisation
    "no_camera_parameters": {"fov": None},
    "portrait": {"fov": 55.0},
    "no_sequence": {"sequence": None},
    "no_thumbs": None,
    "only_the_small_picture": {"thumbs": 1},
    "picture_on_a_host_of_this_network": {},  # read, but never fetched: see test_mapillary.py
}
MAPILLARY_ANSWERS = {
    "deleted_image": (200, RequestFailedError, "gone"),
    "deleted_image_asked_alone": (400, RequestFailedError, "invalid_request"),
    "bad_token": (400, ServiceKeyError, "refused the token: Invalid OAuth"),
    "limit_reached": (429, CollectionStopped, "quota"),
}


@pytest.mark.parametrize("name", MAPILLARY)
def test_an_odd_image_of_mapillary(name: str):
    differs = MAPILLARY[name]
    image = read_image(odd("mapillary", name))
    assert (None if image is None else said(image)) == (None if differs is None else {**USUAL, **differs})


@pytest.mark.parametrize("name", MAPILLARY_ANSWERS)
def test_an_odd_answer_of_mapillary(name: str):
    status, error, words = MAPILLARY_ANSWERS[name]
    graph, tiles = (client(odd("mapillary", name), status) for _ in range(2))

    async def ask(one: Mapillary) -> Any:
        panorama = Panorama(HERE, "mapillary", None, "unknown", "flat", pano_id="1107743236413117")
        (answer,) = [answer async for answer in one.capture(panorama, VIEWS)]
        raise RequestFailedError(answer.kind, answer.detail, retryable=answer.retryable)  # type: ignore[union-attr]

    with pytest.raises(error, match=words):
        run(Mapillary(graph, tiles), ask)


# --- Google ---------------------------------------------------------------------------------------------------------
OFFICIAL = "vPnURflnc8AZu5NMLYRddw"


def google(
    status: str = "OK", pano_id: str | None = OFFICIAL, date: dt.date | None = None, maker: str | None = "© Google"
) -> Lookup:
    return Lookup(status, pano_id, 59.33, 18.07, date, maker)


GOOGLE: dict[str, Lookup | tuple[type[BaseException], str]] = {
    "missing_date": google(),
    "year_only_date": google(),  # a month is not guessed
    "date_with_a_day": google(date=APRIL),  # its month counts
    "date_in_words": google(),
    "month_thirteen": google(),
    "date_as_number": google(),
    "ok_without_location": (RequestFailedError, "invalid_answer"),
    "ok_without_pano_id": (RequestFailedError, "invalid_answer"),
    "location_without_longitude": (RequestFailedError, "invalid_answer"),
    "third_party_pano_id_of_44_characters": google(
        pano_id="AF1QipExampleExampleExampleExampleExample0abc", date=dt.date(2019, 8, 1), maker="© Ada Lovelace"
    ),
    "third_party_pano_id_with_ci": google(pano_id="CIHM0ogKEICAgIDexample", date=dt.date(2019, 8, 1), maker="© Ada Lovelace"),
    "no_copyright": google(date=APRIL, maker=None),
    "panorama_in_another_place": Lookup("OK", OFFICIAL, 59.3304, 18.07, APRIL, "© Google"),
    "unknown_status": (RequestFailedError, "invalid_answer: unknown status 'DATA_NOT_AVAILABLE'"),
    "no_status": (RequestFailedError, "invalid_answer: no status"),
    "a_list": (RequestFailedError, "invalid_answer: no status"),
    "zero_results": Lookup("ZERO_RESULTS"),
    "not_found": Lookup("NOT_FOUND"),
    "request_denied_with_message": (ServiceKeyError, "This API project is not authorized"),
    "over_query_limit": (CollectionStopped, "quota"),
    "invalid_request": (RequestFailedError, "invalid_request"),
    "unknown_error": (RequestFailedError, "server_error"),
}


@pytest.mark.parametrize("name", GOOGLE)
def test_an_odd_answer_of_google(name: str):
    street = GoogleStreetView(client(odd("google", name)), Terms("CC0-1.0", "stub"), key="k", size=(64, 64))
    expected = GOOGLE[name]
    if isinstance(expected, Lookup):
        assert run(street, lambda s: s.lookup(59.33, 18.07)) == expected
    else:
        with pytest.raises(expected[0], match=expected[1]):
            run(street, lambda s: s.lookup(59.33, 18.07))


@pytest.mark.parametrize("name", [name for name, expected in GOOGLE.items() if isinstance(expected, Lookup)])
def test_what_an_odd_answer_of_google_means_for_a_place(name: str):
    street = GoogleStreetView(client(odd("google", name)), Terms("CC0-1.0", "stub"), key="k", size=(64, 64))
    lookup, found = GOOGLE[name], run(street, first)
    assert isinstance(lookup, Lookup)
    if lookup.status != "OK" or lookup.lat_deg != 59.33:
        assert isinstance(found, Negative)
    else:
        assert (found.pano_id, found.captured_on) == (lookup.pano_id, lookup.captured_on)
        assert found.precision == ("unknown" if lookup.captured_on is None else "month")


# --- Panoramax ------------------------------------------------------------------------------------------------------
def told(item: Item) -> dict[str, Any]:
    return {
        "day": item.captured_on,
        "heading": item.heading_deg,
        "licence": item.licence,
        "open": item.is_open,
        "creator": item.creator,
        "sequence": item.sequence_id,
        "assets": set(item.assets),
        "ready": item.ready,
        "whole": item.is_360,
        "related": item.related,
    }


READY = {
    "day": MAY_1,
    "heading": 90.0,
    "licence": "etalab-2.0",
    "open": True,
    "creator": "Ada",
    "sequence": "3f2a8c1e-0000-4000-8000-0000000000aa",
    "assets": {"hd", "sd"},
    "ready": True,
    "whole": True,
    "related": (),
}
PANORAMAX: dict[
    str, tuple[dict[str, Any] | None, bool]
] = {  # what differs from the usual, None for no picture; and is it offered?
    "whole": ({}, True),
    "no_azimuth": ({"heading": None}, True),  # as quarter turns from an unknown heading
    "azimuth_of_370": ({"heading": 10.0}, True),
    "proprietary_licence": ({"licence": "proprietary", "open": False}, False),
    "unknown_licence": ({"licence": "NOASSERTION", "open": False}, False),
    "no_licence": ({"licence": "NOASSERTION", "open": False}, False),
    "licence_in_small_letters": ({"licence": "CC-BY-SA-4.0"}, True),
    "missing_assets": (None, False),
    "only_the_thumbnail": (None, False),  # 500 pixels round the horizon show nothing
    "only_the_full_picture": ({"assets": {"hd"}}, True),
    "datetime_without_zone": ({}, True),  # taken as UTC, as the contract says
    "datetime_of_another_zone": ({"day": dt.date(2024, 5, 2)}, True),  # the day is that of UTC
    "datetime_null": ({"day": None}, True),
    "datetime_in_words": ({"day": None}, True),
    "related_link_to_another_host": ({"related": ("http://169.254.169.254/latest/meta-data",)}, True),  # never asked, see below
    "related_link_without_address": ({}, True),
    "collection_null": ({"sequence": None}, True),
    "status_not_ready": ({"ready": False}, False),
    "status_hidden": ({"ready": False}, False),
    "no_producer": ({"creator": None}, True),
    "producer_in_properties_only": ({"creator": "Grace"}, True),
    "no_field_of_view": ({"whole": False}, True),  # flat, with the field of view that was asked for
    "geometry_null": (None, False),
    "asset_on_a_host_of_this_network": ({"assets": {"hd"}}, False),
    "no_id": (None, False),
}


@pytest.mark.parametrize("name", PANORAMAX)
def test_an_odd_item_of_panoramax(name: str):
    differs, _ = PANORAMAX[name]
    item = read_item(odd("panoramax", name))
    assert (None if item is None else told(item)) == (None if differs is None else {**READY, **differs})


@pytest.mark.parametrize("name", PANORAMAX)
def test_what_an_odd_item_of_panoramax_means_for_a_place(name: str):
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        return httpx2.Response(200, json={"features": [odd("panoramax", name)]})

    terms = Terms("NOASSERTION", "Panoramax contributors")
    one = Panoramax(ServiceClient("stub", "https://stub", QUICK, transport=httpx2.MockTransport(handle)), terms)

    async def ask(one: Panoramax) -> Any:
        found = await first(one)
        return await one.history(found) if isinstance(found, Panorama) else found

    answer = run(one, ask)
    assert isinstance(answer, list) == PANORAMAX[name][1]
    assert set(asked) == {"stub"}
    if name == "no_azimuth":
        assert [view.rotation for view in answer[0].views] == [0, 1, 2, 3]
    if name == "no_field_of_view":
        assert [(view.heading_deg, view.fov_deg) for view in answer[0].views] == [(90.0, 90.0)]


@pytest.mark.parametrize(
    ("provider", "tables"), [("mapillary", (MAPILLARY, MAPILLARY_ANSWERS)), ("google", (GOOGLE,)), ("panoramax", (PANORAMAX,))]
)
def test_every_odd_answer_is_read(provider: str, tables: tuple[dict[str, Any], ...]):
    assert {path.stem for path in (ODD / provider).glob("*.json")} == {name for table in tables for name in table}
