"""What every wiring module needs to know of the region: its settings, keys and partition sets.

Belongs here: how names carry the region, and how an asset body is wrapped. Does not belong here: any single asset.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import open_data_root
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.object_storage.problems import storage_problem

AssetFunction = Callable[..., dg.MaterializeResult]


@dataclass(frozen=True)
class Region:
    """One region's settings, and the names that they give to things in Dagster and MLflow."""

    settings: Settings

    @property
    def name(self) -> str:
        """The region's name, prefix of everything."""
        return self.settings.region.name

    @property
    def layout(self) -> Layout:
        """Where this region's artifacts lie."""
        return Layout(self.settings.data_root)

    def fresh_layout(self) -> Layout:
        """The same, with what other machines have published, where the data root is in object storage."""
        return open_data_root(self.settings)

    @functools.cached_property
    def batches(self) -> dg.DynamicPartitionsDefinition:
        """The batches of locations; keys are registered by `buffer_csvs`."""
        return dg.DynamicPartitionsDefinition(name=f"{self.name}_batches")

    @functools.cached_property
    def recipes(self) -> dg.StaticPartitionsDefinition:
        """The recipes that the configuration names: a fixed set, so nothing has to be registered."""
        return dg.StaticPartitionsDefinition(self.settings.recipes)

    def recipes_of(self, kind: str) -> list[str]:
        """The recipes of one kind that place photos, in the order of the configuration; reads their files, nothing else."""
        from geoloc_dagster.learning.recipe import load_recipe

        read = [load_recipe(name, self.settings.folder) for name in self.settings.recipes]
        return [recipe.name for recipe in read if recipe.kind == kind and recipe.places_photos]

    @property
    def model_name(self) -> str:
        """MLflow experiment and registered model."""
        return f"geoloc-{self.name.replace('_', '-')}"

    def service_pool(self, provider: str) -> str | None:
        """The Dagster pool of everything that asks one service, of whatever region; None where none is asked."""
        return None if provider in ("csv", "folder") else f"geoloc_{provider}"

    @property
    def pictures(self) -> str:
        """The asset that collects: `photos` of a list, `panoramas` of everything else."""
        return self.settings.capture.asset

    def key(self, name: str) -> dg.AssetKey:
        """The asset key under the region's prefix."""
        return dg.AssetKey([self.name, name])

    def all_of(self, name: str) -> dg.AssetDep:
        """A dependency on every partition of an asset."""
        return dg.AssetDep(self.key(name), partition_mapping=dg.AllPartitionMapping())

    def unpartitioned(self, name: str) -> dg.AssetDep:
        """A dependency of a partitioned asset on one that has no partitions."""
        return dg.AssetDep(self.key(name))

    def asset(
        self,
        group: str,
        *,
        name: str | None = None,
        deps: Sequence[str | dg.AssetDep] = (),
        checks: Sequence[dg.AssetCheckSpec] = (),
        **options: Any,
    ) -> Callable[[AssetFunction], dg.AssetsDefinition]:
        """`dg.asset` under the region's prefix whose user errors fail the step once, with cause and remedy."""

        def decorate(function: AssetFunction) -> dg.AssetsDefinition:
            return dg.asset(
                key=self.key(name or function.__name__),
                group_name=group,
                deps=[self.key(dep) if isinstance(dep, str) else dep for dep in deps],
                check_specs=list(checks),
                **options,
            )(failing_once(self._on_fresh_data(function)))

        return decorate

    def _on_fresh_data(self, function: AssetFunction) -> AssetFunction:
        """The asset, which begins with what other machines have published."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> dg.MaterializeResult:
            self.fresh_layout()
            return function(*args, **kwargs)

        return wrapped


def _failure_facts(error: GeolocError) -> dict[str, Any]:
    """What a failed step says of itself: the class of the problem, its cause and remedy, and what was done before it."""
    said = {"code": error.code, "class": error.failure_class, "cause": error.cause, "remedy": error.remedy}
    known = {name: value for name, value in error.facts.items() if value is not None}
    return said | {name: dg.MetadataValue.path(value) if isinstance(value, Path) else value for name, value in known.items()}


def _failure(error: GeolocError) -> dg.Failure:
    return dg.Failure(description=str(error), metadata=_failure_facts(error), allow_retries=False)


def failing_once(function: AssetFunction) -> AssetFunction:
    """Turn a `GeolocError` into a `dg.Failure` that is not retried: trying again would fail in the same way."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> dg.MaterializeResult:
        try:
            return function(*args, **kwargs)
        except GeolocError as error:
            raise _failure(error) from error
        except (OSError, ValueError, RuntimeError) as error:  # what Lance raises where object storage is away
            problem = storage_problem(error)
            if problem is None:
                raise
            raise _failure(problem) from error

    return wrapped
