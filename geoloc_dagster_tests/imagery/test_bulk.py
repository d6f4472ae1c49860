"""Many photos by several processes: rates, budgets, slow hosts, and processes that are killed at any instant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from geoloc_dagster.emulator.photo_oddities import ordinary
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.errors import WorkerLostError
from geoloc_dagster.imagery.buckets import HostBuckets, MemoryBuckets
from geoloc_dagster.imagery.bulk import BulkRun, fetch_all, in_rounds
from geoloc_dagster.imagery.bulk_job import Job
from geoloc_dagster.imagery.bulk_processes import Crew
from geoloc_dagster.imagery.hosts import host_key
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.pace import Pace
from geoloc_dagster.imagery.photo_folder import read_outcomes
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.purse import Budget, Purse
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY
from geoloc_dagster_tests.imagery.photo_lists import NOW, download_list, job, write_list

LATE_S = 0.25  # as in test_rate


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(ORIGIN, seed=7, today=TODAY) as emulator:
        yield emulator


@pytest.fixture
def service(shared: EmulatorProcess) -> EmulatorProcess:
    shared.set_faults({})
    shared.clear_hits()
    return shared


def good(url: str, count: int) -> list[dict[str, str]]:
    return [{"id": f"{n:03d}", "url": f"{url}/photos/good/{n}.jpg"} for n in range(count)]


def photo_hits(service: EmulatorProcess) -> list[dict[str, Any]]:
    return [hit for hit in service.hits()["requests"] if hit["endpoint"] == "photo"]


class Forgetful:
    """A store that only counts."""

    def keep(self, said: Any, run: BulkRun) -> None:
        run.done += sum(len(one["files"]) for one in said)


def fetch_photos(one: Job, photos: list[Photo], processes: int) -> BulkRun:
    async def fetch() -> BulkRun:
        async with Crew.called_up(one.sink) as crew:
            return await fetch_all(one, photos, Forgetful(), crew=crew, processes=processes)

    return asyncio.run(fetch())


# --- rates ----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_processes_that_set_requests_aside_keep_the_rate_of_one(service: EmulatorProcess, tmp_path: Path):
    rate = 80.0
    path = write_list(tmp_path / "list.csv", good(service.url, 240))
    result = download_list(job(tmp_path, rate=rate), path, processes=3)
    assert result.came == 240
    times = sorted(hit["t"] for hit in service.hits()["requests"] if hit["endpoint"] in ("photo", "robots"))
    burst = max(5, round(rate / 10))
    excess = max(
        last - first + 1 - rate * (times[last] - times[first]) for first in range(len(times)) for last in range(first, len(times))
    )
    assert excess <= burst + rate * LATE_S
    assert times[-1] - times[0] < 4 * len(times) / rate


class Calendar:
    """A clock that stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["memory", "host"])
@pytest.mark.parametrize("rate", [20.0, 200.0, 5_000.0])
def test_no_window_holds_more_than_rate_and_burst_however_late_askers_are(tmp_path: Path, kind: str, rate: float):
    """Four askers with one clock, each now and then kept from asking; exact, as the clock is made up."""
    burst = max(5, round(rate / 10))
    buckets = MemoryBuckets() if kind == "memory" else HostBuckets(tmp_path / "buckets.sqlite")
    clock, dice = Calendar(), random.Random(5)
    left: list[float] = []

    async def ask(pace: Pace) -> None:
        for _ in range(150):
            await pace.turn()
            left.append(clock())
            if dice.random() < 0.2:
                await clock.sleep(dice.uniform(0, 30 / rate))

    async def all_of_them() -> None:
        paces = [Pace("x", rate, burst, buckets=buckets, clock=clock, sleep=clock.sleep, ahead_s=0.05) for _ in range(4)]
        await asyncio.gather(*(ask(pace) for pace in paces))

    asyncio.run(all_of_them())
    left.sort()
    excess = max(last - first + 1 - rate * (left[last] - left[first]) for first in range(600) for last in range(first, 600))
    assert len(left) == 600
    assert excess <= burst + 1e-6


def test_a_pause_of_another_process_is_seen_with_the_next_lease(tmp_path: Path):
    clock = Calendar()
    buckets = HostBuckets(tmp_path / "buckets.sqlite")
    first, second = (Pace("x", 1_000, 100, buckets=buckets, clock=clock, sleep=clock.sleep, ahead_s=0.05) for _ in range(2))

    async def ask() -> float:
        await first.turn()
        second.pause(30)
        began_s = clock()
        for _ in range(200):  # more than one lease
            await first.turn()
        return clock() - began_s

    assert asyncio.run(ask()) >= 30


