"""Secrets are used, and written down nowhere: not in logs, the event log, tables or evidence, nor said by commands that fail."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.docker.finder import load
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KEY = "k-77-sesame-of-the-service"
SIGNING = base64.urlsafe_b64encode(b"sesame-that-signs-all").decode()
PASSWORD = "sesame-of-the-way-out"
WRONG = "another-sesame-that-is-wrong"
HOOK = "http://127.0.0.1:9/hooks/sesame-of-the-webhook"
LOOKUPS = "region_boundary,grid_points,street_view_metadata"
COLLECTION = "buffer_csvs,panoramas"


class Forwarding(BaseHTTPRequestHandler):
    """A proxy that wants `user:password`, and passes everything on that has it."""

    seen: list[int] = []  # noqa: RUF012 - of the class on purpose: a handler lives for one connection

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        if self.headers.get("Proxy-Authorization") != wanted:
            self.seen.append(407)
            self.send_response(407)
            self.send_header("Proxy-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.seen.append(200)
        target = urlsplit(self.path)
        connection = http.client.HTTPConnection(target.netloc, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            own = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            connection.request("GET", f"{target.path}?{target.query}", headers=own)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def forwarding() -> Generator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forwarding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def service() -> Iterator[EmulatorThread]:
    city: Any = StubCity()
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, key=KEY, secret=SIGNING, city=city) as emulator:
        yield emulator


def geoloc(folder: Path, *arguments: str, **environment: str) -> int:
    """A command, with every secret there is in its environment; what it says goes to a file of the folder."""
    secrets = {
        "GEOLOC_SERVICE_KEY": KEY,
        "GEOLOC_SERVICE_SECRET": SIGNING,
        "GEOLOC_PROXY_CREDENTIALS": f"user:{PASSWORD}",
        "GEOLOC_WEBHOOK_URL": HOOK,
    }
    known = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **secrets, **environment}
    with (folder / "said.txt").open("ab") as stream:
        command = [sys.executable, "-m", "geoloc_dagster", *arguments]
        return subprocess.run(command, cwd=folder, env=known, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode


def test_a_service_is_asked_with_key_signature_and_proxy_and_none_of_them_is_written(
    tmp_path: Path, service: EmulatorThread
) -> None:
    lat, lng = ORIGIN
    with forwarding() as port:
        write_region(
            tmp_path,
            boundary=rectangle((lat - 0.0005, lng - 0.0005), (lat + 0.0065, lng + 0.0065)),
            region={"start_point": [lat, lng]},
            grid={"spacing_m": 60},
            coverage={"provider": "google", "radius_m": 60},
            capture={"provider": "google", "history": "newest", "permission": "a trial"},
            buffers={"spacings_m": [100], "batch_size": 6},
            service={"base_url": service.url, "deadline_s": 5, "attempts": 2, "requests_per_second": 400},
            egress={"proxy": f"http://127.0.0.1:{port}"},
        )
        assert geoloc(tmp_path, "doctor") in (0, 1, 2)
        assert geoloc(tmp_path, "run", "--select", LOOKUPS) == 0
        assert geoloc(tmp_path, "run", "--select", COLLECTION) == 0
        assert open_table(tmp_path / "data" / "tables" / "panoramas.lance").count_rows() > 0
        assert 200 in Forwarding.seen
        for number, fault in enumerate(("request_denied", "html", "refused_status_500")):
            service.set_faults({"rules": [{"fault": fault, "endpoint": "metadata"}]})
            write_region_anew(tmp_path, f"again{number}")
            assert geoloc(tmp_path, "--debug", "run", "--select", LOOKUPS) != 0, fault
        service.set_faults({})
        write_region_anew(tmp_path, "wrong")
        for wrong in ({"GEOLOC_SERVICE_KEY": WRONG}, {"GEOLOC_PROXY_CREDENTIALS": f"user:{WRONG}"}):
            assert geoloc(tmp_path, "--debug", "run", "--select", LOOKUPS, **wrong) != 0, wrong
        assert 407 in Forwarding.seen
    said = (tmp_path / "said.txt").read_text()
    assert {code for code in ("GEO-306", "GEO-307", "GEO-308") if code in said} == {"GEO-306", "GEO-307", "GEO-308"}
    assert written(tmp_path, KEY, SIGNING, PASSWORD, WRONG, HOOK) == []
    (tmp_path / "data" / "left.log").write_text(f"GET http://x/?key={KEY}")
    assert written(tmp_path, KEY) == [(str(tmp_path / "data" / "left.log"), "a value that is secret")], "the search would see one"


def write_region_anew(folder: Path, name: str) -> None:
    """The same region with another data root: nothing has been looked up there."""
    config = folder / "geoloc.yaml"
    text = config.read_text()
    before = text.split("data_root: ")[1].split("\n")[0]
    config.write_text(text.replace(f"data_root: {before}", f"data_root: data-{name}"))


def written(folder: Path, *values: str) -> list[tuple[str, str]]:
    """Where any of the values is, in files as they lie there and in the rows of tables, which are stored compressed."""
    search = load().Search(values, rules={})
    search.path(folder)
    for table in folder.rglob("*.lance"):
        dataset = open_table(table) if table.is_dir() else None
        for row in [] if dataset is None else dataset.to_table().to_pylist():
            search.text(str(table), repr({name: value for name, value in row.items() if not isinstance(value, bytes)}).encode())
    return search.found.secrets
