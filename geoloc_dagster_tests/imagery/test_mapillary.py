"""The Mapillary client against the emulated service, over real sockets: the contract row by row, faults as their classes.

What the contract says, and the tests that hold it:

- token as `access_token=` or `Authorization: OAuth`, code 190 with HTTP 400 or 401:
  test_who_has_no_right_token_…, test_a_refused_token_…
- `/images?bbox=` under 0.01 square degrees, limit to 2,000, bounded sample, no pages, filters:
  test_a_box_gives_…, test_what_the_graph_refuses
- `/images?image_ids=` 50 at a time: test_what_the_graph_refuses, test_entities_are_asked_for_together_…
- `/:image_id`, `/image_ids?sequence_id=`: test_an_entity_has_its_id_…, test_a_sequence_names_its_images
- collections in `data`, entities plain, the id and only the fields asked for: test_an_entity_has_its_id_…
- fields of an image, computed ones beside raw ones, some missing:
  test_what_the_service_worked_out_…, test_odd_answers.py
- addresses of pictures are signed and expire, then 403 or 410:
  test_an_address_…, test_an_expired_address_…, test_a_second_refusal_…
- tiles: overview to zoom 5, sequence to 14, image at 14 alone, with its properties:
  test_a_tile_has_the_layers_…, test_images_of_a_tile_…
- complete coverage is tiles of zoom 14, then entities by id: test_a_lookup_…, test_every_day_of_a_place_…
- 429 on excess, 50,000 tiles a day: test_too_many_requests_…, test_tiles_have_a_budget_…
- CC BY-SA 4.0 with the maker's name and the photo's page: test_a_whole_panorama_is_fetched_once_…
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image as Pillow

from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.doctor import check_service
from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.limits import Clock
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.emulator.vector_tiles import Feature, write_tile
from geoloc_dagster.emulator.walkers import Picture, Walkers
from geoloc_dagster.errors import ServiceBlockedError, ServiceKeyError, ServiceUnavailableError
from geoloc_dagster.geo.mercator import tile_position
from geoloc_dagster.imagery.client import Budget, Etiquette, ServiceClient
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.factory import build_service
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.mapillary import GRAPH_PATH, TILES_PATH, Mapillary
from geoloc_dagster.imagery.provider import (
    Capture,
    CollectionStopped,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    View,
)
from geoloc_dagster.imagery.vector_tiles import read_points
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, STEP_DEG, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region
from geoloc_dagster_tests.imagery.tile_message import TILE

TOKEN = "MLY|4711|s3cr3t"
VIEWS = [View(float(heading), None, 0.0, 90.0) for heading in (0, 90, 180, 270)]
QUICK = Etiquette(requests_per_second=500, burst=50, deadline_s=5, attempts=2, breaker_failures=100, probe_after_s=0.05)
NOWHERE = Location("nowhere", ORIGIN[0] - 0.5, ORIGIN[1] - 0.5)
TRUTH = Walkers(StubCity(), 7, Clock(TODAY))  # type: ignore[arg-type]
VTP = f"{TILES_PATH}/maps/vtp/mly1_public/2"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, key=TOKEN, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.set_today(TODAY)
    shared.clear_hits()
    return shared


class Time:
    """Passes only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    async def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 0)
        await asyncio.sleep(0)


def provider(url: str, etiquette: Etiquette = QUICK, token: str = TOKEN, **options: Any) -> Mapillary:
    of_client = {name: options.pop(name) for name in ("transport", "evidence", "ledger", "budgets") if name in options}
    time = Time()
    of_client |= {"sleep": time.sleep, "clock": lambda: time.seconds}
    clients = [ServiceClient("mapillary", url + path, etiquette, **of_client) for path in (GRAPH_PATH, TILES_PATH)]
    for client in clients:
        client.use_key(token, parameter="access_token")
    return Mapillary(*clients, **{"size": (64, 64), **options})


