"""A sequence model learns what no single view says, whatever the order of its views, and goes on where it was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NotEnoughDataError, RecipeError
from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid
from geoloc_dagster.geo.partitioning import HIERARCHY, Partitioning
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.cells_training import train_cells
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, TrainedModel
from geoloc_dagster.learning.photo_models import load_classifier
from geoloc_dagster.learning.recipe import check_recipes, load_recipe
from geoloc_dagster.learning.sequence_model import SequenceModel, load_sequence_model
from geoloc_dagster.learning.sequence_module import drawn_views
from geoloc_dagster.learning.sequence_network import heading_code, in_order, in_slots
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe, ViewsSpec
from geoloc_dagster.learning.sequence_rows import SequenceRows, select_sequences
from geoloc_dagster.learning.sequence_training import train_sequence
from geoloc_dagster.prediction.experts import GridParameters
from geoloc_dagster.prediction.fusing import trained_classifier
from geoloc_dagster.prediction.panel import Photos
from geoloc_dagster.storage import read_json
from geoloc_dagster_tests.learning.crossroads import TOWNS, Crossroads, make_crossroads, sequence_recipe
from geoloc_dagster_tests.learning.globe import cells_recipe, labels_of

KINDS = ("mean", "attention", "lstm", "gru")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Crossroads:
    return make_crossroads(tmp_path_factory.mktemp("crossroads"))


def of_kind(kind: str) -> SequenceRecipe:
    classes = "grid_cells" if kind == "gru" else "s2_cells"
    encoder = {"kind": kind, "width": 32, "attention_heads": 2, "dropout": 0.0}
    return sequence_recipe(name=f"by_{kind}", encoder=encoder, heads={"classes": classes})


def classes_of(world: Crossroads, recipe: SequenceRecipe) -> Partitioning:
    return world.s2_cells if recipe.heads.classes == "s2_cells" else world.grid


def trained(world: Crossroads, out: Path, recipe: SequenceRecipe, **options: Any) -> TrainedModel:
    return train_sequence(recipe, world.catalog, classes_of(world, recipe), world.crops, out / recipe.name, **options)


@dataclass(frozen=True)
class Asked:
    """A trained model with the test places as it is asked about them."""

    made: TrainedModel
    model: SequenceModel
    rows: SequenceRows
    pictures: torch.Tensor  # (N, V, 3, S, S)
    headings: torch.Tensor
    present: torch.Tensor

    def said(self, present: torch.Tensor | None = None, headings: torch.Tensor | None = None) -> torch.Tensor:
        headings = self.headings if headings is None else headings
        return self.model.log_probabilities(self.pictures, headings, self.present if present is None else present)[HIERARCHY]

    def share_right(self, said: torch.Tensor) -> float:
        return float((said.argmax(1).numpy() == self.rows.classes[:, -1]).mean())


@pytest.fixture(scope="module")
def asked(world: Crossroads, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Asked]:
    found: dict[str, Asked] = {}
    for kind in KINDS:
        recipe = of_kind(kind)
        made = trained(world, tmp_path_factory.mktemp(kind), recipe)
        model = load_sequence_model(made.folder)
        rows = select_sequences(recipe, world.catalog, model.partitioning, ["test"])
        pixels = torch.from_numpy(CropReader(world.crops).pictures(rows.capture_ids, model.size))
        present = torch.from_numpy(rows.present)
        pictures = torch.zeros((*present.shape, *pixels.shape[1:]), dtype=torch.uint8)
        pictures[present] = pixels
        found[kind] = Asked(made, model, rows, pictures, torch.from_numpy(rows.headings), present)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_no_single_view_says(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    assert one.share_right(one.said()) > 0.9
    for slot in range(3):
        single = torch.zeros_like(one.present)
        single[:, slot] = True
        assert one.share_right(one.said(single)) < 0.5  # a view leaves four of eight towns


def test_every_level_has_a_head_of_its_own(asked: dict[str, Asked]):
    one = asked["attention"]
    assert [len(level) for level in one.model.partitioning.levels] == [4, 8]
    said = one.model.log_probabilities(one.pictures, one.headings, one.present)
    for number, level in enumerate(one.model.levels):
        assert said[level].shape[1] == (4, 8)[number]
        assert (said[level].argmax(1).numpy() == one.rows.classes[:, number]).mean() > 0.9
    assert torch.equal(said["fine"].argmax(1), said[HIERARCHY].argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_in_which_views_are_given_is_of_no_account(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    for order in ([2, 0, 1], [1, 0, 2]):
        shuffled = one.model.log_probabilities(one.pictures[:, order], one.headings[:, order], one.present[:, order])[HIERARCHY]
        assert torch.allclose(shuffled, one.said(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_views_at_each_others_headings_are_another_place(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    towns = np.array([int(name[1:]) % 8 for name in one.rows.location_ids])
    differ = (towns & 1) != (towns >> 1 & 1)  # look another way to the north than to the east
    said = one.said(headings=one.headings[:, [1, 0, 2]])
    right = said.argmax(1).numpy() == one.rows.classes[:, -1]
    assert right[differ].mean() < 0.2
    assert right[~differ].mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_where_a_view_is_missing_changes_nothing(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    present = one.present.clone()
    present[:, 1] = False
    before = one.said(present)
    changed = one.pictures.clone()
    changed[:, 1] = 255 - changed[:, 1]
    headings = one.headings.clone()
    headings[:, 1] = 312.0
    after = one.model.log_probabilities(changed, headings, present)[HIERARCHY]
    assert torch.equal(before, after)
    alone = one.model.log_probabilities(one.pictures[:, [0, 2]], one.headings[:, [0, 2]], present[:, [0, 2]])[HIERARCHY]
    assert torch.allclose(before, alone, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_features_give_what_pictures_give_and_probabilities_sum_to_one(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    features = in_slots(one.model.view_features(one.pictures[one.present]), one.present)
    said = one.model.said_of(features, one.headings, one.present)
    assert set(said) == {*one.model.levels, HIERARCHY}
    for name, values in one.model.log_probabilities(one.pictures, one.headings, one.present, batch_size=3).items():
        assert torch.allclose(values, said[name], atol=1e-4)
        assert torch.allclose(values.exp().sum(1), torch.ones(len(values)), atol=1e-4)
        assert values.dtype == torch.float32


@pytest.mark.parametrize("kind", ["attention", "lstm"])
def test_without_headings_the_order_of_views_does_not_tell_them(asked: dict[str, Asked], kind: str):
    one = asked[kind]
    hidden = torch.full_like(one.headings, torch.nan)
    assert one.share_right(one.said(headings=hidden)) < 0.7  # two of eight, and one of three of the others, are a half


def on_towns(classes: Partitioning) -> AnswerGrid:
    """A grid over the towns whose cells hold one town each."""
    lat, lng = np.array(TOWNS).T
    return build_grid(lat, lng, inside=(lat, lng), finest_level=6)


@pytest.mark.parametrize("kind", ["mean", "gru"])  # S2 cells and polygons
def test_a_photo_is_the_only_view_of_its_place_at_an_unknown_heading(asked: dict[str, Asked], kind: str):
    one, photos = asked[kind], asked[kind].pictures[:, 1]
    single = torch.zeros_like(one.present)
    single[:, 1] = True
    alone = one.said(single, torch.full_like(one.headings, torch.nan))
    assert torch.allclose(load_classifier(one.made.folder).log_probabilities(photos)[HIERARCHY], alone, atol=1e-5)

    grid = on_towns(one.model.partitioning)
    expert = trained_classifier("sequence", one.made.folder, grid)
    found = expert.look(Photos({}, lambda size: photos.numpy()), {})
    said = np.exp(expert.say(found, GridParameters(None, 0.001)))
    assert np.allclose(said.sum(axis=1), 1, atol=1e-4)
    town = grid.cells_of(one.model.finest.lat_deg, one.model.finest.lng_deg)
    by_class = np.zeros((len(photos), len(grid)))
    np.add.at(by_class.T, town, np.exp(alone.numpy()).T)
    assert np.allclose(said, by_class, atol=0.01)  # every class has its town for itself


def test_what_cannot_be_asked_is_refused(asked: dict[str, Asked]):
    one = asked["mean"]
    nothing = one.present.clone()
    nothing[4] = False
    with pytest.raises(ValueError, match="row 4 has no view"):
        one.said(nothing)
    with pytest.raises(ValueError, match="uint8 of shape N x V x 3"):
        one.model.log_probabilities(one.pictures[:, 0], one.headings, one.present)
    with pytest.raises(ValueError, match="must have shape"):
        one.model.log_probabilities(one.pictures, one.headings[:, :2], one.present)


def test_answers_of_grid_cells_are_where_the_places_of_training_are(asked: dict[str, Asked], world: Crossroads):
    one = asked["gru"]
    assert one.model.levels == ["grid"]
    said = one.said()
    answer = one.model.answer(HIERARCHY, said)
    assert np.abs(answer.lat_deg - one.rows.lat_deg).max() < 0.2
    assert world.grid.level("grid").counts.tolist()[-1] == 0
    assert one.model.parents.tolist() == [[number] for number in range(9)]
    facts = read_json(one.made.folder / "training.json")
    assert facts["trained_on_cells"] == {"grid": 9}
    assert facts["trained_on_sequences"] * 3 == facts["trained_on_rows"]


def test_killed_and_continued_ends_at_the_same_weights(asked: dict[str, Asked], world: Crossroads, tmp_path: Path):
    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == total // 2:
            raise Killed

    with pytest.raises(Killed):
        trained(world, tmp_path, of_kind("mean"), progress=kill)
    assert len(list(tmp_path.glob(f"*/.work-*/{LAST_CHECKPOINT}"))) == 1
    again = trained(world, tmp_path, of_kind("mean"))
    assert again.model_version == asked["mean"].made.model_version
    assert read_json(again.folder / "training.json")["attempts"] == 2


def test_a_frozen_backbone_keeps_the_weights_of_the_model_it_is_from(world: Crossroads, tmp_path: Path):
    of_cells = CellsRecipe.model_validate(
        cells_recipe(name="single", heads={}, budget={"epochs": 1, "batch_size": 16}).model_dump()
        | {"data": {"image_size": 16, "stored_size": 20}, "backbone": sequence_recipe().backbone.model_dump()}
    )
    scenes = np.full((world.catalog.num_rows, 3), 1 / 3, np.float32)
    base = train_cells(of_cells, world.catalog, labels_of(world.catalog, scenes), world.crops, tmp_path / "single").folder
    recipe = sequence_recipe(name="frozen", start_from="single", frozen=True, budget={"epochs": 2, "batch_size": 16})
    with pytest.raises(RecipeError, match="needs a trained model of recipe single"):
        trained(world, tmp_path, recipe)
    made = trained(world, tmp_path, recipe, base=base)
    own, theirs = load_file(made.folder / "weights.safetensors"), load_file(base / "weights.safetensors")
    shared = [name for name in theirs if name.startswith("backbone.")]
    assert shared
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    other = sequence_recipe(
        start_from="single", backbone={"name": "resnet_basic", "channels": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]}
    )
    with pytest.raises(ModelMismatchError, match="another backbone"):
        trained(world, tmp_path, other, base=base)


def test_a_changed_file_of_the_classes_is_refused(world: Crossroads, tmp_path: Path):
    recipe = sequence_recipe(name="short", heads={"classes": "grid_cells"}, budget={"epochs": 1, "batch_size": 32})
    made = trained(world, tmp_path, recipe)
    file = made.folder / "cells" / "polygons.parquet"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(IntegrityError, match=r"polygons\.parquet"):
        load_sequence_model(made.folder)


def test_what_it_runs_on_is_what_the_recipe_says(world: Crossroads, tmp_path: Path):
    short = {"heads": {"classes": "grid_cells"}, "budget": {"epochs": 1, "batch_size": 32}}
    exact, rounded = (
        trained(world, tmp_path / precision, sequence_recipe(name="short", compute={"precision": precision}, **short))
        for precision in ("32", "bf16")
    )
    assert exact.recipe.recipe_hash() == rounded.recipe.recipe_hash()
    assert exact.model_version != rounded.model_version  # other weights, by the rounding of bfloat16


def test_a_training_that_ends_in_no_numbers_is_an_error_and_leaves_nothing_to_go_on_from(world: Crossroads, tmp_path: Path):
    recipe = sequence_recipe(name="wild", optimiser={"learning_rate": 1e30}, budget={"epochs": 2, "batch_size": 32})
    with pytest.raises(RecipeError, match="not finite numbers"):
        trained(world, tmp_path, recipe)
    assert list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob(LAST_CHECKPOINT)) == []


def test_too_few_places_is_one_clear_error(world: Crossroads, tmp_path: Path):
    with pytest.raises(NotEnoughDataError, match="fewer than the 4,096 of one batch"):
        trained(world, tmp_path, sequence_recipe(budget={"epochs": 1, "batch_size": 4096}))


def changed(catalog: pa.Table, **columns: list[Any]) -> pa.Table:
    for name, values in columns.items():
        catalog = catalog.set_column(
            catalog.schema.get_field_index(name), catalog.schema.field(name), pa.array(values, catalog.schema.field(name).type)
        )
    return catalog


def test_rotations_count_from_an_unknown_heading(world: Crossroads):
    count = world.catalog.num_rows
    rotations = changed(world.catalog, heading_deg=[None] * count, view=[f"r{number % 3}" for number in range(count)])
    rows = select_sequences(sequence_recipe(), rotations, world.s2_cells, ["train"])
    assert rows.relative.all()
    assert rows.headings[0].tolist() == [0.0, 90.0, 180.0]
    absolute = select_sequences(sequence_recipe(), world.catalog, world.s2_cells, ["train"])
    assert not absolute.relative.any()
    assert absolute.fingerprint() != rows.fingerprint()
    nothing = changed(world.catalog, heading_deg=[None] * count, view=["v"] * count)
    assert np.isnan(select_sequences(sequence_recipe(), nothing, world.s2_cells, ["train"]).headings_deg).all()


def test_a_place_at_two_dates_is_two_and_a_view_taken_twice_is_one(world: Crossroads):
    first = world.catalog.slice(0, 3).to_pylist()
    later = [row | {"capture_id": row["capture_id"] + "x", "captured_on": row["captured_on"].replace(year=2022)} for row in first]
    again = [first[0] | {"capture_id": first[0]["capture_id"] + "y"}]
    catalog = pa.concat_tables([world.catalog, pa.Table.from_pylist([*later, *again], schema=world.catalog.schema)])
    rows = select_sequences(sequence_recipe(), catalog, world.s2_cells, ["train"])
    assert rows.names()[:3] == ["p0000 2020-05-01", "p0000 2022-05-01", "p0001 2020-05-01"]
    assert rows.counts[:3].tolist() == [3, 3, 3]
    assert rows.captures_of([1, 0]) == [3, 4, 5, 0, 1, 2]
    assert [rows.capture_ids[at] for at in rows.captures_of([1])] == [row["capture_id"] for row in later]


def test_of_many_views_some_all_around_are_taken(tmp_path: Path):
    many = make_crossroads(tmp_path, places=16)
    rows = many.catalog.to_pylist()
    eight = [
        rows[0]
        | {"capture_id": f"c{number}", "location_id": "round", "heading_deg": 45.0 * number, "view": f"h{45 * number:03d}"}
        for number in range(8)
    ]
    catalog = pa.Table.from_pylist(eight, schema=many.catalog.schema)
    for most, expected in ((4, [0, 90, 180, 270]), (8, [45 * number for number in range(8)]), (3, [0, 135, 270])):
        found = select_sequences(sequence_recipe(views={"at_most": most}), catalog, many.s2_cells, ["train"], labelled=False)
        assert found.headings_deg.tolist() == expected


def test_heading_codes_are_sine_and_cosine_and_unknown_ones_are_none():
    code = heading_code(torch.tensor([[0.0, 90.0, 180.0, 270.0, torch.nan]]))
    expected = torch.tensor([[0.0, 1, 1], [1, 0, 1], [0, -1, 1], [-1, 0, 1], [0, 0, 0]])
    assert torch.allclose(code[0], expected, atol=1e-6)
    assert torch.allclose(heading_code(torch.tensor([359.999])), heading_code(torch.tensor([0.0])), atol=1e-4)


def test_views_are_read_clockwise_from_the_start_unknown_ones_then_missing_ones_last():
    headings = torch.tensor([[180.0, torch.nan, 0.0, 270.0], [90.0, 10.0, 20.0, torch.nan]])
    present = torch.tensor([[True, True, True, False], [True, True, True, True]])
    assert in_order(headings, present, torch.zeros(2)).tolist() == [[2, 0, 1, 3], [1, 2, 0, 3]]
    assert in_order(headings, present, torch.tensor([100.0, 15.0])).tolist() == [[0, 2, 1, 3], [2, 0, 1, 3]]


def test_training_drops_views_but_never_all_and_turns_only_relative_headings():
    generator = torch.Generator().manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, False]]).repeat(200, 1)
    headings = torch.tensor([[0.0, 90.0, 180.0], [30.0, torch.nan, torch.nan]]).repeat(200, 1)
    relative = torch.tensor([True, False]).repeat(200)
    kept, turned, start = drawn_views(headings, present, relative, ViewsSpec(dropout=0.5, unknown=0), generator)
    assert not (kept & ~present).any()
    assert kept.any(dim=1).all()
    assert 0.4 < float(kept[present].float().mean()) < 0.8
    assert torch.equal(turned[1::2].nan_to_num(-1), headings[1::2].nan_to_num(-1))
    between = torch.remainder(turned[::2, 1] - turned[::2, 0], 360)
    assert torch.allclose(between, torch.full_like(between, 90.0), atol=1e-3)
    assert turned[::2, 0].std() > 80
    assert start.std() > 80
    _, as_given, north = drawn_views(headings, present, relative, ViewsSpec(random_start=False, unknown=0), generator)
    assert torch.equal(as_given.nan_to_num(-1), headings.nan_to_num(-1))
    assert north.count_nonzero() == 0
    _, some, _ = drawn_views(headings[::2], present[::2], relative[::2], ViewsSpec(unknown=0.3), generator)
    hidden = some.isnan().sum(dim=1)
    assert set(hidden.tolist()) == {0, 3}  # all headings of a place, or none
    assert 0.15 < float((hidden == 3).float().mean()) < 0.45


def test_recipes_that_cannot_be_are_refused(tmp_path: Path):
    with pytest.raises(ValidationError, match="would stay random"):
        sequence_recipe(frozen=True)
    with pytest.raises(ValidationError, match="must divide width"):
        sequence_recipe(encoder={"kind": "attention", "width": 32, "attention_heads": 5})
    with pytest.raises(ValidationError, match="one level"):
        sequence_recipe(heads={"classes": "grid_cells", "levels": ["fine"]})
    with pytest.raises(ValidationError, match="max_epochs follows from the rest"):
        sequence_recipe(trainer={"max_epochs": 3})
    with pytest.raises(ValidationError, match="devices is set under `compute`"):
        sequence_recipe(trainer={"devices": 2})
    with pytest.raises(ValidationError, match="trains on one device"):
        sequence_recipe(compute={"devices": 2})
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny_sequence.yaml").write_text(sequence_recipe(heads={"classes": "grid_cells"}).to_yaml())
    assert load_recipe("tiny_sequence", tmp_path) == sequence_recipe(heads={"classes": "grid_cells"})
    with pytest.raises(RecipeError, match="classifies grid cells, and the configuration has none"):
        check_recipes(["tiny_sequence"], tmp_path, cells=True)
    check_recipes(["tiny_sequence"], tmp_path, cells=False, grid_cells=True)
    (tmp_path / "recipes" / "tiny_sequence.yaml").write_text(sequence_recipe(start_from="later").to_yaml())
    (tmp_path / "recipes" / "later.yaml").write_text(cells_recipe(name="later").to_yaml())
    with pytest.raises(RecipeError, match="List later before it"):
        check_recipes(["tiny_sequence", "later"], tmp_path, cells=True)
