"""Photos from strangers: refused with the right status, forgotten afterwards, and nobody is kept from the next answer."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from PIL.ExifTags import IFD, Base

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster.explorer.limits import HeldBytes, RateLimit
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster_tests.explorer.city import loaded, photo_of
from geoloc_dagster_tests.explorer.server import running
from geoloc_dagster_tests.explorer.test_api import ask
from geoloc_dagster_tests.prediction.streets import place_position


def png_bomb(side: int) -> bytes:
    """A PNG of side × side grey pixels, some kilobytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (side // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
NO_PHOTO = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--'
BAD = {
    "100 megapixels": (png_bomb(10_000), 413),
    "truncated": (photo_of(40)[:-400], 422),
    "SVG": (SVG, 415),
    "HEIC": (HEIC, 415),
    "nothing": (b"", 422),
    "a pickle": (b"\x80\x04cposix\nsystem\n", 415),
    "HTML": (b"<html>hello", 415),
    "GIF": (b"GIF89a\x01\0\x01\0\0\0\0;", 415),
    "a header alone": (photo_of(40)[:20], 415),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_photo_is_refused_and_the_next_is_answered(client: TestClient, name: str):
    content, status = BAD[name]
    refused = ask(client, content)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"]
    assert ask(client, photo_of(40)).status_code == 200


def test_a_polyglot_is_read_as_the_picture_that_it_is(client: TestClient):
    said = ask(client, photo_of(40) + b"<script>alert(1)</script>PK\x05\x06" + b"\0" * 18)
    assert said.status_code == 200
    assert said.json()["answers"][0]["candidates"][0]["location_id"] == "40"


def test_a_thousand_files_and_too_many_bytes_are_too_much(settings: Settings, layout: Layout, client: TestClient):
    files = [("photos", ("a.jpg", b"x", "image/jpeg"))] * 1_000
    refused = client.post("/predict", files=files)
    assert refused.status_code == 413
    assert "more than 200 photos" in refused.json()["detail"]
    small = settings.model_copy(update={"explorer": settings.explorer.model_copy(update={"photo_bytes": 500})})
    with TestClient(create_app(small, layout, load=lambda: loaded(small, layout)), base_url="http://127.0.0.1:8050") as other:
        other.app.state.explorer.serving.refresh()
        refused = ask(other, photo_of(40))
        assert refused.status_code == 413
        assert "more than 500 bytes" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({"Content-Type": "multipart/form-data"}, b"", 400),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"garbage", 422),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--',
            422,
        ),
        ({}, b"", 415),
    ],
)
def test_requests_that_are_no_form_of_photos_are_refused(client: TestClient, headers: dict[str, str], body: bytes, status: int):
    refused = client.post("/predict", headers=headers, content=body)
    assert refused.status_code in ({status, 400} if status == 422 else {status}), refused.text
    assert ask(client, photo_of(40)).status_code == 200


def test_what_a_file_is_called_is_shown_and_never_opened(client: TestClient):
    name = "../../etc/passwd\0<script>"
    said = client.post("/predict", files=[("photos", (name, photo_of(40), "image/jpeg"))]).json()["answers"][0]
    assert "\0" not in said["photo"]
    assert len(said["photo"]) <= 200
    refused = client.post("/predict", files=[("files", ("a.jpg", photo_of(40), "image/jpeg"))])
    assert refused.status_code == 422
    assert "`photos`" in refused.json()["detail"]