def run(one: Mapillary, ask: Callable[[Mapillary], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with one.session():
            return await ask(one)

    return asyncio.run(inside())


def location(row: int, column: int) -> Location:
    return Location(f"{row}-{column}", ORIGIN[0] + row * STEP_DEG, ORIGIN[1] + column * STEP_DEG)


def pictures_at(row: int, column: int) -> list[Picture]:
    place = StubCity().place(row * 1000 + column)
    assert place is not None
    return TRUTH.of_place(place)  # type: ignore[arg-type]


def place_with(wanted: Callable[[list[Picture]], bool]) -> tuple[Location, list[Picture]]:
    """The first place whose pictures are as wanted."""
    for row in range(1, 60):
        for column in range(1, 30):
            pictures = pictures_at(row, column)
            if pictures and wanted(pictures):
                return location(row, column), pictures
    raise AssertionError("no such place")


def days_of(pictures: list[Picture]) -> list[dt.date]:
    days = {dt.datetime.fromtimestamp(p.captured_ms / 1000, dt.UTC).date() for p in pictures if not p.is_deleted}
    return sorted(days, reverse=True)


async def find_one(one: Mapillary, where: Location) -> Panorama:
    (found,) = [answer async for answer in one.find([where])]
    assert isinstance(found, Panorama)
    return found


async def everything(one: Mapillary, where: Location) -> tuple[list[Panorama], list[Capture | Failure]]:
    panoramas = await one.history(await find_one(one, where))
    return panoramas, [answer async for answer in one.capture(panoramas[0], panoramas[0].views or VIEWS)]


def hits(service: EmulatorThread, endpoint: str) -> list[str]:
    return [hit["what"] for hit in service.hits()["requests"] if hit["endpoint"] == endpoint]


def graph(service: EmulatorThread, path: str, **params: str) -> httpx2.Response:
    return httpx2.get(f"{service.url}{GRAPH_PATH}{path}", params={"access_token": TOKEN, **params}, trust_env=False)


def tile(service: EmulatorThread, zoom: int, where: tuple[float, float] = ORIGIN) -> bytes:
    column, row = map(int, tile_position(*where, zoom))
    answer = httpx2.get(f"{service.url}{VTP}/{zoom}/{column}/{row}", params={"access_token": TOKEN}, trust_env=False)
    assert answer.status_code == 200
    return answer.content


def whole(pictures: list[Picture]) -> bool:
    return all(p.is_pano and not p.is_deleted and p.creator_id is not None for p in pictures)


# --- the emulated service keeps the contract ------------------------------------------------------------------------
@pytest.mark.parametrize("path", [f"{GRAPH_PATH}/images", f"{GRAPH_PATH}/4711", f"{VTP}/14/1/1"])
def test_who_has_no_right_token_hears_code_190(service: EmulatorThread, path: str):
    for params, headers, status in (
        ({}, {}, 401),
        ({"access_token": "MLY|wrong"}, {}, 400),
        ({}, {"authorization": "OAuth MLY|wrong"}, 400),
    ):
        answer = httpx2.get(service.url + path, params=params, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, 190)
        assert answer.json()["error"]["type"] == "OAuthException"
    said = httpx2.get(service.url + path, headers={"authorization": f"OAuth {TOKEN}"}, trust_env=False)
    assert b'"code": 190' not in said.content


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/images", {"image_ids": ",".join(map(str, range(51)))}),
        ("/images", {"bbox": "18,59,18.1,59.1"}),  # 0.01 square degrees
        ("/images", {"bbox": "18,59,18.01"}),
        ("/images", {"bbox": "18,59,17,59.01"}),
        ("/images", {"bbox": "18,59,18.01,59.01", "limit": "2001"}),
        ("/images", {"bbox": "18,59,18.01,59.01", "limit": "0"}),
        ("/images", {"bbox": "18,59,18.01,59.01", "start_captured_at": "yesterday"}),
        ("/images", {}),
        ("/4711", {"fields": "id"}),
        (f"/{pictures_at(1, 1)[0].image_id}", {"fields": "colour"}),
        ("/image_ids", {}),
    ],
)
def test_what_the_graph_refuses(service: EmulatorThread, path: str, params: dict[str, str]):
    answer = graph(service, path, **params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 100)


def test_an_entity_has_its_id_and_the_fields_that_were_asked_for(service: EmulatorThread):
    _, pictures = place_with(lambda some: len(some) > 2 and whole(some))
    ids = [picture.image_id for picture in pictures]
    assert graph(service, f"/{ids[0]}").json() == {"id": ids[0]}
    alone = graph(service, f"/{ids[0]}", fields="captured_at,creator{username,id},camera_type").json()
    assert alone == {
        "captured_at": pictures[0].captured_ms,
        "creator": {"username": pictures[0].creator, "id": str(pictures[0].creator_id)},
        "camera_type": pictures[0].camera_type,
        "id": ids[0],
    }
    together = graph(service, "/images", image_ids=",".join([*ids, "4711"]), fields="sequence").json()
    assert [image["id"] for image in together["data"]] == ids  # one that does not exist is left out
    assert {tuple(image) for image in together["data"]} == {("sequence", "id")}
    assert set(together) == {"data"}


def test_a_sequence_names_its_images(service: EmulatorThread):
    picture = pictures_at(1, 1)[0]
    ids = [image["id"] for image in graph(service, "/image_ids", sequence_id=picture.sequence_id).json()["data"]]
    assert picture.image_id in ids
    fields = graph(service, "/images", image_ids=",".join(ids[:50]), fields="sequence,captured_at").json()["data"]
    assert {image["sequence"] for image in fields} == {picture.sequence_id}
    assert graph(service, "/image_ids", sequence_id="none-of-these-at-all--").json() == {"data": []}


