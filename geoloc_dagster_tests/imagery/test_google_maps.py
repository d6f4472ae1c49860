"""The browser on the emulated maps site: the page row by row, every picture proved, every fault told apart."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import PageChangedError, PermissionMissingError, ServiceBlockedError
from geoloc_dagster.imagery.client import Budget, Etiquette
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.egress import Egress
from geoloc_dagster.imagery.google_maps import GoogleMaps
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.maps_contract import Address, Seen, link_to
from geoloc_dagster.imagery.maps_page import MapsPage
from geoloc_dagster.imagery.processes import marked_processes
from geoloc_dagster.imagery.provider import (
    Capture,
    CollectionStopped,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
)
from geoloc_dagster.imagery.robots import Fetched, Robots
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, STEP_DEG, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.regions import write_region
from geoloc_dagster_tests.imagery.stubs import serve, socks5
from geoloc_dagster_tests.imagery.walking import (
    NOW,
    QUICK,
    KeptBrowser,
    google_maps,
    kept_browser,
    looking,
    require_browser,
    shift_px,
)

NOWHERE = Location("nowhere", ORIGIN[0] + STEP_DEG / 2, ORIGIN[1] - 0.5)
DATES = list(reversed(EXISTING))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptBrowser]:
    yield from kept_browser(tmp_path_factory.mktemp("browsers"))


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def site(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.clear_hits()
    return shared


def location(row: int, column: int, pano_id: str | None = None) -> Location:
    return Location(f"{row}-{column}", ORIGIN[0] + row * STEP_DEG, ORIGIN[1] + column * STEP_DEG, pano_id)


def run(one: GoogleMaps, ask: Callable[[GoogleMaps], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with one.session():
            return await ask(one)

    return asyncio.run(inside())


async def found(one: GoogleMaps, *places: Location) -> list[Any]:
    return [answer async for answer in one.find(places)]


async def everything(one: GoogleMaps, where: Location, *headings: float) -> tuple[list[Panorama], list[Any]]:
    """Every date of a place, and what each gave at these headings."""
    async for newest in one.find([where]):
        assert isinstance(newest, Panorama), newest
        panoramas = await one.history(newest)
        return panoramas, [a for p in panoramas for a in [answer async for answer in one.capture(p, looking(*headings))]]
    raise AssertionError("find gave nothing")


def outcomes(site: EmulatorThread, endpoint: str) -> dict[str, int]:
    return site.hits()["totals"].get(endpoint, {})


@pytest.fixture
def page(browser: KeptBrowser, site: EmulatorThread) -> Iterator[MapsPage]:
    """A window of a user who has answered about cookies, on the map."""
    tab = browser.open_tab(None, "somebody", (1280, 800), 1.0)
    page = MapsPage(tab, 15.0, lambda picture, text: "nowhere")
    page.go(f"{site.url}/maps/", "map")
    page.answer_consent("map")
    yield page
    tab.close()


def newest_id(page: MapsPage, site: EmulatorThread) -> str:
    seen = page.go(f"{site.url}/maps/@?api=1&map_action=pano&viewpoint={ORIGIN[0]},{ORIGIN[1]}", "scene")
    assert seen.address is not None
    return seen.address.pano_id


# --- the page, row by row -------------------------------------------------------------------------------------------
def test_typing_a_position_leads_to_a_place_with_one_preview_and_the_preview_to_the_street(page: MapsPage):
    seen = page.search(*ORIGIN)
    assert seen.kind == "place"
    assert "/maps/place/" in seen.url
    assert f"/@{ORIGIN[0]},{ORIGIN[1]},17z" in seen.url
    assert seen.previews == 1
    street = page.enter_preview()
    assert street.address is not None
    assert street.captured_on == DATES[0]


def test_a_place_without_imagery_has_no_preview(page: MapsPage):
    assert page.search(NOWHERE.lat_deg, NOWHERE.lng_deg).previews == 0


def test_the_documented_address_opens_its_view_and_the_sites_own_address_opens_it_again(page: MapsPage, site: EmulatorThread):
    pano_id = newest_id(page, site)
    link = f"{site.url}/maps/@?api=1&map_action=pano&pano={pano_id}&heading=-30&pitch=10&fov=60"
    address = page.go(link, "scene").address
    assert address == Address(ORIGIN[0] + 3e-6, ORIGIN[1], 60.0, 330.0, 10.0, pano_id)
    own = page.look().url
    assert "!7i13312!8i6656" in own
    assert page.go(own, "scene").address == address


def test_without_api_1_the_documented_parameters_are_ignored(page: MapsPage, site: EmulatorThread):
    pano_id = newest_id(page, site)
    assert page.go(f"{site.url}/maps/@?map_action=pano&pano={pano_id}", "map").kind == "map"


def test_the_scene_is_one_canvas_drawn_by_webgl_below_a_card_and_controls(page: MapsPage, site: EmulatorThread):
    newest_id(page, site)
    count = "selector => document.querySelectorAll(selector).length"
    assert page.tab.call(count, ".widget-scene canvas") == 1
    assert page.tab.call("() => document.querySelector('.widget-scene canvas').getContext('webgl2') !== null")
    for overlay in ("#titlecard", "#omnibox-container", ".minimap", ".watermark", '[jsaction="titlecard.timemachineClick"]'):
        assert page.tab.call(count, overlay) >= 1, overlay
    card = page.tab.call("() => document.querySelector('#titlecard').innerText")
    assert "Street View" in card
    assert "Oct 2026" in card


def test_the_time_machine_lists_its_dates_newest_first_and_marks_the_open_one(page: MapsPage, site: EmulatorThread):
    newest_id(page, site)
    assert page.dates() == ("October 2026", "September 2024", "May 2017", "July 2009")
    marked = "() => [...document.querySelectorAll('button[jslog]')].filter(b => b.getAttribute('jslog').includes('metadata'))"
    assert page.tab.call(f"{marked[:-1]}).map(b => b.ariaLabel)") == ["October 2026"]
    before = page.look().address
    seen = page.choose(DATES[2])
    assert seen is not None
    assert before is not None
    assert seen.address is not None
    assert seen.captured_on == DATES[2]
    assert (seen.address.pano_id != before.pano_id, seen.address.heading_deg) == (True, before.heading_deg)
    assert page.tab.call(f"{marked[:-1]}).map(b => b.ariaLabel)") == ["May 2017"]


def test_buttons_turn_by_a_quarter_keys_and_the_mouse_by_as_much_as_they_are_held(page: MapsPage, site: EmulatorThread):
    newest_id(page, site)

    def heading(seen: Seen | None) -> float:
        assert seen is not None
        assert seen.address is not None
        return seen.address.heading_deg

    assert heading(page.turn(clockwise=True)) == 90
    assert heading(page.turn(clockwise=False)) == 0
    assert heading(page.turn(clockwise=False)) == 270
    page.tab.write("d")
    assert heading(page.look()) > 270 or heading(page.look()) < 90
    drag = [("pointerMove", 700), ("pointerDown", 0), ("pointerMove", 500), ("pointerUp", 0)]
    before = heading(page.look())
    steps = [{"type": kind, **({"x": x, "y": 500} if kind == "pointerMove" else {"button": 0})} for kind, x in drag]
    page.tab.send("input.performActions", actions=[{"type": "pointer", "id": "mouse", "actions": steps}])
    assert (heading(page.look()) - before) % 360 == pytest.approx(200 * 90 / 1280, abs=0.1)


def test_attributes_for_tests_are_there_and_can_be_left_out(page: MapsPage, site: EmulatorThread):
    pano_id = newest_id(page, site)
    page.frame(None)
    assert (page.look().pano_id, page.look().ready) == (pano_id, True)
    site.set_faults({"rules": [{"fault": "no_attributes"}]})
    page.go(f"{site.url}/maps/@?api=1&map_action=pano&pano={pano_id}", "scene")
    page.frame(None)
    assert (page.look().pano_id, page.look().ready) == (None, None)


# --- pictures and their proof ---------------------------------------------------------------------------------------
def test_every_date_of_a_place_gives_its_own_picture_of_each_heading(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    one = google_maps(site.url, browser, tmp_path, size=(160, 120))
    panoramas, answers = run(one, lambda p: everything(p, location(1, 2), 90, 0))
    assert [panorama.captured_on for panorama in panoramas] == DATES
    assert {panorama.precision for panorama in panoramas} == {"month"}
    assert all(isinstance(answer, Capture) for answer in answers)
    assert [answer.view.heading_deg for answer in answers] == [90, 0] * len(DATES)
    assert len({answer.image for answer in answers}) == 2 * len(DATES)
    assert len({answer.panorama.pano_id for answer in answers}) == len(DATES)
    assert {Image.open(io.BytesIO(answer.image)).size for answer in answers} == {(160, 120)}
    assert all(link_to(a.panorama.pano_id, a.view) in a.source_url for a in answers)
    assert sum(one._walks.incidents.values()) == 0  # type: ignore[reportPrivateUsage]
    assert outcomes(site, "maps_page") == {"OK": 2}  # one load for all of it, and one that asked about cookies


def test_a_shift_is_measured_to_a_fraction_of_a_pixel():
    wide = np.random.default_rng(0).normal(size=(64, 400)).cumsum(axis=1)
    assert shift_px(wide[:, 40:340], wide[:, 47:347]) == pytest.approx(7, abs=0.3)


def test_pictures_look_where_they_say_without_anything_over_them(browser: KeptBrowser, tmp_path: Path):
    """Against the city's own drawing: under a degree off, and the corners, which the page's controls cover, agree as well."""
    origin = (45.0, -30.0)
    city = City(origin, 3)
    near = next(place for place in city.within(-30.004, 44.997, -29.996, 45.003) if len(place.snapshots) == 1 or place.snapshots)
    newest = [snapshot for snapshot in near.snapshots if snapshot.captured_on < TODAY.replace(day=1)][-1]
    where = Location("here", newest.lat_deg, newest.lng_deg)
    headings = (0.0, 37.5, 127.5, 180.0, 270.0)
    with serve_in_thread(origin, seed=3, today=TODAY, city=city) as emulator:
        one = google_maps(emulator.url, browser, tmp_path, history="newest", size=(640, 640))
        _, answers = run(one, lambda p: everything(p, where, *headings))
    for heading, answer in zip(headings, answers, strict=True):
        rgb = city.render(newest.lat_deg, newest.lng_deg, heading_deg=heading, date=newest.captured_on).rgb
        seen, drawn = (
            np.asarray(Image.open(io.BytesIO(answer.image)).convert("L"), np.float64),
            np.asarray(Image.fromarray(rgb).convert("L"), np.float64),
        )
        off_deg = np.degrees(np.arctan(shift_px(seen[200:440], drawn[200:440]) / 320))
        assert abs(off_deg) < 1, (heading, off_deg)
        if heading % 90 == 0:
            assert np.abs(seen - drawn).mean() < 6, heading
            for corner in (np.s_[:160, :320], np.s_[480:, :], np.s_[:, 560:]):
                assert np.abs(seen[corner] - drawn[corner]).mean() < 8, heading


def test_a_location_without_an_id_and_one_with_yesterdays_are_searched_for(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path
):
    one = google_maps(site.url, browser, tmp_path)
    first, second = run(one, lambda p: found(p, location(2, 2), location(2, 3, "A" * 22)))
    assert {hit["what"].split("/")[0] for hit in site.hits()["requests"] if hit["endpoint"] == "maps_panorama"} == {
        "link",
        "search",
        "preview",
    }
    again, known = run(one, lambda p: found(p, location(2, 2, first.pano_id), location(2, 3, second.pano_id)))
    assert (again.pano_id, known.pano_id) == (first.pano_id, second.pano_id)
    assert first.captured_on == DATES[0]


def test_where_nothing_is_and_where_the_next_panorama_is_too_far_away_a_negative_is_answered(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path
):
    beside = Location("beside", ORIGIN[0] + 0.0003, ORIGIN[1])
    nothing, far = run(google_maps(site.url, browser, tmp_path), lambda p: found(p, NOWHERE, beside))
    assert isinstance(nothing, Negative)
    assert isinstance(far, Negative)
    assert "m away" in far.reason


def test_each_location_is_another_user_by_the_way_that_was_chosen(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    calls: list[str] = []
    with serve(socks5) as proxy:
        egress = Egress.parse(f"socks5://127.0.0.1:{proxy.port}")
        options = {"proxy": egress.browser_proxy(), "fresh_circuit": lambda: calls.append("fresh")}
        one = google_maps(site.url, browser, tmp_path, **options)
        assert all(isinstance(a, Panorama) for a in run(one, lambda p: found(p, *(location(3, k) for k in range(3)))))
    assert len(calls) == 3
    assert outcomes(site, "maps_consent") == {"OK": 3}  # nobody knew them yet
    assert set(proxy.seen) == {site.url.removeprefix("http://")}


def test_the_browser_says_who_asks(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    async def ask(one: GoogleMaps) -> str:
        async for _ in one.find([location(1, 1)]):
            (walk,) = one._walks._walks.values()  # type: ignore[reportPrivateUsage]
            return walk.window.tab.call("() => navigator.userAgent")
        raise AssertionError

    said = run(google_maps(site.url, browser, tmp_path), ask)
    assert "HeadlessChrome" in said
    assert "geoloc_dagster/" in said
    assert "(+https://" in said


# --- what goes wrong ------------------------------------------------------------------------------------------------
def incidents(one: GoogleMaps) -> dict[str, int]:
    return {kind: count for kind, count in one._walks.incidents.items() if count}  # type: ignore[reportPrivateUsage]


@dataclass(frozen=True)
class Mishap:
    """What the server does, and what the client should call it; `bare` pages do not say what they show."""

    endpoint: str
    rule: dict[str, Any]
    kind: str
    bare: bool = False
    dates: bool = True


DEALT_WITH = {
    "a stale frame": Mishap("maps_panorama", {"fault": "stale_frame", "what": "date/*", "attempts": 1}, "stale_frame"),
    "a stale frame on a bare page": Mishap(
        "maps_panorama", {"fault": "stale_frame", "what": "date/*", "attempts": 1}, "stale_frame", bare=True
    ),
    "a lost click on a date": Mishap(
        "maps_click", {"fault": "swallowed_click", "what": "date/*", "first": 1, "count": 1}, "swallowed_click"
    ),
    "a lost click for a turn": Mishap("maps_click", {"fault": "swallowed_click", "attempts": 1}, "swallowed_click", dates=False),
    "a lost click for a turn on a bare page": Mishap(
        "maps_click", {"fault": "swallowed_click", "attempts": 1}, "swallowed_click", bare=True, dates=False
    ),
    "a black frame": Mishap(
        "maps_panorama", {"fault": "black_frame", "what": "link/*", "attempts": 1}, "black_frame", dates=False
    ),
    "a crash on a date": Mishap("maps_panorama", {"fault": "tab_crash", "what": "date/*", "first": 2, "count": 1}, "tab_crash"),
    "a crash on arrival": Mishap(
        "maps_panorama", {"fault": "tab_crash", "what": "link/*", "attempts": 1}, "tab_crash", dates=False
    ),
    "slow tiles": Mishap("maps_tile", {"fault": "slow", "seconds": 2.6, "count": 3}, "slow_request", dates=False),
    "slow tiles on a bare page": Mishap(
        "maps_tile", {"fault": "slow", "seconds": 2.6, "count": 3}, "slow_request", bare=True, dates=False
    ),
}


@pytest.mark.parametrize("name", DEALT_WITH)
def test_what_goes_wrong_on_the_way_is_dealt_with_and_called_by_its_name(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path, name: str
):
    """As often as the server did it, and every picture comes all the same, each its own."""
    mishap = DEALT_WITH[name]
    where = location(6, 1, newest(site, 6, 1))
    bare = [{"fault": "no_attributes"}] if mishap.bare else []
    site.clear_hits()
    site.set_faults({"rules": [*bare, {**mishap.rule, "endpoint": mishap.endpoint}]})
    one = google_maps(site.url, browser, tmp_path, history="all" if mishap.dates else "newest")
    _, answers = run(one, lambda p: everything(p, where, *((0,) if mishap.dates else (0, 90))))
    assert all(isinstance(answer, Capture) for answer in answers), answers
    assert len({answer.image for answer in answers}) == len(answers) == (len(DATES) if mishap.dates else 2)
    injected = outcomes(site, mishap.endpoint).get(mishap.rule["fault"], 0)
    assert injected >= 1
    assert incidents(one) == {mishap.kind: injected}


def newest(site: EmulatorThread, row: int, column: int) -> str:
    """The id of a place's newest panorama."""
    where = location(row, column)
    answer = httpx2.get(f"{site.url}/maps/panorama", params={"by": "test", "location": f"{where.lat_deg},{where.lng_deg}"})
    return answer.json()["pano_id"]


