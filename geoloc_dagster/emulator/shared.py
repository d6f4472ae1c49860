"""The emulated city of this process: started when it is first asked for, and ended with the process."""

from __future__ import annotations

import atexit
import datetime as dt
import os

from geoloc_dagster.config import Settings
from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.emulator.process import EmulatorProcess

URL_VARIABLE = "GEOLOC_EMULATOR_URL"
_running: dict[tuple[tuple[float, float], int, float], EmulatorProcess] = {}


def shared_emulator(settings: Settings, *, today: dt.date | None = None, outlive_exec: bool = False) -> str:
    """The address of an emulator of this region's city.

    Args:
        settings: the region; its start point and `emulator` section say which city.
        today: the date in the city, for an emulator that is started here; the real one, day after day, where None.
        outlive_exec: whether this process is about to become another program that shall keep the city.

    Returns:
        What GEOLOC_EMULATOR_URL says where it is set, else the address of a child process.
    """
    known = os.environ.get(URL_VARIABLE)
    if known:
        return known
    city = (settings.region.start_point, settings.emulator.seed, settings.emulator.latency_ms)
    if city not in _running:
        origin, seed, latency_ms = city
        process = EmulatorProcess.start(origin, seed=seed, today=today, latency_ms=latency_ms, hands=processes_by_default())
        if outlive_exec:
            process.outlive_exec()
        atexit.register(process.stop)
        _running[city] = process
    return _running[city].url