def test_a_box_gives_a_bounded_sample_without_pages(service: EmulatorThread):
    lat, lng = ORIGIN

    def ids(south: float, west: float, side: float, **params: str) -> set[str]:
        answer = graph(service, "/images", bbox=f"{west},{south},{west + side},{south + side}", **params).json()
        assert set(answer) == {"data"}
        return {image["id"] for image in answer["data"]}

    at_once = ids(lat, lng, 0.02)
    quarters = set[str]().union(*(ids(lat + y, lng + x, 0.01) for x in (0, 0.01) for y in (0, 0.01)))
    assert len(at_once) == 100
    assert len(quarters) > 2 * len(at_once)
    assert len(ids(lat, lng, 0.02, limit="7")) == 7
    panos = graph(service, "/images", bbox=f"{lng},{lat},{lng + 0.02},{lat + 0.02}", is_pano="true", fields="is_pano").json()
    assert {image["is_pano"] for image in panos["data"]} == {True}
    span = {"start_captured_at": "2017-01-01T00:00:00Z", "end_captured_at": "2018-01-01T00:00:00Z", "fields": "captured_at"}
    dated = graph(service, "/images", bbox=f"{lng},{lat},{lng + 0.02},{lat + 0.02}", **span).json()["data"]
    assert {dt.datetime.fromtimestamp(image["captured_at"] / 1000, dt.UTC).year for image in dated} == {2017}


@pytest.mark.parametrize(
    ("zoom", "layers"), [(0, "overview"), (5, "overview"), (6, "sequence"), (13, "sequence"), (14, "sequence image")]
)
def test_a_tile_has_the_layers_of_its_zoom(service: EmulatorThread, zoom: int, layers: str):
    content = tile(service, zoom)
    assert [layer.name for layer in TILE.FromString(content).layers] == layers.split()
    assert bool(read_points(content, "image")) == (zoom == 14)
    assert bool(read_points(content, "overview")) == (zoom <= 5)


def test_images_of_a_tile_are_complete_and_say_where_the_camera_thought_it_was(service: EmulatorThread):
    column, row = map(int, tile_position(*ORIGIN, 14))
    points = read_points(tile(service, 14), "image")
    said = {str(point.properties["id"]): point for point in points}
    assert len(said) == len(points) > 50
    for place_row, place_column in ((0, 1), (1, 3)):
        for picture in pictures_at(place_row, place_column):
            point = said[picture.image_id]
            x, y = tile_position(*picture.raw, 14)
            assert (point.x, point.y) == pytest.approx((x - column, y - row), abs=1 / 4096)
            expected = {
                "captured_at": picture.captured_ms,
                "compass_angle": picture.raw_heading_deg,
                "sequence_id": picture.sequence_id,
                "is_pano": picture.is_pano,
                "quality_score": picture.quality_score,
                "creator_id": picture.creator_id,
                "organization_id": picture.organization_id,
            }
            known = {name: value for name, value in expected.items() if value is not None}
            assert {name: value for name, value in point.properties.items() if name != "id"} == known


def test_a_tile_without_pictures_says_so_and_there_is_none_beyond_zoom_14(service: EmulatorThread):
    assert b"mapillary-empty" in tile(service, 14, (NOWHERE.lat_deg, NOWHERE.lng_deg))
    for path in ("15/1/1", "14/16384/1", "14/x/1"):
        answer = httpx2.get(f"{service.url}{VTP}/{path}", params={"access_token": TOKEN}, trust_env=False)
        assert answer.status_code == 404


def test_an_address_of_a_picture_is_signed_and_expires(service: EmulatorThread):
    _, pictures = place_with(whole)
    url = graph(service, f"/{pictures[0].image_id}", fields="thumb_256_url").json()["thumb_256_url"]
    assert TOKEN not in url
    good = httpx2.get(url, trust_env=False)
    assert (good.status_code, Pillow.open(io.BytesIO(good.content)).width) == (200, 256)
    assert httpx2.get(url.replace("256.jpg", "2048.jpg"), trust_env=False).status_code == 403  # another picture's signature
    for days, status in ((1, 403), (30, 410)):
        service.set_today(TODAY + dt.timedelta(days=days))
        assert httpx2.get(url, trust_env=False).status_code == status


