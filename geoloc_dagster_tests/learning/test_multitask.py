"""A transformer over photos and class maps learns from both, says the same however asked, and goes on where it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from geoloc_dagster.dataset.class_maps import CLASSES, read_class_maps
from geoloc_dagster.errors import IntegrityError, NotEnoughDataError, RecipeError
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.learning.augmentation import augment_with_maps
from geoloc_dagster.learning.cells_network import SCENE, map_views_of, views_of
from geoloc_dagster.learning.cells_recipe import InferenceSpec, MirroredAugmentationSpec
from geoloc_dagster.learning.loop import TrainedModel
from geoloc_dagster.learning.multitask_model import load_multitask_model
from geoloc_dagster.learning.multitask_module import rate_share, warmup_and_cosine
from geoloc_dagster.learning.multitask_network import NO_CLASS, build_multitask_network
from geoloc_dagster.learning.multitask_recipe import MultitaskOptimiserSpec, MultitaskRecipe
from geoloc_dagster.learning.multitask_training import train_multitask
from geoloc_dagster.learning.photo_batches import hold_photos
from geoloc_dagster.learning.photo_rows import select_photos
from geoloc_dagster.learning.recipe import check_recipes, load_recipe, parse_recipe
from geoloc_dagster.storage import read_json
from geoloc_dagster_tests.learning.globe import Globe, make_globe, multitask_recipe

SHORT = {"budget": {"epochs": 2, "batch_size": 32}}


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Globe:
    """Photos tell nothing; class maps tell town and district."""
    return make_globe(tmp_path_factory.mktemp("globe"), grey=True)


def trained(globe: Globe, out: Path, recipe: MultitaskRecipe | None = None, **options: Any) -> TrainedModel:
    recipe = recipe or multitask_recipe()
    return train_multitask(
        recipe, globe.catalog, globe.labels, globe.crops, out / recipe.name, **{"maps_path": globe.maps, **options}
    )


@pytest.fixture(scope="module")
def model(globe: Globe, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained(globe, tmp_path_factory.mktemp("model"))


def held_out(globe: Globe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, class maps and finest cells of the split test."""
    test = np.array(globe.catalog["split"].to_pylist()) == "test"
    ids = np.array(globe.catalog["capture_id"].to_pylist())[test].tolist()
    assert globe.labels.cells is not None
    return globe.pixels[test], read_class_maps(globe.maps, ids, 36), globe.labels.cells["fine"].to_numpy()[test]


def test_it_learns_from_class_maps_what_photos_do_not_tell(globe: Globe, model: TrainedModel, tmp_path: Path):
    pictures, maps, truth = held_out(globe)
    asked = load_multitask_model(model.folder)
    assert (asked.answers(pictures, maps)["fine"].classes == truth).mean() > 0.6
    assert (asked.answers(pictures, maps[::-1].copy())["fine"].classes == truth).mean() < 0.4, "the map of another photo"
    alone = trained(globe, tmp_path, multitask_recipe(name="alone", branches={"segmentation": False}, **SHORT), maps_path=None)
    assert (load_multitask_model(alone.folder).answers(pictures)["fine"].classes == truth).mean() < 0.4


def test_a_photo_without_a_map_is_answered_all_the_same(globe: Globe, model: TrainedModel):
    pictures, maps, _ = held_out(globe)
    asked = load_multitask_model(model.folder)
    without = asked.log_probabilities(pictures)
    assert asked.needs_maps
    assert set(without) == {"coarse", "fine", SCENE, HIERARCHY}
    for said in without.values():
        assert torch.allclose(said.exp().sum(1), torch.ones(len(pictures)), atol=1e-4)
    partly = maps.copy()
    partly[::2] = NO_CLASS
    both = asked.log_probabilities(pictures, partly)["fine"]
    assert torch.allclose(both[::2], without["fine"][::2], atol=1e-4)
    assert torch.allclose(both[1::2], asked.log_probabilities(pictures, maps)["fine"][1::2], atol=1e-4)
    sure = without["fine"].exp().max(1).values.mean()
    assert sure < asked.log_probabilities(pictures, maps)["fine"].exp().max(1).values.mean(), "it is less sure without a map"


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_one_at_a_time_and_many_at_once_say_the_same(globe: Globe, model: TrainedModel, crops: Any):
    pictures, maps, _ = held_out(globe)
    asked = load_multitask_model(model.folder, inference=InferenceSpec(crops=crops))
    single, many = (asked.log_probabilities(pictures[:9], maps[:9], batch_size=size) for size in (1, 64))
    for name, said in single.items():
        assert torch.allclose(said, many[name], atol=1e-3), name


