"""A region whose graph can be evaluated without any data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from geoloc_dagster.config import Settings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.region import Region

BATCHES = ["100m-0000", "100m-0001", "100m-0002"]


@pytest.fixture
def make_region(tmp_path: Path) -> Callable[..., Region]:
    def make(name: str = "aland", **sections: object) -> Region:
        place = {"name": name, "boundary": "region.geojson", "start_point": (60.1, 19.9)}
        return Region(Settings(region=place, data_root=tmp_path / name, folder=tmp_path, **sections))

    return make


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Graph:
    """A region's definitions on an instance, with a condition tick and reported materializations."""

    def __init__(self, region: Region, instance: dg.DagsterInstance, batches: list[str] = BATCHES) -> None:
        self.region, self.instance = region, instance
        self.defs = build_definitions(settings=region.settings)
        self.cursor = None
        instance.add_dynamic_partitions(region.batches.name, batches)

    def done(self, asset: str, *partitions: str | None, passed: bool = True) -> None:
        """Report a materialization, and the result of its blocking check where it has one."""
        for partition in partitions or (None,):
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset_key=self.region.key(asset), partition=partition)
            )

        check = {"catalog": "leakage", "faiss_index": "size", "street_view_metadata": "complete"}.get(asset)
        if check is not None:
            evaluation = dg.AssetCheckEvaluation(asset_key=self.region.key(asset), check_name=check, passed=passed)
            self.instance.report_runless_asset_event(evaluation)

    def tick(self) -> dict[str, set[str | None]]:
        """What the conditions ask for, by asset name."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: dict[str, set[str | None]] = {}
        for asset in self.defs.resolve_asset_graph().toposorted_asset_keys:
            partitions = result.get_requested_partitions(asset)
            if partitions:
                asked[asset.path[-1]] = set(partitions)
        return asked

    def run(self, asset: str, partition: str | None = None) -> bool:
        """Really execute one asset; False where it failed."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[self.region.key(asset)],
            partition_key=partition,
            raise_on_error=False,
        ).success


@pytest.fixture
def graph(make_region: Callable[..., Region], instance: dg.DagsterInstance) -> Graph:
    return Graph(make_region(), instance)
