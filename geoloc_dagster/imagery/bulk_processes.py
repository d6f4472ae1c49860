"""The processes that fetch photos: one loads everything once and becomes as many as are wanted, which share what it loaded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # this module loads at once, so that the processes can load while everything else does
    from geoloc_dagster.imagery.bulk_job import Job

_LINE_BYTES = 64 << 20
_GRACE_S = 10.0
# The C library would ask the kernel for the room of each table, and give it back: pages cleared for nothing, half of all time.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # and threads of tables beyond one would each keep memory of their own
    "LANCE_CPU_THREADS": "1",
    "LANCE_IO_THREADS": "2",
}


class Worker:
    """One fetching process, as the one that hands out sees it.

    Attributes:
        reader: what it says, a line each.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def say(self, message: Mapping[str, Any]) -> None:
        """Tell it something; one that is gone hears nothing, and its silence is noticed elsewhere."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(encode(message))
            await self._writer.drain()

    def close(self) -> None:
        """Say nothing more; one that still works ends."""
        self._writer.close()


class Crew:
    """All fetching processes of one run; that which becomes them loads from the moment it is called up.

    Attributes:
        workers: each of them.
    """

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self.workers: list[Worker] = []

    @classmethod
    @asynccontextmanager
    async def called_up(cls, sink: str) -> AsyncGenerator[Crew]:
        """None of them yet; they end with the block at the latest.

        Args:
            sink: of the job that they are to be hired for, `table` or `folder`.
        """
        control, theirs = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "geoloc_dagster.imagery.bulk_worker",
            sink,
            stdin=theirs.fileno(),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl+C reaches the one that hands out, which still commits what came
            env={**os.environ, **_ENVIRONMENT},
        )
        theirs.close()
        crew = cls(process, control)
        try:
            with control:
                yield crew
        finally:
            await crew.end()

    async def hire(self, job: Job, count: int) -> None:
        """Let there be so many, for one job, and no more later."""
        with self._control:
            for _ in range(count):
                self.workers.append(await _ask_for_one(self._control, job))

    async def lost(self) -> str:
        """How the first process ended that did not end well: its exit code, negative for a signal."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip() or str(await self._process.wait())

    async def end(self) -> None:
        """End what has not ended by itself."""
        through = len(self.workers) > 0 and all(worker.reader.at_eof() for worker in self.workers)
        for worker in self.workers:
            worker.close()
        try:
            async with asyncio.timeout(_GRACE_S if through else 0):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


async def _ask_for_one(control: socket.socket, job: Job) -> Worker:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.suppress(ConnectionError):  # the silence of one that is gone is noticed elsewhere
        socket.send_fds(control, [b"+"], [theirs.fileno()])
    worker = Worker(*await asyncio.open_connection(sock=ours, limit=_LINE_BYTES))
    await worker.say(job.model_dump(mode="json"))
    return worker


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
