"""The emulated city as a process: it says where it is, ends when told to, and never outlives the one that started it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from geoloc_dagster.emulator.process import EmulatorProcess, RunningEmulator
from geoloc_dagster_tests.emulator.asking import HISTORY, METADATA, get, image, metadata
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY

CITY = ["--origin=59.33,18.07", "--seed=7", "--today=2026-11-21"]
PARENT = """
import os, sys, time
from geoloc_dagster.emulator.process import EmulatorProcess
emulator = EmulatorProcess.start((59.33, 18.07), seed=7)
sibling = os.fork() if "fork" in sys.argv else 0
if sibling or "fork" not in sys.argv:
    print(emulator.pid, emulator.url, sibling, flush=True)
time.sleep(120)
"""


def eventually(happens: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # the interval of the watch, not a guess at how long something takes
    return True


def runs(pid: int) -> bool:
    """Whether there is such a process; one that only waits to be buried does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def command(*arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command line as a user runs it, and the address that it announces."""
    process = subprocess.Popen(
        [sys.executable, "-m", "geoloc_dagster.emulator", *CITY, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def child() -> Iterator[RunningEmulator]:
    with EmulatorProcess.start(ORIGIN, seed=7, today=TODAY) as emulator:
        yield emulator


def covered(emulator: RunningEmulator) -> str:
    """A location that has a panorama."""
    tries = (f"{ORIGIN[0] + step * 3e-4:.7f},{ORIGIN[1]:.7f}" for step in range(100))
    return next(place for place in tries if metadata(emulator.url, location=place)["status"] == "OK")


def test_a_child_serves_the_city_and_can_be_controlled(child: RunningEmulator):
    assert child.pid != os.getpid()
    assert get(child.url, "/emulator/health").json() == {"seed": 7, "today": "2026-11-21", "origin": list(ORIGIN)}
    place = covered(child)
    assert metadata(child.url, location=place)["status"] == "OK"
    response = image(child.url, location=place)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    child.clear_hits()
    metadata(child.url, location=place)
    assert child.hits()["totals"]["metadata"] == {"OK": 1}


def test_another_process_of_the_same_seed_gives_the_same_ids_and_pictures(child: RunningEmulator):
    place = covered(child)
    with command() as (_, url):
        history = get(url, HISTORY, location=place).json()
        assert history == get(child.url, HISTORY, location=place).json()
        for panorama in history["panoramas"][:2]:
            asked = {"pano": panorama["pano_id"], "heading": 120, "size": "96x96"}
            assert image(url, **asked).content == image(child.url, **asked).content


def test_stopping_ends_process_and_port_and_may_be_repeated():
    emulator = EmulatorProcess.start(ORIGIN, faults={"rules": [{"fault": "empty"}]})
    assert get(emulator.url, METADATA, location="0,0").content == b"", "the faults to begin with are there from the first request"
    emulator.stop()
    emulator.stop()
    assert not runs(emulator.pid)
    assert not listens(emulator.url)


def test_ctrl_c_in_a_terminal_reaches_only_the_parent(child: RunningEmulator):
    assert os.getsid(child.pid) != os.getsid(0)


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_child_ends_when_its_parent_is_killed(how: str):
    """Also where another process holds the parent's end of the pipe open."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True)
    sibling = 0
    try:
        assert parent.stdout is not None
        pid, url, sibling = (kind(word) for kind, word in zip((int, str, int), parent.stdout.readline().split(), strict=True))
        assert get(url, "/emulator/health").status_code == 200
        parent.kill()
        parent.wait()
        assert eventually(lambda: not runs(pid))
        assert not listens(url)
    finally:
        parent.kill()
        if sibling:
            os.kill(sibling, signal.SIGKILL)
        parent.stdout.close()
        parent.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well_even_in_the_middle_of_answers_that_never_end(number: signal.Signals, tmp_path: Path):
    script = tmp_path / "faults.json"
    script.write_text('{"rules": [{"fault": "drip", "endpoint": "metadata"}, {"fault": "slow", "seconds": 600}]}')
    with command(f"--faults={script}") as (process, url):
        parts = urlsplit(url)
        clients = [socket.create_connection((parts.hostname, parts.port)) for _ in range(2)]
        for client, path in zip(clients, (METADATA, HISTORY), strict=True):
            client.sendall(f"GET {path}?location=59.33,18.07 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert clients[0].recv(100).startswith(b"HTTP/1.1 200")
        assert eventually(lambda: get(url, "/emulator/hits").json()["totals"]["requests"] == 2)
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        for client in clients:
            client.close()


def test_a_service_of_its_own_does_not_mind_a_closed_standard_input():
    with command() as (process, url):
        assert get(url, "/emulator/health").status_code == 200
        assert process.poll() is None


def test_it_ends_when_its_standard_input_does_if_told_so():
    with command("--with-parent", stdin=subprocess.PIPE) as (process, url):
        assert listens(url)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdin = None


def test_a_port_that_is_taken_is_reported(child: RunningEmulator, capfd: pytest.CaptureFixture[str]):
    port = urlsplit(child.url).port
    assert port is not None
    with pytest.raises(RuntimeError, match="ended before it served"):
        EmulatorProcess.start(ORIGIN, port=port)
    assert re.fullmatch(rf"the emulated city cannot be served at port {port}: .*in use.*\n", capfd.readouterr().err)


def test_a_script_that_means_nothing_is_reported_before_anything_starts(tmp_path: Path):
    with pytest.raises(ValueError, match="gremlins"):
        EmulatorProcess.start(ORIGIN, faults={"rules": [{"fault": "gremlins"}]})
    script = tmp_path / "faults.json"
    script.write_text('{"rules": [{"fault": "gremlins"}]}')
    run = [sys.executable, "-m", "geoloc_dagster.emulator", *CITY, f"--faults={script}"]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "gremlins" in result.stderr
    assert "Traceback" not in result.stderr
