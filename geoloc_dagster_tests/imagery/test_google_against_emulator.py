"""The street-view client against the emulated service, over real sockets: every status and every fault ends as its own class."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import ServiceBlockedError, ServiceKeyError, ServiceUnavailableError
from geoloc_dagster.imagery.buckets import MemoryBuckets
from geoloc_dagster.imagery.client import Budget, Etiquette, ServiceClient
from geoloc_dagster.imagery.google import GoogleStreetView
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.pace import Pace
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
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, STEP_DEG, TODAY, StubCity

TERMS = Terms("CC0-1.0", "stub")
HERE = Location("0", *ORIGIN)
NOWHERE = (ORIGIN[0] + STEP_DEG / 2, ORIGIN[1] - 0.5)
VIEWS = [View(float(heading), None, 0.0, 90.0) for heading in (0, 90, 180, 270)]
KEY = "k-3f9c-secret"
QUICK = Etiquette(requests_per_second=500, burst=20, deadline_s=1.5, attempts=2, breaker_failures=100, probe_after_s=0.05)


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, key=KEY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.set_today(TODAY)
    shared.clear_hits()
    return shared


async def instantly(seconds: float) -> None:
    """Backoff without the waiting; the pauses that matter here are measured with the real one."""
    await asyncio.sleep(min(seconds, 0.01))


def provider(service: EmulatorThread, etiquette: Etiquette = QUICK, key: str | None = KEY, **options: Any) -> GoogleStreetView:
    names = ("ledger", "budgets", "evidence", "sleep")
    client = ServiceClient(
        "emulator", service.url, etiquette, **{"sleep": instantly, **{n: options.pop(n) for n in names if n in options}}
    )
    return GoogleStreetView(client, TERMS, name="emulator", key=key, **{"size": (64, 64), "has_history": True, **options})


def run(street: GoogleStreetView, ask: Callable[[GoogleStreetView], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with street.session():
            return await ask(street)

    return asyncio.run(inside())


async def found(street: GoogleStreetView, *locations: Location) -> list[Panorama | Negative | RequestFailedError]:
    return [answer async for answer in street.find(locations or (HERE,))]


async def pictures(street: GoogleStreetView) -> list[Capture | Failure]:
    panorama = (await found(street))[0]
    assert isinstance(panorama, Panorama)
    return [answer async for answer in street.capture(panorama, VIEWS)]


def test_a_lookup_says_what_is_there_and_what_is_not(service: EmulatorThread):
    street = provider(service)
    yes = run(street, lambda s: s.lookup(ORIGIN[0] + 1e-4, ORIGIN[1]))
    assert (yes.status, yes.captured_on, len(yes.pano_id)) == ("OK", EXISTING[-1], 22)
    assert abs(yes.lat_deg - ORIGIN[0]) < 1e-4
    no = run(street, lambda s: s.lookup(*NOWHERE))
    assert (no.status, no.pano_id, no.captured_on) == ("ZERO_RESULTS", None, None)


def test_a_place_has_all_its_dates_and_each_its_own_position_and_id(service: EmulatorThread):
    async def dates(street: GoogleStreetView) -> list[Panorama]:
        return await street.history((await found(street))[0])

    panoramas = run(provider(service), dates)
    assert [one.captured_on for one in panoramas] == sorted(EXISTING, reverse=True)
    assert len({one.pano_id for one in panoramas}) == len({one.lat_deg for one in panoramas}) == len(EXISTING)
    assert len(run(provider(service, history="newest"), dates)) == 1


def test_views_come_in_their_order_with_an_address_that_holds_no_key(service: EmulatorThread):
    answers = run(provider(service), pictures)
    assert [answer.view.heading_deg for answer in answers] == [0, 90, 180, 270]
    assert all(isinstance(answer, Capture) and answer.image[:2] == b"\xff\xd8" for answer in answers)
    assert all(KEY not in answer.source_url and "heading=" in answer.source_url for answer in answers)


def test_places_keep_their_order_and_a_snap_to_another_place_is_no_answer(service: EmulatorThread):
    row = [Location(str(i), ORIGIN[0] + i * STEP_DEG, ORIGIN[1]) for i in range(30)]
    row[7] = Location("7", ORIGIN[0] + 7 * STEP_DEG + 0.0003, ORIGIN[1])  # 33 m from the next panorama
    answers = run(provider(service), lambda s: found(s, *row))
    assert [answer.location.location_id for answer in answers] == [str(i) for i in range(30)]
    assert [i for i, answer in enumerate(answers) if isinstance(answer, Negative)] == [7]


def test_an_id_that_changed_over_night_is_asked_for_anew(service: EmulatorThread):
    row = [Location(str(i), ORIGIN[0] + i * STEP_DEG, ORIGIN[1]) for i in range(20)]
    panoramas = run(provider(service), lambda s: found(s, *row))
    service.set_today(TODAY + dt.timedelta(days=9))
    street = provider(service)

    async def again(street: GoogleStreetView) -> list[Capture | Failure]:
        return [answer for one in panoramas async for answer in street.capture(one, VIEWS[:1])]

    answers = run(street, again)
    assert all(isinstance(answer, Capture) for answer in answers)
    changed = [a for a, b in zip(answers, panoramas, strict=True) if a.panorama.pano_id != b.pano_id]
    assert 3 < len(changed) < 17  # about 5 % a night
    assert all(a.panorama.captured_on == b.captured_on for a, b in zip(answers, panoramas, strict=True))


FAULTS = {  # what a picture's request ends as, and whether it is tried again another time
    "slow": ("timeout", True),
    "drip": ("timeout", True),
    "reset": ("network", True),
    "wrong_length": ("truncated", True),
    "truncated_jpeg": ("truncated", True),
    "refused_status_500": ("server_error", True),
    "refused_status_503": ("server_error", True),
    "retry_after": ("rate_limited", True),
    "huge": ("too_large", False),
    "empty": ("truncated", True),
    "not_json": ("not_an_image", False),
    "unknown_error": ("server_error", True),
    "grey": ("no_imagery", False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_picture_ends_as_its_own_class(service: EmulatorThread, fault: str):
    service.set_faults({"rules": [{"fault": fault, "endpoint": "image", "seconds": None if fault != "retry_after" else 0}]})
    started = time.monotonic()
    street = provider(service, replace(QUICK, max_bytes=1 << 20), size=(320, 320))
    answers = run(street, pictures)
    assert {(answer.kind, answer.retryable) for answer in answers if isinstance(answer, Failure)} == {FAULTS[fault]}
    assert len(answers) == len(VIEWS)
    assert time.monotonic() - started < 2 * 2 * QUICK.deadline_s + 5
    per_view = 2 if FAULTS[fault][1] else 1
    asked = sum(hit["endpoint"] == "image" for hit in service.hits()["requests"])
    assert asked == per_view * len(VIEWS)


LOOKUPS = {
    "slow": "timeout",
    "drip": "timeout",
    "reset": "network",
    "wrong_length": "truncated",
    "refused_status_500": "server_error",
    "refused_status_503": "server_error",
    "retry_after": "rate_limited",
    "huge": "too_large",
    "empty": "invalid_answer",
    "not_json": "invalid_answer",
    "unknown_error": "server_error",
}


@pytest.mark.parametrize("fault", LOOKUPS)
def test_every_fault_of_a_lookup_ends_as_its_own_class(service: EmulatorThread, fault: str):
    service.set_faults({"rules": [{"fault": fault, "endpoint": "metadata", "seconds": 0 if fault == "retry_after" else None}]})
    with pytest.raises(RequestFailedError) as failure:
        run(provider(service), lambda s: s.lookup(*ORIGIN))
    assert failure.value.kind == LOOKUPS[fault]
    (place,) = run(provider(service), found)  # a location that could not be asked about does not end the others
    assert isinstance(place, RequestFailedError)


@pytest.mark.parametrize("fault", ["slow", "reset", "wrong_length", "refused_status_500", "unknown_error", "empty"])
def test_a_fault_that_passes_is_never_seen(service: EmulatorThread, fault: str):
    service.set_faults({"rules": [{"fault": fault, "attempts": 1}]})
    answers = run(provider(service), pictures)
    assert all(isinstance(answer, Capture) for answer in answers)


def test_a_missing_date_is_no_error(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "missing_date"}]})
    answer = run(provider(service), lambda s: s.lookup(*ORIGIN))
    assert (answer.status, answer.captured_on) == ("OK", None)
    (place,) = run(provider(service), found)
    assert (place.captured_on, place.precision) == (None, "unknown")


def test_a_page_for_people_stops_everything_and_is_kept(service: EmulatorThread, tmp_path: Path):
    service.set_faults({"rules": [{"fault": "html", "endpoint": "image", "first": 5}]})
    row = [Location(str(i), ORIGIN[0] + i * STEP_DEG, ORIGIN[1]) for i in range(20)]

    async def all_of_them(street: GoogleStreetView) -> None:
        async for place in street.find(row):
            async for _ in street.capture(place, VIEWS):
                pass

    with pytest.raises(ServiceBlockedError, match="page for people where a picture was expected") as error:
        run(provider(service, evidence=tmp_path / "evidence"), all_of_them)
    kept = list((tmp_path / "evidence").iterdir())
    assert len(kept) == 1
    assert str(kept[0]) in str(error.value)
    text = kept[0].read_text()
    assert "<html" in text.lower()
    assert KEY not in text + str(error.value)
    images = [hit for hit in service.hits()["requests"] if hit["endpoint"] == "image"]
    assert len(images) <= 8 + len(VIEWS)  # those in flight; nothing was asked after it


@pytest.mark.parametrize("key", [None, "wrong-0815"])
def test_a_refused_key_ends_the_run_and_is_not_repeated(service: EmulatorThread, key: str | None):
    with pytest.raises(ServiceKeyError) as error:
        run(provider(service, key=key), lambda s: s.lookup(*ORIGIN))
    assert "wrong-0815" not in str(error.value)
    assert len(service.hits()["requests"]) == 1


def test_the_real_service_is_not_asked_without_a_key(service: EmulatorThread):
    client = ServiceClient("google", service.url, QUICK)
    with pytest.raises(ServiceKeyError, match="without a key"):
        GoogleStreetView(client, TERMS)


def test_a_service_that_only_fails_is_given_up(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "refused_status_500"}]})
    street = provider(service, replace(QUICK, breaker_failures=6, attempts=3))
    row = [Location(str(i), ORIGIN[0] + i * STEP_DEG, ORIGIN[1]) for i in range(100)]
    with pytest.raises(ServiceUnavailableError, match=r"failed [0-9]+ times in a row; the last was server_error"):
        run(street, lambda s: found(s, *row))
    assert 6 < len(service.hits()["requests"]) <= 6 + QUICK.concurrency  # those in flight, and one probe


def test_a_spent_quota_is_waited_for_once_and_then_left_alone(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "over_query_limit", "endpoint": "metadata", "count": 1}]})
    assert run(provider(service), lambda s: s.lookup(*ORIGIN)).status == "OK"
    service.set_faults({"rules": [{"fault": "over_query_limit", "endpoint": "metadata"}]})
    with pytest.raises(CollectionStopped) as stop:
        run(provider(service), lambda s: s.lookup(*ORIGIN))
    assert stop.value.reason == "quota"


def test_a_long_pause_ends_the_run_and_a_short_one_is_kept_to_the_second(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "retry_after", "endpoint": "image", "seconds": 4_000, "count": 1}]})
    with pytest.raises(CollectionStopped) as stop:
        run(provider(service), pictures)
    assert stop.value.reason == "pause"
    service.set_faults({"rules": [{"fault": "retry_after", "endpoint": "image", "seconds": 2, "count": 1, "first": 4}]})
    service.clear_hits()

    async def twice(street: GoogleStreetView) -> list[Capture | Failure]:
        return [*await pictures(street), *await pictures(street), *await pictures(street)]

    answers = run(provider(service, replace(QUICK, deadline_s=10, attempts=4), sleep=asyncio.sleep), twice)
    assert all(isinstance(answer, Capture) for answer in answers)
    hits = service.hits()["requests"]
    refused = next(i for i, hit in enumerate(hits) if hit["outcome"] == "retry_after")
    later = [hit["t"] - hits[refused]["t"] for hit in hits[refused + 1 :]]
    in_flight = [seconds for seconds in later if seconds < 1]  # they had left before the answer came
    assert len(in_flight) < len(VIEWS)
    assert min(seconds for seconds in later if seconds >= 1) >= 1.9


def test_a_budget_is_taken_before_asking_and_never_exceeded(service: EmulatorThread, tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    street = provider(service, ledger=ledger, budgets=[Budget("image", 6, {"image": 1}, "6 requests for a picture a day")])
    assert len(run(street, pictures)) == 4
    with pytest.raises(CollectionStopped) as stop:
        run(street, pictures)
    assert stop.value.reason == "budget"
    assert sum(hit["endpoint"] == "image" for hit in service.hits()["requests"]) == 6
    assert ledger.used("emulator", dt.datetime.now(dt.UTC).date(), "image") == 6


def test_two_hundred_megabytes_are_not_taken_into_memory(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "huge", "endpoint": "image", "attempts": 1}]})
    street = provider(service, replace(QUICK, deadline_s=30, max_bytes=1 << 20))
    tracemalloc.start()
    answers = run(street, pictures)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {answer.kind for answer in answers} == {"too_large"}
    assert peak < 64 << 20


def told(answer: httpx2.Response, **options: Any) -> ServiceClient:
    """A client at a service that always gives one answer; the answer may hold what it was asked under."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        content = answer.content.replace(b"URL", str(request.url).encode())
        return httpx2.Response(answer.status_code, headers={"content-type": answer.headers["content-type"]}, content=content)

    client = ServiceClient(
        "google", "https://maps.example", QUICK, transport=httpx2.MockTransport(handle), sleep=instantly, **options
    )
    client.use_key(KEY, "c2VjcmV0LXNlY3JldA==")
    return client