def test_too_many_requests_are_answered_with_429():
    quotas = ["mapillary_tile=1/day", "mapillary_images=1/minute"]
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, quotas=quotas, city=StubCity()) as emulator:  # type: ignore[arg-type]
        assert [graph(emulator, "/4711").status_code for _ in range(2)] == [400, 429]
        assert 1 <= int(graph(emulator, "/4711").headers["retry-after"]) <= 60
        one = provider(emulator.url)
        assert run(one, lambda p: p.lookup(*ORIGIN)).status == "OK"
        with pytest.raises(CollectionStopped) as stop:
            run(one, lambda p: p.lookup(*ORIGIN))
        assert stop.value.reason == "quota"


# --- what is there --------------------------------------------------------------------------------------------------
def test_a_lookup_is_answered_from_one_tile_and_says_what_is_not_there(service: EmulatorThread):
    where, pictures = place_with(whole)

    async def ask(one: Mapillary) -> list[Any]:
        many = await asyncio.gather(*(one.lookup(where.lat_deg + n * 1e-6, where.lng_deg) for n in range(30)))
        return [*many, await one.lookup(NOWHERE.lat_deg, NOWHERE.lng_deg)]

    *there, not_there = run(provider(service.url), ask)
    assert {answer.status for answer in there} == {"OK"}
    assert there[0].pano_id in {picture.image_id for picture in pictures}
    assert there[0].captured_on in days_of(pictures)
    assert there[0].copyright == "Photos from Mapillary, CC BY-SA"
    assert (not_there.status, not_there.pano_id) == ("ZERO_RESULTS", None)
    assert max(Counter(hits(service, "mapillary_tile")).values()) == 1
    assert hits(service, "mapillary_images") == []


def test_every_day_of_a_place_is_one_panorama_newest_first(service: EmulatorThread):
    where, pictures = place_with(lambda some: len(days_of(some)) == 4 and len(some) > 4)
    panoramas, _ = run(provider(service.url), lambda p: everything(p, where))
    assert [one.captured_on for one in panoramas] == days_of(pictures)
    assert {one.precision for one in panoramas} == {"day"}
    by_id = {picture.image_id: picture for picture in pictures}
    assert all(one.sequence_id == by_id[one.pano_id or ""].sequence_id for one in panoramas)
    newest, _ = run(provider(service.url, history="newest"), lambda p: everything(p, where))
    assert newest == panoramas[:1]


def test_what_the_service_worked_out_counts_before_what_the_camera_said(service: EmulatorThread):
    where, pictures = place_with(lambda some: len({p.is_computed for p in some}) == 2 and not any(p.is_deleted for p in some))
    panoramas, _ = run(provider(service.url), lambda p: everything(p, where))
    by_id = {picture.image_id: picture for picture in pictures}
    seen: set[bool] = set()
    for one in panoramas:
        picture = by_id[one.pano_id or ""]
        true = (picture.snapshot.lat_deg, picture.snapshot.lng_deg)
        assert (one.lat_deg, one.lng_deg) == (true if picture.is_computed else picture.raw)
        if one.views:
            assert one.views[0].heading_deg == (picture.heading_deg if picture.is_computed else picture.raw_heading_deg)
        seen.add(picture.is_computed)
    assert seen == {True, False}


def test_entities_are_asked_for_together_and_none_of_them_twice(service: EmulatorThread):
    row = [location(r, c) for r in range(1, 11) for c in range(1, 7)]

    async def ask(one: Mapillary) -> list[Any]:
        found = [answer async for answer in one.find(row)]
        return [await one.history(answer) for answer in found if isinstance(answer, Panorama)]

    assert len(run(provider(service.url, replace(QUICK, concurrency=40)), ask)) > 50
    asked = [what.split(",") for what in hits(service, "mapillary_images")]
    ids = [one for ids in asked for one in ids]
    assert len(ids) == len(set(ids)) > 200
    assert max(map(len, asked)) <= 50
    assert len(asked) < len(row) / 2


def test_where_nothing_is_a_negative_is_answered_and_places_keep_their_order(service: EmulatorThread):
    row = [location(1, 1), NOWHERE, location(1, 2)]
    answers = run(provider(service.url), lambda p: collected(p, row))
    assert [type(answer) for answer in answers] == [Panorama, Negative, Panorama]
    assert [answer.location for answer in answers] == row


async def collected(one: Mapillary, row: list[Location]) -> list[Any]:
    return [answer async for answer in one.find(row)]


def served(handle: Callable[[httpx2.Request], httpx2.Response]) -> Mapillary:
    return provider("https://stub", transport=httpx2.MockTransport(handle))


