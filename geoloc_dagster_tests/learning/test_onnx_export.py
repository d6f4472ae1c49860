"""An exported model answers as the trained one does, whatever its kind; one that does not is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoloc_dagster import storage
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, OnnxExportError
from geoloc_dagster.geo.level_table import read_level, write_level
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.geo.region_classes import class_names, class_shapes
from geoloc_dagster.learning import onnx_export
from geoloc_dagster.learning.augmentation import plain
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.onnx_export import LOG_TOLERANCE, VECTOR_TOLERANCE, export_model, probe_pictures
from geoloc_dagster.learning.onnx_folder import MODEL_FILE
from geoloc_dagster.learning.onnx_graphs import Resize
from geoloc_dagster.learning.photo_models import load_classifier
from geoloc_dagster.prediction.onnx_models import open_onnx_classifier, open_onnx_encoder
from geoloc_dagster_tests.learning.small_models import write_small_model

SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("cells", "mean", "attention", "lstm")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of retrieval and its export."""
    root = tmp_path_factory.mktemp("encoder")
    folder = write_small_model("encoder", root)
    return folder, export_model(folder, root / "onnx").folder


def test_an_exported_encoder_gives_the_vectors_of_the_trained_one(encoder: tuple[Path, Path]):
    folder, export = encoder
    trained, exported = load_encoder(folder, device="cpu"), open_onnx_encoder(export, folder.name)
    assert (exported.dimension, exported.image_size) == (trained.dimension, trained.image_size)
    pictures = probe_pictures(trained.image_size, seed=1)
    wanted = trained.embed(pictures)
    for count in (1, 3, len(pictures)):
        got = exported.embed(pictures[:count], batch_size=4)
        assert got.dtype == np.float32
        assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
        assert np.linalg.norm(got - wanted[:count], axis=1).max() < VECTOR_TOLERANCE
    assert np.abs(wanted[0] - wanted[5]).max() > 0.01, "pictures that look alike to it could hide a mistake"


@pytest.mark.parametrize("kind", ["crops", "routed", "scenes", "gru", *SLOW])
def test_an_exported_classifier_says_what_the_trained_one_says(kind: str, tmp_path: Path):
    folder = write_small_model(kind, tmp_path)
    trained: Any = load_classifier(folder, device="cpu")
    exported = open_onnx_classifier(export_model(folder, tmp_path / "onnx").folder, folder.name)
    assert exported.size == trained.size
    assert class_names(exported.finest) == class_names(trained.finest)
    assert np.array_equal(exported.finest.lat_deg, trained.finest.lat_deg)
    pictures = probe_pictures(trained.size, seed=1)
    wanted = trained.log_probabilities(pictures)[HIERARCHY].numpy()
    for count in (1, len(pictures)):
        got = exported.log_probabilities(pictures[:count])[HIERARCHY]
        assert np.abs(got - wanted[:count]).max() < LOG_TOLERANCE
    assert np.abs(wanted[0] - wanted[5]).max() > 10 * LOG_TOLERANCE


def test_a_model_is_exported_once_and_a_damaged_export_again_to_the_same_bytes(encoder: tuple[Path, Path], tmp_path: Path):
    folder, export = encoder
    kept = export_model(folder, export.parent)
    assert (kept.folder, kept.created) == (export, False)
    copy = tmp_path / export.name
    shutil.copytree(export, copy)
    (copy / MODEL_FILE).write_bytes((export / MODEL_FILE).read_bytes()[:-1] + b"?")
    again = export_model(folder, tmp_path)
    assert again.created
    for file in export.iterdir():
        assert (again.folder / file.name).read_bytes() == file.read_bytes(), "releases that name it are repaired"


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(
    encoder: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = write_small_model("encoder", tmp_path, seed=5)

    def swapped(asked: Any, path: Path) -> dict[str, str]:
        shutil.copy(encoder[1] / MODEL_FILE, path)
        return {}

    monkeypatch.setattr(onnx_export, "_write_graph", swapped)
    with pytest.raises(OnnxExportError, match=f"{other.name} answers otherwise"):
        export_model(other, tmp_path / "onnx")
    assert list((tmp_path / "onnx").iterdir()) == []


def test_what_was_exported_of_another_model_or_has_changed_is_not_opened(encoder: tuple[Path, Path], tmp_path: Path):
    folder, export = encoder
    with pytest.raises(ModelMismatchError, match=f"export of {folder.name}"):
        open_onnx_encoder(export, "retrieval-000000000000")
    with pytest.raises(ModelMismatchError, match="log_probabilities"):
        open_onnx_classifier(export, folder.name)
    for file in (MODEL_FILE, "export.json"):
        copy = tmp_path / file
        shutil.copytree(export, copy)
        (copy / file).write_bytes((copy / file).read_bytes() + b" ")
        with pytest.raises(IntegrityError, match=f"{file} has changed"):
            open_onnx_encoder(copy, folder.name)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 36, 36), (3, 36, 36)])
def test_pictures_of_another_size_are_refused(encoder: tuple[Path, Path], shape: tuple[int, ...]):
    exported = open_onnx_encoder(encoder[1], encoder[0].name)
    with pytest.raises(ValueError, match="N x 3 x 36 x 36"):
        exported.embed(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        exported.embed(np.zeros((1, 3, 36, 36), np.float32))  # type: ignore[arg-type]


def test_an_export_tells_nothing_of_where_it_was_made(encoder: tuple[Path, Path]):
    content = (encoder[1] / MODEL_FILE).read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize(("side", "size"), [(36, 32), (256, 224), (300, 100), (64, 64)])
def test_a_resize_by_matrices_is_that_of_torch(side: int, size: int):
    pictures = torch.from_numpy(probe_pictures(side)[2:9])
    in_bytes = torch.nn.functional.interpolate(
        pictures.contiguous(memory_format=torch.channels_last), size=(size, size), mode="bilinear", antialias=True
    )
    assert torch.equal(Resize(side, size, in_bytes=True)(pictures), in_bytes.float())
    assert torch.allclose(Resize(side, size, in_bytes=False)(pictures), plain(pictures, size, "none"), atol=1e-3)


@pytest.mark.parametrize("kind", ["cells", "gru"])
def test_classes_are_read_as_they_were_written(kind: str, tmp_path: Path):
    finest = load_classifier(write_small_model(kind, tmp_path), device="cpu").finest
    read = read_level(write_level(tmp_path / "classes.parquet", finest))
    assert (type(read), read.name, class_names(read)) == (type(finest), finest.name, class_names(finest))
    for column in ("ids", "counts", "lat_deg", "lng_deg"):
        assert np.array_equal(getattr(read, column), getattr(finest, column))
    assert all(one.equals(other) for one, other in zip(class_shapes(read), class_shapes(finest), strict=True))
    storage.write_parquet(tmp_path / "classes.parquet", storage.read_parquet(tmp_path / "classes.parquet").select(["count"]))
    with pytest.raises(IntegrityError, match="classes"):
        read_level(tmp_path / "classes.parquet")