def ask(client: ServiceClient) -> Any:
    async def inside() -> Any:
        async with client.session():
            return await client.get("/maps/api/streetview", {"pano": "x"}, expect="image")

    return asyncio.run(inside())


def page(status: int, content: bytes, kind: str = "text/html") -> httpx2.Response:
    return httpx2.Response(status, headers={"content-type": kind}, content=content)


def test_a_page_or_an_error_that_repeats_the_url_does_not_leak_the_key(tmp_path: Path):
    with pytest.raises(ServiceBlockedError):
        ask(told(page(200, b"<html>you asked for URL</html>"), evidence=tmp_path))
    (kept,) = tmp_path.iterdir()
    assert "you asked for" in kept.read_text()
    assert KEY not in kept.read_text()
    assert "signature=…" in kept.read_text()
    with pytest.raises(ServiceKeyError) as error:
        ask(told(page(403, b"denied: URL", "text/plain")))
    assert KEY not in str(error.value)


def test_the_page_of_a_gateway_is_a_server_error_and_a_captcha_a_block_whatever_its_status():
    with pytest.raises(RequestFailedError) as failure:
        ask(told(page(502, b"<html><h1>502 Bad Gateway</h1></html>")))
    assert failure.value.kind == "server_error"
    with pytest.raises(ServiceBlockedError):
        ask(told(page(503, b"<html>unusual traffic, captcha</html>")))


def test_cookies_are_not_sent_back():
    seen: list[str | None] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("cookie"))
        return httpx2.Response(500 if len(seen) == 1 else 200, headers={"set-cookie": "id=7"}, content=b"\xff\xd8 \xff\xd9")

    ask(ServiceClient("google", "https://maps.example", QUICK, transport=httpx2.MockTransport(handle), sleep=instantly))
    assert seen == [None, None]


def test_a_pause_and_the_rate_outlast_a_session():
    clock = [100.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    pace = Pace("maps", rate=2, burst=3, buckets=MemoryBuckets(), clock=lambda: clock[0], sleep=sleep)

    async def turns(count: int) -> list[float]:
        left: list[float] = []
        for _ in range(count):
            await pace.turn()
            left.append(clock[0])
        return left

    left = asyncio.run(turns(9))
    pace.pause(30)
    pace.open()
    left += asyncio.run(turns(4))
    assert left[9] == pytest.approx(left[8] + 30)
    for first in range(len(left)):
        for last in range(first, len(left)):
            assert last - first + 1 <= 2 * (left[last] - left[first]) + 3 + 1e-6