@pytest.mark.parametrize(("raw_m", "true_m", "found"), [(5, 14, True), (5, 16, False), (24, 5, True), (26, 5, False)])
def test_where_a_picture_really_was_taken_decides_whether_it_is_of_a_place(raw_m: float, true_m: float, found: bool):
    """Tiles say where the camera thought it was, entities where it was; the first may be 10 m further away."""
    entity = json.loads((Path(__file__).parent / "odd/mapillary/whole.json").read_text())
    lat, lng = ORIGIN
    column, row = map(int, tile_position(lat, lng, 14))
    x, y = tile_position(lat + raw_m / 111_400, lng, 14)
    content = write_tile({"image": [Feature([(x - column, y - row)], {"id": int(entity["id"])})]})

    def handle(request: httpx2.Request) -> httpx2.Response:
        if "/vtp/" not in request.url.path:
            where = {"type": "Point", "coordinates": [lng, lat - true_m / 111_400]}
            return httpx2.Response(200, json={"data": [{**entity, "computed_geometry": where}]})
        return httpx2.Response(200, content=content if request.url.path.endswith(f"/{column}/{row}") else b"")

    (answer,) = run(served(handle), lambda p: collected(p, [Location("here", lat, lng)]))
    assert isinstance(answer, Panorama) == found


@pytest.mark.parametrize("status", [200, 204, 404])
def test_a_service_that_has_no_words_for_nothing_is_understood(status: int):
    answer = run(served(lambda request: httpx2.Response(status)), lambda p: p.lookup(*ORIGIN))
    assert answer.status == "ZERO_RESULTS"


def test_one_empty_answer_is_not_taken_for_no_coverage(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "empty", "endpoint": "mapillary_tile", "attempts": 1}]})
    assert run(provider(service.url), lambda p: p.lookup(*ORIGIN)).status == "OK"


# --- pictures -------------------------------------------------------------------------------------------------------
def test_a_whole_panorama_is_fetched_once_for_all_its_views(service: EmulatorThread):
    where, by_name = place_with(whole)
    panoramas, answers = run(provider(service.url), lambda p: everything(p, where))
    assert [answer.view for answer in answers] == VIEWS
    assert len(hits(service, "mapillary_picture")) == 1
    assert len({answer.image for answer in answers}) == 4
    creator = next(picture.creator for picture in by_name if picture.image_id == panoramas[0].pano_id)
    for answer in answers:
        assert isinstance(answer, Capture)
        assert Pillow.open(io.BytesIO(answer.image)).size == (64, 64)
        assert answer.creator == creator
        assert answer.attribution == f"Photo from Mapillary, CC BY-SA, by @{creator}"
        assert answer.source_url == f"https://www.mapillary.com/app/?pKey={panoramas[0].pano_id}&focus=photo"
    terms = provider(service.url).terms
    assert (terms.licence, terms.may_store, terms.may_train) == ("CC-BY-SA-4.0", True, True)


def test_a_picture_whose_maker_is_gone_is_kept_without_a_name(service: EmulatorThread):
    where, _ = place_with(lambda some: all(p.creator_id is None and not p.is_deleted for p in some[-1:]) and len(some) == 4)
    _, answers = run(provider(service.url), lambda p: everything(p, where))
    assert {(a.creator, a.attribution) for a in answers} == {(None, "Photo from Mapillary, CC BY-SA")}


def test_a_flat_picture_is_its_one_view_as_it_was_taken(service: EmulatorThread):
    where, pictures = place_with(lambda some: not any(p.is_pano or p.is_deleted for p in some) and len(some) == 4)
    panoramas, answers = run(provider(service.url, size=(640, 640)), lambda p: everything(p, where))
    newest = pictures[-1]
    assert {one.variant for one in panoramas} == {"flat"}
    (answer,) = answers
    assert answer.view.heading_deg == (newest.heading_deg if newest.is_computed else newest.raw_heading_deg)
    assert answer.view.fov_deg == pytest.approx(70)
    url = graph(service, f"/{newest.image_id}", fields="thumb_1024_url").json()["thumb_1024_url"]
    assert answer.image == httpx2.get(url, trust_env=False).content


def test_views_of_a_whole_panorama_look_where_they_say():
    """The emulated city draws the same streets for the panorama and for a direct view: at the right heading they agree best."""
    origin = (45.0, -30.0)
    city = City(origin, 3)
    near = Walkers(city, 3, Clock(TODAY)).within(-30.001, 44.999, -29.999, 45.001)
    picture = next(one for one in near if one.is_pano and one.is_computed and not one.is_deleted)
    where = Location("here", picture.snapshot.lat_deg, picture.snapshot.lng_deg)
    panorama = Panorama(where, "mapillary", None, "unknown", "320x320", pano_id=picture.image_id)

    async def cut(one: Mapillary) -> list[Any]:
        return [answer async for answer in one.capture(panorama, VIEWS[:2])]

    with serve_in_thread(origin, seed=3, today=TODAY, city=city) as emulator:
        answers = run(provider(emulator.url, size=(320, 320)), cut)
    for answer, view in zip(answers, VIEWS, strict=False):
        cut_out = grey(np.asarray(Pillow.open(io.BytesIO(answer.image)).convert("RGB")))
        gaps: dict[int, float] = {}
        for turn in range(-90, 91, 15):
            heading_deg = ((view.heading_deg or 0) + turn) % 360
            where_deg = (picture.snapshot.lat_deg, picture.snapshot.lng_deg)
            date = picture.snapshot.captured_on
            direct = city.render(*where_deg, heading_deg=heading_deg, width=320, height=320, date=date).rgb
            gaps[turn] = float(np.abs(grey(direct) - cut_out).mean())
        assert min(gaps, key=gaps.__getitem__) == 0, gaps


