"""Recipes are found by name, and a wrong line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoloc_dagster.errors import RecipeError
from geoloc_dagster.learning.recipe import check_recipes, load_recipe, parse_recipe, recipe_names
from geoloc_dagster_tests.learning.city import tiny_recipe


def write(folder: Path, name: str, text: str) -> None:
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("name", ["retrieval", "retrieval_plain"])
def test_packaged_recipes_load(tmp_path: Path, name: str):
    assert load_recipe(name, tmp_path).name == name
    assert name in recipe_names(tmp_path)


def test_a_region_has_its_own_recipe_of_the_same_name(tmp_path: Path):
    write(tmp_path, "retrieval", "name: retrieval\nloss: {cosface: {}}\nseed: 7\n")
    assert load_recipe("retrieval", tmp_path).seed == 7


def test_a_recipe_survives_being_written_and_read(tmp_path: Path):
    recipe = tiny_recipe()
    assert parse_recipe(recipe.to_yaml(), tmp_path / "tiny.yaml") == recipe


def test_the_fingerprint_follows_what_changes_results():
    assert tiny_recipe().recipe_hash() == tiny_recipe(description="words").recipe_hash()
    assert tiny_recipe().recipe_hash() != tiny_recipe(seed=1).recipe_hash()
    assert tiny_recipe().with_seed(1) == tiny_recipe(seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nloss:\n  cosface: {}\n  cosine: {}\n", r"line 4: loss\.cosine"),
        ("name: x\nloss: {cosface: {}}\nsampler:\n  places: 1\n", r"line 4: sampler\.places"),
        ("name: x\nloss: {}\n", r"line 2: loss: .*at least one loss"),
        ("name: x\n", "loss"),
        ("name: x\nloss: {cosface: {}}\nbackbone: {name: resnet_basic}\n", r"line 3: backbone: .*channels and blocks"),
        ("name: x\nloss: {cosface: {}}\ndata: {image_size: 128, stored_size: 96}\n", r"line 3: data: .*stored_size"),
        ("- a\n", "top level"),
        ("name: [\n", "not valid YAML"),
        ("name: x\nloss: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("name: y\nloss: {cosface: {}}\n", "its file says x"),
    ],
)
def test_a_wrong_recipe_names_its_line(tmp_path: Path, text: str, message: str):
    write(tmp_path, "x", text)
    with pytest.raises(RecipeError, match=message):
        load_recipe("x", tmp_path)


def test_an_unknown_recipe_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"no recipe 'retreival'.*retrieval, retrieval_plain"):
        load_recipe("retreival", tmp_path)
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe("../elsewhere.yaml", tmp_path)


def test_recipes_that_do_not_go_with_the_region_are_named(tmp_path: Path):
    assert [recipe.kind for recipe in check_recipes(["retrieval", "cells", "cells_by_scene"], tmp_path, cells=True)] == [
        "retrieval",
        "cells",
        "cells",
    ]
    with pytest.raises(RecipeError, match="recipe cells classifies cells, and the configuration has none"):
        check_recipes(["retrieval", "cells"], tmp_path, cells=False)
    with pytest.raises(RecipeError, match="List cells before it"):
        check_recipes(["cells_by_scene", "cells"], tmp_path, cells=True)


def test_a_recipe_of_an_unknown_kind_is_named_with_its_line(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"line 2: kind: it is one of retrieval, cells, .*sequence, not 'magic'"):
        parse_recipe("name: x\nkind: magic\n", tmp_path / "x.yaml")
