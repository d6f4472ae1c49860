"""Pictures of a list: each photo is a location of its own, seen once, in the direction that the list says or none.

Most are URLs, and asked for; those of the region's own folders are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import urlsplit

from geoloc_dagster.imagery.client import Answer
from geoloc_dagster.imagery.hosts import PictureHosts
from geoloc_dagster.imagery.ingest import Ingest, Prepared
from geoloc_dagster.imagery.licences import is_reserved
from geoloc_dagster.imagery.photo_files import PhotoFiles, name_of
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import (
    Capture,
    Failure,
    Location,
    Negative,
    Panorama,
    RequestFailedError,
    Terms,
    View,
)
from geoloc_dagster.imagery.received import check_picture, failure_of

PhotosOf = Callable[[Sequence[str]], Mapping[str, Photo]]
_UNAVAILABLE = ("photo_unavailable", "photo-unavailable", "image_unavailable", "image-not-found")


class PhotoList:
    """The provider `photo_list`.

    Args:
        photos_of: the photos of location ids; ids that the list does not have are left out.
        terms: of photos that do not say their own.
        hosts: asks for the pictures.
        ingest: how they are kept.
        fov_deg: of the pictures, degrees; a list does not say.
        size_suffix: goes before the suffix of each URL, after `_`: photo hosts name their sizes so.
        files: gives the region's own photos; called where there is one to read.
        max_bytes: a larger one of them is not taken.
    """

    def __init__(
        self,
        photos_of: PhotosOf,
        terms: Terms,
        hosts: PictureHosts,
        ingest: Ingest | None = None,
        *,
        fov_deg: float = 90.0,
        size_suffix: str = "",
        files: Callable[[], PhotoFiles] = lambda: PhotoFiles([]),
        max_bytes: int = 20 << 20,
    ) -> None:
        self.hosts = hosts
        self._photos_of = photos_of
        self._terms = terms
        self._ingest = ingest or Ingest()
        self._fov_deg = fov_deg
        self._size_suffix = size_suffix
        self._files = cache(files)
        self._max_bytes = max_bytes
        self._photos: dict[str, Photo] = {}
        self._threads: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        """`photo_list`."""
        return "photo_list"

    @property
    def terms(self) -> Terms:
        """For the whole; photos may say their own."""
        return self._terms

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Connections, and the thread that makes pictures smaller, for one run."""
        with ThreadPoolExecutor(1, thread_name_prefix="ingest") as self._threads:
            async with self.hosts.session():
                yield

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The one panorama of each photo; nothing is asked for it."""
        self.hold(self._photos_of([location.location_id for location in locations]))
        for location in locations:
            photo = self._photos.get(location.location_id)
            yield Negative(location, "not in the list") if photo is None else self.panorama(location, photo)

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Itself: a photo was taken once."""
        return [panorama]

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """The photo, for each view that is asked for, which is one."""
        for view in views:
            yield await self.fetch(panorama, view)

    def hold(self, photos: Mapping[str, Photo]) -> None:
        """Know these photos, by location id."""
        self._photos.update(photos)
        self.hosts.addresses.name(photo.url for photo in photos.values())

    def release(self, location_id: str) -> None:
        """Forget a photo that is done."""
        self._photos.pop(location_id, None)

    def panorama(self, location: Location, photo: Photo) -> Panorama:
        """A photo as what can be seen from its place."""
        view = View(photo.heading_deg, 0 if photo.heading_deg is None else None, 0.0, self._fov_deg)
        return Panorama(
            location, self.name, photo.captured_on, photo.precision, "flat", pano_id=location.location_id, views=(view,)
        )

    async def fetch(self, panorama: Panorama, view: View) -> Capture | Failure:
        """One photo; raises CollectionStopped where the day's budget is spent."""
        photo = self._photos[panorama.location.location_id]
        if is_reserved(photo.licence or "") and not self._terms.permission:
            return Failure("disallowed", "its licence reserves all rights, and no permission is on record", panorama, view)
        try:
            url, content = await self._bytes(photo.url)
            prepared = await self._prepare(content)
        except RequestFailedError as failure:
            return failure_of(failure, panorama, view)
        return Capture(
            panorama,
            view,
            prepared.image,
            shown(url),
            photo.creator,
            photo.licence,
            photo.attribution,
            size=(prepared.width, prepared.height),
        )

    async def _bytes(self, url: str) -> tuple[str, bytes]:
        """Where a photo came from, and what came."""
        name = name_of(url)
        if name is not None:
            return url, await asyncio.to_thread(self._read, name)
        url = sized(url, self._size_suffix)
        answer = await self.hosts.get(url, _check)
        if any(word in answer.url.lower() for word in _UNAVAILABLE):
            raise RequestFailedError("gone", "the picture is the one that says so", retryable=False)
        return url, answer.body

    def _read(self, name: str) -> bytes:
        """One of the region's own photos; one that cannot be read is tried again another time, when its disk may be back."""
        try:
            content = self._files().read(name, self._max_bytes + 1)
        except OSError as error:
            raise RequestFailedError("unreadable", f"{name}: {error.strerror or error}", retryable=True) from None
        if len(content) > self._max_bytes:
            raise RequestFailedError("too_large", f"{name} has more than {self._max_bytes:,} bytes", retryable=False)
        return content

    async def _prepare(self, content: bytes) -> Prepared:
        if self._ingest.keeps_bytes:  # only its header is read
            return self._ingest.prepare(content)
        assert self._threads is not None, "photos are fetched inside the session"
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ingest.prepare, content)


def sized(url: str, suffix: str) -> str:
    """`…/12_ab.jpg` as `…/12_ab_z.jpg` for `z`; as it is without a suffix, or where the path has none."""
    if not suffix:
        return url
    parts = urlsplit(url)
    stem, dot, end = parts.path.rpartition(".")
    return parts._replace(path=f"{stem}_{suffix}.{end}").geturl() if dot and "/" not in end else url


def shown(url: str) -> str:
    """A URL as it may be stored: without the query, which may hold a signature."""
    return url.split("?")[0].split("#")[0]


def _check(answer: Answer) -> None:
    """As `check_picture`; a placeholder of a photo host means that the photo is gone."""
    try:
        check_picture(answer)
    except RequestFailedError as failure:
        if failure.kind == "no_imagery":
            raise RequestFailedError("gone", failure.detail, retryable=False) from None
        raise
