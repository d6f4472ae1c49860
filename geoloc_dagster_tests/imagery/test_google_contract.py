"""The street-view client and the emulated service keep the contract of the real API, row by row; each case's id is its row.

Rows held elsewhere, by test:

- metadata: statuses for every malformed target, 200 whatever it says, parameters without effect: emulator/test_server.py
- metadata: absent and odd dates, third-party ids, unknown statuses: test_odd_answers.py
- metadata: ids change over night: test_an_id_that_changed_over_night_… in test_google_against_emulator.py
- image: `size` clamped to 640, ranges of heading, fov and pitch, the default heading, grey pictures: emulator/test_server.py
- image: budgets of pictures and money: test_google_against_emulator.py, test_ledger.py
- signature: the documented vectors: test_signature.py; what is signed: emulator/test_server_control.py

The emulated city has no indoor panoramas, so `source=outdoor` changes nothing there; that it is asked for is tested here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import ServiceKeyError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.google import HISTORY_PATH, IMAGE_PATH, METADATA_PATH, GoogleStreetView
from geoloc_dagster.imagery.provider import (
    Capture,
    CollectionStopped,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.signature import sign
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, TODAY, StubCity

LAT, LNG = ORIGIN
HERE = Location("0", LAT, LNG)
QUICK = Etiquette(requests_per_second=500, burst=20, deadline_s=5, attempts=2, breaker_failures=100, probe_after_s=0.05)
KEY, SECRET = "k-3f9c-secret", "a2V5LWZvci10ZXN0cw=="
M = 1 / 111_320  # degrees of latitude


@pytest.fixture(scope="module")
def service() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, key=KEY, secret=SECRET, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


def provider(url: str, secret: str | None = SECRET, transport: Any = None, **options: Any) -> GoogleStreetView:
    clock = [1_000.0]

    async def sleep(seconds: float) -> None:
        clock[0] += max(seconds, 0)
        await asyncio.sleep(0)

    client = ServiceClient("google", url, QUICK, transport=transport, sleep=sleep, clock=lambda: clock[0])
    terms = Terms("proprietary", "© Google", may_store=False, may_train=False, permission="a contract")
    return GoogleStreetView(client, terms, key=KEY, signing_secret=secret, **{"size": (64, 64), **options})


def run(street: GoogleStreetView, ask: Callable[[GoogleStreetView], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with street.session():
            return await ask(street)

    return asyncio.run(inside())


async def first(street: GoogleStreetView) -> Any:
    (answer,) = [answer async for answer in street.find([HERE])]
    return answer


async def views(street: GoogleStreetView, *wanted: View) -> list[Capture | Failure]:
    panorama = await first(street)
    assert isinstance(panorama, Panorama)
    return [answer async for answer in street.capture(panorama, wanted)]


def asked(ask: Callable[[GoogleStreetView], Awaitable[Any]], **options: Any) -> list[httpx2.URL]:
    """What a client asks of a service that has one panorama."""
    seen: list[httpx2.URL] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url)
        if request.url.path == METADATA_PATH:
            where = {"lat": LAT, "lng": LNG}
            return httpx2.Response(200, json={"status": "OK", "pano_id": "p", "location": where, "date": "2024-09"})
        return httpx2.Response(200, headers={"content-type": "image/jpeg"}, content=b"\xff\xd8 \xff\xd9")

    run(provider("https://maps.example", transport=httpx2.MockTransport(handle), **options), ask)
    return seen


# --- metadata -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("radius_m", "away_m", "status"),
    [
        pytest.param(50, 40, "OK", id="radius 50, 40 m away"),
        pytest.param(50, 60, "ZERO_RESULTS", id="radius 50, 60 m away"),
        pytest.param(80, 60, "OK", id="radius 80, 60 m away"),
        pytest.param(5, 10, "ZERO_RESULTS", id="radius 5, 10 m away"),
    ],
)
def test_a_lookup_snaps_within_its_radius(service: EmulatorThread, radius_m: int, away_m: float, status: str):
    street = provider(service.url, radius_m=radius_m)
    assert run(street, lambda s: s.lookup(LAT - away_m * M, LNG)).status == status


@pytest.mark.parametrize(("outdoor_only", "source"), [(True, "outdoor"), (False, None)])
def test_indoor_views_are_left_out_where_that_is_wanted(outdoor_only: bool, source: str | None):
    (url,) = asked(lambda s: s.lookup(LAT, LNG), outdoor_only=outdoor_only)
    assert url.params.get("source") == source
    assert url.params["radius"] == "50"
    assert url.params["location"] == f"{LAT:.7f},{LNG:.7f}"


def test_the_service_knows_only_the_newest_panorama_and_is_not_asked_for_others(service: EmulatorThread):
    async def ask(street: GoogleStreetView) -> list[Panorama]:
        return await street.history(await first(street))

    assert [one.captured_on for one in run(provider(service.url), ask)] == [EXISTING[-1]]
    assert HISTORY_PATH not in {url.path for url in asked(ask)}


STATUSES = {  # status -> (what a lookup ends as, how often it is asked)
    "ZERO_RESULTS": ("ZERO_RESULTS", 1),
    "NOT_FOUND": ("NOT_FOUND", 1),
    "OVER_QUERY_LIMIT": (CollectionStopped, 2),  # waited for once
    "REQUEST_DENIED": (ServiceKeyError, 1),
    "INVALID_REQUEST": (RequestFailedError, 1),
    "UNKNOWN_ERROR": (RequestFailedError, 2),  # as often as attempts are allowed
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_acted_on_as_the_contract_says(status: str):
    count = [0]

    def handle(request: httpx2.Request) -> httpx2.Response:
        count[0] += 1
        return httpx2.Response(200, json={"status": status})

    expected, times = STATUSES[status]
    street = provider("https://maps.example", transport=httpx2.MockTransport(handle))
    if isinstance(expected, str):
        assert run(street, lambda s: s.lookup(LAT, LNG)).status == expected
        assert isinstance(run(street, first), Negative)
        times *= 2
    else:
        with pytest.raises(expected):
            run(street, lambda s: s.lookup(LAT, LNG))
    assert count[0] == times


def test_a_position_that_cannot_be_is_an_invalid_request_and_not_repeated(service: EmulatorThread):
    service.clear_hits()
    with pytest.raises(RequestFailedError, match="invalid_request"):
        run(provider(service.url), lambda s: s.lookup(91.0, LNG))
    assert len(service.hits()["requests"]) == 1


# --- pictures -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("view", "sent"),
    [
        pytest.param(View(0.0, None, 0.0, 90.0), ("0", "0", "90"), id="heading 0"),
        pytest.param(View(359.9999, None, 0.0, 90.0), ("359.9999", "0", "90"), id="heading 359.9999"),
        pytest.param(View(360.0, None, 0.0, 90.0), ("360", "0", "90"), id="heading 360"),
        pytest.param(View(12.5, None, -90.0, 120.0), ("12.5", "-90", "120"), id="pitch -90, fov 120"),
        pytest.param(View(12.5, None, 90.0, 10.0), ("12.5", "90", "10"), id="pitch 90, fov 10"),
    ],
)
def test_views_within_the_ranges_are_given(service: EmulatorThread, view: View, sent: tuple[str, str, str]):
    (answer,) = run(provider(service.url), lambda s: views(s, view))
    assert isinstance(answer, Capture)
    params = httpx2.URL(answer.source_url or "").params
    assert (params["heading"], params["pitch"], params["fov"]) == sent


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(View(361.0, None, 0.0, 90.0), id="heading 361"),
        pytest.param(View(-1.0, None, 0.0, 90.0), id="heading -1"),
        pytest.param(View(0.0, None, 91.0, 90.0), id="pitch 91"),
        pytest.param(View(0.0, None, 0.0, 121.0), id="fov 121"),
    ],
)
def test_a_view_beyond_the_ranges_is_a_failure_that_is_not_repeated(service: EmulatorThread, view: View):
    service.clear_hits()
    (answer,) = run(provider(service.url), lambda s: views(s, view))
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.retryable) == ("invalid_request", False)
    assert sum(hit["endpoint"] == "image" for hit in service.hits()["requests"]) == 1


def test_a_picture_is_asked_for_by_its_panorama_and_with_error_codes():
    *_, url = asked(lambda s: views(s, View(0.0, None, 0.0, 90.0)), size=(640, 480))
    assert url.path == IMAGE_PATH
    assert (url.params["size"], url.params["pano"], url.params["return_error_code"]) == ("640x480", "p", "true")
    assert "location" not in url.params  # it would turn the camera where no heading is given


def test_a_panorama_that_is_gone_is_a_404_and_no_grey_picture(service: EmulatorThread):
    async def ask(street: GoogleStreetView) -> list[Any]:
        nowhere = Location("x", LAT - 0.5, LNG)
        panorama = Panorama(nowhere, "google", None, "unknown", "64x64", pano_id="vPnURflnc8AZu5NMLYRddw")
        return [answer async for answer in street.capture(panorama, [View(0.0, None, 0.0, 90.0)])]

    (answer,) = run(provider(service.url), ask)
    assert (answer.kind, answer.retryable) == ("no_imagery", False)


# --- keys, signatures and quotas ------------------------------------------------------------------------------------
def test_every_request_is_signed_over_path_and_query_with_the_key():
    for url in asked(lambda s: views(s, View(0.0, None, 0.0, 90.0))):
        target, _, signature = url.raw_path.decode().rpartition("&signature=")
        assert signature == sign(target, SECRET)
        assert f"key={KEY}" in target
        assert not target.startswith("http")


@pytest.mark.parametrize("secret", [None, "b3RoZXItc2VjcmV0"])
def test_a_missing_or_wrong_signature_ends_the_run(service: EmulatorThread, secret: str | None):
    with pytest.raises(ServiceKeyError, match="signature"):
        run(provider(service.url, secret), lambda s: s.lookup(LAT, LNG))


@pytest.mark.parametrize("endpoint", ["metadata", "image"])
def test_a_spent_quota_of_the_day_ends_the_run_without_losing_the_point(endpoint: str):
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, quotas=(f"{endpoint}=1/day",), city=StubCity()) as emulator:  # type: ignore[arg-type]
        views_of_two = (View(0.0, None, 0.0, 90.0), View(90.0, None, 0.0, 90.0))
        with pytest.raises(CollectionStopped) as stop:
            run(provider(emulator.url), lambda s: twice(s, *views_of_two))
        assert stop.value.reason == "quota"
        emulator.set_today(TODAY + dt.timedelta(days=1))
        assert isinstance(run(provider(emulator.url), first), Panorama)


async def twice(street: GoogleStreetView, *wanted: View) -> None:
    await views(street, *wanted)
    await views(street, *wanted)
