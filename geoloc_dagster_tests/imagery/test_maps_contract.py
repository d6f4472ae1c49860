"""Addresses and words of the maps site as the client reads them, and the emulated site as HTTP shows it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from geoloc_dagster.emulator.faults import FaultRule
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.imagery.maps_contract import Address, gap_deg, label_of, link_to, month_of
from geoloc_dagster.imagery.provider import View
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, TODAY, StubCity, spot

REAL = "https://www.google.com/maps/@59.3249,18.0693,3a,75y,209.2h,93.5t/data=!3m6!1e1!3m4!1svPnURflnc8AZu5NMLYRddw!2e0!7i13312!8i6656"


@pytest.fixture(scope="module")
def site() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


# --- the client's side ----------------------------------------------------------------------------------------------
def test_an_address_says_where_and_what_and_in_which_direction():
    assert Address.parse(REAL) == Address(59.3249, 18.0693, 75.0, 209.2, 3.5, "vPnURflnc8AZu5NMLYRddw")
    assert Address.parse(REAL.replace("209.2h,", "")) == Address(59.3249, 18.0693, 75.0, 0.0, 3.5, "vPnURflnc8AZu5NMLYRddw")
    assert Address.parse(REAL.replace("!1s", "%211s")) is not None


@pytest.mark.parametrize(
    "url", ["https://x/maps/", "https://x/maps/@59.3,18.0,17z", "https://x/maps/@?api=1&map_action=pano&pano=a"]
)
def test_other_addresses_are_no_street_view(url: str):
    assert Address.parse(url) is None


@pytest.mark.parametrize(
    ("text", "month"),
    [
        ("Jul 2020", (2020, 7)),
        ("September 2022", (2022, 9)),
        (" May 2011 ", (2011, 5)),
        ("Maybe 20", None),
        ("2020", None),
        (None, None),
    ],
)
def test_a_date_is_read_in_its_long_and_its_short_form(text: str | None, month: tuple[int, int] | None):
    assert month_of(text) == (None if month is None else dt.date(*month, 1))


def test_a_label_is_what_it_is_read_from():
    months = [dt.date(2022, month, 1) for month in range(1, 13)]
    assert [month_of(label_of(month)) for month in months] == months


@pytest.mark.parametrize(("heading", "written"), [(0, "0"), (90, "90"), (270, "-90"), (180, "180"), (359.5, "-0.5")])
def test_a_link_says_its_heading_between_minus_and_plus_180(heading: float, written: str):
    query = parse_qs(urlsplit(link_to("a-b_c", View(heading, None, 5.0, 80.0))).query)
    assert query == {"api": ["1"], "map_action": ["pano"], "pano": ["a-b_c"], "heading": [written], "pitch": ["5"], "fov": ["80"]}


@pytest.mark.parametrize(("a", "b", "gap"), [(0, 90, 90), (350, 10, 20), (10, 350, -20), (90, 270, -180), (720, 1, 1)])
def test_a_gap_is_the_short_way_round(a: float, b: float, gap: float):
    assert gap_deg(a, b) == pytest.approx(gap)


# --- the site's side ------------------------------------------------------------------------------------------------
def test_whoever_has_no_cookie_is_asked_first_and_comes_where_they_wanted_to_go(site: EmulatorThread):
    with httpx2.Client(base_url=site.url, trust_env=False) as visitor:
        asked = visitor.get("/maps/@?api=1&map_action=pano&pano=x")
        assert asked.status_code == 302
        assert urlsplit(asked.headers["location"]).path == "/consent"
        page = visitor.get(asked.headers["location"]).text
        assert 'aria-label="Reject all"' in page
        assert 'aria-label="Accept all"' in page
        answer = {"set_eom": "true", "continue": "/maps/@?api=1&map_action=pano&pano=x"}
        saved = visitor.post("/consent/save", data=answer)
        assert (saved.status_code, saved.headers["location"]) == (303, answer["continue"])
        assert visitor.get(saved.headers["location"]).status_code == 200


@pytest.mark.parametrize("elsewhere", ["https://elsewhere.example/", "//elsewhere.example/maps/", "/emulator/hits"])
def test_the_question_about_cookies_leads_nowhere_else(site: EmulatorThread, elsewhere: str):
    saved = httpx2.post(f"{site.url}/consent/save", data={"continue": elsewhere, "set_eom": "false"})
    assert saved.headers["location"] == "/maps/"


def test_a_place_has_its_dates_newest_first_and_a_picture_for_each_quarter(site: EmulatorThread):
    found = httpx2.get(f"{site.url}/maps/panorama", params={"location": spot(3, 4), "by": "search"}).json()
    assert [one["date"] for one in found["dates"]] == [f"{day:%Y-%m}" for day in reversed(EXISTING)]
    pictures = [httpx2.get(f"{site.url}/maps/tile/{found['pano_id']}/{face}.jpg") for face in range(4)]
    assert {picture.headers["content-type"] for picture in pictures} == {"image/jpeg"}
    assert len({picture.content for picture in pictures}) == 4
    for path in (
        f"/maps/tile/{found['pano_id']}/4.jpg",
        "/maps/tile/x/0.jpg",
        "/maps/static/%2e%2e%2fmaps_site.py",
        "/maps/api/x",
    ):
        assert httpx2.get(site.url + path).status_code == 404


def test_the_page_for_robots_is_what_it_says(site: EmulatorThread):
    answer = httpx2.get(f"{site.url}/sorry/index?continue=%2Fmaps%2F")
    assert answer.status_code == 429
    assert "unusual traffic from your computer network" in " ".join(answer.text.split())
    assert "captcha" in answer.text


def test_the_site_has_a_robots_txt(site: EmulatorThread):
    assert "Disallow: /maps/private/" in httpx2.get(f"{site.url}/robots.txt").text


@pytest.mark.parametrize("fault", ["stale_frame", "tab_crash", "black_frame", "single_date", "no_street_view"])
def test_a_mishap_is_told_to_the_page_and_counted(site: EmulatorThread, fault: str):
    site.clear_hits()
    site.set_faults({"rules": [{"fault": fault, "what": "date/*", "attempts": 1}]})
    ask = [httpx2.get(f"{site.url}/maps/panorama", params={"location": spot(5, 5), "by": by}) for by in ("link", "date", "date")]
    assert [one.json()["mishap"] for one in ask] == ["", fault, ""]
    assert site.hits()["totals"]["maps_panorama"] == {"OK": 2, fault: 1}
    site.set_faults({})


def test_mishaps_of_the_page_befall_only_its_own_requests():
    with pytest.raises(ValueError, match="only happens to maps_click"):
        FaultRule(fault="swallowed_click", endpoint="image")
