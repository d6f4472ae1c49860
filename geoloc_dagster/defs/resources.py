"""The outside world, replaceable in tests and by other deployments: time, imagery, engines, and experiment tracking.

A resource only builds the plain client that domain code works with; no algorithm and no retry logic lives here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.config import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from geoloc_dagster.alerts import Alert
    from geoloc_dagster.imagery.client import ServiceClient
    from geoloc_dagster.imagery.lookups import CoverageService
    from geoloc_dagster.imagery.provider import Provider
    from geoloc_dagster.learning.tracking import MlflowTarget
    from geoloc_dagster.prediction.champion import Champion
    from geoloc_dagster.scale.engine import Engine


class Clock(dg.ConfigurableResource):
    """The time of day; tests replace it."""

    def now(self) -> dt.datetime:
        """The current time, aware, in UTC."""
        return dt.datetime.now(dt.UTC)


class Imagery:
    """The services that the configuration names; a plain object, as it needs no configuration of its own.

    An emulated city is a process of its own, started when it is first asked and ended with this process, unless
    GEOLOC_EMULATOR_URL names one that runs already.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._provider: Provider | None = None
        self._coverage: CoverageService | None = None

    def provider(self) -> Provider:
        """Build the provider of pictures once per process: indexing an archive takes seconds."""
        from geoloc_dagster.imagery.factory import build_provider

        if self._provider is None:
            self._provider = build_provider(self._settings, emulator_url=self._emulator_url, now=self._clock.now)
        return self._provider

    def coverage(self) -> CoverageService:
        """The service that lookups ask."""
        from geoloc_dagster.imagery.factory import build_service

        if self._coverage is None:
            name = self._settings.coverage.provider
            self._coverage = build_service(self._settings, name, emulator_url=self._emulator_url, now=self._clock.now)
        return self._coverage

    def emulated_maps(self) -> ServiceClient:
        """What is asked for the class maps of emulated pictures."""
        from geoloc_dagster.imagery.factory import build_emulated_maps

        return build_emulated_maps(self._settings, emulator_url=self._emulator_url, now=self._clock.now)

    def _emulator_url(self) -> str:
        from geoloc_dagster.emulator.shared import shared_emulator

        return shared_emulator(self._settings, today=self._clock.now().date())


class Scale:
    """Where the data-parallel work of a step is done, as GEOLOC_ENGINE says at that moment."""

    def engine(self) -> Engine:
        """The engine; a Ray cluster is joined here, once per process."""
        from geoloc_dagster.scale.engine import chosen_engine

        return chosen_engine(os.environ)


class Webhook:
    """Where failed runs are told; the address is a secret, read from the environment each time and kept nowhere."""

    def __init__(self, variable: str, timeout_s: float) -> None:
        self.variable = variable
        self._timeout_s = timeout_s

    def configured(self) -> bool:
        """Whether there is an address."""
        return bool(os.environ.get(self.variable))

    def send(self, alert: Alert) -> str | None:
        """Post an alert; None where it was taken, else why not, without the address."""
        from geoloc_dagster.alerts import post_alert

        return post_alert(os.environ.get(self.variable, ""), alert, timeout_s=self._timeout_s)


class Mlflow(dg.ConfigurableResource):
    """Experiment tracking; one run per training, linked to its Dagster run in both directions."""

    tracking_uri: str
    artifact_location: str | None
    experiment: str
    page: str | None = None  # where people see it, if elsewhere than processes log to it

    @contextlib.contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Generator[MlflowTarget]:
        """Open a run and end it as FINISHED or FAILED, whatever happens inside."""
        from geoloc_dagster.learning.tracking import tracked_run

        with tracked_run(self.tracking_uri, self.experiment, self.artifact_location, name, tags, page=self.page) as target:
            yield target

    def attach(self, run_id: str | None, folder: Path, figures: Mapping[str, float | int | str]) -> None:
        """Add an evaluation's figures and files to the run of its training; nothing where that was not tracked."""
        from geoloc_dagster.learning.tracking import attach_results

        if run_id is not None:
            numbers = {name: float(value) for name, value in figures.items() if not isinstance(value, str)}
            attach_results(self.tracking_uri, run_id, numbers, folder)

    def set_champion(self, model_name: str, champion: Champion) -> str:
        """Point the alias of the registered model at the champion; returns the version's number."""
        from geoloc_dagster.prediction.alias import point_alias

        return point_alias(self.tracking_uri, model_name, champion)
