"""Fetching many photos with several processes: one hands out photos and commits what came, the others do everything else.

A process that is killed loses what it had not handed over; when the one that hands out is killed, the others end by themselves,
and what was committed stays. Nothing is asked for twice that was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from geoloc_dagster import errors
from geoloc_dagster.errors import GeolocError, WorkerLostError
from geoloc_dagster.imagery.bulk_job import Job, photo_to_json
from geoloc_dagster.imagery.bulk_processes import Crew, Worker
from geoloc_dagster.imagery.photo_table import Photo

_FEWEST = 16  # photos that are handed out at once
_COMMIT_EVERY_S = 1.0  # each commit costs the more the more files a table has


@dataclass
class BulkRun:
    """What one run fetched.

    Attributes:
        done: photos of which something was kept, if only that they failed for good.
        failures_by_kind: photos that gave no picture, those that are asked for again included.
        bytes: of the pictures.
        left_alone: hosts that are not asked again in this run, and why.
        blocked: whether one of them is so because of a page for people.
        stopped: why it ended before it was through; None where it did not.
    """

    done: int = 0
    failures_by_kind: Counter[str] = field(default_factory=Counter[str])
    bytes: int = 0
    left_alone: dict[str, str] = field(default_factory=dict[str, str])
    blocked: bool = False
    stopped: str | None = None


class Store(Protocol):
    """Keeps what the fetching processes hand over."""

    def keep(self, said: Sequence[Mapping[str, Any]], run: BulkRun) -> None:
        """Commit what was handed over since the last time, and count it; called in a thread, once at a time."""
        ...


async def fetch_all(
    job: Job,
    photos: Sequence[Photo],
    store: Store,
    *,
    crew: Crew,
    processes: int,
    progress: Callable[[BulkRun], None] | None = None,
) -> BulkRun:
    """Fetch photos; those without a word from anybody at the end are still to be fetched.

    Args:
        job: how, and where to.
        photos: what is missing, once each.
        store: keeps what comes.
        crew: called up, and used for this alone.
        processes: that fetch.
        progress: called after each commit.

    Raises:
        GeolocError: what ended one of the processes; everything handed over before is kept.
        WorkerLostError: one ended without a word.
    """
    run = BulkRun()
    share = max(_FEWEST, len(photos) // (4 * processes))
    await crew.hire(job, processes)
    work = _Handout(iter(photos), share, store, run, progress, crew)
    keeping = asyncio.create_task(work.keep())
    serving = asyncio.gather(*(work.serve(worker) for worker in crew.workers))
    try:
        await asyncio.wait([serving, keeping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await crew.end()
        serving.cancel()
        work.handed_over.put_nowait(None)
        await keeping  # what came is committed, however this ends
    ends = await serving
    problem = next((end for end in ends if end is not None), None)
    if problem is not None:
        raise problem
    return run


class _Handout:
    """Hands out photos, and keeps what comes back."""

    def __init__(
        self,
        photos: Iterator[Photo],
        share: int,
        store: Store,
        run: BulkRun,
        progress: Callable[[BulkRun], None] | None,
        crew: Crew,
    ) -> None:
        self._photos = photos
        self._share = share
        self._store = store
        self._run = run
        self._progress = progress
        self._ended: set[int] = set()
        self._crew = crew
        self.handed_over: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def keep(self) -> None:
        """Commit what is handed over, all that has come within a second, until there is None; nobody waits for it."""
        while True:
            said = [await self.handed_over.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMMIT_EVERY_S):
                    while said[-1] is not None:
                        said.append(await self.handed_over.get())
            there = [one for one in said if one is not None]
            if there:
                await asyncio.to_thread(self._store.keep, there, self._run)
                if self._progress is not None:
                    self._progress(self._run)
            if len(there) < len(said):
                return

    async def serve(self, worker: Worker) -> GeolocError | None:
        """Listen to one process until it has ended; why, where that was not well."""
        ended = False
        async for said in _lines(worker.reader):
            if "want" in said:
                await self._hand_out(worker, int(said["want"]))
            elif "left_alone" in said:
                self._run.left_alone[said["left_alone"]] = said["reason"]
                self._run.blocked |= bool(said["blocked"])
                await asyncio.gather(*(other.say(said) for other in self._crew.workers if other is not worker))
            elif "stopped" in said:
                await self._stop(said["stopped"])
            elif "error" in said:
                await self._stop(said["cause"])
                return getattr(errors, said["error"])(said["cause"], said["remedy"])
            elif "ended" in said:
                ended = True
            else:
                self.handed_over.put_nowait(said)
        if ended:
            return None
        await self._stop("a process is lost")
        return WorkerLostError(f"a process that fetched pictures ended with {await self._crew.lost()}")

    async def _hand_out(self, worker: Worker, count: int) -> None:
        count = min(count, self._share)
        photos = [] if self._run.stopped is not None else list(islice(self._photos, count))
        if photos:
            await worker.say({"photos": [photo_to_json(photo) for photo in photos]})
        if len(photos) < count:
            await self._end(worker)

    async def _stop(self, reason: str) -> None:
        self._run.stopped = self._run.stopped or reason
        for worker in self._crew.workers:
            await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        """Tell a process once that there is nothing more."""
        if id(worker) not in self._ended:
            self._ended.add(id(worker))
            await worker.say({"end": True})


async def _lines(stream: asyncio.StreamReader) -> AsyncGenerator[dict[str, Any]]:
    """What is said, until the process ends; one that is killed may leave half a line."""
    with contextlib.suppress(ConnectionError):
        while (line := await stream.readline()).endswith(b"\n"):
            yield json.loads(line)


def in_rounds(photos: Iterable[Photo], host: Callable[[Photo], str]) -> list[Photo]:
    """Photos with their hosts in turn, so that a part of the list that is all of one slow host holds up no other."""
    queues: dict[str, deque[Photo]] = {}
    for photo in photos:
        queues.setdefault(host(photo), deque()).append(photo)
    mixed: list[Photo] = []
    while queues:
        for name in list(queues):
            mixed.append(queues[name].popleft())
            if not queues[name]:
                del queues[name]
    return mixed
