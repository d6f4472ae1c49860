"""The outside world, replaceable in tests and by other deployments: time, imagery, and experiment tracking.

A resource only builds the plain client that domain code works with; no algorithm and no retry logic lives here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from geoloc_dagster.config import Settings

if TYPE_CHECKING:
    from geoloc_dagster.imagery.provider import Provider
    from geoloc_dagster.learning.tracking import MlflowTarget


class Clock(dg.ConfigurableResource):
    """The time of day; tests replace it."""

    def now(self) -> dt.datetime:
        """The current time, aware, in UTC."""
        return dt.datetime.now(dt.UTC)


class Imagery(dg.ConfigurableResource):
    """The provider of street views that the configuration names."""

    _settings: Settings | None = PrivateAttr(default=None)
    _provider: Any = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> Imagery:
        """The resource for one region's configuration."""
        resource = cls()
        resource._settings = settings
        return resource

    def provider(self) -> Provider:
        """Build the provider once per process: indexing an archive takes seconds."""
        from geoloc_dagster.imagery.factory import build_provider

        if self._provider is None:
            assert self._settings is not None, "Imagery.of(settings) builds this resource"
            self._provider = build_provider(self._settings)
        return self._provider


class Mlflow(dg.ConfigurableResource):
    """Experiment tracking; one run per training, linked to its Dagster run in both directions."""

    tracking_uri: str
    artifact_location: str
    experiment: str

    @contextlib.contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Generator[MlflowTarget]:
        """Open a run and end it as FINISHED or FAILED, whatever happens inside."""
        from geoloc_dagster.learning.tracking import tracked_run

        with tracked_run(self.tracking_uri, self.experiment, self.artifact_location, name, tags) as target:
            yield target
