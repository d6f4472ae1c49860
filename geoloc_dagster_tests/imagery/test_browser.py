"""What a killed process leaves running is ended by the next one, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geoloc_dagster.errors import BrowserMissingError, ServiceBlockedError
from geoloc_dagster.imagery.browser import MARK, Browser, reap
from geoloc_dagster.imagery.processes import end_session_of, is_running, marked_processes, session_members, start_ticks
from geoloc_dagster.imagery.tor import Circuits, Tor
from geoloc_dagster_tests.imagery.stubs import control_port, serve
from geoloc_dagster_tests.imagery.walking import require_browser


def started(records: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A process of ours that has a browser, and the pid of the browser's driver."""
    command = [sys.executable, "-m", "geoloc_dagster_tests.imagery.walking", "start", str(records)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["pid"]


def test_a_killed_process_leaves_no_browser_after_the_next_start(tmp_path: Path):
    require_browser()
    process, driver = started(tmp_path)
    (record,) = tmp_path.glob("*.json")
    profile = Path(json.loads(record.read_bytes())["profile"])
    process.kill()
    process.wait()
    left = session_members(driver)
    assert len(left) > 5  # the driver and the browser's own processes
    assert profile.is_dir()
    with Browser(tmp_path) as browser:
        assert session_members(driver) == []
        assert marked_processes(MARK, record.stem) == []
        assert not profile.exists()
        assert [path.stem for path in tmp_path.iterdir()] != [record.stem]
        own = browser.pid
    assert session_members(own) == []
    assert list(tmp_path.iterdir()) == []


def test_the_browser_of_a_living_process_is_left_alone(tmp_path: Path):
    require_browser()
    process, driver = started(tmp_path)
    try:
        assert reap(tmp_path) == 0
        assert driver in session_members(driver)
    finally:
        process.kill()
        process.wait()
    assert reap(tmp_path) == 1
    assert session_members(driver) == []


def test_a_process_that_got_the_number_of_a_dead_driver_is_left_alone(tmp_path: Path):
    innocent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        said = {"owner": 2**22 + 1, "owner_started": 1, "pid": innocent.pid, "started": 1, "profile": str(tmp_path / "none")}
        (tmp_path / "token.json").write_text(json.dumps(said))
        assert reap(tmp_path) == 1
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.communicate()


def test_a_process_is_known_by_its_number_and_its_start():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    ticks = start_ticks(process.pid)
    assert is_running(process.pid, ticks)
    assert not is_running(process.pid, (ticks or 0) + 1)
    end_session_of(process.pid)
    assert not is_running(process.pid, ticks)
    assert process.wait() == -signal.SIGKILL or process.returncode == 0  # it may have been waited for already
    process.communicate()


def test_our_own_session_is_never_ended():
    before = time.monotonic()
    end_session_of(os.getpid())
    assert time.monotonic() - before < 60  # and we are still here


@pytest.mark.parametrize("missing", ["binary", "driver"])
def test_a_missing_program_is_named_with_what_to_install(tmp_path: Path, missing: str):
    with pytest.raises(BrowserMissingError, match=f"nothing.*Debian: {'chromium' if missing == 'binary' else 'chromium-driver'}"):
        Browser(tmp_path, **{missing: tmp_path / "nothing"})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_does_not_start_leaves_nothing_behind(tmp_path: Path):
    require_browser()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BrowserMissingError, match="does not start"):
        Browser(tmp_path / "records", binary=broken)
    assert list((tmp_path / "records").iterdir()) == []


def test_fresh_circuits_are_asked_for_when_they_are_wanted_and_never_after_a_block():
    waits: list[float] = []
    with serve(control_port("secret")) as stub:
        circuits = Circuits(lambda: Tor(stub.port, password="secret", sleep=waits.append))
        assert stub.seen == []
        circuits.fresh()
        circuits.fresh()
        assert stub.seen.count("SIGNAL NEWNYM") == 2
        circuits.blocked("a page for robots")
        with pytest.raises(ServiceBlockedError, match="after a block"):
            circuits.fresh()
        circuits.close()
        with pytest.raises(ServiceBlockedError, match="after a block"):  # another connection changes nothing about that
            circuits.fresh()
        circuits.close()
    assert stub.seen.count("SIGNAL NEWNYM") == 2
    assert len(waits) == 1  # the second had to wait until Tor allows it
    assert 0 < waits[0] <= 10
