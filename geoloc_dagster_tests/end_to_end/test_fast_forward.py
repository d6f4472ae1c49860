"""Three nights of a small city in fast-forward, and what follows: trainings good and bad, and a picture that is taken down."""

from __future__ import annotations

import datetime as dt

import pytest
import yaml
from typer.testing import CliRunner

from geoloc_dagster import cli
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.storage import MANIFEST, read_json, read_parquet, write_manifest
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.end_to_end.city import MONTHS, ROTATIONS, START, write_city
from geoloc_dagster_tests.end_to_end.fast_forward import FastForward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIRST = dt.date(2026, 3, 1)
PER_BATCH = 10 * ROTATIONS * len(MONTHS)
THRESHOLD = 130


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> FastForward:
    folder = tmp_path_factory.mktemp("fast_forward")
    path = write_city(folder, places=30)
    config = yaml.safe_load(path.read_text())
    config["automation"] = {"retrain_after_rows": THRESHOLD, "batches_per_night": 1}
    path.write_text(yaml.safe_dump(config))
    region = FastForward(path)
    region.make("region_boundary", "grid_points", "street_view_metadata")
    region.settle()
    return region


def blind(city: FastForward) -> str:
    """Spoil the newest model: its first convolution sees nothing, so that all pictures look the same to it."""
    from safetensors.torch import load_file, save_file

    folder = newest_training(city.layout.checkpoints / "small").folder
    weights = load_file(folder / "weights.safetensors")
    first = next(name for name, values in weights.items() if values.ndim == 4)
    weights[first].zero_()
    save_file(weights, folder / "weights.safetensors")
    facts = {k: v for k, v in read_json(folder / MANIFEST).items() if k not in ("files", "schema_version")}
    write_manifest(folder, **facts)
    return folder.name


def indexed(city: FastForward) -> set[str]:
    """Captures of the index that is served."""
    current = read_json(city.layout.releases / "CURRENT.json")["release"]
    manifest = read_json(city.layout.releases / current / MANIFEST)
    rows = read_parquet(city.layout.root / manifest["parts"]["index"]["folder"] / "rows.parquet", ["capture_id"])
    return set(rows["capture_id"].to_pylist())


def test_three_nights_and_what_follows(city: FastForward) -> None:
    # The first night: one batch, too few rows to learn from.
    assert city.night(FIRST) == ["100m-0000"]
    assert city.facts("panoramas")["why"] == "next in rank order, 10 locations to visit"
    assert open_table(city.layout.crops).count_rows() == PER_BATCH
    assert f"of {THRESHOLD} usable rows for the first training" in city.retraining()

    # The second: the threshold is passed, and the sensor asks for one training, once.
    assert city.night(FIRST + dt.timedelta(days=1)) == ["100m-0001"]
    assert city.retraining() == ["small"]
    assert city.retraining() == []
    city.make("checkpoints", partition="small")
    first = blind(city)
    made = city.settle()
    assert {"evaluations", "champion", "embeddings", "faiss_index", "release"} <= {name for name, _ in made}
    assert city.facts("champion")["promoted"] == "True"
    assert len(indexed(city)) == 2 * PER_BATCH
    assert "new usable rows since the newest checkpoint" in city.retraining()

    # The third: the index grows by one batch.
    assert city.night(FIRST + dt.timedelta(days=2)) == ["100m-0002"]
    assert len(indexed(city)) == 3 * PER_BATCH
    assert open_table(city.layout.embeddings).count_rows() == 3 * PER_BATCH
    assert read_champion(city.layout).model_version == first

    # The fourth has nothing to collect, and says so.
    assert city.night(FIRST + dt.timedelta(days=3)) == ["every registered batch is complete"]

    # A model that sees is better than the blind one, and is promoted; the index becomes its own.
    city.make("checkpoints", partition="small")
    city.settle()
    facts = city.facts("champion")
    assert (facts["promoted"], facts["model_version"] != first) == ("True", True)
    assert " is better: R@1 " in facts["reason"]
    better = facts["model_version"]
    assert city.facts("faiss_index")["model_version"] == better

    # Another blind one is refused, by figures, and nothing that is served changes.
    served = read_json(city.layout.releases / "CURRENT.json")
    path = city.settings.folder / "recipes" / "small.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"seed": 1}))  # the same training gives the same model
    city.make("checkpoints", partition="small")
    assert blind(city) != better
    city.settle()
    facts = city.facts("champion")
    assert (facts["promoted"], facts["model_version"]) == ("False", better)
    assert "stays champion" in facts["reason"]
    assert "significantly worse" in facts["reason"]
    assert read_json(city.layout.releases / "CURRENT.json") == served


def test_what_is_taken_down_is_made_stale_and_leaves_the_index(city: FastForward) -> None:
    before, batch = indexed(city), "100m-0000"
    south, west = START[0] - 1e-4, START[1] - 1e-4
    box = f"{south},{west},{south + 2e-4},{west + 2e-4}"
    inside = f"lat_deg < {south + 2e-4} AND lng_deg < {west + 2e-4}"
    rows = open_table(city.layout.panoramas).to_table(columns=["capture_id"], filter=inside)
    gone = set(rows["capture_id"].to_pylist())
    assert len(gone) == ROTATIONS * len(MONTHS)
    assert city.check("catalog", "up_to_date")
    done = CliRunner().invoke(cli.app, ["forget", "--bbox", box, "--yes", "--config", str(city.settings.folder / "geoloc.yaml")])
    assert done.exit_code == 0, done.output
    assert not city.check("catalog", "up_to_date")
    assert not city.check("faiss_index", "up_to_date")
    made = city.settle()
    assert ("crops", batch) in made
    assert {partition for name, partition in made if name == "crops"} == {batch}
    assert {"catalog", "faiss_index", "release"} <= {name for name, _ in made}
    assert "checkpoints" not in {name for name, _ in made}
    assert indexed(city) == before - gone
    assert city.check("catalog", "up_to_date")
    assert city.check("faiss_index", "up_to_date")
    # A night that visits the batch again does not bring it back.
    city.make("panoramas", partition=batch)
    assert city.facts("panoramas")["dagster/partition_row_count"] == PER_BATCH - len(gone)
