"""Keys, signatures, quotas, changing ids, the log of hits and the other controls."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from geoloc_dagster.emulator.hits import Hit, HitLog
from geoloc_dagster.emulator.limits import Quota, QuotaMeter
from geoloc_dagster.emulator.process import RunningEmulator, serve_in_thread
from geoloc_dagster.errors import ServiceKeyError
from geoloc_dagster.imagery.signature import sign
from geoloc_dagster_tests.emulator.asking import CLIENT, HISTORY, IMAGE, METADATA, get, image, metadata, outcomes
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, TODAY, StubCity, spot

KEY, SECRET = "a-key", "a2V5LWZvci10ZXN0cw=="
NIGHT = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def locked() -> Iterator[RunningEmulator]:
    """A service that wants a key and a signature."""
    with serve_in_thread(ORIGIN, today=TODAY, key=KEY, secret=SECRET, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


def signed(path: str, **params: str) -> str:
    path_and_query = f"{path}?{urlencode(params)}"
    return f"{path_and_query}&signature={sign(path_and_query, SECRET)}"


def test_a_signed_request_with_the_key_is_answered(locked: RunningEmulator):
    for path in (METADATA, HISTORY):
        assert CLIENT.get(locked.url + signed(path, location=spot(), key=KEY)).json()["status"] == "OK"
    assert CLIENT.get(locked.url + signed(IMAGE, location=spot(), size="64x64", key=KEY)).status_code == 200


@pytest.mark.parametrize("spoilt", ["no key", "wrong key", "no signature", "wrong signature", "signed something else"])
def test_anything_else_is_denied_with_a_reason(locked: RunningEmulator, spoilt: str):
    for path in (METADATA, HISTORY, IMAGE):
        key = {"no key": "", "wrong key": "another"}.get(spoilt, KEY)
        url = signed(path, location=spot(), size="64x64", key=key)
        if spoilt == "no signature":
            url = url.partition("&signature=")[0]
        elif spoilt == "wrong signature":
            url = url[:-4] + "AAA="
        elif spoilt == "signed something else":
            url = url.replace("size=64x64", "size=65x64")
        response = CLIENT.get(locked.url + url)
        if path == IMAGE:
            assert (response.status_code, response.text.split(":")[0]) == (403, "REQUEST_DENIED")
        else:
            assert (response.status_code, response.json()["status"]) == (200, "REQUEST_DENIED")
            assert response.json()["error_message"]
        assert KEY not in response.text
        assert SECRET not in response.text
    assert CLIENT.get(locked.url + "/emulator/health").status_code == 200, "the controls need no key"


def test_a_denied_request_says_nothing_about_the_place(locked: RunningEmulator):
    assert set(metadata(locked.url, location="0,0")) == {"status", "error_message"}
    assert metadata(locked.url)["status"] == "REQUEST_DENIED"


def test_an_unusable_secret_is_refused_at_the_start():
    with pytest.raises(ServiceKeyError):
        serve_in_thread(ORIGIN, secret="no base64!", city=StubCity())  # type: ignore[arg-type]


def test_a_spent_day_is_over_when_the_calendar_says_so():
    quotas = ("metadata=3/day", "image=1/day")
    with serve_in_thread(ORIGIN, today=TODAY, key=KEY, quotas=quotas, city=StubCity()) as emulator:  # type: ignore[arg-type]
        assert metadata(emulator.url, location=spot())["status"] == "REQUEST_DENIED", "which costs nothing"
        answers = [metadata(emulator.url, location=spot(), key=KEY) for _ in range(5)]
        assert [answer["status"] for answer in answers] == ["OK"] * 3 + ["OVER_QUERY_LIMIT"] * 2
        assert answers[-1]["error_message"]
        assert [image(emulator.url, location=spot(), key=KEY).status_code for _ in range(2)] == [200, 429]
        assert get(emulator.url, HISTORY, location=spot(), key=KEY).json()["status"] == "OK", "has no quota here"
        emulator.set_today(TODAY + NIGHT)
        assert metadata(emulator.url, location=spot(), key=KEY)["status"] == "OK"


def test_a_spent_minute_says_how_long_it_lasts():
    with serve_in_thread(ORIGIN, today=TODAY, quotas=("image=0/minute",), city=StubCity()) as emulator:  # type: ignore[arg-type]
        response = image(emulator.url, location=spot())
        assert (response.status_code, response.text.split(":")[0]) == (429, "OVER_QUERY_LIMIT")
        assert 1 <= int(response.headers["retry-after"]) <= 60


def test_quotas_of_minutes_and_days_hold_together():
    now = [600.0]
    meter = QuotaMeter((Quota("image", 2, "minute"), Quota("image", 3, "day")), lambda: now[0])
    spent = [meter.spend("image", TODAY) for _ in range(3)]
    now[0] += 60
    spent += [meter.spend("image", TODAY) for _ in range(2)]
    spent += [meter.spend("image", TODAY + NIGHT)]
    assert [None if quota is None else quota.per for quota in spent] == [None, None, "minute", None, "day", None]


@pytest.mark.parametrize("text", ["image", "image=3", "image=-1/day", "tiles=3/day", "image=3/hour", "image=3/day "])
def test_a_quota_that_means_nothing_is_refused(text: str):
    with pytest.raises(ValueError, match="image=30000/minute"):
        Quota.parse(text)


def test_an_id_is_good_until_the_night_it_changes_and_its_location_for_ever(service: RunningEmulator):
    places = [spot(0, column) for column in range(40)]
    ids = {place: metadata(service.url, location=place)["pano_id"] for place in places}
    changed: set[str] = set()
    for night in range(1, 4):
        service.set_today(TODAY + night * NIGHT)
        for place in places:
            now = metadata(service.url, location=place)
            if now["pano_id"] == ids[place]:
                assert metadata(service.url, pano=ids[place]) == now
            else:
                changed.add(place)
                assert metadata(service.url, pano=ids[place]) == {"status": "ZERO_RESULTS"}
                assert get(service.url, HISTORY, pano=ids[place]).json() == {"status": "ZERO_RESULTS"}
                assert image(service.url, pano=ids[place]).status_code == 404
                assert image(service.url, pano=now["pano_id"]).status_code == 200
            assert now["date"] == f"{EXISTING[-1]:%Y-%m}"
    assert 0 < len(changed) < 20  # 5.7 expected
    service.set_today(TODAY)
    assert {place: metadata(service.url, location=place)["pano_id"] for place in places} == ids


def test_a_hit_is_called_the_same_before_and_after_its_id_changes(service: RunningEmulator):
    def ask(pano_id: str) -> tuple[list[str], list[str]]:
        service.clear_hits()
        image(service.url, pano=pano_id, heading=90, pitch=-5, fov=80.5, size="700x320")
        metadata(service.url, pano=pano_id)
        get(service.url, HISTORY, pano=pano_id)
        return [hit["what"] for hit in service.hits()["requests"]], outcomes(service.hits())

    old = metadata(service.url, location=spot(2, 5))["pano_id"]
    names = ["2005/3/90/-5/80.5/640x320", "2005/3", "2005/3"]
    assert ask(old) == (names, ["OK"] * 3)
    service.set_today(TODAY + 20 * NIGHT)
    listed = get(service.url, HISTORY, location=spot(2, 5)).json()["panoramas"]
    new = next(panorama["pano_id"] for panorama in listed if panorama["date"] == f"{EXISTING[-1]:%Y-%m}")
    assert new != old
    assert ask(new) == (names, ["OK"] * 3)
    assert ask(old) == (names, ["ZERO_RESULTS"] * 3)


def test_the_log_says_what_was_asked_when_and_how_it_went(service: RunningEmulator):
    before = time.monotonic()
    length = len(get(service.url, METADATA, location="59.33,18.07").content)
    image(service.url, location="59.33,18.07", heading=10)
    image(service.url, location="1.5,2.25", heading=10)
    metadata(service.url, location="Sergels torg")
    metadata(service.url)
    image(service.url, pano="not-an-id")
    report = service.hits()
    hits = report["requests"]
    assert [(hit["endpoint"], hit["what"], hit["status"], hit["outcome"]) for hit in hits] == [
        ("metadata", "59.3300000,18.0700000", 200, "OK"),
        ("image", "0/3/10/0/90/64x48", 200, "OK"),
        ("image", "1.5000000,2.2500000/10/0/90/64x48", 404, "ZERO_RESULTS"),
        ("metadata", "Sergels torg", 200, "NOT_FOUND"),
        ("metadata", "invalid", 200, "INVALID_REQUEST"),
        ("image", "unknown/-/0/90/64x48", 404, "ZERO_RESULTS"),
    ]
    assert hits[0]["bytes"] == length
    moments = [before, *(hit["t"] for hit in hits), time.monotonic()]
    assert moments == sorted(moments)
    assert report["totals"] == {
        "requests": 6,
        "bytes": sum(hit["bytes"] for hit in hits),
        "metadata": {"OK": 1, "NOT_FOUND": 1, "INVALID_REQUEST": 1},
        "image": {"OK": 1, "ZERO_RESULTS": 2},
        "history": {},
    }
    assert service.hits(last=2)["requests"] == hits[-2:]
    assert service.hits(last=0) == {"totals": report["totals"], "requests": []}
    service.clear_hits()
    assert service.hits()["totals"]["requests"] == 0


def test_the_log_is_bounded_and_its_totals_are_not():
    log = HitLog(max_entries=3)
    for number in range(10):
        log.add(Hit(float(number), "image", "x", 200, "OK", 5))
    report = log.report()
    assert [hit["t"] for hit in report["requests"]] == [7, 8, 9]
    assert (report["totals"]["requests"], report["totals"]["bytes"]) == (10, 50)
    assert [hit["t"] for hit in log.report(last=2)["requests"]] == [8, 9]


def test_health_names_city_and_day_and_the_clock_can_be_set_and_let_go(service: RunningEmulator):
    assert get(service.url, "/emulator/health").json() == {"seed": 7, "today": "2026-11-21", "origin": list(ORIGIN)}
    response = CLIENT.put(service.url + "/emulator/clock", content='{"today": "2031-02-03"}')
    assert response.status_code == 204
    assert get(service.url, "/emulator/health").json()["today"] == "2031-02-03"
    assert CLIENT.put(service.url + "/emulator/clock", content='{"today": "soon"}').status_code == 422
    before = dt.datetime.now(dt.UTC).date()
    service.set_today(None)
    real = dt.date.fromisoformat(get(service.url, "/emulator/health").json()["today"])
    assert before <= real <= dt.datetime.now(dt.UTC).date()


def test_latency_is_added_to_the_api_and_not_to_the_controls():
    with serve_in_thread(ORIGIN, today=TODAY, latency_ms=200, city=StubCity()) as emulator:  # type: ignore[arg-type]
        before = time.monotonic()
        metadata(emulator.url, location=spot())
        assert time.monotonic() - before >= 0.2


def test_a_broken_limit_of_the_log_is_a_422(service: RunningEmulator):
    assert get(service.url, "/emulator/hits", last=-1).status_code == 422
