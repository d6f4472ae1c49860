"""Explorers that run somewhere: whether they serve what was released last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from geoloc_dagster.errors import ExplorerUnreachableError

_TIMEOUT_S = 10.0
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Deployed:
    """One explorer that serves a release: where, and the seconds until it did."""

    url: str
    seconds: float


def await_served(
    urls: Sequence[str], release: str, *, most_s: float, transport: httpx2.BaseTransport | None = None
) -> list[Deployed]:
    """Wait until every explorer serves a release; each finds it by itself, a second after it is put in place.

    Args:
        urls: of the explorers.
        release: its id.
        most_s: seconds to wait for all of them together.
        transport: in place of the network.

    Raises:
        ExplorerUnreachableError: one of them serves another release or none, or does not answer, by then; it says which and why.
    """
    began, found = time.monotonic(), list[Deployed]()
    with httpx2.Client(timeout=_TIMEOUT_S, transport=transport) as client:
        for url in urls:
            problem = _problem(client, url, release)
            while problem is not None and time.monotonic() - began < most_s:
                time.sleep(_PAUSE_S)
                problem = _problem(client, url, release)
            if problem is not None:
                raise ExplorerUnreachableError(
                    f"{url} does not serve release {release}: {problem}",
                    "Look at its log, start it again, or take it out of `explorer.urls`; then materialise `explorer_deployment`.",
                )
            found.append(Deployed(url, time.monotonic() - began))
    return found


def _problem(client: httpx2.Client, url: str, release: str) -> str | None:
    """Why an explorer does not serve a release; None where it does."""
    try:
        response = client.get(f"{url.rstrip('/')}/health")
    except httpx2.HTTPError as error:
        return f"it does not answer ({type(error).__name__})"
    try:
        said = response.json()
        served, why = said["release"], said["problem"]
    except (ValueError, KeyError, TypeError):
        return f"what answers there is no explorer (status {response.status_code})"
    if served == release:
        return None
    return why or ("it serves none yet" if served is None else f"it serves {served}, perhaps of another region")
