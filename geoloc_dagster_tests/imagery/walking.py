"""A browser for tests, and collecting with one in a process of its own, so that it can be killed.

`python -m geoloc_dagster_tests.imagery.walking CONFIG LOCATIONS` collects; `… start RECORDS` starts a browser and waits.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.imagery.browser import Browser, missing_programs
from geoloc_dagster.imagery.client import Etiquette, ServiceClient, user_agent
from geoloc_dagster.imagery.collect import collect_batch, requested_views
from geoloc_dagster.imagery.evidence import Evidence
from geoloc_dagster.imagery.factory import build_provider
from geoloc_dagster.imagery.google_maps import GoogleMaps
from geoloc_dagster.imagery.maps_walks import Walks
from geoloc_dagster.imagery.provider import Location, Terms, View

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
QUICK = Etiquette(requests_per_second=500, burst=50, concurrency=16, deadline_s=15, attempts=3, breaker_failures=100)
PERMITTED = Terms("proprietary", "© Google", may_store=False, may_train=False, permission="letter of 2026-05-01")


class KeptBrowser(Browser):
    """One that outlives the sessions of its users, because starting one takes a second."""

    def close(self) -> None:
        """Not yet."""

    def end(self) -> None:
        """Now."""
        super().close()


def require_browser() -> None:
    """Skip where the browser is missing; on the build server it must be there."""
    missing = missing_programs()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"{' and '.join(missing)} cannot be run")
    assert not missing, f"the build server must have {' and '.join(missing)}"


def kept_browser(records: Path) -> Iterator[KeptBrowser]:
    """For a fixture."""
    require_browser()
    browser = KeptBrowser(records, switches=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
    yield browser
    browser.end()


async def at_once(seconds: float) -> None:
    """Wait, but not long."""
    await asyncio.sleep(min(seconds, 0.01))


def google_maps(url: str, browser: Browser, evidence: Path, *, etiquette: Etiquette = QUICK, **options: Any) -> GoogleMaps:
    """The provider at an emulated city; options of the client, of the walks, or of the provider."""
    of_client = {name: options.pop(name) for name in ("allowed", "ledger", "budgets", "buckets") if name in options}
    of_provider = {name: options.pop(name) for name in ("fov_deg", "history") if name in options}
    client = ServiceClient("google_maps", url, etiquette, sleep=at_once, **of_client)
    keep = Evidence(evidence, "google_maps", lambda: NOW.date()).keep
    walks = Walks(client, lambda: browser, keep, user_agent=user_agent(), **{"size": (320, 320), "workers": 1, **options})
    return GoogleMaps(walks, PERMITTED, **of_provider)


def looking(*headings_deg: float) -> list[View]:
    """Level views of 90 degrees."""
    return [View(float(heading), None, 0.0, 90.0) for heading in headings_deg]


def shift_px(picture: np.ndarray, reference: np.ndarray) -> float:
    """How far a picture lies to the right of a reference, pixels, to a fraction: the peak of their phase correlation."""
    a, b = (np.fft.fft2((image - image.mean()) * np.hanning(image.shape[1])) for image in (picture, reference))
    cross = a * np.conj(b)
    peak = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real[0]
    k = int(peak.argmax())
    left, middle, right = (peak[(k + d) % len(peak)] for d in (-1, 0, 1))
    shift = k + (right - left) / (2 * (2 * middle - left - right))
    return (shift + len(peak) / 2) % len(peak) - len(peak) / 2


def collect(config: Path, locations: Sequence[Location]) -> None:
    """Collect one batch as the configuration says."""
    settings = load_settings(config, environ={})
    layout = Layout(settings.data_root)

    def no_emulator() -> str:
        raise AssertionError("the maps site is named by its address")

    result = asyncio.run(
        collect_batch(
            build_provider(settings, emulator_url=no_emulator, now=lambda: NOW),
            locations,
            "100m-0000",
            layout.panoramas,
            visits_path=layout.visits,
            run_id="one",
            now=NOW,
            commit_rows=settings.capture.commit_rows,
            views=requested_views(settings.capture),
            complete_since=NOW - dt.timedelta(days=30),
            concurrency=settings.browser.workers,
        )
    )
    say(json.dumps({"new": result.rows_new, "pending": result.pending}))


def say(line: str) -> None:
    """For the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    what, argument = sys.argv[1:3]
    if what == "start":
        started = Browser(Path(argument))
        say(json.dumps({"pid": started.pid}))
        sys.stdin.read()
    else:
        collect(Path(what), [Location(**one) for one in json.loads(argument)])
