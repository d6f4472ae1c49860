"""The Panoramax client against the emulated instance, over real sockets: the contract row by row, faults as their classes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import ServiceBlockedError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.panoramax import SEARCH_PATH, Panoramax
from geoloc_dagster.imagery.provider import Capture, Failure, Location, Negative, Panorama, RequestFailedError, Terms, View
from geoloc_dagster.imagery.stac import read_item
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, STEP_DEG, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region

VIEWS = [View(float(heading), None, 0.0, 90.0) for heading in (0, 90, 180, 270)]
QUICK = Etiquette(requests_per_second=500, burst=50, deadline_s=5, attempts=2, breaker_failures=100, probe_after_s=0.05)
NOWHERE = Location("nowhere", ORIGIN[0] + STEP_DEG / 2, ORIGIN[1] - 0.5)
OPEN = Terms("NOASSERTION", "Panoramax contributors")


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.clear_hits()
    return shared


async def instantly(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


def provider(url: str, terms: Terms = OPEN, etiquette: Etiquette = QUICK, **options: Any) -> Panoramax:
    of_client = {name: options.pop(name) for name in ("transport", "evidence") if name in options}
    client = ServiceClient("panoramax", url, etiquette, sleep=instantly, **of_client)
    return Panoramax(client, terms, **{"size": (64, 64), **options})


def run(one: Panoramax, ask: Callable[[Panoramax], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with one.session():
            return await ask(one)

    return asyncio.run(inside())


def location(row: int, column: int) -> Location:
    return Location(f"{row}-{column}", ORIGIN[0] + row * STEP_DEG, ORIGIN[1] + column * STEP_DEG)


def items_of(service: EmulatorThread, **params: str) -> list[Any]:
    answer = httpx2.get(service.url + SEARCH_PATH, params={"limit": "10000", **params})
    assert answer.status_code == 200
    return [item for item in map(read_item, answer.json()["features"]) if item is not None]


def around(row: int, column: int, margin_deg: float = 0.0005) -> str:
    here = location(row, column)
    south, west = here.lat_deg - margin_deg, here.lng_deg - margin_deg
    return f"{west},{south},{west + 2 * margin_deg},{south + 2 * margin_deg}"


def place_with(service: EmulatorThread, wanted: Callable[[list[Any]], bool]) -> Location:
    """The first place whose items are as wanted."""
    for row in range(1, 40):
        for column in range(1, 10):
            if wanted(items_of(service, bbox=around(row, column))):
                return location(row, column)
    raise AssertionError("no such place")


async def everything(one: Panoramax, where: Location) -> tuple[list[Panorama], list[Capture | Failure]]:
    (found,) = [answer async for answer in one.find([where])]
    assert isinstance(found, Panorama)
    panoramas = await one.history(found)
    return panoramas, [answer async for answer in one.capture(panoramas[0], panoramas[0].views or VIEWS)]


def hits(service: EmulatorThread, endpoint: str) -> int:
    return sum(hit["endpoint"] == endpoint for hit in service.hits()["requests"])


# --- what is there --------------------------------------------------------------------------------------------------
def test_a_lookup_says_what_is_there_and_what_is_not(service: EmulatorThread):
    where = place_with(service, lambda items: all(item.is_open for item in items) and bool(items))
    yes = run(provider(service.url), lambda p: p.lookup(where.lat_deg + 1e-4, where.lng_deg))
    assert yes.status == "OK"
    assert yes.pano_id in {item.item_id for item in items_of(service, ids=yes.pano_id)}
    no = run(provider(service.url), lambda p: p.lookup(NOWHERE.lat_deg, NOWHERE.lng_deg))
    assert (no.status, no.pano_id) == ("ZERO_RESULTS", None)


def test_a_place_has_its_days_newest_first_and_only_under_open_licences(service: EmulatorThread):
    where = place_with(service, lambda items: len(items) == len(EXISTING) and sum(not item.is_open for item in items) == 1)
    panoramas, _ = run(provider(service.url), lambda p: everything(p, where))
    days = [one.captured_on for one in panoramas]
    assert days == sorted(days, reverse=True)
    assert len(days) == len(EXISTING) - 1
    assert {one.precision for one in panoramas} == {"day"}
    permitted = replace(OPEN, permission="letter of 2026-05-01")
    with_permission, _ = run(provider(service.url, permitted), lambda p: everything(p, where))
    assert len(with_permission) == len(EXISTING)
    newest, _ = run(provider(service.url, history="newest"), lambda p: everything(p, where))
    assert len(newest) == 1


def test_where_nothing_is_a_negative_is_answered_and_neighbours_share_their_search(service: EmulatorThread):
    async def ask(one: Panoramax) -> list[Any]:
        near = [Location(str(n), NOWHERE.lat_deg + n * 1e-6, NOWHERE.lng_deg) for n in range(10)]
        return [answer async for answer in one.find(near)]

    answers = run(provider(service.url), ask)
    assert len(answers) == 10
    assert all(isinstance(answer, Negative) for answer in answers)
    assert hits(service, "panoramax_search") <= 4


def test_a_full_search_is_asked_again_in_quarters_until_everything_came(service: EmulatorThread):
    async def all_of(one: Panoramax) -> list[str]:
        near = await one._near(*ORIGIN, 700)  # type: ignore[reportPrivateUsage]
        return [item.item_id for item in near]

    whole = run(provider(service.url), all_of)
    searches = hits(service, "panoramax_search")
    split = run(provider(service.url, page=3), all_of)
    assert len(whole) > 30
    assert split == whole
    assert len(set(split)) == len(split)
    assert hits(service, "panoramax_search") > 2 * searches


# --- pictures -------------------------------------------------------------------------------------------------------
def test_a_whole_panorama_is_fetched_once_for_all_its_views(service: EmulatorThread):
    where = place_with(service, lambda items: bool(items) and all(i.is_360 and i.heading_deg is not None for i in items))
    permitted = replace(OPEN, permission="letter")
    _, pictures = run(provider(service.url, permitted), lambda p: everything(p, where))
    assert [picture.view for picture in pictures] == VIEWS
    assert hits(service, "panoramax_picture") == 1
    assert len({picture.image for picture in pictures}) == 4
    for picture in pictures:
        assert isinstance(picture, Capture)
        assert Image.open(io.BytesIO(picture.image)).size == (64, 64)
        assert picture.creator is not None
        assert picture.creator in (picture.attribution or "")
        assert picture.licence in ("etalab-2.0", "CC-BY-SA-4.0", "proprietary")
        assert (picture.source_url or "").endswith("/sd.jpg")


def test_views_of_a_whole_panorama_look_where_they_say():
    """The emulated city draws the same streets for the panorama and for a direct view: at the right heading they agree best."""
    origin = (45.0, -30.0)
    city = City(origin, 3)
    with serve_in_thread(origin, seed=3, today=TODAY, city=city) as emulator:
        near = items_of(emulator, bbox="-30.002,44.998,-29.998,45.002")
        item = next(one for one in near if one.is_360 and one.heading_deg is not None and one.is_open)
        where = Location("here", item.lat_deg, item.lng_deg)
        panorama = Panorama(where, "panoramax", item.captured_on, "day", "320x320", pano_id=item.item_id)
        one = provider(emulator.url, size=(320, 320))

        async def cut(one: Panoramax) -> list[Any]:
            return [answer async for answer in one.capture(panorama, VIEWS)]

        answers = run(one, cut)
    for answer, view in zip(answers, VIEWS, strict=True):
        cut_out = np.asarray(Image.open(io.BytesIO(answer.image)).convert("L").resize((80, 80)), np.float64)[20:60]
        gaps: dict[int, float] = {}
        for turn in range(-90, 91, 15):
            rgb = city.render(
                item.lat_deg,
                item.lng_deg,
                heading_deg=((view.heading_deg or 0) + turn) % 360,
                width=320,
                height=320,
                date=item.captured_on.replace(day=1),
            ).rgb
            direct = np.asarray(Image.fromarray(rgb).convert("L").resize((80, 80)), np.float64)[20:60]
            gaps[turn] = float(np.abs(direct - cut_out).mean())
        assert min(gaps, key=gaps.__getitem__) == 0, gaps


def test_a_flat_picture_is_its_one_view_as_it_was_taken(service: EmulatorThread):
    where = place_with(service, lambda items: bool(items) and all(not i.is_360 and i.is_open for i in items))
    panoramas, pictures = run(provider(service.url), lambda p: everything(p, where))
    assert len(pictures) == 1
    newest = max(items_of(service, bbox=around_location(where)), key=lambda item: item.taken_at)
    assert pictures[0].view.heading_deg == newest.heading_deg
    assert pictures[0].view.fov_deg == 70
    assert pictures[0].image == httpx2.get(newest.assets["sd"]).content
    assert {one.variant for one in panoramas} == {"flat"}


def around_location(where: Location) -> str:
    return f"{where.lng_deg - 5e-4},{where.lat_deg - 5e-4},{where.lng_deg + 5e-4},{where.lat_deg + 5e-4}"


def test_related_items_are_further_dates_of_the_place():
    """A search that gives only one of two items: the other is found by its link, and one that leads elsewhere is left alone."""
    asked: list[str] = []

    def feature(item_id: str, day: str, lat: float, *related: str) -> dict[str, Any]:
        return {
            "id": item_id,
            "collection": "c",
            "geometry": {"type": "Point", "coordinates": [18.0, lat]},
            "properties": {"datetime": f"{day}T12:00:00Z", "license": "etalab-2.0", "view:azimuth": 90},
            "assets": {"hd": {"href": f"https://stub/{item_id}.jpg"}},
            "links": [{"rel": "related", "href": href} for href in related],
        }

    def serve(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        if request.url.path == SEARCH_PATH:
            links = ("https://stub/items/b", "https://stub/items/far", "http://169.254.169.254/x", "https://stub/items/gone")
            return httpx2.Response(200, json={"features": [feature("a", "2024-05-02", 59.0, *links)]})
        name = request.url.path.split("/")[-1]
        if name == "gone":
            return httpx2.Response(404)
        return httpx2.Response(200, json=feature(name, "2019-07-09", 59.0002 if name == "b" else 59.01))

    async def ask(one: Panoramax) -> list[Panorama]:
        (found,) = [answer async for answer in one.find([Location("x", 59.0, 18.0)])]
        assert isinstance(found, Panorama)
        return await one.history(found)

    panoramas = run(provider("https://stub", transport=httpx2.MockTransport(serve)), ask)
    assert [(one.pano_id, str(one.captured_on)) for one in panoramas] == [("a", "2024-05-02"), ("b", "2019-07-09")]
    assert not any("169.254" in url for url in asked)


# --- what goes wrong ------------------------------------------------------------------------------------------------
PICTURE_FAULTS = {
    "truncated_jpeg": "truncated",
    "wrong_length": "truncated",
    "reset": "network",
    "refused_status_500": "server_error",
    "not_json": "not_an_image",
    "grey": "no_imagery",
    "empty": "truncated",
}


@pytest.mark.parametrize("fault", PICTURE_FAULTS)
def test_a_picture_that_goes_wrong_ends_as_its_class(service: EmulatorThread, fault: str):
    where = place_with(service, lambda items: bool(items) and all(item.is_360 and item.is_open for item in items))
    service.set_faults({"rules": [{"fault": fault, "endpoint": "panoramax_picture"}]})
    _, answers = run(provider(service.url), lambda p: everything(p, where))
    assert {answer.kind if isinstance(answer, Failure) else "ok" for answer in answers} == {PICTURE_FAULTS[fault]}


SEARCH_FAULTS = {"reset": "network", "refused_status_500": "server_error", "not_json": "invalid_answer", "huge": "too_large"}


@pytest.mark.parametrize("fault", SEARCH_FAULTS)
def test_a_search_that_goes_wrong_ends_as_its_class_and_is_asked_again(service: EmulatorThread, fault: str):
    where = place_with(service, lambda items: bool(items) and all(item.is_open for item in items))
    service.set_faults({"rules": [{"fault": fault, "endpoint": "panoramax_search", "announced": True}]})

    async def twice(one: Panoramax) -> list[Any]:
        first = [answer async for answer in one.find([where])]
        service.set_faults({})
        return first + [answer async for answer in one.find([where])]

    failed, found = run(provider(service.url), twice)
    assert isinstance(failed, RequestFailedError)
    assert failed.kind == SEARCH_FAULTS[fault]
    assert isinstance(found, Panorama)


def test_a_page_for_people_ends_the_run_and_is_kept(service: EmulatorThread, tmp_path: Path):
    service.set_faults({"rules": [{"fault": "html", "endpoint": "panoramax_search"}]})
    with pytest.raises(ServiceBlockedError):
        run(provider(service.url, evidence=tmp_path), lambda p: p.lookup(*ORIGIN))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_picture_that_was_taken_back_is_gone(service: EmulatorThread):
    async def ask(one: Panoramax) -> list[Any]:
        panorama = Panorama(location(1, 1), "panoramax", None, "unknown", "64x64", pano_id="00000000-0000-0000-0000-000000000000")
        return [answer async for answer in one.capture(panorama, VIEWS)]

    answers = run(provider(service.url), ask)
    assert {(answer.kind, answer.retryable) for answer in answers} == {("gone", False)}


@pytest.mark.parametrize(
    ("params", "status"),
    [({"bbox": "1,2,3"}, 400), ({"bbox": "1,2,3,x"}, 400), ({"bbox": "0,0,1,1", "limit": "0"}, 400), ({"limit": "99999"}, 400)],
)
def test_the_emulated_instance_refuses_what_a_real_one_refuses(service: EmulatorThread, params: dict[str, str], status: int):
    assert httpx2.get(service.url + SEARCH_PATH, params=params).status_code == status


def test_a_posted_search_wants_json(service: EmulatorThread):
    body = {"bbox": [18.06, 59.32, 18.08, 59.34], "limit": 5}
    assert httpx2.post(service.url + SEARCH_PATH, content=json.dumps(body)).status_code == 400
    answer = httpx2.post(service.url + SEARCH_PATH, json=body).json()
    assert len(answer["features"]) == 5
    assert [link["rel"] for link in answer["links"]] == ["root"]


# --- the whole way --------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_region_is_looked_up_and_collected_and_a_second_run_asks_for_no_picture(service: EmulatorThread, tmp_path: Path):
    lat, lng = ORIGIN
    config = write_region(
        tmp_path,
        boundary=rectangle((lat - 0.0005, lng - 0.0005), (lat + 0.0065, lng + 0.0065)),
        region={"start_point": [lat, lng]},
        grid={"spacing_m": 60},
        coverage={"provider": "panoramax", "radius_m": 60},
        buffers={"spacings_m": [100], "batch_size": 6},
        capture={"provider": "panoramax"},
        service={"base_url": service.url, "requests_per_second": 400},
    )
    settings = load_settings(config, environ={})
    run_headless(settings, select="region_boundary,grid_points,street_view_metadata,buffer_csvs,panoramas", report=lambda e: None)
    table = open_table(tmp_path / "data" / "tables" / "panoramas.lance")
    assert table is not None
    rows = table.to_table(columns=["licence", "creator", "attribution", "status", "heading_deg", "rotation"]).to_pylist()
    assert len(rows) > 40
    assert {row["licence"] for row in rows} <= {"etalab-2.0", "CC-BY-SA-4.0"}
    assert all(row["status"] == "ok" and row["creator"] in row["attribution"] for row in rows)
    asked = hits(service, "panoramax_picture")
    assert asked < len(rows)  # whole panoramas give four views each
    run_headless(settings, select="buffer_csvs,panoramas", report=lambda event: None)
    assert hits(service, "panoramax_picture") == asked
    again = open_table(tmp_path / "data" / "tables" / "panoramas.lance")
    assert again is not None
    assert again.count_rows() == len(rows)
