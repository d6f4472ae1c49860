"""Asking a running explorer about photos, as `geoloc predict --url` does: in parts, answers as they come."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import httpx2

from geoloc_dagster.errors import ExplorerUnreachableError, ImageError
from geoloc_dagster.storage import atomic_path

_AT_ONCE = 50
_TIMEOUT_S = 120.0
_RADIUS = "probability_within_m"
COLUMNS = ("photo", "lat_deg", "lng_deg", "answered", "refusal", "district", "region_km2", "error")


def ask_explorer(
    url: str,
    photos: Sequence[Path],
    *,
    coverage: float,
    expert: str | None,
    top: int,
    transport: httpx2.BaseTransport | None = None,
) -> Iterator[dict[str, Any]]:
    """One answer per photo, in their order, as `/predict` gives them; `photo` is the path as it was named.

    Args:
        url: of the explorer.
        photos: JPEG, PNG or WebP files.
        coverage: of the regions.
        expert: asked alone; None for all together.
        top: candidates of each.
        transport: in place of the network.

    Raises:
        ExplorerUnreachableError: nothing answers there, it refuses all of them, or it ends before the last.
        ImageError: a photo cannot be read.
    """
    query: dict[str, Any] = {"coverage": coverage, "top": top} | ({} if expert is None else {"expert": expert})
    with httpx2.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT_S, transport=transport) as client:
        for start in range(0, len(photos), _AT_ONCE):
            part = photos[start : start + _AT_ONCE]
            with _translated(url):
                yield from _ask(client, part, query, url)


def _ask(client: httpx2.Client, photos: Sequence[Path], query: dict[str, Any], url: str) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as opened:
        files = [("photos", (photo.name, opened.enter_context(_opened(photo)))) for photo in photos]
        headers = {"Accept": "application/x-ndjson"}
        with client.stream("POST", "/predict", params=query, files=files, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                raise ExplorerUnreachableError(f"{url} answered {response.status_code}: {_detail(response)}")
            lines = (line for line in response.iter_lines() if line)
            for photo in photos:
                if (line := next(lines, None)) is None:
                    raise ExplorerUnreachableError(f"{url} ended its answer before {photo.name}; its log says why")
                yield {**json.loads(line), "photo": str(photo)}


def write_answers(answers: Iterator[dict[str, Any]], path: Path | None) -> tuple[int, int]:
    """Write answers as CSV, or as JSON lines where the file is called so or there is none; (answers, photos refused as such).

    Args:
        answers: of `ask_explorer`.
        path: `.csv`, `.jsonl` or `.ndjson`, replaced as a whole; standard output without one.
    """
    if path is None:
        return _write(answers, sys.stdout, as_csv=False)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        return _write(answers, file, as_csv=path.suffix.lower() == ".csv")


def _write(answers: Iterator[dict[str, Any]], file: IO[str], *, as_csv: bool) -> tuple[int, int]:
    table, count, refused = csv.writer(file), 0, 0
    radii: list[str] | None = None  # known with the first photo that is answered
    early: list[dict[str, Any]] = []
    for answer in answers:
        count += 1
        refused += "error" in answer
        if not as_csv:
            file.write(json.dumps(answer) + "\n")
            continue
        if radii is None and "error" in answer:
            early.append(answer)
            continue
        if radii is None:
            radii = list(answer[_RADIUS] or ())
            table.writerow([*COLUMNS, *(f"within_{radius}_m" for radius in radii)])
            table.writerows(_row(one, radii) for one in early)
        table.writerow(_row(answer, radii))
    if as_csv and radii is None:
        table.writerow(COLUMNS)
        table.writerows(_row(one, []) for one in early)
    return count, refused


def _row(answer: dict[str, Any], radii: list[str]) -> list[Any]:
    if "error" in answer:
        return [answer["photo"], *[""] * (len(COLUMNS) - 2), answer["error"]["detail"], *[""] * len(radii)]
    region = answer["region"] or {}
    said = [answer[name] for name in ("photo", "lat_deg", "lng_deg", "answered", "refusal", "district")]
    within = answer[_RADIUS] or {}
    return [*said, region.get("area_km2"), "", *(within.get(radius) for radius in radii)]


@contextlib.contextmanager
def _translated(url: str) -> Generator[None]:
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ExplorerUnreachableError(f"no explorer answers at {url}: {error}") from error
    except ValueError as error:  # another server, or an answer that was cut off
        raise ExplorerUnreachableError(f"what {url} answered is not what an explorer says: {error}") from error


def _opened(photo: Path) -> IO[bytes]:
    try:
        return photo.open("rb")
    except OSError as error:
        raise ImageError(f"cannot read {photo}: {error.strerror}", "Give the path of a JPEG, PNG or WebP file.") from error


def _detail(response: httpx2.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(response.json()["detail"])
    return response.reason_phrase