def test_the_position_in_a_photos_exif_is_not_looked_at(client: TestClient):
    image = Image.open(io.BytesIO(photo_of(40)))
    exif = Image.Exif()
    exif[Base.Software] = "a camera"
    exif.get_ifd(IFD.GPSInfo).update({1: "S", 2: (33.0, 51.0, 0.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, exif=exif)
    said = ask(client, stream.getvalue()).json()["answers"][0]
    lat, lng = place_position(40)
    assert (said["lat_deg"], said["lng_deg"]) == pytest.approx((lat, lng), abs=1e-3)
    assert "camera" not in str(said)


# --- rates ------------------------------------------------------------------------------------------------------------
def test_a_burst_beyond_the_rate_is_asked_to_wait_and_others_are_not():
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    limit.take("a", 60)
    with pytest.raises(Problem, match="more than 60 photos a minute") as refused:
        limit.take("a")
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "1"
    limit.take("b", 60)
    with pytest.raises(Problem, match="send fewer at once") as never:  # waiting would not help
        limit.take("c", 61)
    assert never.value.status == 413
    now[0] = 2.0
    limit.take("a", 2)
    with pytest.raises(Problem):
        limit.take("a")


def test_a_request_is_counted_before_it_is_read_and_its_photos_once():
    limit = RateLimit(3, clock=lambda: 0.0)
    limit.take("a")
    with pytest.raises(Problem) as never:
        limit.take("a", 4, counted=1)
    assert never.value.status == 413
    limit.take("a", 3, counted=1)
    with pytest.raises(Problem):
        limit.take("a")


def test_an_address_that_asked_too_often_is_told_so_before_it_has_sent_its_photo(settings: Settings, layout: Layout):
    one = settings.explorer.model_copy(update={"photos_per_minute": 1})
    own = settings.model_copy(update={"explorer": one})
    with running(create_app(own, layout, load=lambda: loaded(own, layout))) as port:
        assert request(port, photo_of(40)).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert request(port, photo_of(40)[:100], claimed=1_000_000).startswith(b"HTTP/1.1 429")
        assert time.monotonic() - began < own.explorer.upload_seconds / 4


def test_the_bytes_of_all_requests_are_counted_and_let_go():
    held = HeldBytes(10)
    with held.counting() as first:
        first(6)
        with held.counting() as second:
            second(3)
            with pytest.raises(Problem) as refused:
                second(2)
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
        first(4)
    with held.counting() as third:
        third(10)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_photos_that_are_answered_or_refused_are_held_no_longer(client: TestClient, accept: str):
    held = client.app.state.explorer.held
    for photo in (photo_of(40), SVG):
        client.post("/predict", files=[("photos", ("a.jpg", photo))] * 2, headers={"Accept": accept})
        assert held.held == 0


def test_more_bytes_than_may_be_held_at_once_are_asked_to_come_again(settings: Settings, layout: Layout):
    small = settings.explorer.model_copy(update={"held_bytes": 500_000})
    own = settings.model_copy(update={"explorer": small})
    with running(create_app(own, layout, load=lambda: loaded(own, layout))) as port:
        assert request(port, photo_of(40) + b"0" * 600_000).startswith(b"HTTP/1.1 503")
        assert request(port, photo_of(40)).startswith(b"HTTP/1.1 200")


def test_a_burst_gets_429_and_the_process_lives(settings: Settings, layout: Layout):
    few = settings.explorer.model_copy(update={"photos_per_minute": 200, "photos_per_request": 10})
    own = settings.model_copy(update={"explorer": few})
    with TestClient(create_app(own, layout, load=lambda: loaded(own, layout)), base_url="http://127.0.0.1:8050") as client:
        client.app.state.explorer.serving.refresh()
        statuses = [ask(client, *[photo_of(40)] * 10).status_code for _ in range(30)]
        assert statuses.count(200) >= 20
        assert 429 in statuses
        assert client.get("/health").json()["status"] == "ok"


# --- a real server ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(settings: Settings, layout: Layout) -> Iterator[int]:
    slow = settings.model_copy(update={"explorer": settings.explorer.model_copy(update={"upload_seconds": 1.0})})
    app = create_app(slow, layout, load=lambda: loaded(slow, layout))
    with running(app) as port:
        yield port


def request(port: int, body: bytes, *, claimed: int | None = None) -> bytes:
    """What a socket gets for a form of one photo, of which only `body` is sent."""
    head = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n'
    content = head + body + (b"\r\n--x--\r\n" if claimed is None else b"")
    length = len(content) if claimed is None else claimed
    start = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{start}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode() + content)
        return connection.recv(65_536)


def test_a_slow_upload_is_ended_and_keeps_nobody_waiting(server: int):
    with ThreadPoolExecutor(9) as crew:
        slow = [crew.submit(request, server, photo_of(40)[:100], claimed=100_000) for _ in range(8)]
        began = time.monotonic()
        assert request(server, photo_of(40)).startswith(b"HTTP/1.1 200")
        answered = time.monotonic() - began
        assert {one.result().partition(b"\r\n")[0] for one in slow} == {b"HTTP/1.1 408 Request Timeout"}
    assert answered < 30


def test_a_client_that_hangs_up_takes_nobody_with_it(server: int):
    for _ in range(5):
        start = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{server}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        with socket.create_connection(("127.0.0.1", server), timeout=10) as connection:
            connection.sendall(f"{start}Content-Length: 100000\r\n\r\n--x\r\n".encode())
    assert request(server, photo_of(40)).startswith(b"HTTP/1.1 200")


def test_the_bytes_of_a_photo_are_found_nowhere_on_disk(
    server: int, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    began = time.time() - 1
    mark = os.urandom(32)
    photo = photo_of(40) + mark + os.urandom(3_000_000)  # longer than what forms keep in memory by default
    assert request(server, photo).startswith(b"HTTP/1.1 200")
    folders = [settings.data_root, tmp_path, Path.cwd()]
    files = [path for folder in folders for path in folder.rglob("*")] + [*Path("/tmp").iterdir(), *Path("/var/tmp").iterdir()]
    for path in files:
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime >= began:
                assert mark not in path.read_bytes(), path
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]  # noqa: PTH115 - not a path
    assert not [target for target in held if str(tmp_path) in target]