def test_maps_of_another_size_or_class_are_refused(globe: Globe, model: TrainedModel):
    pictures, maps, _ = held_out(globe)
    asked = load_multitask_model(model.folder)
    with pytest.raises(ValueError, match="as large as the pictures"):
        asked.log_probabilities(pictures, maps[:, :30])
    with pytest.raises(RecipeError, match="hold class 9"):
        asked.log_probabilities(pictures, np.full_like(maps, 9))


def test_killed_and_continued_ends_at_the_same_weights(globe: Globe, tmp_path: Path):
    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == total // 2 + 1:
            raise Killed

    recipe = multitask_recipe(**SHORT)
    whole = trained(globe, tmp_path / "whole", recipe)
    with pytest.raises(Killed):
        trained(globe, tmp_path, recipe, progress=kill)
    again = trained(globe, tmp_path, recipe)
    assert again.model_version == whole.model_version
    assert read_json(again.folder / "training.json")["attempts"] == 2


def test_streamed_photos_and_maps_give_the_same_model(globe: Globe, tmp_path: Path):
    recipe = multitask_recipe(budget={"epochs": 1, "batch_size": 64}, optimiser={"name": "adamw", "warmup_epochs": 0})
    tight = recipe.model_copy(update={"data": recipe.data.model_copy(update={"memory_limit_gib": 1e-6, "workers": 1})})
    held, streamed = (read_json(trained(globe, tmp_path, one).folder / "training.json")["metrics"] for one in (recipe, tight))
    assert held == pytest.approx(streamed, abs=1e-5)


def test_every_photo_is_held_with_its_own_map(globe: Globe):
    recipe = multitask_recipe()
    rows = select_photos(recipe, globe.catalog, globe.labels, ["train"])
    held = hold_photos(recipe, rows, globe.crops, globe.maps)
    pictures, maps, numbers = held.__getitems__([7, 3, 7])
    assert numbers.tolist() == [7, 3, 7]
    assert np.array_equal(maps.numpy(), read_class_maps(globe.maps, [rows.capture_ids[n] for n in (7, 3, 7)], 36))
    assert torch.equal(pictures, hold_photos(recipe, rows, globe.crops).__getitems__([7, 3, 7])[0])
    changed = {**rows.sha256, rows.capture_ids[3]: "another"}
    with pytest.raises(IntegrityError, match=rows.capture_ids[3]):
        hold_photos(recipe, type(rows)(rows.capture_ids, changed, *[getattr(rows, n) for n in PARTS]), globe.crops, globe.maps)


PARTS = ("lat_deg", "lng_deg", "classes", "scenes")


def test_a_map_is_turned_and_cropped_as_its_photo():
    """Photos whose red is the number of the class: after any change of place, red and class still agree."""
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.integers(0, 9, (16, 6, 6)).astype(np.uint8)).repeat_interleave(12, 1).repeat_interleave(12, 2)
    pictures = (maps[:, None] * 25).repeat(1, 3, 1, 1)
    plain = {"brightness": 0, "contrast": 0, "saturation": 0, "min_scale": 0.5, "aspect": 0.2, "mirror": 0.5}
    spec = MirroredAugmentationSpec.model_validate(plain)
    seen, classes = augment_with_maps(pictures, maps, 64, spec, torch.Generator().manual_seed(2), "published")
    red = (seen[:, 0] * 0.229 + 0.485) * 255 / 25
    assert classes.shape == (16, 64, 64)
    agree = (red - classes.float()).abs() < 0.02
    assert agree.float().mean() > 0.75, "the rest lies on edges between classes, where colours are mixed"
    other = (red - classes.flip(2).float()).abs() < 0.02
    assert other.float().mean() < 0.4


def test_crops_of_photos_and_maps_show_the_same_corner():
    maps = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (2, 36, 36)).astype(np.uint8))
    pictures = (maps[:, None] * 25).repeat(1, 3, 1, 1)
    data = multitask_recipe().data
    for crops in (5, 10):
        shown, of_maps = views_of(pictures, data, crops), map_views_of(maps, data, crops)
        assert len(shown) == len(of_maps) == crops
        for view, classes in zip(shown, of_maps, strict=True):
            assert torch.allclose((view[:, 0] * 0.229 + 0.485) * 255 / 25, classes.float(), atol=1e-3)
    assert map_views_of(maps, data, 1)[0].shape == (2, 32, 32)


