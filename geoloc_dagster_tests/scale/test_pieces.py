"""Vectors of a trained model, made by something that is given nothing but pieces, as another machine is."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.training import train
from geoloc_dagster.retrieval.embedding import Loading, embed_batch
from geoloc_dagster.scale.engine import LOCAL, Engine, Tick
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.learning.city import City, make_city, tiny_recipe

SIZE = 10


class Elsewhere:
    """Does pieces that have been through the wire, in this process; small ones, which the tiny city has several of."""

    elsewhere = True

    def __init__(self) -> None:
        self.sent: list[int] = []

    def cut(self, rows: int) -> list[range]:
        return [range(first, min(first + SIZE, rows)) for first in range(0, rows, SIZE)]

    def map(self, work: Callable[..., Any], pieces: Sequence[Any], tick: Tick, *, gpu: bool = False) -> list[Any]:
        sent = [pickle.dumps(piece) for piece in pieces]
        self.sent = [len(content) for content in sent]
        return [work(pickle.loads(content), tick) for content in sent]


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return make_city(tmp_path_factory.mktemp("city"), locations=9, dev_locations=3)


@pytest.fixture(scope="module")
def model(city: City, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_recipe(), city.catalog, city.crops, tmp_path_factory.mktemp("models"), provenance={}).folder


def vectors_of(path: Path) -> dict[str, list[float]]:
    verify_table(path)
    table = open_table(path)
    assert table is not None
    rows = table.to_table(columns=["capture_id", "vector"]).to_pydict()
    assert len(set(rows["capture_id"])) == len(rows["capture_id"])
    return dict(zip(rows["capture_id"], rows["vector"], strict=True))


def test_pieces_carry_names_and_give_the_same_vectors(city: City, model: Path, tmp_path: Path) -> None:
    (batch,) = set(open_table(city.crops).to_table(columns=["batch"])["batch"].to_pylist())
    far = Elsewhere()
    made = dict[str, dict[str, list[float]]]()
    engines: dict[str, Engine] = {"here": LOCAL, "elsewhere": far}
    for name, engine in engines.items():
        table = tmp_path / f"{name}.lance"
        embed_batch(load_encoder(model), city.crops, table, batch, engine=engine, model_folder=model)
        made[name] = vectors_of(table)
    assert made["here"].keys() == made["elsewhere"].keys()
    assert len(far.sent) > 2
    assert max(far.sent) < 2_000, "a piece is names and numbers, never pictures or weights"
    for capture, vector in made["here"].items():
        assert made["elsewhere"][capture] == pytest.approx(vector, abs=1e-5)  # other batches round otherwise


def test_another_model_in_the_folder_embeds_nothing(model: Path) -> None:
    assert Loading(model, model.name).encoder().model_version == model.name
    with pytest.raises(ModelMismatchError, match=f"{model.name}, and tiny-other is to embed"):
        Loading(model, "tiny-other").encoder()