ENDS_AS = {
    "swallowed_click": {"fault": "swallowed_click", "what": "date/*"},
    "tab_crash": {"fault": "tab_crash", "what": "date/*"},
    "timeout": {"fault": "slow", "endpoint": "maps_panorama", "what": "date/*", "seconds": 30},
}


@pytest.mark.parametrize("kind", ["swallowed_click", "tab_crash", "timeout"])
def test_what_does_not_get_better_ends_as_its_own_kind_and_is_asked_for_another_time(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path, kind: str
):
    site.set_faults({"rules": [ENDS_AS[kind]]})
    hasty = Etiquette(500, 50, 16, deadline_s=3, attempts=1, breaker_failures=100)

    async def second_date(one: GoogleMaps) -> list[Any]:
        async for first in one.find([location(7, 1)]):
            assert isinstance(first, Panorama)
            panoramas = await one.history(first)
            return [answer async for answer in one.capture(panoramas[1], looking(0))]
        return []

    (answer,) = run(google_maps(site.url, browser, tmp_path, etiquette=hasty), second_date)
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.retryable) == (kind, True)


def test_a_place_with_one_date_is_complete_with_it(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    site.set_faults({"rules": [{"fault": "single_date"}]})
    panoramas, answers = run(google_maps(site.url, browser, tmp_path), lambda p: everything(p, location(8, 1), 0))
    assert [panorama.captured_on for panorama in panoramas] == [DATES[0]]
    assert [type(answer) for answer in answers] == [Capture]


def test_the_question_about_cookies_is_rejected_in_any_language(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    site.set_faults({"rules": [{"fault": "consent_language"}]})
    answers = run(google_maps(site.url, browser, tmp_path), lambda p: found(p, *(location(9, k) for k in range(2))))
    assert all(isinstance(answer, Panorama) for answer in answers)
    assert outcomes(site, "maps_consent") == {"consent_language": 2}


@pytest.mark.parametrize(("kind", "sought"), [("imagery", "no_street_view"), ("page", "no_street_view")])
def test_a_panorama_that_is_gone_is_a_negative(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path, kind: str, sought: str
):
    where = location(10, 1, newest(site, 10, 1) if kind == "imagery" else None)
    site.set_faults({"rules": [{"fault": sought}]})
    (answer,) = run(google_maps(site.url, browser, tmp_path), lambda p: found(p, where))
    assert isinstance(answer, Negative)


@pytest.mark.parametrize("pano_id", [None, "A" * 22])
def test_a_page_that_is_built_otherwise_is_one_clear_error_with_the_page_kept(
    site: EmulatorThread, browser: KeptBrowser, tmp_path: Path, pano_id: str | None
):
    site.set_faults({"rules": [{"fault": "renamed_dom"}]})
    with pytest.raises(PageChangedError, match="the page shows none of"):
        run(google_maps(site.url, browser, tmp_path), lambda p: found(p, location(11, 1, pano_id)))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".png"]


def test_a_page_for_robots_ends_everything_and_is_kept(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    site.set_faults({"rules": [{"fault": "bot_page", "first": 3}]})
    told: list[str] = []
    one = google_maps(site.url, browser, tmp_path, blocked=told.append)

    async def ask(one: GoogleMaps) -> None:
        with pytest.raises(ServiceBlockedError, match="robot"):
            await found(one, *(location(12, k) for k in range(5)))
        pages = sum(outcomes(site, "maps_page").values())
        with pytest.raises(ServiceBlockedError):
            await found(one, location(13, 1))
        assert sum(outcomes(site, "maps_page").values()) == pages  # nothing more was asked

    run(one, ask)
    assert len(told) >= 1
    (page,) = tmp_path.glob("*.html")
    assert "unusual traffic" in " ".join(page.read_text().split())
    assert Image.open(page.with_suffix(".png")).format == "PNG"


# --- etiquette ------------------------------------------------------------------------------------------------------
def test_pages_that_robots_txt_forbids_are_not_opened(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    async def fetch(url: str) -> Fetched:
        return Fetched(200, b"User-agent: geoloc_dagster\nDisallow: /maps/\n")

    (answer,) = run(google_maps(site.url, browser, tmp_path, allowed=Robots(fetch).allowed), lambda p: found(p, location(1, 1)))
    assert isinstance(answer, RequestFailedError)
    assert (answer.kind, answer.retryable) == ("disallowed", False)
    assert outcomes(site, "maps_page") == {}


def test_pictures_and_requests_are_taken_from_the_days_budgets(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budgets = [Budget("image", 3, {"image": 1}, "3 pictures a day"), Budget("request", 1_000, {}, "requests")]
    one = google_maps(site.url, browser, tmp_path, ledger=ledger, budgets=budgets)
    kept: list[Any] = []

    async def ask(one: GoogleMaps) -> None:
        async for newest in one.find([location(1, 1)]):
            assert isinstance(newest, Panorama)
            async for answer in one.capture(newest, looking(0, 90, 180, 270)):
                kept.append(answer)

    with pytest.raises(CollectionStopped, match="3 pictures a day"):
        run(one, ask)
    assert [type(answer) for answer in kept] == [Capture] * 3  # what was taken before is not lost
    today = NOW.today().date()
    assert ledger.used("google_maps", today, "image") == 3
    assert ledger.used("google_maps", today, "request") == 4  # the map, cookies, the search, the preview
    assert ledger.used("google_maps", today, "byte") > 0


def test_pages_are_loaded_no_faster_than_the_rate(site: EmulatorThread, browser: KeptBrowser, tmp_path: Path):
    steady = Etiquette(requests_per_second=4, burst=1, concurrency=4)
    run(google_maps(site.url, browser, tmp_path, etiquette=steady), lambda p: found(p, location(1, 1), location(1, 2)))
    times = [h["t"] for h in site.hits()["requests"] if h["endpoint"] == "maps_consent" or h["what"].startswith("search/")]
    assert len(times) == 4
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))


def test_without_a_permission_no_browser_is_even_started(tmp_path: Path):
    def start() -> KeptBrowser:
        raise AssertionError("a browser was started")

    from geoloc_dagster.imagery.client import ServiceClient
    from geoloc_dagster.imagery.maps_walks import Walks

    client = ServiceClient("google_maps", "http://127.0.0.1:9", QUICK)
    forbidden = Terms("proprietary", "© Google", may_store=False, may_train=False)
    one = GoogleMaps(Walks(client, start, lambda picture, page: ""), forbidden)
    paths = {"visits_path": tmp_path / "v.lance", "run_id": "r", "now": NOW, "commit_rows": 8}
    with pytest.raises(PermissionMissingError):
        asyncio.run(collect_batch(one, [location(1, 1)], "100m-0000", tmp_path / "p.lance", **paths))


# --- the whole way --------------------------------------------------------------------------------------------------
def collecting(config: Path, places: list[Location], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    arguments = [
        str(config),
        json.dumps([{"location_id": p.location_id, "lat_deg": p.lat_deg, "lng_deg": p.lng_deg} for p in places]),
    ]
    command = [sys.executable, "-m", "geoloc_dagster_tests.imagery.walking", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(180)
def test_a_collection_that_is_killed_and_repeated_has_every_view_once_and_leaves_no_browser(site: EmulatorThread, tmp_path: Path):
    require_browser()
    config = write_region(
        tmp_path,
        coverage={"provider": "csv"},
        capture={"provider": "google_maps", "permission": "letter", "headings_deg": [0, 90], "size": [96, 96], "commit_rows": 4},
        service={"base_url": site.url, "requests_per_second": 400},
        browser={"workers": 2},
    )
    places = [location(20, column) for column in range(2)] + [NOWHERE]
    killed = collecting(config, places, {"GEOLOC_FAILPOINT": "writer.captures_committed:2"})
    assert killed.returncode == -9, killed.stderr
    records = list((tmp_path / "data/service/browsers").glob("*.json"))
    assert len(records) == 1
    assert marked_processes("GEOLOC_BROWSER", records[0].stem), "the killed collection left its browser running"
    finished = collecting(config, places, {})
    assert finished.returncode == 0, finished.stderr
    assert marked_processes("GEOLOC_BROWSER", records[0].stem) == []
    assert list((tmp_path / "data/service/browsers").iterdir()) == []
    table = open_table(tmp_path / "data/tables/panoramas.lance")
    assert table is not None
    rows = table.to_table(columns=["capture_id", "location_id", "captured_on", "heading_deg", "status", "sha256"]).to_pylist()
    views = Counter((row["location_id"], row["captured_on"], row["heading_deg"]) for row in rows)
    assert set(views.values()) == {1}
    assert len(views) == 2 * len(DATES) * 2
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["sha256"] for row in rows}) == len(rows)
    assert json.loads(finished.stdout)["pending"] == 0
    tiles = sum(outcomes(site, "maps_tile").values())
    assert json.loads(collecting(config, places, {}).stdout) == {"new": 0, "pending": 0}
    assert sum(outcomes(site, "maps_tile").values()) == tiles
