"""One of the processes that fetch: `python -m geoloc_dagster.imagery.bulk_worker`, with its job and its photos on stdin.

Each host has a queue of its own, so that one that is slow, or paused, holds up nobody else's photos. The process ends when it is
told that there are no more photos, or at once when the one that hands them out is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from geoloc_dagster.errors import GeolocError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.bulk_job import Job, encode, photo_from_json
from geoloc_dagster.imagery.bulk_sinks import Sink, make_sink
from geoloc_dagster.imagery.hosts import host_key
from geoloc_dagster.imagery.photo_list import PhotoList
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Capture, CollectionStopped, Location

MOST_TASKS = 512
MOST_QUEUED = 20_000
CHUNK = 256
_LINE_BYTES = 64 << 20


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
        if self.stopped is None:
            self.stopped = reason
            self._say({"stopped": reason})
        for queue in self._queues.values():
            queue.clear()
        self._waiting.clear()
        self._queued = 0


class _Mouth:
    """Says one thing at a time, from whatever thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, message: Mapping[str, Any]) -> None:
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


async def serve(descriptor: int) -> None:
    """Fetch until there is nothing more; speaks through a file descriptor."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    mouth = _Mouth(descriptor)
    job = Job.model_validate_json(await reader.readline())
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
            line = await reader.readline()
            if not line:
                os._exit(3)  # whoever handed out is gone; nobody would commit what is still to come
            said = json.loads(line)
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


def main() -> None:
    """Run as a process of its own; stdout is for messages alone."""
    gc.freeze()  # modules stay; looking through them again and again took a fifteenth of the time
    gc.set_threshold(20_000, 20, 20)
    descriptor = os.dup(1)
    os.dup2(2, 1)
    try:
        asyncio.run(serve(descriptor))
    except GeolocError as error:
        said = {"error": type(error).__name__, "cause": error.cause, "remedy": error.remedy}
        _Mouth(descriptor).say(said)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(3)


if __name__ == "__main__":
    main()