def grey(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The middle half of a picture, small and without colours."""
    return np.asarray(Pillow.fromarray(rgb).convert("L").resize((80, 80)), np.float64)[20:60]


@pytest.mark.parametrize("days", [1, 30])
def test_an_expired_address_is_asked_for_once_more(service: EmulatorThread, days: int):
    where, _ = place_with(whole)

    async def ask(one: Mapillary) -> list[Any]:
        panorama = await find_one(one, where)
        service.set_today(TODAY + dt.timedelta(days=days))  # by then 403, and later 410
        service.clear_hits()
        return [answer async for answer in one.capture(panorama, VIEWS)]

    answers = run(provider(service.url), ask)
    assert all(isinstance(answer, Capture) for answer in answers)
    outcomes = [hit["status"] for hit in service.hits()["requests"] if hit["endpoint"] == "mapillary_picture"]
    assert outcomes == [403 if days == 1 else 410, 200]
    assert len(hits(service, "mapillary_images")) == 1


@pytest.mark.parametrize("status", [403, 410])
def test_a_second_refusal_is_a_failure_that_is_tried_another_time(service: EmulatorThread, status: int):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": f"refused_status_{status}"}]})
    _, answers = run(provider(service.url), lambda p: everything(p, where))
    assert {(answer.kind, answer.retryable) for answer in answers} == {("server_error", True)}
    assert f"fresh address as well: {status}" in answers[0].detail
    assert "oe=" not in answers[0].detail
    assert len(hits(service, "mapillary_picture")) == 2


def test_a_service_that_refuses_every_picture_is_given_up(service: EmulatorThread):
    service.set_faults({"rules": [{"fault": "refused_status_403"}]})
    row = [location(r, c) for r in range(1, 8) for c in range(1, 6)]

    async def ask(one: Mapillary) -> None:
        async for found in one.find(row):
            assert isinstance(found, Panorama)
            assert [answer async for answer in one.capture(found, found.views or VIEWS)]

    with pytest.raises(ServiceUnavailableError, match="10 pictures in a row"):
        run(provider(service.url), ask)
    assert len(hits(service, "mapillary_picture")) == 20


def test_a_deleted_picture_is_not_offered_and_gone_for_who_knew_it(service: EmulatorThread):
    where, pictures = place_with(lambda some: any(p.is_deleted for p in some) and len(days_of(some)) > 1)
    panoramas, _ = run(provider(service.url), lambda p: everything(p, where))
    deleted = next(picture for picture in pictures if picture.is_deleted)
    assert deleted.image_id in {str(p.properties["id"]) for p in read_points(tile(service, 14, deleted.raw), "image")}
    assert deleted.image_id not in {one.pano_id for one in panoramas}

    async def ask(one: Mapillary) -> list[Any]:
        return [answer async for answer in one.capture(replace(panoramas[0], pano_id=deleted.image_id), VIEWS)]

    assert {(answer.kind, answer.retryable) for answer in run(provider(service.url), ask)} == {("gone", False)}


# --- what goes wrong ------------------------------------------------------------------------------------------------
PICTURE_FAULTS = {
    "truncated_jpeg": ("truncated", True),
    "wrong_length": ("truncated", True),
    "reset": ("network", True),
    "slow": ("timeout", True),
    "drip": ("timeout", True),
    "refused_status_500": ("server_error", True),
    "refused_status_503": ("server_error", True),
    "retry_after": ("rate_limited", True),
    "unknown_error": ("server_error", True),
    "not_json": ("not_an_image", False),
    "huge": ("too_large", False),
    "grey": ("no_imagery", False),
    "empty": ("truncated", True),
}


@pytest.mark.parametrize("fault", PICTURE_FAULTS)
def test_every_fault_of_a_picture_ends_as_its_class(service: EmulatorThread, fault: str):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": fault, "endpoint": "mapillary_picture", "seconds": SECONDS.get(fault)}]})
    one = provider(service.url, replace(QUICK, deadline_s=1, max_bytes=1 << 20))
    _, answers = run(one, lambda p: everything(p, where))
    assert len(answers) == 4
    assert {(a.kind, a.retryable) if isinstance(a, Failure) else "ok" for a in answers} == {PICTURE_FAULTS[fault]}
    assert len(hits(service, "mapillary_picture")) == (2 if PICTURE_FAULTS[fault][1] else 1)


SECONDS = {"retry_after": 0.0, "drip": 0.01}
TILE_FAULTS = {
    "reset": "network",
    "slow": "timeout",
    "drip": "timeout",
    "wrong_length": "truncated",
    "refused_status_500": "server_error",
    "refused_status_503": "server_error",
    "retry_after": "rate_limited",
    "unknown_error": "server_error",
    "not_json": "invalid_answer",
    "huge": "too_large",
}
ENTITY_FAULTS = {**TILE_FAULTS, "empty": "invalid_answer"}


@pytest.mark.parametrize(
    ("endpoint", "fault", "kind"),
    [
        *(("mapillary_tile", fault, kind) for fault, kind in TILE_FAULTS.items()),
        *(("mapillary_images", fault, kind) for fault, kind in ENTITY_FAULTS.items()),
    ],
)
def test_every_fault_of_a_question_ends_as_its_class_and_is_asked_again(
    service: EmulatorThread, endpoint: str, fault: str, kind: str
):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": fault, "endpoint": endpoint, "seconds": SECONDS.get(fault)}]})

    async def twice(one: Mapillary) -> list[Any]:
        first = await collected(one, [where])
        service.set_faults({})
        return first + await collected(one, [where])

    failed, found = run(provider(service.url, replace(QUICK, deadline_s=1, max_bytes=1 << 20)), twice)
    assert isinstance(failed, RequestFailedError)
    assert failed.kind == kind
    assert isinstance(found, Panorama)


@pytest.mark.parametrize("endpoint", ["mapillary_tile", "mapillary_images", "mapillary_picture"])
@pytest.mark.parametrize("fault", ["reset", "wrong_length", "refused_status_500", "unknown_error"])
def test_a_fault_that_passes_is_never_seen(service: EmulatorThread, endpoint: str, fault: str):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": fault, "endpoint": endpoint, "attempts": 1}]})
    _, answers = run(provider(service.url), lambda p: everything(p, where))
    assert all(isinstance(answer, Capture) for answer in answers)


@pytest.mark.parametrize("endpoint", ["mapillary_tile", "mapillary_images", "mapillary_picture"])
def test_a_page_for_people_ends_the_run_and_is_kept_without_the_token(service: EmulatorThread, tmp_path: Path, endpoint: str):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": "html", "endpoint": endpoint}]})
    with pytest.raises(ServiceBlockedError) as error:
        run(provider(service.url, evidence=tmp_path), lambda p: everything(p, where))
    (kept,) = tmp_path.iterdir()
    for text in (kept.read_text(), str(error.value)):
        assert "s3cr3t" not in text
        assert "oh=" not in text


@pytest.mark.parametrize("endpoint", ["mapillary_tile", "mapillary_images"])
def test_a_spent_quota_is_waited_for_once_and_then_left_alone(service: EmulatorThread, endpoint: str):
    where, _ = place_with(whole)
    service.set_faults({"rules": [{"fault": "over_query_limit", "endpoint": endpoint, "count": 1}]})
    assert run(provider(service.url), lambda p: find_one(p, where)).pano_id
    service.set_faults({"rules": [{"fault": "over_query_limit", "endpoint": endpoint}]})
    with pytest.raises(CollectionStopped) as stop:
        run(provider(service.url), lambda p: collected(p, [where]))
    assert stop.value.reason == "quota"


def test_a_refused_token_ends_the_run_and_is_not_repeated(service: EmulatorThread):
    with pytest.raises(ServiceKeyError, match="refused the token") as error:
        run(provider(service.url, token="MLY|wrong-0815"), lambda p: p.lookup(*ORIGIN))
    assert "wrong-0815" not in str(error.value)
    assert len(service.hits()["requests"]) == 1

    def echo(request: httpx2.Request) -> httpx2.Response:
        said = {"error": {"message": f"Cannot parse access token {TOKEN}", "type": "OAuthException", "code": 190}}
        return httpx2.Response(400, json=said)

    with pytest.raises(ServiceKeyError) as error:
        run(served(echo), lambda p: p.lookup(*ORIGIN))
    assert "s3cr3t" not in str(error.value)


def test_without_a_token_the_environment_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    named = {"provider": "mapillary"}
    config = write_region(tmp_path, coverage=named, capture=named, service={"key_variable": "MAPILLARY_TOKEN"})
    settings = load_settings(config, environ={})
    monkeypatch.delenv("MAPILLARY_TOKEN", raising=False)
    with pytest.raises(ServiceKeyError, match="MAPILLARY_TOKEN is not set"):
        build_service(settings, "mapillary", emulator_url=lambda: "", now=lambda: dt.datetime.now(dt.UTC))
    assert "mapillary wants a key and MAPILLARY_TOKEN is not set" in check_service(settings, environ={}).detail
    assert check_service(settings, environ={"MAPILLARY_TOKEN": TOKEN}).status == "ok"


def test_tiles_have_a_budget_of_their_own(service: EmulatorThread, tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budgets = [Budget("tile", 2, {"tile": 1}, "2 vector tiles a day")]

    async def far_apart(one: Mapillary) -> None:
        for step in range(5):
            await one.lookup(ORIGIN[0] + step * 0.05, ORIGIN[1])

    with pytest.raises(CollectionStopped, match="2 vector tiles a day are spent"):
        run(provider(service.url, ledger=ledger, budgets=budgets, radius_m=5), far_apart)
    assert len(hits(service, "mapillary_tile")) == 2


def test_pictures_are_fetched_only_from_the_service_or_a_safe_address(service: EmulatorThread):
    entity = json.loads((Path(__file__).parent / "odd/mapillary/picture_on_a_host_of_this_network.json").read_text())
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        return httpx2.Response(200, json={"data": [entity]})

    async def ask(one: Mapillary) -> list[Any]:
        panorama = Panorama(location(1, 1), "mapillary", None, "unknown", "flat", pano_id=entity["id"])
        return [answer async for answer in one.capture(panorama, VIEWS)]

    assert {answer.kind for answer in run(served(handle), ask)} == {"gone"}
    assert set(asked) == {"stub"}


# --- the whole way --------------------------------------------------------------------------------------------------
def test_a_batch_is_collected_and_repeated_asks_for_nothing_twice(service: EmulatorThread, tmp_path: Path):
    row = [location(r, c) for r in range(1, 4) for c in range(1, 3)]
    now = dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC)

    def collect(**options: Any) -> Any:
        table, visits = tmp_path / "panoramas.lance", tmp_path / "visits.lance"
        return asyncio.run(
            collect_batch(
                provider(service.url),
                row,
                "100m-0000",
                table,
                visits_path=visits,
                run_id="r",
                now=now,
                commit_rows=16,
                views=VIEWS,
                concurrency=4,
                **options,
            )
        )

    first = collect()
    assert (first.pending, first.failures_by_kind) == (0, {})
    assert first.rows_new > 40
    table = open_table(tmp_path / "panoramas.lance")
    assert table is not None
    rows = table.to_table().to_pylist()
    assert {(row["licence"], row["status"], row["capture_precision"]) for row in rows} == {("CC-BY-SA-4.0", "ok", "day")}
    assert all(row["sequence_id"] and row["pano_id"] in row["source_url"] for row in rows)
    assert all((row["creator"] or "") in row["attribution"] for row in rows)
    text = json.dumps([{name: str(value) for name, value in row.items() if name != "image"} for row in rows])
    assert "s3cr3t" not in text
    assert "oh=" not in text
    pictures = hits(service, "mapillary_picture")
    assert len(pictures) == len(set(pictures))

    service.clear_hits()
    assert collect().rows_new == 0  # every place is looked at again, and no picture is fetched
    assert hits(service, "mapillary_picture") == []
    service.clear_hits()
    assert collect(complete_since=now).rows_new == 0
    assert service.hits()["requests"] == []


@pytest.mark.slow
def test_a_region_is_looked_up_and_collected(service: EmulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lat, lng = ORIGIN
    monkeypatch.setenv("MAPILLARY_TOKEN", TOKEN)
    config = write_region(
        tmp_path,
        boundary=rectangle((lat - 0.0005, lng - 0.0005), (lat + 0.0045, lng + 0.0045)),
        region={"start_point": [lat, lng]},
        grid={"spacing_m": 60},
        coverage={"provider": "mapillary", "radius_m": 60},
        buffers={"spacings_m": [100], "batch_size": 6},
        capture={"provider": "mapillary"},
        service={"base_url": service.url, "requests_per_second": 400, "key_variable": "MAPILLARY_TOKEN"},
    )
    settings = load_settings(config, environ={})
    run_headless(settings, select="region_boundary,grid_points,street_view_metadata,buffer_csvs,panoramas", report=lambda e: None)
    table = open_table(tmp_path / "data" / "tables" / "panoramas.lance")
    assert table is not None
    rows = table.to_table(columns=["licence", "creator", "attribution", "status", "provider"]).to_pylist()
    assert len(rows) > 40
    assert {(row["provider"], row["licence"], row["status"]) for row in rows} == {("mapillary", "CC-BY-SA-4.0", "ok")}
    assert max(Counter(hits(service, "mapillary_tile")).values()) <= 3  # once in each of the runs: lookups, two batches
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes(), path
