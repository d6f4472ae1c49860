"""Others' classifier of cells answers as it did before, once its tensors have our names and its classes our order."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from geoloc_dagster.errors import RecipeError, UnsafeFileError, WeightsError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_csv import COLUMNS, ImportedLevel, read_cells_csvs
from geoloc_dagster.geo.partitioning import HIERARCHY, LevelRule, Partitioning, partition
from geoloc_dagster.learning.augmentation import plain
from geoloc_dagster.learning.cells_import import KeyMap, import_cells_model, read_key_map
from geoloc_dagster.learning.cells_model import load_cells_model
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster_tests.geo.test_partitioning import clustered

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
NAMES = ("coarse", "middle", "fine")
RULES = tuple(LevelRule(name, 20, most) for name, most in zip(NAMES, (600, 300, 150), strict=True))
KEYS = {
    "model.": "backbone.body.",
    "classifier.0.": "heads.coarse.",
    "classifier.1.": "heads.middle.",
    "classifier.2.": "heads.fine.",
}
MAP = KeyMap(keys=KEYS, ignore=["model.fc."])


class Theirs(nn.Module):
    """A torchvision ResNet with three linear heads on its pooled features, as such systems have it."""

    def __init__(self, classes: list[int]) -> None:
        super().__init__()
        self.model = resnet18(weights=None)
        self.classifier = nn.ModuleList([nn.Linear(512, count) for count in classes])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        r = self.model
        features = r.maxpool(r.relu(r.bn1(r.conv1(pictures))))
        features = r.avgpool(r.layer4(r.layer3(r.layer2(r.layer1(features))))).flatten(1)
        return [head(features) for head in self.classifier]


@pytest.fixture(scope="module")
def cells() -> Partitioning:
    return partition(*clustered(4_000, 1), RULES)


@pytest.fixture(scope="module")
def theirs(cells: Partitioning) -> Theirs:
    torch.manual_seed(0)
    return Theirs([len(level) for level in cells.levels]).eval()


@pytest.fixture(scope="module")
def levels(cells: Partitioning, tmp_path_factory: pytest.TempPathFactory) -> list[ImportedLevel]:
    """Their CSVs number the classes in another order than ours."""
    folder = tmp_path_factory.mktemp("theirs")
    rng = np.random.default_rng(0)
    for level in cells.levels:
        order = rng.permutation(len(level))
        tokens = s2.tokens(level.ids)
        rows = [
            f"{label},{tokens[cell]},{level.counts[cell]},{float(level.lat_deg[cell])!r},{float(level.lng_deg[cell])!r}"
            for label, cell in enumerate(order.tolist())
        ]
        (folder / f"{level.name}.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return read_cells_csvs([(folder / f"{name}.csv", name) for name in NAMES])


def recipe(**changes: Any) -> CellsRecipe:
    values = {
        "name": "theirs",
        "kind": "cells",
        "data": {"image_size": 64, "stored_size": 64},
        "backbone": {"library": "torchvision", "name": "resnet18", "weights": "none"},
    }
    return CellsRecipe.model_validate(values | changes)


def bring_in(path: Path, levels: list[ImportedLevel], key_map: KeyMap = MAP, **changes: Any) -> Path:
    return import_cells_model(path, key_map, recipe(**changes), levels, path.parent / "models", now=NOW).folder


@pytest.mark.parametrize("form", ["state_dict.pth", "lightning.ckpt", "weights.safetensors"])
def test_it_answers_as_it_did_before(theirs: Theirs, levels: list[ImportedLevel], tmp_path: Path, form: str):
    path = tmp_path / form
    state = theirs.state_dict()
    if form.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form.endswith(".ckpt") else state, path)
    pictures = np.random.default_rng(1).integers(0, 256, (6, 3, 64, 64), dtype=np.uint8)
    model = load_cells_model(bring_in(path, levels))
    with torch.inference_mode():
        logits = theirs(plain(torch.from_numpy(pictures), 64))
    answers = model.answers(pictures)
    for number, level in enumerate(levels):
        label = logits[number].argmax(1).numpy()
        said = answers[level.level.name]
        assert np.array_equal(level.published[said.classes], label)
        assert np.allclose(said.confidence, logits[number].softmax(1).max(1).values.numpy(), atol=1e-5)
        row = {int(published): place for place, published in enumerate(level.published)}
        assert said.lat_deg.tolist() == [level.level.lat_deg[row[one]] for one in label.tolist()]
    assert HIERARCHY in answers


def saved(theirs: Theirs, folder: Path, **changes: Any) -> Path:
    state: dict[str, Any] = {**theirs.state_dict(), **changes}
    torch.save({name: value for name, value in state.items() if value is not None}, folder / "theirs.pth")
    return folder / "theirs.pth"


def test_nothing_is_guessed(theirs: Theirs, levels: list[ImportedLevel], tmp_path: Path):
    with pytest.raises(WeightsError, match=r"network does not, 2 tensors, e\.g\. backbone\.body\.fc"):
        bring_in(saved(theirs, tmp_path), levels, KeyMap(keys=KEYS))
    with pytest.raises(WeightsError, match="extra"):
        bring_in(saved(theirs, tmp_path, extra=torch.zeros(1)), levels)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, e\.g\. backbone\.body\.conv1\.weight"):
        bring_in(saved(theirs, tmp_path, **{"model.conv1.weight": None}), levels)
    with pytest.raises(WeightsError, match=r"heads\.fine\.bias"):
        bring_in(saved(theirs, tmp_path, **{"classifier.2.bias": None}), levels)
    with pytest.raises(WeightsError, match=r"has shape \(64, 3, 5, 5\), not \(64, 3, 7, 7\)"):
        bring_in(saved(theirs, tmp_path, **{"model.conv1.weight": torch.zeros(64, 3, 5, 5)}), levels)
    twice = KeyMap(keys={**KEYS, "again.": "backbone.body."}, ignore=["model.fc."])
    with pytest.raises(WeightsError, match="become backbone"):
        bring_in(saved(theirs, tmp_path, **{"again.conv1.weight": torch.zeros(1)}), levels, twice)
    assert not (tmp_path / "models").exists()


def test_exchanged_heads_are_noticed(theirs: Theirs, levels: list[ImportedLevel], tmp_path: Path):
    exchanged = {**KEYS, "classifier.0.": "heads.fine.", "classifier.2.": "heads.coarse."}
    with pytest.raises(WeightsError, match="two levels are exchanged"):
        bring_in(saved(theirs, tmp_path), levels, KeyMap(keys=exchanged, ignore=["model.fc."]))


def test_the_wrong_backbone_is_one_clear_error(theirs: Theirs, levels: list[ImportedLevel], tmp_path: Path):
    with pytest.raises(WeightsError, match="Mend the key map, or the recipe's backbone"):
        bring_in(saved(theirs, tmp_path), levels, backbone={"library": "torchvision", "name": "resnet50", "weights": "none"})


def test_what_would_have_to_be_unpickled_is_refused_with_the_way_out(theirs: Theirs, levels: list[ImportedLevel], tmp_path: Path):
    whole = tmp_path / "whole.pth"
    torch.save(theirs, whole)
    with pytest.raises(WeightsError, match=r"safetensors\.torch\.save_file"):
        bring_in(whole, levels)
    hparams = tmp_path / "hparams.ckpt"
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": argparse.Namespace(lr=1)}, hparams)
    with pytest.raises(WeightsError, match="weights alone"):
        bring_in(hparams, levels)
    old = tmp_path / "old.pth"
    torch.save(theirs.state_dict(), old, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeFileError, match="safetensors"):
        bring_in(old, levels)


def test_a_key_map_says_what_is_wrong_with_it(tmp_path: Path):
    path = tmp_path / "keys.yaml"
    path.write_text("keys: {'model.': 'backbone.body.'}\nignore: [fc.]\n")
    assert read_key_map(path).ours("model.conv1.weight") == "backbone.body.conv1.weight"
    assert read_key_map(path).ours("fc.weight") is None
    for text, told in (("keys: {a: b}\nkeyz: {}", "keyz"), ("[1]", "the file"), ("keys: {}", "keys"), (": :", "cannot read")):
        path.write_text(text)
        with pytest.raises(RecipeError, match=told):
            read_key_map(path)
