"""One of several processes that ask the same service: `python -m … URL STATE RATE BURST COUNT`; prints how many were answered."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from geoloc_dagster.imagery.buckets import HostBuckets
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.google import GoogleStreetView
from geoloc_dagster.imagery.provider import Terms
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, STEP_DEG


async def ask(url: str, state: Path, rate: float, burst: int, count: int) -> int:
    etiquette = Etiquette(requests_per_second=rate, burst=burst, attempts=10, deadline_s=10, breaker_failures=100)
    client = ServiceClient("emulator", url, etiquette, buckets=HostBuckets(state))
    street = GoogleStreetView(client, Terms("CC0-1.0", "emulated city"), name="emulator")
    async with street.session():
        answers = await asyncio.gather(*(street.lookup(ORIGIN[0], ORIGIN[1] + i % 7 * STEP_DEG) for i in range(count)))
    return sum(answer.status == "OK" for answer in answers)


if __name__ == "__main__":
    url, state, rate, burst, count = sys.argv[1:]
    print(asyncio.run(ask(url, Path(state), float(rate), int(burst), int(count))))  # noqa: T201
