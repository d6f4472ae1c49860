"""The emulated planet over HTTP: the list, photos and class maps that the functions give, and faults where they are asked for."""

from __future__ import annotations

import csv
import io
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from geoloc_dagster.emulator.planet import Planet
from geoloc_dagster.emulator.planet_list import PhotoBook, list_csv
from geoloc_dagster.emulator.process import EmulatorProcess, EmulatorThread, serve_in_thread
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.imagery.photo_lists import download_list, job

SEED = 7


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=SEED, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.clear_hits()
    return shared


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet(SEED)


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def test_the_list_is_the_one_that_the_function_writes(service: EmulatorThread) -> None:
    status, media_type, body = get(f"{service.url}/planet/list.csv?photos=250")
    assert (status, media_type) == (200, "text/csv; charset=utf-8")
    assert body.decode() == "".join(list_csv(PhotoBook(SEED), service.url, 250))


@pytest.mark.parametrize("photos", ["0", "-1", "many", "1000001", ""])
def test_a_list_of_an_impossible_length_is_refused(service: EmulatorThread, photos: str) -> None:
    status, _, body = get(f"{service.url}/planet/list.csv?photos={photos or 'x'}")
    assert status == 400
    assert b"from 1 to 1000000" in body


def test_urls_give_the_bytes_of_the_functions(service: EmulatorThread, planet: Planet) -> None:
    for row in list(csv.DictReader(io.StringIO(get(f"{service.url}/planet/list.csv?photos=12")[2].decode()))):
        number = int(row["IMG_ID"].rpartition("/")[2].removesuffix(".jpg")) - 1_000_000
        assert get(row["url"]) == (200, "image/jpeg", planet.picture(number).jpeg())
        class_map = row["url"].replace("/photos/", "/maps/").replace(".jpg", ".png")
        assert get(class_map) == (200, "image/png", planet.picture(number).class_map())


@pytest.mark.parametrize("path", ["photos/00/00/1000000.jpg", "photos/1000000.jpg", "photos/", "maps/x.png", "else.html"])
def test_what_is_not_there_is_not_found(service: EmulatorThread, path: str) -> None:
    assert get(f"{service.url}/planet/{path}")[0] == 404


def test_faults_befall_photos_of_the_planet_like_any_other(service: EmulatorThread, planet: Planet) -> None:
    photo = planet.photo(3)
    service.set_faults({"rules": [{"fault": "refused_status_410", "what": f"planet/photos/{photo.img_id}"}]})
    assert get(f"{service.url}/planet/photos/{photo.img_id}")[0] == 410
    assert get(f"{service.url}/planet/photos/{planet.photo(4).img_id}")[0] == 200
    assert [hit["endpoint"] for hit in service.hits()["requests"]] == ["photo", "photo"]


def test_the_list_is_downloaded_like_any_other(service: EmulatorThread, planet: Planet, tmp_path: Path) -> None:
    path = tmp_path / "planet.csv"
    path.write_bytes(get(f"{service.url}/planet/list.csv?photos=25")[2])
    result = download_list(job(tmp_path), path, 1)
    assert (result.came, result.bad_rows) == (25, 0)
    files = {file.stem.rpartition("_")[2]: file.read_bytes() for file in (tmp_path / "out").rglob("*.jpg")}
    assert files == {str(1_000_000 + number): planet.picture(number).jpeg() for number in range(25)}


def test_several_hands_draw_the_same_photos_and_leave_nobody_behind(planet: Planet) -> None:
    process = EmulatorProcess.start(ORIGIN, seed=SEED, hands=2)
    try:
        urls = [f"{process.url}/planet/photos/{planet.photo(number).img_id}" for number in range(6)]
        drawn = [planet.picture(number).jpeg() for number in range(6)]
        assert [get(url)[2] for url in urls] == drawn
        hands = children(process.pid)
        assert len(hands) == 2
        os.kill(hands[0], signal.SIGKILL)
        assert [get(url)[2] for url in urls] == drawn
    finally:
        process.stop()
    assert not any(Path(f"/proc/{hand}").exists() for hand in hands)
