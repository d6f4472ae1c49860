"""The emulated street-view API: statuses of metadata, pictures and their parameters, history."""

from __future__ import annotations

import datetime as dt
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageChops

from geoloc_dagster.emulator.process import RunningEmulator, serve_in_thread
from geoloc_dagster_tests.emulator.asking import CLIENT, HISTORY, IMAGE, METADATA, get, image, metadata
from geoloc_dagster_tests.emulator.stub_city import EXISTING, ORIGIN, TODAY, StubCity, View, spot

MALFORMED_TARGETS = [
    {},
    {"location": ""},
    {"location": "  "},
    {"location": "91,18"},
    {"location": "59,-180.5"},
    {"location": spot(), "radius": "-1"},
    {"location": spot(), "radius": "20.5"},
    {"location": spot(), "radius": "far"},
    {"location": spot(), "source": "indoor"},
]
MALFORMED_VIEWS = [
    {"size": ""},
    {"size": "640"},
    {"size": "0x640"},
    {"size": "640x15"},
    {"size": "-5x640"},
    {"heading": "-1"},
    {"heading": "360.5"},
    {"heading": "north"},
    {"heading": "nan"},
    {"heading": ""},
    {"fov": "9.9"},
    {"fov": "121"},
    {"pitch": "90.5"},
    {"pitch": "-91"},
    {"pitch": "1e1"},
]


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def is_grey(content: bytes) -> bool:
    """Whether no pixel has a colour."""
    red, green, blue = picture(content).split()
    return max(ImageChops.difference(red, green).getextrema()[1], ImageChops.difference(green, blue).getextrema()[1]) < 16


def near(place: str, north_m: float) -> str:
    lat, lng = map(float, place.split(","))
    return f"{lat + north_m / 111_000:.7f},{lng}"


def test_metadata_of_a_place_names_its_newest_panorama(service: RunningEmulator):
    answer = metadata(service.url, location=spot(3, 4))
    assert answer["status"] == "OK"
    assert answer["date"] == f"{EXISTING[-1]:%Y-%m}"
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", answer["pano_id"])
    assert answer["copyright"]
    assert answer["location"] == {"lat": ORIGIN[0] + 3 * 0.002 + 3e-6, "lng": ORIGIN[1] + 4 * 0.002}
    assert metadata(service.url, pano=answer["pano_id"]) == answer
    assert metadata(service.url, location=spot(3, 4), source="outdoor", heading="nonsense", size="x") == answer


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"location": near(spot(), 40)}, "OK"),
        ({"location": near(spot(), 60)}, "ZERO_RESULTS"),
        ({"location": near(spot(), 60), "radius": 70}, "OK"),
        ({"location": near(spot(), 10), "radius": 0}, "ZERO_RESULTS"),
        ({"location": near(spot(), 60), "radius": 999_999_999}, "OK"),
        ({"location": "0,0"}, "ZERO_RESULTS"),
        ({"pano": "vPnURflnc8AZu5NMLYRddw"}, "ZERO_RESULTS"),
        ({"pano": "of nowhere"}, "ZERO_RESULTS"),
        ({"location": "Sergels torg, Stockholm"}, "NOT_FOUND"),
        ({"location": "nan,nan"}, "NOT_FOUND"),
        ({"location": "59.33;18.07"}, "NOT_FOUND"),
        *((params, "INVALID_REQUEST") for params in MALFORMED_TARGETS),
    ],
)
def test_every_request_for_metadata_or_history_has_its_status(service: RunningEmulator, params: dict[str, object], status: str):
    for path in (METADATA, HISTORY):
        response = get(service.url, path, **params)
        assert (response.status_code, response.json()["status"]) == (200, status)
        assert response.headers["content-type"].startswith("application/json")


def test_a_panorama_exists_once_its_month_is_over(service: RunningEmulator):
    seen = {}
    for today in (dt.date(2009, 7, 31), dt.date(2009, 8, 1), dt.date(2026, 11, 30), dt.date(2026, 12, 1)):
        service.set_today(today)
        seen[today.isoformat()] = metadata(service.url, location=spot()).get("date")
    assert seen == {"2009-07-31": None, "2009-08-01": "2009-07", "2026-11-30": "2026-10", "2026-12-01": "2026-11"}


def test_history_lists_the_panoramas_of_a_place_newest_first(service: RunningEmulator):
    newest = metadata(service.url, location=spot(1, 1))
    by_location = get(service.url, HISTORY, location=spot(1, 1)).json()
    assert by_location["status"] == "OK"
    assert [entry["date"] for entry in by_location["panoramas"]] == [f"{date:%Y-%m}" for date in reversed(EXISTING)]
    assert by_location["panoramas"][0]["pano_id"] == newest["pano_id"]
    for entry in by_location["panoramas"]:
        assert get(service.url, HISTORY, pano=entry["pano_id"]).json() == by_location
        assert metadata(service.url, pano=entry["pano_id"])["date"] == entry["date"]
        assert metadata(service.url, pano=entry["pano_id"])["location"] == entry["location"]


