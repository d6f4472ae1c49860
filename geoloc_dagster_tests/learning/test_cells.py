"""A classifier of cells learns where photos are, says it the same way however it is asked, and goes on where it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from geoloc_dagster.dataset.cells import FINGERPRINT, Labels
from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NotEnoughDataError, RecipeError
from geoloc_dagster.geo.partitioning import DROPPED, HIERARCHY, parent_table
from geoloc_dagster.learning.cells_losses import CellsLoss, smoothed_labels, unit_vectors
from geoloc_dagster.learning.cells_model import load_cells_model
from geoloc_dagster.learning.cells_network import SCENE, views_of
from geoloc_dagster.learning.cells_recipe import CellsRecipe, InferenceSpec
from geoloc_dagster.learning.cells_training import train_cells
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.hierarchy import best_answers, fit_weights, hierarchy_log_probabilities
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel
from geoloc_dagster.learning.photo_batches import ShuffledBatches
from geoloc_dagster.learning.photo_rows import select_photos
from geoloc_dagster.learning.scene_classifier import load_scene_classifier
from geoloc_dagster.storage import read_json
from geoloc_dagster_tests.learning.globe import Globe, cells_recipe, make_globe


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Globe:
    return make_globe(tmp_path_factory.mktemp("globe"))


def trained(globe: Globe, out: Path, recipe: CellsRecipe | None = None, **options: Any) -> TrainedModel:
    recipe = recipe or cells_recipe()
    return train_cells(recipe, globe.catalog, globe.labels, globe.crops, out / recipe.name, **options)


@pytest.fixture(scope="module")
def model(globe: Globe, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained(globe, tmp_path_factory.mktemp("model"))


def of_split(globe: Globe, split: str) -> np.ndarray:
    return np.array(globe.catalog["split"].to_pylist()) == split


def accuracy(globe: Globe, folder: Path) -> dict[str, float]:
    test = of_split(globe, "test")
    answers = load_cells_model(folder).answers(globe.pixels[test])
    levels = {level.name: level for level in globe.labels.partitioning.levels}
    assert globe.labels.cells is not None
    truth = {name: globe.labels.cells[name].to_numpy()[test] for name in levels} | {
        HIERARCHY: globe.labels.cells["fine"].to_numpy()[test]
    }
    return {p_key: float((answers[p_key].classes == truth[p_key])[truth[p_key] >= 0].mean()) for p_key in answers}


def test_it_learns_the_cells_of_every_level(globe: Globe, model: TrainedModel):
    found = accuracy(globe, model.folder)
    assert set(found) == {"coarse", "fine", HIERARCHY}
    assert min(found.values()) > 0.6, found
    assert len(globe.labels.partitioning.level("fine")) >= 8


def test_the_folder_says_what_it_was_trained_on(globe: Globe, model: TrainedModel):
    facts = read_json(model.folder / "training.json")
    assert facts["trained_on_rows"] == int(of_split(globe, "train").sum())
    assert facts["cells_fingerprint"] == globe.labels.partitioning.fingerprint
    assert facts["hierarchy_weights"].keys() == {"coarse", "fine"}
    assert read_json(model.folder / "hierarchy.json")["fitted_on"] == int(of_split(globe, "dev").sum())
    assert {"dev_fine_accuracy", "dev_scene_accuracy", "train_loss"} <= facts["metrics"].keys()
    assert not list(model.folder.parent.glob(".work-*"))


def test_same_seed_same_weights(globe: Globe, model: TrainedModel, tmp_path: Path):
    assert trained(globe, tmp_path).model_version == model.model_version
    assert trained(globe, tmp_path, cells_recipe(seed=1)).model_version != model.model_version


@pytest.mark.parametrize("steps", [30, 33])
def test_killed_and_continued_ends_at_the_same_weights(globe: Globe, model: TrainedModel, tmp_path: Path, steps: int):
    """Between two epochs of five steps, and in the middle of one, which is repeated from its beginning."""

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == steps:
            raise Killed

    with pytest.raises(Killed):
        trained(globe, tmp_path, progress=kill)
    assert len(list(tmp_path.glob(f"*/.work-*/{LAST_CHECKPOINT}"))) == 1
    again = trained(globe, tmp_path)
    assert again.model_version == model.model_version
    assert read_json(again.folder / "training.json")["attempts"] == 2


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_one_at_a_time_and_many_at_once_say_the_same(globe: Globe, model: TrainedModel, crops: Any):
    asked = load_cells_model(model.folder, inference=InferenceSpec(crops=crops))
    single, many = (asked.answers(globe.pixels[:65], batch_size=size) for size in (1, 64))
    for p_key in asked.p_keys:
        assert np.array_equal(single[p_key].classes, many[p_key].classes)
        assert np.abs(single[p_key].confidence - many[p_key].confidence).max() < 1e-4


def test_crops_show_the_corners_and_the_middle_and_then_these_mirrored(model: TrainedModel):
    data = cells_recipe().data
    pictures = torch.arange(2 * 3 * 36 * 36).reshape(2, 3, 36, 36).remainder(256).to(torch.uint8)
    ten = views_of(pictures, data, 10)
    assert [tuple(view.shape) for view in ten] == [(2, 3, 32, 32)] * 10
    for plain, turned in zip(ten[:5], ten[5:], strict=True):
        assert torch.equal(plain.flip(3), turned)
    assert len({view.sum().item() for view in ten[:5]}) == 5


def test_probabilities_of_every_answer_sum_to_one(globe: Globe, model: TrainedModel):
    for name, said in load_cells_model(model.folder).log_probabilities(globe.pixels[:9]).items():
        assert torch.allclose(said.exp().sum(1), torch.ones(9), atol=1e-4), name


def test_the_hierarchy_is_the_product_over_a_cell_and_those_around_it(globe: Globe):
    rng = torch.Generator().manual_seed(1)
    cells = globe.labels.partitioning
    said = {level.name: torch.log_softmax(torch.randn(5, len(level), generator=rng), 1) for level in cells.levels}
    joint = hierarchy_log_probabilities(said, cells.parents, ["coarse", "fine"], {"coarse": 1.0, "fine": 1.0})
    for photo in range(5):
        product = [
            said["fine"][photo, fine].exp() * said["coarse"][photo, int(cells.parents[fine, 0])].exp()
            for fine in range(len(cells.level("fine")))
        ]
        assert torch.allclose(joint[photo].exp(), torch.stack(product) / sum(product), atol=1e-5)


def test_fitted_weights_mistrust_a_level_that_guesses_and_say_how_sure_the_rest_is():
    rng = np.random.default_rng(0)
    parents = np.stack([np.arange(8) // 2, np.arange(8)], axis=1).astype(np.int32)
    classes = rng.integers(0, 8, 600).astype(np.int32)
    centres = unit_vectors(np.zeros(8), np.arange(8) * 40.0)
    overconfident = torch.from_numpy(rng.normal(0, 3, (600, 8)).astype(np.float32))
    overconfident[torch.arange(600), torch.from_numpy(classes).long()] += 6
    guess = torch.from_numpy(rng.normal(0, 6, (600, 4)).astype(np.float32))
    said = {"coarse": torch.log_softmax(guess, 1), "fine": torch.log_softmax(overconfident, 1)}
    known = (classes, parents, ["coarse", "fine"], centres[torch.from_numpy(classes).long()], centres)
    weights = fit_weights(said, *known, score_km=1000)
    assert weights["coarse"] < 0.3 * weights["fine"]
    assert weights["fine"] < 0.9
    nothing = fit_weights({name: part[:0] for name, part in said.items()}, *known, score_km=1000)
    assert nothing == {"coarse": 1.0, "fine": 1.0}


def test_the_answer_that_earns_most_may_lie_between():
    centres = unit_vectors(np.zeros(4), np.array([0.0, 1.0, 2.0, 90.0]))
    said = torch.log(torch.tensor([[0.30, 0.06, 0.29, 0.35], [0.1, 0.2, 0.0, 0.7]]))
    assert best_answers(said, centres, None).tolist() == [3, 3]
    assert best_answers(said, centres, 1500.0).tolist() == [1, 3]
    near = best_answers(said, centres, 1.0).tolist()
    assert near == [3, 3], "with a score that counts only the cell itself, the likeliest earns most"


def test_a_dropped_cell_says_nothing(globe: Globe):
    cells, spec = globe.labels.partitioning, cells_recipe().heads
    loss = CellsLoss(spec, cells, ["coarse", "fine"])
    logits = {level.name: torch.randn(4, len(level), requires_grad=True) for level in cells.levels}
    logits[SCENE] = torch.randn(4, 3, requires_grad=True)
    classes = torch.tensor([[0, 0], [1, DROPPED], [0, DROPPED], [2, 1]])
    scenes = torch.tensor([[0.2, 0.3, 0.5], [np.nan] * 3, [np.nan] * 3, [1.0, 0.0, 0.0]])
    parts = loss(logits, classes, unit_vectors(np.zeros(4), np.zeros(4)), scenes)
    parts["loss"].backward()
    gradient = logits["fine"].grad
    assert gradient is not None
    assert torch.count_nonzero(gradient[1]) == torch.count_nonzero(gradient[2]) == 0
    assert torch.count_nonzero(gradient[0]) > 0
    assert torch.allclose(parts["loss"], parts["coarse"] + parts["fine"] + parts[SCENE])
    nothing = loss(logits, torch.full((4, 2), DROPPED), unit_vectors(np.zeros(4), np.zeros(4)), torch.full((4, 3), np.nan))
    assert float(nothing["loss"].detach()) == 0


def test_smoothed_labels_fall_off_with_distance():
    centres = unit_vectors(np.array([0.0, 0.0, 0.0]), np.array([0.0, 1.0, 10.0]))
    photo = unit_vectors(np.array([0.0]), np.array([0.1]))
    labels = smoothed_labels(photo, centres, torch.tensor([0]), 75.0)[0]
    expected = np.exp(-np.array([0, 0.8, 9.8]) * 111.195 / 75)
    assert np.allclose(labels.numpy(), expected / expected.sum(), atol=1e-3)


def test_smoothing_trains_too(globe: Globe, tmp_path: Path):
    recipe = cells_recipe(name="smooth", heads={"smoothing": {"tau_km": {"fine": 20}}, "weights": {"coarse": 0.5}})
    assert accuracy(globe, trained(globe, tmp_path, recipe).folder)["fine"] > 0.5


def test_networks_per_scene_start_from_a_model_and_are_routed_by_it(globe: Globe, model: TrainedModel, tmp_path: Path):
    recipe = cells_recipe(
        name="per_scene",
        scene_networks={"base": "tiny_cells", "threshold": 0.3},
        budget={"epochs": 2, "batch_size": 16},
        optimiser={"name": "adamw", "learning_rate": 0.002},
    )
    with pytest.raises(RecipeError, match="to start from"):
        trained(globe, tmp_path, recipe)
    made = trained(globe, tmp_path, recipe, base=model.folder)
    asked = load_cells_model(made.folder)
    assert set(asked.scene_networks) == set(SCENES)
    assert min(accuracy(globe, made.folder).values()) > 0.6
    scene = asked.scenes(globe.pixels[:40]).argmax(1)
    whole = asked.answers(globe.pixels[:40])["fine"]
    for number, name in enumerate(SCENES):
        alone = load_cells_model(made.folder)
        alone.network, alone.scene_networks = alone.scene_networks[name], {}
        rows = scene == number
        if rows.any():
            assert np.array_equal(alone.answers(globe.pixels[:40][rows])["fine"].classes, whole.classes[rows])


def test_networks_per_scene_that_were_killed_end_at_the_same_weights(globe: Globe, model: TrainedModel, tmp_path: Path):
    recipe = cells_recipe(name="per_scene", scene_networks={"base": "tiny_cells"}, budget={"epochs": 2, "batch_size": 16})
    whole = trained(globe, tmp_path / "whole", recipe, base=model.folder)

    class Killed(Exception):
        pass

    firsts: list[int] = []

    def kill_in_the_second(done: int, total: int) -> None:
        firsts.extend([total] if done == 1 else [])
        if len(firsts) == 2 and done > total // 2:
            raise Killed

    with pytest.raises(Killed):
        trained(globe, tmp_path / "killed", recipe, base=model.folder, progress=kill_in_the_second)
    work = next(tmp_path.glob("killed/per_scene/.work-*"))
    assert {path.name for path in work.glob("*.safetensors")} == {"weights-indoor.safetensors"}
    assert trained(globe, tmp_path / "killed", recipe, base=model.folder).model_version == whole.model_version


def test_a_model_of_scenes_alone(globe: Globe, tmp_path: Path):
    recipe = cells_recipe(name="scene_classifier", heads={"levels": [], "scene": {}})
    made = trained(globe, tmp_path, recipe)
    classifier = load_scene_classifier(made.folder)
    test = of_split(globe, "test")
    assert globe.labels.scenes is not None
    truth = np.stack([globe.labels.scenes[f"prob_{name}"].to_numpy() for name in SCENES], 1)[test].argmax(1)
    said = classifier.scenes(globe.pixels[test])
    assert (said.argmax(1) == truth).mean() > 0.6
    assert np.allclose(said.sum(1), 1, atol=1e-4)
    assert load_cells_model(made.folder).p_keys == []


def test_a_model_without_scenes_says_so(globe: Globe, tmp_path: Path):
    made = trained(globe, tmp_path, cells_recipe(name="cells_only", heads={}, budget={"epochs": 1, "batch_size": 32}))
    with pytest.raises(ModelMismatchError, match="tells no scenes"):
        load_scene_classifier(made.folder)


def test_labels_of_other_cells_are_refused(globe: Globe, tmp_path: Path):
    assert globe.labels.cells is not None
    other = globe.labels.cells.replace_schema_metadata({FINGERPRINT: b"others"})
    with pytest.raises(ModelMismatchError, match="cell_labels"):
        select_photos(cells_recipe(), globe.catalog, Labels(globe.labels.partitioning, other), ["train"])


def test_too_few_photos_is_one_clear_error(globe: Globe, tmp_path: Path):
    with pytest.raises(NotEnoughDataError, match="fewer than the 4,096 of one batch"):
        trained(globe, tmp_path, cells_recipe(budget={"epochs": 1, "batch_size": 4096}))


def test_a_changed_file_of_a_model_is_refused(globe: Globe, tmp_path: Path):
    made = trained(globe, tmp_path, cells_recipe(budget={"epochs": 1, "batch_size": 64}))
    file = made.folder / "hierarchy.json"
    file.write_text(file.read_text().replace("coarse", "course"))
    with pytest.raises(IntegrityError, match=r"hierarchy\.json"):
        load_cells_model(made.folder)


def test_a_classifier_of_cells_is_no_encoder(model: TrainedModel):
    with pytest.raises(RecipeError, match="of kind `cells`"):
        load_encoder(model.folder)


def test_trainer_options_pass_through_and_unknown_ones_are_named(globe: Globe, tmp_path: Path):
    made = trained(globe, tmp_path, cells_recipe(trainer={"accumulate_grad_batches": 2}))
    assert read_json(made.folder / "training.json")["steps"] == 12 * 3  # 5 batches an epoch, the last step of one alone
    with pytest.raises(RecipeError, match="no option 'accumulate'"):
        trained(globe, tmp_path, cells_recipe(trainer={"accumulate": 2}))
    with pytest.raises(RecipeError, match="precision"):
        trained(globe, tmp_path, cells_recipe(trainer={"precision": "17"}))
    with pytest.raises(ValidationError, match="max_epochs follows from the rest"):
        cells_recipe(trainer={"max_epochs": 3})
    with pytest.raises(ValidationError, match="devices is set under `compute`"):
        cells_recipe(trainer={"devices": 2})


def test_a_streamed_collection_gives_the_same_model(globe: Globe, tmp_path: Path):
    recipe = cells_recipe(budget={"epochs": 1, "batch_size": 32})
    tight = recipe.model_copy(update={"data": recipe.data.model_copy(update={"memory_limit_gib": 1e-6, "workers": 1})})
    facts = [
        read_json(one.folder / "training.json")["metrics"]
        for one in (trained(globe, tmp_path, recipe), trained(globe, tmp_path, tight))
    ]
    assert facts[0] == pytest.approx(facts[1], abs=1e-5)


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own():
    first, second = (np.concatenate(list(ShuffledBatches(100, 32, 5, epoch))) for epoch in (0, 1))
    assert len(np.unique(first)) == len(first) == 96
    assert not np.array_equal(first, second)
    assert np.array_equal(first, np.concatenate(list(ShuffledBatches(100, 32, 5, 0))))


def test_parents_of_a_part_of_the_levels(globe: Globe, tmp_path: Path):
    made = trained(globe, tmp_path, cells_recipe(name="fine_only", heads={"levels": ["fine"]}))
    asked = load_cells_model(made.folder)
    assert asked.p_keys == ["fine", HIERARCHY]
    answers = asked.answers(globe.pixels[:20])
    said = asked.log_probabilities(globe.pixels[:20])
    assert torch.equal(said["fine"].argmax(1), said[HIERARCHY].argmax(1))
    assert np.array_equal(answers["fine"].classes, said["fine"].argmax(1).numpy())
    assert np.array_equal(asked.parents, parent_table([globe.labels.partitioning.level("fine")]))
