"""An emulated service of the stub city, shared by the tests of one file and brought back to its start before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity


@pytest.fixture(scope="module")
def stub_city() -> StubCity:
    return StubCity()


@pytest.fixture(scope="module")
def shared_service(stub_city: StubCity) -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=stub_city) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared_service: EmulatorThread) -> EmulatorThread:
    shared_service.set_faults({})
    shared_service.set_today(TODAY)
    shared_service.clear_hits()
    return shared_service
