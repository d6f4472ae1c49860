"""The provider of photo lists as the tests build it: the real client and channel, and waits that do not last."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from geoloc_dagster.imagery.bulk_job import Job
from geoloc_dagster.imagery.bulk_processes import Crew
from geoloc_dagster.imagery.photo_folder import Download, download
from geoloc_dagster.imagery.photo_list import PhotoList
from geoloc_dagster.imagery.photo_table import Photo, read_photo_lists
from geoloc_dagster.imagery.provider import Capture, Failure, Location

NOW = dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC)


def job(folder: Path, **options: Any) -> Job:
    """A quick job; attempts are few, as each of them waits for a random time."""
    began = {"now": NOW, "began_at": dt.datetime.now(dt.UTC), "buckets": folder / "buckets.sqlite", "target": folder / "out"}
    quick = {"sink": "folder", "rate": 2_000.0, "attempts": 2, "deadline_s": 5.0, "licence": "CC-BY-4.0", "attribution": "us"}
    return Job(**{**began, **quick, **options})


def photos_of(url: str, folder: Path, name: str = "list.csv") -> dict[str, Photo]:
    """A list of the emulated photo host, downloaded and read."""
    path = folder / name
    path.write_bytes(httpx2.get(f"{url}/photos/{name}").content)
    return {photo.photo_id: photo for photo in read_photo_lists([path]).photos}


def write_list(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    """Rows as a CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def at(photo: Photo) -> Location:
    return Location(photo.photo_id, photo.lat_deg or 0.0, photo.lng_deg or 0.0)


def run(provider: PhotoList, ask: Callable[[PhotoList], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with provider.session():
            return await ask(provider)

    return asyncio.run(inside())


def fetch(provider: PhotoList, *photos: Photo) -> list[Capture | Failure]:
    """What becomes of photos, asked for one after the other as the protocol has it."""

    async def ask(one: PhotoList) -> list[Capture | Failure]:
        answers: list[Capture | Failure] = []
        async for panorama in one.find([at(photo) for photo in photos]):
            (same,) = await one.history(panorama)  # type: ignore[arg-type]
            answers += [answer async for answer in one.capture(same, same.views)]
        return answers

    return run(provider, ask)


def provider(folder: Path, photos: Mapping[str, Photo], **options: Any) -> PhotoList:
    """The provider of these photos."""
    return job(folder, **options).provider(lambda ids: {one: photos[one] for one in ids if one in photos})


def download_list(one: Job, path: Path, processes: int = 2, **options: Any) -> Download:
    """What `geoloc download` does."""

    async def fetch() -> Download:
        async with Crew.called_up(one.sink) as crew:
            return await download(one, path, crew, processes=processes, **options)

    return asyncio.run(fetch())
