"""The emulated Panoramax instance keeps the contract of the real one, row by row; each case's id is its row.

Beside these: a full search in quarters, GET and POST, content type, limits and boxes that are refused, related items as dates,
licence per picture and direct addresses in test_panoramax.py; what items leave out in test_odd_answers.py.

Of the contract the emulated instance does not have: CQL2 `filter` and `sortby` (refused), `/api/map` tiles, and the tiles of
whole pictures; the client asks for none of them.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.imagery.stac import OPEN_LICENCES
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, STEP_DEG, TODAY, StubCity

LAT, LNG = ORIGIN
WEST, SOUTH, EAST, NORTH = BOX = (LNG - 0.0001, LAT - 0.0001, LNG + 5 * STEP_DEG, LAT + 5 * STEP_DEG)
BBOX = ",".join(map(str, BOX))
TRIANGLE = {"type": "Polygon", "coordinates": [[[WEST, SOUTH], [EAST, SOUTH], [WEST, NORTH], [WEST, SOUTH]]]}
PLACE = f"{LNG + STEP_DEG},{LAT + STEP_DEG + 8 / 111_320}"  # 8 m north of a place


@pytest.fixture(scope="module")
def service() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


def get(service: EmulatorThread, path: str, **params: str) -> httpx2.Response:
    return httpx2.get(service.url + path, params=params, trust_env=False, timeout=60)


def found(service: EmulatorThread, **params: str) -> list[dict[str, Any]]:
    answer = get(service, "/api/search", **{"limit": "10000", **params})
    assert answer.status_code == 200
    assert answer.json()["type"] == "FeatureCollection"
    return answer.json()["features"]


def spot(item: dict[str, Any]) -> tuple[float, float]:
    lng, lat = item["geometry"]["coordinates"]
    return lat, lng


def when(item: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(item["properties"]["datetime"])


@pytest.mark.parametrize(
    ("params", "status"),
    [
        pytest.param({"bbox": BBOX, "limit": "1"}, 200, id="limit 1"),
        pytest.param({"bbox": BBOX, "limit": "10000"}, 200, id="limit 10000"),
        pytest.param({"bbox": BBOX, "limit": "10001"}, 400, id="limit 10001"),
        pytest.param({"bbox": BBOX, "limit": "0"}, 400, id="limit 0"),
        pytest.param({"bbox": BBOX, "limit": "-1"}, 400, id="limit -1"),
        pytest.param({"bbox": "1,2,3"}, 400, id="bbox of three numbers"),
        pytest.param({"bbox": "2,0,1,1"}, 400, id="bbox from east to west"),
        pytest.param({"intersects": "here"}, 400, id="intersects that is no geometry"),
        pytest.param({"bbox": BBOX, "datetime": "yesterday"}, 400, id="datetime in words"),
        pytest.param({"place_position": "here"}, 400, id="place_position in words"),
        pytest.param({"place_position": PLACE, "place_distance": "15"}, 400, id="place_distance of one number"),
        pytest.param({"place_position": PLACE, "place_fov_tolerance": "1"}, 400, id="place_fov_tolerance 1"),
        pytest.param({"place_position": PLACE, "place_fov_tolerance": "181"}, 400, id="place_fov_tolerance 181"),
        pytest.param({"bbox": BBOX, "filter": "semantics.x='y'"}, 400, id="filter is not known here"),
        pytest.param({"bbox": BBOX, "sortby": "-ts"}, 400, id="sortby is not known here"),
    ],
)
def test_what_a_search_accepts(service: EmulatorThread, params: dict[str, str], status: int):
    assert get(service, "/api/search", **params).status_code == status


def test_limit_is_ten_by_default_and_the_nearest_to_the_centre_come_first(service: EmulatorThread):
    everything = found(service, bbox=BBOX)
    few = get(service, "/api/search", bbox=BBOX).json()
    assert [item["id"] for item in few["features"]] == [item["id"] for item in everything[:10]]
    assert [link["rel"] for link in few["links"]] == ["root"]  # there is no next page
    gaps = [(spot(item)[0] - (SOUTH + NORTH) / 2) ** 2 + (spot(item)[1] - (WEST + EAST) / 2) ** 2 for item in everything]
    assert gaps == sorted(gaps)
    assert len(everything) > 50


def test_intersects_takes_a_geometry(service: EmulatorThread):
    everything = {item["id"]: spot(item) for item in found(service, bbox=BBOX)}
    half = {item["id"] for item in found(service, intersects=json.dumps(TRIANGLE))}
    below = {one for one, (lat, lng) in everything.items() if (lng - WEST) / (EAST - WEST) + (lat - SOUTH) / (NORTH - SOUTH) < 1}
    assert half == below
    assert 0 < len(half) < len(everything)
    posted = httpx2.post(
        service.url + "/api/search", json={"intersects": TRIANGLE, "limit": 10000}, trust_env=False, timeout=60
    ).json()
    assert {item["id"] for item in posted["features"]} == half


@pytest.mark.parametrize(
    ("interval", "low", "high"),
    [
        ("2017-01-01T00:00:00Z/2018-01-01T00:00:00Z", 2017, 2017),
        ("2017-01-01T00:00:00Z/..", 2017, 9999),
        ("../2017-01-01T00:00:00Z", 0, 2016),
    ],
)
def test_datetime_takes_an_interval(service: EmulatorThread, interval: str, low: int, high: int):
    everything = {item["id"]: when(item).year for item in found(service, bbox=BBOX)}
    inside = {item["id"] for item in found(service, bbox=BBOX, datetime=interval)}
    assert inside == {one for one, year in everything.items() if low <= year <= high}
    assert 0 < len(inside) < len(everything)


def test_datetime_takes_an_instant(service: EmulatorThread):
    one = found(service, bbox=BBOX)[0]
    assert one["id"] in {item["id"] for item in found(service, bbox=BBOX, datetime=one["properties"]["datetime"])}
    assert found(service, bbox=BBOX, datetime="2001-01-01T00:00:00Z") == []


def test_ids_are_given_in_their_order_and_unknown_ones_left_out(service: EmulatorThread):
    ids = [item["id"] for item in found(service, bbox=BBOX)[:3]][::-1]
    asked = ",".join([*ids, str(uuid.uuid4()), "no-uuid"])
    assert [item["id"] for item in found(service, ids=asked)] == ids


def test_a_place_is_shown_by_pictures_near_it_that_look_at_it(service: EmulatorThread):
    by_default = found(service, place_position=PLACE)  # 3 to 15 m away
    wide = found(service, place_position=PLACE, place_fov_tolerance="180")
    assert {item["id"] for item in by_default} <= {item["id"] for item in wide}
    assert len(wide) > 0
    assert found(service, place_position=PLACE, place_distance="20-30") == []
    for item in by_default:
        said = item["properties"]
        whole = said["pers:interior_orientation"]["field_of_view"] == 360
        assert whole or abs((said["view:azimuth"] + 180) % 360 - 180) <= 15 + 1  # the place is to the north


def test_a_collection_is_read_page_by_page_until_there_is_no_next_link(service: EmulatorThread):
    collection = found(service, bbox=BBOX)[0]["collection"]
    at_once = get(service, f"/api/collections/{collection}/items", limit="1000").json()
    url: str | None = f"{service.url}/api/collections/{collection}/items?limit=900"
    pages: list[list[str]] = []
    while url is not None:
        page = httpx2.get(url, trust_env=False, timeout=60).json()
        pages.append([item["id"] for item in page["features"]])
        assert {item["collection"] for item in page["features"]} == {collection}
        url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    ids = [one for page in pages for one in page]
    assert len(pages) > 3
    assert {len(page) for page in pages[:-1]} == {900}
    assert len(ids) == len(set(ids))
    assert ids[: len(at_once["features"])] == [item["id"] for item in at_once["features"]]
    in_search = {item["id"] for item in found(service, collections=collection)}
    assert in_search == set(ids)
    assert {item["id"] for item in found(service, bbox=BBOX, collections=collection)} < in_search


@pytest.mark.parametrize(("limit", "status"), [("500", 200), ("1000", 200), ("1001", 400), ("0", 400)])
def test_a_page_of_a_collection_has_at_most_1000_items(service: EmulatorThread, limit: str, status: int):
    collection = found(service, bbox=BBOX)[0]["collection"]
    assert get(service, f"/api/collections/{collection}/items", limit=limit).status_code == status


def test_what_does_not_exist_is_404(service: EmulatorThread):
    nobody = str(uuid.uuid4())
    for path in (f"/api/collections/{nobody}/items", f"/api/collections/x/items/{nobody}", f"/api/pictures/{nobody}/hd.jpg"):
        assert get(service, path).status_code == 404


def test_an_item_says_what_the_contract_lists(service: EmulatorThread):
    everything = found(service, bbox=BBOX)
    for item in everything:
        assert str(uuid.UUID(item["id"])) == item["id"]
        assert str(uuid.UUID(item["collection"])) == item["collection"]
        lng, lat = item["geometry"]["coordinates"]
        assert item["bbox"] == [lng, lat, lng, lat]
        assert item["providers"][0]["roles"] == ["producer"]
        said = item["properties"]
        assert when(item).utcoffset() == dt.timedelta(0)
        assert said["license"] in {*OPEN_LICENCES.values(), "proprietary"}
        assert any(link["rel"] == "license" for link in item["links"]) == (said["license"] != "proprietary")
        assert said["geovisio:status"] == "ready"
        assert said["geovisio:image"] == item["assets"]["hd"]["href"]
        assert said["geovisio:thumbnail"] == item["assets"]["thumb"]["href"]
        assert set(item["assets"]) == {"hd", "sd", "thumb"}
    assert {"view:azimuth" in item["properties"] for item in everything} == {True, False}


def test_a_related_item_is_the_same_place_at_another_date(service: EmulatorThread):
    item = next(one for one in found(service, bbox=BBOX) if sum(link["rel"] == "related" for link in one["links"]) == 3)
    others = [httpx2.get(link["href"], trust_env=False, timeout=60).json() for link in item["links"] if link["rel"] == "related"]
    assert len({when(one).date() for one in [item, *others]}) == 4
    assert all(abs(spot(one)[0] - spot(item)[0]) < 1e-4 for one in others)


@pytest.mark.parametrize(("size", "whole_px", "flat_px"), [("hd", 2560, 640), ("sd", 2048, 640), ("thumb", 500, 500)])
def test_a_picture_comes_in_three_sizes(service: EmulatorThread, size: str, whole_px: int, flat_px: int):
    everything = found(service, bbox=BBOX)
    for whole, width in ((True, whole_px), (False, flat_px)):
        item = next(i for i in everything if (i["properties"]["pers:interior_orientation"]["field_of_view"] == 360) == whole)
        answer = httpx2.get(item["assets"][size]["href"], trust_env=False, timeout=60)
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).width == width
