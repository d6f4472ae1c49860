"""The processes that fetch: `python -m geoloc_dagster.imagery.bulk_worker SINK`, which becomes one for each socket it is sent.

Its job and its photos come through that socket, and what became of them goes back.

Each host has a queue of its own, so that one that is slow, or paused, holds up nobody else's photos. The process ends when it is
told that there are no more photos, or at once when the one that hands them out is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from geoloc_dagster.errors import GeolocError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.bulk_job import Job, photo_from_json
from geoloc_dagster.imagery.bulk_processes import encode
from geoloc_dagster.imagery.bulk_sinks import Sink, make_sink
from geoloc_dagster.imagery.hosts import host_key
from geoloc_dagster.imagery.photo_list import PhotoList
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Capture, CollectionStopped, Location

MOST_TASKS = 512
MOST_QUEUED = 20_000
CHUNK = 256
_LINE_BYTES = 64 << 20
_LEFT = 3


class Crew:
    """Fetches what is in the queues of the hosts, and asks for more in time.

    Args:
        provider: fetches one.
        sink: takes the answers.
        concurrency: photos of one host at once.
        say: speaks to the process that hands out.
    """

    def __init__(self, provider: PhotoList, sink: Sink, concurrency: int, say: Any) -> None:
        self._provider = provider
        self._sink = sink
        self._concurrency = concurrency
        self._say = say
        self._queues: dict[str, deque[Photo]] = {}
        self._at: dict[str, int] = {}  # tasks of each host
        self._waiting: deque[str] = deque()  # hosts with photos for which there was no task
        self._tasks: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._finished = CHUNK
        self._asked = False
        self.stopped: str | None = None
        self.problem: BaseException | None = None

    def add(self, photos: list[Photo]) -> None:
        """More photos."""
        self._asked = False
        if self.stopped is not None:
            return
        self._provider.hold({photo.photo_id: photo for photo in photos})
        for photo in photos:
            self._queues.setdefault(host_key(photo.url), deque()).append(photo)
        self._queued += len(photos)
        for host in dict.fromkeys(host_key(photo.url) for photo in photos):
            self._start(host)

    def want(self) -> None:
        """Ask for photos where enough are done, or a host has none left."""
        if not self._asked and self._finished >= CHUNK // 2 and self._queued < MOST_QUEUED and self.stopped is None:
            self._asked = True
            self._finished = 0
            self._say({"want": CHUNK})

    async def end(self) -> None:
        """Wait for everything that was handed out."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, host: str) -> None:
        """As many tasks for a host as it may have; it waits for them where there are too many altogether."""
        at = self._at.get(host, 0)
        for _ in range(min(self._concurrency - at, len(self._queues.get(host, ())))):
            if len(self._tasks) >= MOST_TASKS:
                if host not in self._waiting:
                    self._waiting.append(host)
                return
            self._at[host] = self._at.get(host, 0) + 1
            task = asyncio.create_task(self._work(host))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._done(host, done))

    def _done(self, host: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._at[host] -= 1
        if not task.cancelled() and task.exception() is not None:
            self.problem = self.problem or task.exception()
            self._stop("a problem")
        if self._queues.get(host) and host not in self._waiting:
            self._waiting.append(host)
        elif not self._at[host] and not self._queues.get(host):
            self._at.pop(host)
            self._queues.pop(host, None)
        if self._waiting:
            self._start(self._waiting.popleft())

    async def _work(self, host: str) -> None:
        """Photos of one host, one after the other, as long as no other host waits for a task."""
        queue = self._queues[host]
        while queue and self.stopped is None:
            photo = queue.popleft()
            self._queued -= 1
            await self._fetch(photo)
            self._finished += 1 if queue else CHUNK
            self.want()
            if self._waiting:
                return

    async def _fetch(self, photo: Photo) -> None:
        location = Location(photo.photo_id, photo.lat_deg or 0.0, photo.lng_deg or 0.0)
        panorama = self._provider.panorama(location, photo)
        try:
            answer = await self._provider.fetch(panorama, panorama.views[0])
        except CollectionStopped as stop:
            self._stop(str(stop))
            return
        failpoint("bulk.fetched")
        self._provider.release(photo.photo_id)
        if isinstance(answer, Capture) or answer.asked:
            await self._sink.add(answer)

    def _stop(self, reason: str) -> None:
        """Begin nothing more, here or elsewhere; what is in flight arrives."""
        for queue in self._queues.values():  # before anything is said, which may fail: a queue would be begun again and again
            queue.clear()
        self._waiting.clear()
        self._queued = 0
        if self.stopped is None:
            self.stopped = reason
            self._say({"stopped": reason})


class _Mouth:
    """Says one thing at a time, from whatever thread; the process ends where nobody listens any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, message: Mapping[str, Any]) -> None:
        line = memoryview(encode(message))
        with self._lock:
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
                except ConnectionError:
                    os._exit(_LEFT)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """What is said next; the process ends where whoever handed out is gone: nobody would commit what is still to come."""
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    if not line:
        os._exit(_LEFT)
    return line


async def serve(connection: socket.socket) -> None:
    """Fetch until there is nothing more."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=_LINE_BYTES)
    mouth = _Mouth(connection.fileno())
    job = Job.model_validate_json(await _line(reader))
    provider = job.provider()
    hosts = provider.hosts
    told: set[str] = set()

    def stopped(host: str, reason: str, blocked: bool) -> None:
        if host not in told:
            mouth.say({"left_alone": host, "reason": reason, "blocked": blocked})

    hosts.on_stop = stopped
    sink = make_sink(job, mouth.say)
    async with provider.session():
        crew = Crew(provider, sink, job.concurrency, mouth.say)
        crew.want()
        while True:
            said = json.loads(await _line(reader))
            if "photos" in said:
                crew.add([photo_from_json(one) for one in said["photos"]])
            if "left_alone" in said:
                told.add(said["left_alone"])
                hosts.leave_alone(said["left_alone"], said["reason"])
            if said.get("end"):
                break
        await crew.end()
        await sink.close()
    if crew.problem is not None:
        raise crew.problem
    mouth.say({"ended": True})
    writer.close()


class _WithoutPandas(MetaPathFinder):
    """Tables are made without pandas, which pyarrow would load for a second to ask whether a list is one of its own."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)
        return None


def fetch(connection: socket.socket) -> int:
    """Serve one connection; the exit code of the process."""
    try:
        asyncio.run(serve(connection))
    except GeolocError as error:
        _Mouth(connection.fileno()).say({"error": type(error).__name__, "cause": error.cause, "remedy": error.remedy})
        return 2
    except ConnectionError:
        return _LEFT
    return 0


def main() -> None:
    """Become as many processes as there come sockets on stdin; stdout gets the exit codes of those that are lost."""
    sys.meta_path.insert(0, _WithoutPandas())
    importlib.import_module("geoloc_dagster.imagery.bulk_channel")
    if sys.argv[1] == "table":
        importlib.import_module("geoloc_dagster.imagery.bulk_rows")
    gc.freeze()  # modules stay; looking through them again and again took a fifteenth of the time
    gc.set_threshold(20_000, 20, 20)
    codes = os.dup(1)
    os.dup2(2, 1)
    with socket.socket(fileno=0) as control:
        while sent := socket.recv_fds(control, 1, 1)[1]:
            if os.fork() == 0:
                control.detach()
                os.close(codes)
                sys.exit(fetch(socket.socket(fileno=sent[0])))
            os.close(sent[0])
    with contextlib.suppress(ChildProcessError):
        while True:
            code = os.waitstatus_to_exitcode(os.wait()[1])
            if code != 0:
                os.write(codes, f"{code}\n".encode())


if __name__ == "__main__":
    main()
