"""Class maps of emulated pictures, from the emulator that drew them: whatever the tables hold of a picture names its map.

A street view of the city has its map beside the Static API's pictures, under the same parameters; a panorama id of yesterday will
do. A photo of the planet has it under the photo's own address. Each map names its classes.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

from geoloc_dagster.dataset.class_maps import ClassMaps, decode_map, numbers_of
from geoloc_dagster.errors import CollectionSourceError, ImageError
from geoloc_dagster.imagery.client import Answer, ServiceClient
from geoloc_dagster.imagery.provider import CollectionStopped, RequestFailedError
from geoloc_dagster.imagery.received import check_picture

MAP_PATH = "/maps/api/streetview/classes"
COLUMNS = ("capture_id", "provider", "source_url", "pano_id", "heading_deg", "pitch_deg", "fov_deg", "width", "height")
"""Of a capture: what its map is asked for by."""
_VIEW = ("size", "pano", "heading", "fov", "pitch")
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
Request = tuple[str, dict[str, str]]


def map_request(capture: Mapping[str, Any]) -> Request | None:
    """Path (or whole address) and parameters of the map of a capture with `COLUMNS`; None where no emulator drew it."""
    parts = urlsplit(capture["source_url"] or "")
    if capture["provider"] in ("emulator", "google"):
        asked = dict(parse_qsl(parts.query))
        return (MAP_PATH, {name: asked[name] for name in _VIEW}) if asked.keys() >= set(_VIEW) else None
    if capture["provider"] == "google_maps" and capture["pano_id"]:
        size = f"{capture['width']}x{capture['height']}"
        angles = {name: f"{capture[f'{name}_deg'] or 0:g}" for name in ("heading", "fov", "pitch")}
        return MAP_PATH, {"size": size, "pano": capture["pano_id"], **angles}
    if parts.hostname in _THIS_MACHINE and parts.path.startswith("/planet/photos/") and parts.path.endswith(".jpg"):
        path = parts.path.replace("/photos/", "/maps/", 1).removesuffix("jpg") + "png"
        return f"{parts.scheme}://{parts.netloc}{path}", {}
    return None


async def fetch_maps(client: ServiceClient, captures: Sequence[Mapping[str, Any]]) -> dict[str, ClassMaps]:
    """Maps by capture id, as large as the emulator's pictures; captures that no emulator drew are left out.

    Raises:
        CollectionSourceError: some maps cannot be had; says how many and why the first.
        ServiceKeyError, ServiceBlockedError, ServiceUnavailableError: as the client.
    """
    requests = {str(capture["capture_id"]): map_request(capture) for capture in captures}
    wanted = {capture_id: request for capture_id, request in requests.items() if request is not None}

    async def one(request: Request) -> ClassMaps | RequestFailedError:
        try:
            answer = await client.get(*request, expect="image", check=_check_map)
            return _common(answer.body)
        except RequestFailedError as failure:
            return failure

    async with client.session():
        try:
            answers = await asyncio.gather(*map(one, wanted.values()))
        except CollectionStopped as stopped:
            raise CollectionSourceError(
                f"class maps are no longer asked for: {stopped}", "Raise the budget of `service:`."
            ) from None
    found = dict(zip(wanted, answers, strict=True))
    failed = {name: answer for name, answer in found.items() if isinstance(answer, RequestFailedError)}
    if failed:
        name, failure = next(iter(failed.items()))
        cause = f"{len(failed):,} of {len(wanted):,} class maps cannot be had from the emulator, the first of {name} ({failure})"
        raise CollectionSourceError(cause, "Start the emulator that the pictures came from, with its seed, and run this again.")
    return {name: answer for name, answer in found.items() if not isinstance(answer, RequestFailedError)}


def _common(body: bytes) -> ClassMaps:
    """A map in the numbers of the common list."""
    with Image.open(io.BytesIO(body)) as image:
        names = str(image.info["classes"]).split(",")
    return numbers_of(names)[decode_map(body)]


def _check_map(answer: Answer) -> None:
    """Raise `RequestFailedError` where the body is no whole class map that names its classes."""
    check_picture(answer)
    try:
        classes = decode_map(answer.body)
        with Image.open(io.BytesIO(answer.body)) as image:
            named = str(image.info.get("classes", "")).split(",")
    except ImageError as error:
        raise RequestFailedError("undecodable", error.cause, retryable=False) from None
    if int(np.max(classes)) >= len(named):
        raise RequestFailedError("invalid_answer", "a class map that does not name its classes", retryable=False)
