"""A training ends in an immutable folder, can be killed at any time, and says what it learned from."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import signal
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file

from geoloc_dagster.dataset.schema import CROPS
from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel
from geoloc_dagster.learning.pictures import read_pictures
from geoloc_dagster.learning.training import train
from geoloc_dagster.learning.validation import DevSplit
from geoloc_dagster.storage import verify_manifest
from geoloc_dagster.tables import append_rows
from geoloc_dagster_tests.learning.city import City, make_city, tiny_recipe


def trained(city: City, out: Path, **changes: object) -> TrainedModel:
    now = lambda: dt.datetime(2026, 1, 2, tzinfo=dt.UTC)  # noqa: E731
    return train(tiny_recipe(**changes), city.catalog, city.crops, out, provenance={"crops_version": 1}, now=now)


@pytest.fixture(scope="module")
def model(city: City, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained(city, tmp_path_factory.mktemp("models"))


def test_the_folder_says_what_the_model_was_trained_on(model: TrainedModel):
    facts = json.loads((model.folder / "training.json").read_text())
    assert model.folder.name == model.model_version == verify_manifest(model.folder)["model_version"]
    assert facts["trained_on_rows"] == model.rows == 6 * 2 * 3
    assert facts["trained_on_places"] == 12
    assert facts["provenance"] == {"crops_version": 1}
    assert facts["finished_at"] == "2026-01-02T00:00:00+00:00"
    assert facts["samples"] == 2 * 3 * 12  # epochs x batches x P x K
    assert set(model.metrics) >= {"train_loss", "dev_recall_at_1"}


def test_no_work_folder_is_left(model: TrainedModel):
    assert [path.name for path in model.folder.parent.iterdir()] == [model.folder.name]


def test_same_seed_same_model_other_seed_other_model(city: City, model: TrainedModel, tmp_path: Path):
    assert trained(city, tmp_path).model_version == model.model_version
    assert trained(city, tmp_path, seed=1).model_version != model.model_version


def test_the_encoder_gives_unit_vectors_and_finds_places_again(city: City, model: TrainedModel):
    encoder = load_encoder(model.folder)
    vectors = encoder.embed(read_pictures(city.crops, city.capture_ids, 48), batch_size=7)
    assert vectors.shape == (len(city.capture_ids), encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_training_learns_to_find_places_that_it_has_never_seen(tmp_path: Path):
    city = make_city(tmp_path / "city", locations=18, dev_locations=6, seed=3)
    before = trained(city, tmp_path / "a", optimiser={"learning_rate": 1e-9})
    after = trained(city, tmp_path / "b", budget={"epochs": 12}, optimiser={"learning_rate": 3e-3})
    assert after.metrics["train_loss"] < 0.7 * before.metrics["train_loss"]
    assert after.metrics["dev_recall_at_1"] >= 0.5  # by chance: 0.13


@pytest.mark.parametrize(("projection", "dimension"), [("kept", 16), ("training", 6)])
def test_whitening_is_learned_after_training_and_travels_with_the_model(
    city: City, tmp_path: Path, projection: str, dimension: int
):
    whitening = {"power": 0.5, "dimension": 6 if projection == "training" else None}
    head = {"pooling": "grid", "channels": 8, "dimension": 16, "projection": projection, "whitening": whitening}
    encoder = load_encoder(trained(city, tmp_path, head=head).folder)
    train_ids = city.catalog.filter(pc.field("split") == "train").column("capture_id").to_pylist()
    vectors = encoder.embed(read_pictures(city.crops, train_ids, 36))
    assert vectors.shape == (36, encoder.dimension) == (36, dimension)
    assert not torch.equal(encoder.network.whitening.matrix, torch.eye(*encoder.network.whitening.matrix.shape))
    assert np.abs(vectors.mean(0)).max() < 0.2


def test_a_training_that_no_longer_rises_stops_and_keeps_its_best_weights(city: City, tmp_path: Path):
    budget = {"epochs": 30, "early_stop": {"every_epochs": 1, "patience": 2}}
    model = trained(city, tmp_path, budget=budget, optimiser={"learning_rate": 1e-9})
    assert model.epochs == 3  # the first is the best, two more do not rise
    dev = DevSplit(model.recipe, city.catalog, city.crops)
    assert dev.recall(load_encoder(model.folder).network)["dev_recall_at_1"] == model.metrics["dev_recall_at_1"]


def test_nothing_to_measure_on_means_no_early_stop(tmp_path: Path):
    city = make_city(tmp_path / "city", locations=4)
    model = trained(city, tmp_path, budget={"epochs": 2, "early_stop": {"every_epochs": 1, "patience": 1}})
    assert model.epochs == 2
    assert "dev_recall_at_1" not in model.metrics


def _train_and_die(city: City, out: Path) -> None:
    def die_in_the_middle(done: int, total: int) -> None:
        if done == 5:  # in the second of two epochs of three steps
            os.kill(os.getpid(), signal.SIGKILL)

    train(tiny_recipe(), city.catalog, city.crops, out, progress=die_in_the_middle)


@pytest.mark.slow
def test_killed_and_continued_ends_at_the_same_weights(city: City, model: TrainedModel, tmp_path: Path):
    process = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(city, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(f".work-*/{LAST_CHECKPOINT}"))) == 1

    seen: list[int] = []
    continued = train(tiny_recipe(), city.catalog, city.crops, tmp_path, progress=lambda done, total: seen.append(done))

    assert seen == [4, 5, 6]
    assert continued.model_version == model.model_version
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (continued.folder, model.folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((continued.folder / "training.json").read_text())["attempts"] == 2


def test_a_damaged_last_checkpoint_is_named_not_loaded(city: City, tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(tiny_recipe(), city.catalog, city.crops, tmp_path, progress=stop)
    last = next(tmp_path.glob(f".work-*/{LAST_CHECKPOINT}"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"last\.ckpt is damaged.*Delete"):
        trained(city, tmp_path)
    assert train(tiny_recipe(), city.catalog, city.crops, tmp_path, resume=False).epochs == 2


@pytest.mark.parametrize("name", ["weights.safetensors", "recipe.yaml", "training.json"])
def test_a_changed_byte_of_a_model_is_refused_by_name(city: City, tmp_path: Path, name: str):
    folder = trained(city, tmp_path, budget={"epochs": 1}).folder
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        load_encoder(folder)


def test_flagged_unusable_and_held_out_rows_are_not_learned_from(city: City, tmp_path: Path):
    rows = city.catalog.to_pylist()
    rows[0]["flags"] = ["frozen_rotation"]
    rows[6]["usable"] = False
    catalog = pa.Table.from_pylist(rows, schema=city.catalog.schema)
    model = train(tiny_recipe(budget={"epochs": 1}), catalog, city.crops, tmp_path)
    assert model.rows == 36 - 2


def test_a_crop_that_is_not_the_one_of_the_catalog_stops_the_training(city: City, tmp_path: Path):
    rows = city.catalog.to_pylist()
    rows[3]["sha256"] = "0" * 64
    catalog = pa.Table.from_pylist(rows, schema=city.catalog.schema)
    with pytest.raises(IntegrityError, match=rows[3]["capture_id"]):
        train(tiny_recipe(), catalog, city.crops, tmp_path)


def test_too_few_places_is_said_before_anything_is_computed(city: City, tmp_path: Path):
    with pytest.raises(NotEnoughDataError, match="a batch needs 40 places, the training rows have 12"):
        trained(city, tmp_path, sampler={"places": 40})
    empty = pa.Table.from_pylist([], schema=city.catalog.schema)
    with pytest.raises(NotEnoughDataError, match="split train"):
        train(tiny_recipe(), empty, city.crops, tmp_path)
    assert not list(tmp_path.glob("tiny-*"))


@pytest.mark.slow
def test_a_collection_that_is_streamed_gives_the_same_model(city: City, model: TrainedModel, tmp_path: Path):
    in_memory = {"image_size": 32, "stored_size": 36}
    streamed = trained(city, tmp_path, data={**in_memory, "memory_limit_gib": 1e-6, "workers": 2})
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (streamed.folder, model.folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_crop_changed_in_the_table_is_refused(tmp_path: Path):
    city = make_city(tmp_path, locations=2)
    rows = lance.dataset(str(city.crops)).to_table().to_pylist()
    rows[4]["image"] = rows[3]["image"]
    append_rows(tmp_path / "changed.lance", pa.Table.from_pylist(rows, schema=CROPS))
    with pytest.raises(IntegrityError, match=city.capture_ids[4]):
        read_pictures(tmp_path / "changed.lance", city.capture_ids, 32)
