"""A recipe that asks for several devices is trained outside the step, and the asset says of it what it says of every training."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml

from geoloc_dagster.config import Settings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.region import Region
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.learning.jobs import (
    FAILURE_FILE,
    TrainingJob,
    failure_facts,
    read_job,
    result_of,
    torchrun_command,
    write_job,
)
from geoloc_dagster.learning.recipe_parts import ComputeSpec
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import write_json, write_parquet
from geoloc_dagster_tests.learning.city import make_city, tiny_recipe


def make_region(folder: Path, *, devices: int = 2) -> Region:
    """A region with crops and a catalog, and one recipe."""
    place = {"name": "aland", "boundary": "region.geojson", "start_point": (60.1, 19.9)}
    region = Region(Settings(region=place, data_root=folder / "data", folder=folder, recipes=["tiny"]))
    city = make_city(folder / "made", locations=12, dev_locations=4)
    region.layout.crops.parent.mkdir(parents=True, exist_ok=True)
    city.crops.rename(region.layout.crops)
    for beside in city.crops.parent.glob(city.crops.name + ".*"):
        beside.rename(region.layout.crops.with_name(region.layout.crops.name + beside.name.removeprefix(city.crops.name)))
    write_parquet(region.layout.catalog, city.catalog)
    recipe = tiny_recipe(compute={"devices": devices})
    (folder / "recipes").mkdir()
    (folder / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return region


def materialised(region: Region) -> dg.ExecuteInProcessResult:
    defs = build_definitions(settings=region.settings)
    checkpoints = next(asset for asset in defs.assets if region.key("checkpoints") in getattr(asset, "keys", ()))
    return dg.materialize(
        [checkpoints],
        partition_key="tiny",
        resources=defs.resources,
        raise_on_error=False,
        instance=dg.DagsterInstance.ephemeral(),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_asset_trains_on_two_devices_through_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    region = make_region(tmp_path)
    result = materialised(region)
    assert result.success
    said = result.asset_materializations_for_node(region.key("checkpoints").to_python_identifier())[0].metadata
    model = region.layout.checkpoints / "tiny" / str(said["model_version"].value)
    assert (model / "weights.safetensors").is_file()
    assert said["trained_on_rows"].value == 8 * 2 * 3
    assert said["mlflow_run_id"].value


def test_a_job_reads_as_it_was_written(tmp_path: Path):
    job = TrainingJob(tiny_recipe(), tmp_path, MlflowTarget("sqlite:///a", "b", "c", {"d": "e"}), True, {"crops_version": 3})
    assert read_job(write_job(tmp_path / "job", job)) == job


def test_what_its_processes_raise_is_raised_here_as_its_own_kind(tmp_path: Path):
    job_file = write_job(tmp_path / "job", TrainingJob(tiny_recipe(), tmp_path, None, True, {}))
    with pytest.raises(Exception, match="ended without a model"):
        result_of(job_file)
    write_json(job_file.parent / FAILURE_FILE, failure_facts(NotEnoughDataError("there are two", "Collect more.")))
    with pytest.raises(NotEnoughDataError, match="there are two"):
        result_of(job_file)


def test_one_machine_stands_alone_and_several_meet(tmp_path: Path):
    alone = torchrun_command(tmp_path / "job.json", ComputeSpec(devices=4), "m")
    assert alone[3:] == ["--standalone", "--nproc-per-node", "4", "-m", "m", str(tmp_path / "job.json")]
    several = torchrun_command(tmp_path / "job.json", ComputeSpec(devices=4, nodes=2, rendezvous="10.0.0.1:29400"), "m")
    assert several[3:7] == ["--nnodes", "2", "--rdzv-backend", "c10d"]
    assert "--standalone" not in several
