"""Segmentation models: the real loading code with weights made here, and what their categories become."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geoloc_dagster.config.dataset import SegmentationSettings
from geoloc_dagster.dataset.class_maps import CLASSES
from geoloc_dagster.errors import ModelMismatchError, UnsafeFileError, WeightsError
from geoloc_dagster.learning.segmentation_categories import CATEGORIES, class_numbers, packaged
from geoloc_dagster.learning.segmenter import TorchSegmenter, load_segmenter

LRASPP = "lraspp_mobilenet_v3_large"
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64)).astype(np.uint8)


def load(folder: Path, **section: Any) -> TorchSegmenter:
    return load_segmenter(SegmentationSettings.model_validate({"size": 64, **section}), lambda path: folder / path)


def named(*categories: str, **mapping: str) -> list[str]:
    return [CLASSES[number] for number in class_numbers(categories, mapping)]


@pytest.fixture(scope="module")
def lraspp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a torchvision model of Cityscapes whose answer is always the sky, category 10."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(LRASPP, weights=None, weights_backbone=None, num_classes=19)
    with torch.no_grad():
        model.classifier.high_classifier.bias[10] += 100
    folder = tmp_path_factory.mktemp("lraspp")
    torch.save(model.state_dict(), folder / "weights.pt")
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SegFormer of four categories whose answer is always the last."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    labels = dict(enumerate(("wall", "building, edifice", "sky", "car;auto")))
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8,
        id2label=labels, label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        model.decode_head.classifier.bias[3] += 100
    folder = tmp_path_factory.mktemp("models") / "segformer"
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("weights", ["weights.pt", "weights.safetensors"])
def test_torchvision_weights_of_a_file_answer_in_the_common_classes(lraspp: Path, weights: str):
    model = load(lraspp, model=LRASPP, weights=weights, categories="cityscapes")
    maps = model.class_maps(PICTURES)
    assert (maps.dtype, maps.shape) == (np.uint8, (3, 64, 64))
    assert set(np.unique(maps)) == {CLASSES.index("sky")}
    assert model.model_version.startswith(f"torchvision/{LRASPP}@")


def test_another_mapping_is_another_version(lraspp: Path):
    plain = load(lraspp, model=LRASPP, weights="weights.pt", categories="cityscapes")
    again = load(lraspp, model=LRASPP, weights="weights.safetensors", categories="cityscapes")
    mapped = load(lraspp, model=LRASPP, weights="weights.pt", categories="cityscapes", mapping={"sky": "water"})
    assert plain.model_version == again.model_version != mapped.model_version
    assert set(np.unique(mapped.class_maps(PICTURES))) == {CLASSES.index("water")}


def test_a_folder_of_transformers_names_its_own_categories(segformer: Path):
    model = load(segformer.parent, library="transformers", model="segformer")
    maps = model.class_maps(PICTURES)
    assert (maps.dtype, maps.shape) == (np.uint8, (3, 64, 64))
    assert set(np.unique(maps)) == {CLASSES.index("vehicle")}
    assert model.categories == ("wall", "building", "sky", "car")
    assert model.model_version.startswith("transformers/segformer@")


def test_pickled_weights_of_transformers_are_not_read(segformer: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((segformer / "config.json").read_bytes())
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"holds no safetensors.*save_pretrained"):
        load(tmp_path, library="transformers", model="model")


def test_weights_that_lack_tensors_are_refused(segformer: Path, tmp_path: Path):
    from safetensors.torch import load_file

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((segformer / "config.json").read_bytes())
    state = load_file(segformer / "model.safetensors")
    state.pop("decode_head.classifier.bias")
    save_file(state, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no weights for 1 tensors.*decode_head\.classifier\.bias"):
        load(tmp_path, library="transformers", model="model")


@pytest.mark.parametrize(
    ("section", "error", "said"),
    [
        ({"model": "resnet18"}, ModelMismatchError, r"no segmentation model 'resnet18'.*lraspp"),
        ({"model": LRASPP, "weights": "none.pt"}, WeightsError, "there is no weights file"),
        ({"model": LRASPP, "weights": "weights.pt"}, WeightsError, r"another shape.*built for 21 categories"),
        ({"model": "fcn_resnet50", "weights": "weights.pt", "categories": "cityscapes"}, WeightsError, "no counterpart"),
        ({"model": LRASPP, "weights": "evil.pkl"}, UnsafeFileError, "pickle"),
        ({"library": "transformers", "model": "./none"}, WeightsError, "there is no folder"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(lraspp: Path, section: dict[str, Any], error: type, said: str):
    (lraspp / "evil.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(error, match=said):
        load(lraspp, **section)


def test_a_missing_package_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"pip install 'geoloc-dagster\[segmentation\]'"):
        load(tmp_path, library="transformers", model="nobody/nothing")


def test_names_of_all_four_lists_are_known():
    assert named(*CATEGORIES["cityscapes"])[:6] == ["road", "road", "building", "other", "other", "other"]
    assert named("wall", "building", "sky", "tree", "sea", "signboard", "van") == [
        "other", "building", "sky", "vegetation", "water", "sign", "vehicle",
    ]  # fmt: skip
    assert named(*CATEGORIES["voc"])[15] == "person"
    assert named("sky-other-merged", "Water_Other", "person") == ["sky", "other", "person"]
    assert len(CATEGORIES["voc"]) == 21
    assert len(CATEGORIES["cityscapes"]) == 19
    assert set(packaged().values()) == set(CLASSES) - {"other"}


def test_torchvision_means_the_same_list_by_voc():
    from torchvision.models import get_model_weights

    assert CATEGORIES["voc"] == tuple(get_model_weights(LRASPP)["DEFAULT"].meta["categories"])


def test_a_mapping_goes_before_the_packaged_one_and_is_checked():
    assert named("wall", "sky", wall="building", sky="other") == ["building", "other"]
    with pytest.raises(ModelMismatchError, match=r"'skye', no category.*sky"):
        named("wall", "sky", skye="sky")
    with pytest.raises(ModelMismatchError, match=r"none of the model's 2 categories.*segmentation\.mapping"):
        named("LABEL_0", "LABEL_1")
    assert named("LABEL_0", "LABEL_1", LABEL_1="road") == ["other", "road"]
