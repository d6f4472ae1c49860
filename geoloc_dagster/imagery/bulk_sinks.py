"""Where a fetching process puts its pictures: the captures table, or plain files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.bulk_job import Job
from geoloc_dagster.imagery.ingest import suffix_of
from geoloc_dagster.imagery.provider import Capture, Failure

Say = Callable[[Mapping[str, Any]], None]
_FILES_SAID = 64


class Sink(Protocol):
    """Takes answers, and says what became of them."""

    async def add(self, answer: Capture | Failure) -> None:
        """Take one answer."""
        ...

    async def close(self) -> None:
        """Hand over the rest."""
        ...


class FolderSink:
    """Writes each picture as a file, whole or not at all; says what came and what did not.

    Args:
        job: what is fetched.
        say: hands over.
    """

    def __init__(self, job: Job, say: Say) -> None:
        self._job = job
        self._say = say
        self._files: list[list[Any]] = []
        self._folders: set[Path] = set()

    async def add(self, answer: Capture | Failure) -> None:
        """A file, or the kind of failure."""
        photo_id = answer.panorama.location.location_id
        if isinstance(answer, Failure):
            self._files.append([photo_id, "", answer.kind, answer.detail, answer.retryable])
        else:
            name = file_name(photo_id, suffix_of(answer.image))
            path = self._job.target / name
            if path.parent not in self._folders:
                path.parent.mkdir(exist_ok=True)
                self._folders.add(path.parent)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_bytes(answer.image)
            failpoint("bulk.written")
            temporary.replace(path)
            self._files.append([photo_id, name, "ok", "", False])
        failpoint("bulk.row")
        if len(self._files) >= _FILES_SAID:
            await self.close()

    async def close(self) -> None:
        """Say the rest."""
        files, self._files = self._files, []
        if files:
            self._say({"files": files})


def file_name(photo_id: str, suffix: str) -> str:
    """`3f/12345.jpg`: one of 256 folders, because some systems are slow with millions of files in one."""
    return f"{hashlib.blake2b(photo_id.encode(), digest_size=1).hexdigest()}/{photo_id}{suffix}"


def make_sink(job: Job, say: Say) -> Sink:
    """The sink that the job names."""
    if job.sink == "folder":
        return FolderSink(job, say)
    from geoloc_dagster.imagery.bulk_rows import TableSink  # loads what a folder needs nothing of

    return TableSink(job, say)
