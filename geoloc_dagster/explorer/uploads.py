"""Photos from strangers: read within limits, kept in memory alone, decoded apart from the answers.

Nothing of a photo is written anywhere: the parser's own temporary files are kept from ever reaching a disk, and of EXIF nothing
but the orientation is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from geoloc_dagster.config.explorer import ExplorerSettings
from geoloc_dagster.errors import ImageError
from geoloc_dagster.explorer.problems import Problem, problem_of
from geoloc_dagster.explorer.serving import Served
from geoloc_dagster.imagery.quality import open_header
from geoloc_dagster.prediction.photo import as_picture
from geoloc_dagster.retrieval.encoder import Pictures

FIELD = "photos"
_LONGEST_NAME = 200
_FORM_BYTES = 16_384  # of boundaries and headers, per photo


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo as it came: what its sender calls it, and its bytes."""

    name: str
    content: bytes


class _InMemory(MultiPartParser):
    """A parser whose files never leave memory, each at most `photo_bytes` long."""

    def __init__(self, request: Request, stream: AsyncGenerator[bytes, None], limits: ExplorerSettings) -> None:
        super().__init__(request.headers, stream, max_files=limits.photos_per_request, max_fields=8)
        self._most, self._lengths = limits.photo_bytes, dict[int, int]()
        self.spool_max_size = limits.photo_bytes + 1

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Count before anything is kept."""
        part = id(self._current_part)
        self._lengths[part] = self._lengths.get(part, 0) + end - start
        if self._lengths[part] > self._most:
            raise Problem(413, f"a photo has more than {self._most:,} bytes")
        super().on_part_data(data, start, end)


async def read_uploads(request: Request, limits: ExplorerSettings, count: Callable[[int], None]) -> list[Upload]:
    """The photos of a multipart request; `count` is told of every byte that is held, before it is.

    Raises:
        Problem: it is no such request (415, 400), holds no photo (422), too many or too large ones (413), or is too slow (408).
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(415, f"send photos as multipart/form-data, in fields called `{FIELD}`")
    most = limits.request_bytes + limits.photos_per_request * _FORM_BYTES
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise Problem(413, f"the request has more than {limits.request_bytes:,} bytes")
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await _InMemory(request, _limited(request, most, count), limits).parse()
    except TimeoutError as error:
        raise Problem(408, f"the upload took longer than {limits.upload_seconds:g} s", {"Connection": "close"}) from error
    except MultiPartException as error:
        raise _of_parser(error, limits) from error
    uploads: list[Upload] = []
    for field, part in form.multi_items():
        if isinstance(part, UploadFile):
            if field != FIELD:
                raise Problem(422, f"photos belong in fields called `{FIELD}`, not {_shown(field)}")
            uploads.append(Upload(_shown(part.filename or "photo"), await part.read()))
    if not uploads:
        raise Problem(422, f"the request holds no photo in a field called `{FIELD}`")
    return uploads


def decoded(upload: Upload, served: Served, limits: ExplorerSettings) -> dict[int, Pictures]:
    """A photo as the networks look at it: side -> uint8 (1, 3, side, side).

    Raises:
        Problem: it is empty or broken (422), not a JPEG, PNG or WebP (415), or has too many pixels (413).
    """
    if not upload.content:
        raise Problem(422, "the file is empty")
    try:
        open_header(upload.content, limits.photo_pixels).close()
    except ImageError as error:
        raise Problem(415 if error.cause.startswith("not a JPEG") else problem_of(error).status, error.cause) from error
    try:
        return {size: as_picture(upload.content, size)[None] for size in served.sizes}
    except ImageError as error:
        raise problem_of(error) from error


def _of_parser(error: MultiPartException, limits: ExplorerSettings) -> Problem:
    if "Too many files" in error.message:
        return Problem(413, f"more than {limits.photos_per_request:,} photos at once; send them in parts")
    return Problem(400, f"the form cannot be read: {error.message}")


async def _limited(request: Request, most: int, count: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > most:
            raise Problem(413, f"the request has more than {most:,} bytes")
        count(len(chunk))
        yield chunk


def _shown(name: str) -> str:
    """What a sender calls a file, fit to be shown: it names nothing here."""
    return "".join(character for character in name if character.isprintable())[:_LONGEST_NAME]