def test_a_host_that_wants_long_pauses_between_requests_gets_them():
    clock = Calendar()
    pace = Pace("x", 1_000, 100, buckets=MemoryBuckets(), clock=clock, sleep=clock.sleep, ahead_s=0.05)
    pace.slow_down(2.0)
    pace.slow_down(0.5)

    async def ask() -> float:
        for _ in range(11):
            await pace.turn()
        return clock() - 1_000

    assert asyncio.run(ask()) == pytest.approx(20)


# --- budgets --------------------------------------------------------------------------------------------------------
def test_processes_that_pay_for_many_at_once_never_exceed_the_budget(service: EmulatorProcess, tmp_path: Path):
    path = write_list(tmp_path / "list.csv", good(service.url, 240))
    budgets = [{"what": "image", "limit": 150, "per_charge": {"image": 1}, "said": "150 pictures a day"}]
    one = job(tmp_path, ledger=tmp_path / "ledger.sqlite", budgets=budgets)
    result = download_list(one, path)
    assert "150 pictures a day" in (result.stopped or "")
    assert 90 <= len(photo_hits(service)) <= 150
    assert Ledger(tmp_path / "ledger.sqlite").used("photo_list", one.today(), "image") == len(photo_hits(service))
    assert result.failures == {"not_asked": 240 - result.came}