def test_the_rate_rises_evenly_and_falls_by_a_cosine():
    assert [rate_share(step, 4, 12) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate_share(4, 4, 12) == 1.0
    assert rate_share(8, 4, 12) == pytest.approx(0.5005)
    assert rate_share(12, 4, 12) == pytest.approx(0.001)
    assert rate_share(0, 0, 5) == 1.0


def test_weights_and_biases_have_rates_of_their_own():
    network = build_multitask_network(multitask_recipe(), {"coarse": 4, "fine": 9})
    made = warmup_and_cosine(network, MultitaskOptimiserSpec(), 10, 100)
    weights, biases = made["optimizer"].param_groups
    assert [group["lr"] for group in (weights, biases)] == pytest.approx([0.1 * 0.2 / 10, 0.1 * 0.0048 / 10])
    assert (weights["weight_decay"], biases["weight_decay"], weights["momentum"]) == (1e-4, 0, 0.9)
    assert {p.ndim for p in biases["params"]} == {1}
    assert sum(len(group["params"]) for group in (weights, biases)) == len(list(network.parameters()))
    assert MultitaskOptimiserSpec(name="adamw").rates == (5e-4, 5e-4)


def test_only_photos_of_the_scene_of_interest_are_learned_from(globe: Globe, tmp_path: Path):
    recipe = multitask_recipe(scene_of_interest="natural", budget={"epochs": 2, "batch_size": 16})
    rows = select_photos(recipe, globe.catalog, globe.labels, ["train"])
    everything = select_photos(multitask_recipe(), globe.catalog, globe.labels, ["train"])
    assert set(rows.scenes.argmax(1)) == {1}
    assert len(rows) == int((everything.scenes.argmax(1) == 1).sum()) < len(everything)
    assert len(select_photos(recipe, globe.catalog, globe.labels, ["train"], labelled=False)) == len(everything), (
        "all are answered"
    )
    assert trained(globe, tmp_path, recipe).rows == len(rows)
    with pytest.raises(NotEnoughDataError, match="fewer than the 128"):
        trained(globe, tmp_path, multitask_recipe(scene_of_interest="natural", budget={"epochs": 2, "batch_size": 128}))


def test_a_region_without_class_maps_is_told_so(globe: Globe, tmp_path: Path):
    for maps_path in (None, tmp_path / "nowhere.lance"):
        with pytest.raises(RecipeError, match=r"learns from class maps, and there are none.*segmentation: off"):
            trained(globe, tmp_path, maps_path=maps_path)
    few = {"segmentation": True, "seg_channels": 4}
    with pytest.raises(RecipeError, match=r"4 channels for the 9 classes .*seg_channels: 9"):
        trained(globe, tmp_path, multitask_recipe(branches=few))


def test_the_packaged_recipe_is_as_published():
    recipe = load_recipe("scenes", Path("/nonexistent"))
    assert isinstance(recipe, MultitaskRecipe)
    assert recipe.heads.weights == {"coarse": 0.5, "middle": 0.3, "fine": 0.2}
    assert recipe.heads.scene is not None
    assert recipe.heads.scene.weight == 1
    assert recipe.branches.seg_channels == len(CLASSES)
    assert recipe.optimiser.rates == pytest.approx((0.02, 0.00048))
    assert parse_recipe(recipe.to_yaml(), Path("again.yaml")) == recipe
    assert load_recipe("scene_classifier", Path("/nonexistent")).kind == "cells"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": {"levels": []}}, "kind `cells`"),
        ({"budget": {"epochs": 2}, "optimiser": {"warmup_epochs": 2}}, "2 of 2 epochs are warm-up"),
        ({"backbone": {"name": "vit_basic", "patch": 8}}, "needs all four"),
        ({"backbone": {"name": "vit_basic", "patch": 8, "width": 30, "depth": 2, "heads": 4}}, "30 is none of 4"),
        ({"backbone": {"name": "vit_tiny_patch16_224", "depth": 3}}, "belong to `vit_basic`"),
        ({"trainer": {"max_epochs": 2}}, "max_epochs follows from the rest"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        multitask_recipe(**changes)


def test_switches_are_written_as_on_and_off(tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    said = {"name": "bare", "kind": "scenes", "branches": {"segmentation": False}, "heads": {"scene": False}}
    text = yaml.safe_dump(said).replace("false", "off")
    (tmp_path / "recipes/bare.yaml").write_text(text)
    (bare,) = check_recipes(["bare"], tmp_path, cells=True)
    assert isinstance(bare, MultitaskRecipe)
    assert bare.heads.scene is None
    assert not bare.needs_maps
    with pytest.raises(RecipeError, match="the configuration has none"):
        check_recipes(["bare"], tmp_path, cells=False)
    with pytest.raises(RecipeError, match="the configuration makes none"):
        check_recipes(["scenes"], tmp_path, cells=True, class_maps=False)
    assert check_recipes(["bare"], tmp_path, cells=True, class_maps=False) == [bare]
