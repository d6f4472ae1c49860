"""Two regions in one workspace and on one instance: nothing of the one shows up in the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.region import Region
from geoloc_dagster.errors import DataRootError
from geoloc_dagster_tests.defs.conftest import Graph
from geoloc_dagster_tests.end_to_end.city import write_city

NAMES = ("aland", "gotland")


@pytest.fixture
def graphs(make_region: Callable[..., Region], instance: dg.DagsterInstance) -> tuple[Graph, Graph]:
    """Different batch keys, to see at once whose they are."""
    first, second = (make_region(name) for name in NAMES)
    return Graph(first, instance, ["100m-0000"]), Graph(second, instance, ["75m-0000", "75m-0001"])


def names_of(graph: Graph) -> set[str]:
    repository = graph.defs.get_repository_def()
    sensors = {sensor.name for sensor in repository.sensor_defs}
    schedules = {schedule.name for schedule in repository.schedule_defs}
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    keys = {key.to_user_string() for key in graph.defs.resolve_asset_graph().get_all_asset_keys()}
    return sensors | schedules | jobs | keys


def test_no_name_is_in_both(graphs: tuple[Graph, Graph]) -> None:
    first, second = map(names_of, graphs)
    assert len(first) == len(second) > 15
    assert not first & second


def test_partitions_do_not_mix(graphs: tuple[Graph, Graph], instance: dg.DagsterInstance) -> None:
    first, second = graphs
    assert instance.get_dynamic_partitions(first.region.batches.name) == ["100m-0000"]
    assert instance.get_dynamic_partitions(second.region.batches.name) == ["75m-0000", "75m-0001"]


def test_materializations_and_automation_do_not_mix(graphs: tuple[Graph, Graph], instance: dg.DagsterInstance) -> None:
    first, second = graphs
    for asset in ("region_boundary", "grid_points", "street_view_metadata", "buffer_csvs"):
        first.done(asset)
    first.done("panoramas", "100m-0000")
    assert second.tick() == {}
    assert first.tick() == {"crops": {"100m-0000"}, "local_features": {"100m-0000"}}
    assert instance.get_materialized_partitions(first.region.key("panoramas")) == {"100m-0000"}
    assert instance.get_materialized_partitions(second.region.key("panoramas")) == set()


def test_each_automation_sensor_targets_its_own_region_only(graphs: tuple[Graph, Graph]) -> None:
    together = dg.Definitions(
        assets=[asset for graph in graphs for asset in graph.defs.assets], resources=graphs[0].defs.resources
    ).resolve_asset_graph()
    for graph in graphs:
        sensor = graph.defs.resolve_sensor_def(f"{graph.region.name}_automation")
        assert {key.path[0] for key in sensor.asset_selection.resolve(together)} == {graph.region.name}


def test_mlflow_runs_and_models_do_not_mix(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from geoloc_dagster.defs.resources import Mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    regions = [Region(load_settings(write_city(tmp_path / name, name, places=1))) for name in NAMES]
    for region in regions:  # one server for both, as a team would have it
        resource = Mlflow(tracking_uri=uri, artifact_location=str(tmp_path / "artifacts"), experiment=region.model_name)
        with resource.run("retrieval", {"dagster.asset": region.name}):
            pass
    client = MlflowClient(tracking_uri=uri)
    for region in regions:
        experiment = client.get_experiment_by_name(region.model_name)
        runs = client.search_runs([experiment.experiment_id])
        assert [run.data.tags["dagster.asset"] for run in runs] == [region.name]


def test_two_folders_make_one_workspace(tmp_path: Path) -> None:
    """As `workspace.yaml` loads them: each folder's `definitions.py` by its file, whatever the current folder is."""
    for name in NAMES:
        write_city(tmp_path / name, name, places=1)
    entries = [{"python_file": {"relative_path": f"{name}/definitions.py", "location_name": name}} for name in NAMES]
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": entries}))
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(tmp_path / "workspace.yaml")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert f"Validation successful for code location {name}" in done.stdout + done.stderr


def test_two_regions_cannot_share_a_data_root(tmp_path: Path) -> None:
    from geoloc_dagster.config.loader import claim_data_root

    first, second = (load_settings(write_city(tmp_path / name, name, places=1), data_root=tmp_path / "data") for name in NAMES)
    claim_data_root(first)
    with pytest.raises(DataRootError, match="aland"):
        claim_data_root(second)
