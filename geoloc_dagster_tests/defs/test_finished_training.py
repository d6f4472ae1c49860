"""A graph that is run again does not train again what is trained, and does wherever something has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from geoloc_dagster.defs.headless import Event, run_headless
from geoloc_dagster.learning.dispatch import provenance_of
from geoloc_dagster.learning.recipe import load_recipe
from geoloc_dagster.learning.registry import newest_training, trainings
from geoloc_dagster.storage import read_parquet, write_parquet
from geoloc_dagster_tests.defs.test_training_process import make_region


class City:
    """A region with a trained recipe."""

    def __init__(self, folder: Path) -> None:
        self.region = make_region(folder, devices=1)
        self.layout = self.region.layout
        self.recipe_file = folder / "recipes" / "tiny.yaml"
        self.train()
        (self.first,) = self.trained()

    def train(self, **options: bool) -> Event:
        """The last thing that the command hears of a training."""
        said: list[Event] = []
        run_headless(self.region.settings, select="checkpoints", report=said.append, **options)
        return said[-1]

    def trained(self) -> list[str]:
        """When each training was finished, oldest first."""
        return [training.finished_at for training in trainings(self.layout.checkpoints / "tiny")]

    def tracked(self) -> int:
        """How many trainings MLflow has seen."""
        client = MlflowClient(self.layout.mlflow_uri)
        return len(client.search_runs([one.experiment_id for one in client.search_experiments()]))


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> City:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return City(tmp_path)


def test_the_same_command_takes_the_model_that_is_there(city: City):
    said = city.train()
    assert (said.kind, said.asset, said.done) == ("done", "checkpoints", 8 * 2 * 3)
    assert said.note == f"trained from the same before, {city.first:.16}"
    assert city.trained() == [city.first]
    assert city.tracked() == 1


def test_a_training_leaves_the_server_of_the_next_region_alone(city: City):
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_table_that_was_only_compacted_is_no_news(city: City):
    newest = newest_training(city.layout.checkpoints / "tiny")
    assert newest is not None
    now = provenance_of(city.layout, load_recipe("tiny", city.region.settings.folder))
    assert newest.answers_for(newest.recipe_hash, now | {"crops_version": now["crops_version"] + 1})
    assert not newest.answers_for(newest.recipe_hash, now | {"cell_labels_sha256": "another"})
    assert not newest.answers_for(newest.recipe_hash, {name: now[name] for name in now if name != "catalog_sha256"})


def test_whoever_asks_for_it_trains_from_the_start(city: City):
    assert city.train(resume=False).note is None
    assert city.trained()[-1] > city.first


def test_another_recipe_is_trained_and_so_is_the_first_one_after_it(city: City):
    first = city.recipe_file.read_text()
    city.recipe_file.write_text(first.replace("learning_rate: ", "learning_rate: 1e-4 # "))
    assert city.train().note is None
    assert len(city.trained()) == 2
    city.recipe_file.write_text(first)
    assert city.train().note is None, "its model is there, but what follows takes the newest"
    assert city.train().note is not None


def test_a_catalog_with_a_row_less_is_trained_on(city: City):
    catalog = read_parquet(city.layout.catalog)
    write_parquet(city.layout.catalog, catalog.slice(1))
    said = city.train()
    assert (said.note, said.done) == (None, 8 * 2 * 3 - 1)


def test_a_model_whose_weights_have_changed_is_trained_again(city: City):
    newest = newest_training(city.layout.checkpoints / "tiny")
    assert newest is not None
    weights = newest.folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert city.train().note is None
    assert city.trained()[-1] > city.first
    assert weights.read_bytes() == whole