def test_a_picture_shows_the_panorama_that_was_asked_for(service: RunningEmulator, stub_city: StubCity):
    oldest = get(service.url, HISTORY, location=spot(2, 0)).json()["panoramas"][-1]
    stub_city.rendered.clear()
    response = image(service.url, pano=oldest["pano_id"], heading=90, pitch=-5.5, fov=75, size="320x200")
    assert response.headers["content-type"] == "image/jpeg"
    assert picture(response.content).size == (320, 200)
    assert stub_city.rendered == [
        {
            "lat_deg": oldest["location"]["lat"],
            "lng_deg": oldest["location"]["lng"],
            "heading_deg": 90,
            "pitch_deg": -5.5,
            "fov_deg": 75,
            "width": 320,
            "height": 200,
            "date": EXISTING[0],
        }
    ]
    again = image(service.url, pano=oldest["pano_id"], heading=90, pitch=-5.5, fov=75, size="320x200")
    assert again.content == response.content


@pytest.mark.parametrize(
    ("size", "served"), [("640x640", (640, 640)), ("2000x1000", (640, 640)), ("100x641", (100, 640)), ("16x16", (16, 16))]
)
def test_a_picture_has_at_most_640_pixels_a_side(service: RunningEmulator, size: str, served: tuple[int, int]):
    assert picture(image(service.url, location=spot(), size=size).content).size == served


@pytest.mark.parametrize(
    ("params", "heading_deg"),
    [
        ({"heading": 360}, 360),
        ({"location": near(spot(), 30)}, 0),
        ({"location": near(spot(), -30)}, 180),
        ({"location": "59.330003,18.0704"}, 90),
        ({"location": "59.330003,18.0696"}, 270),
    ],
)
def test_without_a_heading_the_camera_looks_at_the_location(
    service: RunningEmulator, stub_city: StubCity, params: dict[str, object], heading_deg: float
):
    stub_city.rendered.clear()
    assert image(service.url, **{"location": spot(), **params}).status_code == 200
    assert stub_city.rendered[0]["heading_deg"] == pytest.approx(heading_deg, abs=0.01)
    assert (stub_city.rendered[0]["pitch_deg"], stub_city.rendered[0]["fov_deg"]) == (0, 90)


@pytest.mark.parametrize(
    ("params", "status", "text"),
    [
        ({"location": "0,0"}, 404, "ZERO_RESULTS"),
        ({"pano": "vPnURflnc8AZu5NMLYRddw"}, 404, "ZERO_RESULTS"),
        ({"location": "Sergels torg"}, 404, "NOT_FOUND"),
        *((params, 400, "INVALID_REQUEST") for params in MALFORMED_TARGETS),
        *(({"location": spot(), **params}, 400, "INVALID_REQUEST") for params in MALFORMED_VIEWS),
    ],
)
def test_no_picture_is_an_error_code_if_asked_for_and_else_a_grey_picture(
    service: RunningEmulator, params: dict[str, object], status: int, text: str
):
    coded = image(service.url, **params)
    assert (coded.status_code, coded.text.split(":")[0]) == (status, text)
    assert coded.headers["content-type"].startswith("text/plain")
    for value in ("false", ""):
        polite = image(service.url, **{**params, "return_error_code": value})
        assert (polite.status_code, polite.headers["content-type"]) == (200, "image/jpeg")
        assert is_grey(polite.content)
    assert {hit["outcome"] for hit in service.hits()["requests"]} == {text}


def test_a_missing_size_is_an_invalid_request(service: RunningEmulator):
    assert get(service.url, IMAGE, location=spot(), return_error_code="true").status_code == 400
    assert picture(get(service.url, IMAGE, location=spot()).content).size == (640, 640)


def test_a_real_picture_is_not_taken_for_a_grey_one(service: RunningEmulator):
    assert not is_grey(image(service.url, location=spot(), size="320x320").content)


def test_questions_about_metadata_are_answered_while_pictures_are_being_made():
    class PatientCity(StubCity):
        asked, may_go_on = threading.Semaphore(0), threading.Event()

        def render(self, lat_deg: float, lng_deg: float, **view: object) -> View:
            self.asked.release()
            assert self.may_go_on.wait(30)
            return super().render(lat_deg, lng_deg, **view)

    city = PatientCity()
    with (
        serve_in_thread(ORIGIN, today=TODAY, city=city) as emulator,  # type: ignore[arg-type]
        ThreadPoolExecutor(3) as clients,
    ):
        pictures = [clients.submit(image, emulator.url, location=spot(), heading=heading) for heading in (0, 90, 180)]
        assert city.asked.acquire(timeout=30)
        assert metadata(emulator.url, location=spot())["status"] == "OK"
        assert not any(picture.done() for picture in pictures)
        city.may_go_on.set()
        assert [picture.result().status_code for picture in pictures] == [200] * 3


def test_other_paths_and_methods_do_not_exist(service: RunningEmulator):
    assert get(service.url, "/maps/api/place").status_code == 404
    assert CLIENT.post(service.url + METADATA).status_code == 405
    assert CLIENT.post(service.url + "/emulator/clock").status_code == 405