def test_a_purse_pays_for_less_near_the_end_and_for_nothing_after_it(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budgets = [Budget("image", 10, {"image": 1}, "10 pictures"), Budget("request", 2**62, {}, "any")]
    first, second = (Purse(ledger, "x", budgets, lambda: TODAY, at_once=8) for _ in range(2))
    assert first.pay("image") is None
    assert [second.pay("image") for _ in range(3)] == [None, None, "10 pictures"]
    assert [first.pay("image") for _ in range(8)] == [None] * 7 + ["10 pictures"]
    assert ledger.used("x", TODAY, "image") == 10


def test_what_is_paid_for_today_does_not_pay_for_tomorrow(tmp_path: Path):
    days = [TODAY]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    purse = Purse(ledger, "x", [Budget("image", 10, {"image": 1}, "10 pictures")], lambda: days[-1], at_once=8)
    assert purse.pay("image") is None
    days.append(TODAY.replace(year=TODAY.year + 1))
    assert purse.pay("image") is None
    purse.close()
    assert ledger.used("x", days[-1], "image") == 1


# --- hosts ----------------------------------------------------------------------------------------------------------
@dataclass
class Host:
    """A host of photos in a thread: its address, what it was asked for, and what is to happen then."""

    url: str
    seen: list[str] = field(default_factory=list[str])
    then: Callable[[list[str]], None] = lambda seen: None

    def photos(self) -> int:
        """Photos that it was asked for."""
        return sum(path != "/robots.txt" for path in self.seen)


@contextlib.contextmanager
def host(
    status: int = 200, headers: dict[str, str] | None = None, before: Callable[[str], object] = lambda path: None
) -> Generator[Host]:
    """Serve one photo under every address; `before` is called before each answer."""
    body = ordinary(3)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            robots = self.path == "/robots.txt"
            one.seen.append(self.path)
            one.then(one.seen)
            if not robots:
                before(self.path)
            self.send_response(404 if robots else status)
            for name, value in ({} if robots else headers or {}).items():
                self.send_header(name, value)
            content = b"" if robots or status != 200 else body
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    one = Host(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.slow
def test_a_slow_host_holds_up_nobody_else(tmp_path: Path):
    """A host that answers only once another, whose 300 photos are among its own in the list, has been asked for all of them."""
    all_asked, in_time = threading.Event(), list[bool]()
    with host(before=lambda _: in_time.append(all_asked.wait(30))) as slow, host() as quick:

        def count(seen: list[str]) -> None:
            if len(seen) > 300:  # robots.txt among them
                all_asked.set()

        quick.then = count
        rows = [{"id": f"s{n}", "url": f"{slow.url}/{n}.jpg"} for n in range(60)]
        rows += [{"id": f"q{n}", "url": f"{quick.url}/{n}.jpg"} for n in range(300)]
        path = write_list(tmp_path / "list.csv", rows)
        result = download_list(job(tmp_path, concurrency=2, deadline_s=60), path, processes=1)
    assert result.came == 360
    assert all(in_time)


def test_a_host_that_wants_to_be_left_alone_is_and_the_others_are_asked_on(tmp_path: Path):
    with host(status=429, headers={"Retry-After": "3600"}) as busy, host() as quick:
        rows = [{"id": f"b{n}", "url": f"{busy.url}/{n}.jpg"} for n in range(50)]
        rows += [{"id": f"q{n}", "url": f"{quick.url}/{n}.jpg"} for n in range(50)]
        path = write_list(tmp_path / "list.csv", rows)
        result = download_list(job(tmp_path, concurrency=2), path)
        assert (result.came, result.failures.total()) == (50, 50)
        assert set(result.failures) == {"disallowed", "not_asked"}
        assert result.failures["not_asked"] >= 46
        assert list(result.left_alone) == [busy.url]
        assert busy.photos() <= 4  # in flight when the first answer came
        again = download_list(job(tmp_path, concurrency=2), path)
        assert again.came == 50
        assert busy.photos() <= 4  # the pause outlasts the run


def test_a_photo_that_stops_its_host_each_time_holds_up_no_other(service: EmulatorProcess, tmp_path: Path):
    rows = [{"id": "proof", "url": f"{service.url}/photos/odd/proof.jpg"}, *good(service.url, 20)]
    path = write_list(tmp_path / "list.csv", rows)
    first = download_list(job(tmp_path, concurrency=1), path, processes=1)
    assert (first.came, dict(first.failures)) == (0, {"disallowed": 1, "not_asked": 20})
    again = download_list(job(tmp_path, concurrency=1), path, processes=1)
    assert (again.came, dict(again.failures)) == (20, {"disallowed": 1})


def test_photos_are_handed_out_with_their_hosts_in_turn():
    photos = [Photo(f"{name}{n}", f"http://{name}.example/{n}.jpg") for name in "ab" for n in range(3)] + [
        Photo("c0", "http://c.example/0.jpg")
    ]
    order = [photo.photo_id for photo in in_rounds(photos, lambda photo: host_key(photo.url))]
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "b2"]


# --- killed ---------------------------------------------------------------------------------------------------------
def download_in_a_process(folder: Path, path: Path, **environment: str) -> subprocess.Popen[bytes]:
    arguments = ["download", "--output", str(folder), "--url-csv", str(path), "--rate", "1000", "--processes", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "geoloc_dagster", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GEOLOC_STATE": str(folder.parent / "state"), **environment},
    )


def workers_of(folder: Path) -> list[int]:
    """Fetching processes whose parent is gone or going, found by the job that they hold open: those of this folder."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            state = (process / "environ").read_bytes()
            if b"bulk_worker" in command and str(folder.parent / "state").encode() in state:
                found.append(int(process.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_killed_at_any_instant_and_run_again_nothing_is_lost_or_kept_twice(service: EmulatorProcess, tmp_path: Path):
    """After each kill the next run asks for nothing that was written down; processes end with the one that hands out."""
    count, dice = 240, random.Random(11)
    path = write_list(tmp_path / "list.csv", good(service.url, count))
    folder = tmp_path / "out"
    for _ in range(3):
        settled = {name for name, one in read_outcomes(folder).items() if one.kind == "ok"}
        before = Counter(hit["what"] for hit in photo_hits(service))
        wanted = before.total() + dice.randint(1, 70)
        child = download_in_a_process(folder, path)
        deadline = time.monotonic() + 60
        while len(photo_hits(service)) < wanted and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)  # the interval of the watch
        child.send_signal(signal.SIGKILL)
        child.wait()
        while workers_of(folder) and time.monotonic() < deadline:
            time.sleep(0.01)  # likewise
        assert workers_of(folder) == []
        after = Counter(hit["what"] for hit in photo_hits(service))
        again = {what for what in after - before if f"{int(Path(what).stem):03d}" in settled}
        assert again == set()
    assert download_in_a_process(folder, path).wait(60) == 0
    files = sorted(file.stem for file in folder.glob("??/*.jpg"))
    assert files == [f"{n:03d}" for n in range(count)]
    asked = len(photo_hits(service))
    assert download_in_a_process(folder, path).wait(60) == 0
    assert len(photo_hits(service)) == asked


def test_a_fetching_process_that_is_lost_is_said_so(service: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEOLOC_FAILPOINT", "bulk.fetched:20")
    (tmp_path / "out").mkdir()
    photos = [Photo(row["id"], row["url"]) for row in good(service.url, 100)]
    with pytest.raises(WorkerLostError, match="-9"):
        fetch_photos(job(tmp_path), photos, 1)


def test_an_error_of_a_fetching_process_arrives_as_it_is(service: EmulatorProcess, tmp_path: Path):
    from geoloc_dagster.errors import IntegrityError

    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    photos = [Photo(row["id"], row["url"]) for row in good(service.url, 10)]
    budgets = [{"what": "image", "limit": 150, "per_charge": {"image": 1}, "said": "150 pictures a day"}]
    with pytest.raises(IntegrityError, match="damaged"):
        fetch_photos(job(tmp_path, ledger=tmp_path / "ledger.sqlite", budgets=budgets), photos, 2)


def test_a_job_survives_the_pipe(tmp_path: Path):
    one = job(tmp_path, proxy="http://127.0.0.1:1", credentials=("me", "secret"), resize="shorter", size_px=256)
    assert Job.model_validate_json(one.model_dump_json()) == one
    assert json.loads(one.model_dump_json())["now"].startswith(NOW.date().isoformat())
