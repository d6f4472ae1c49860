"""A recipe of kind `scenes`, trained and evaluated from what a region holds, as the assets do it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.evaluation.dispatch import evaluate_any
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster.geo.partitioning_folder import write_partitioning
from geoloc_dagster.learning.dispatch import provenance_of, train_recipe
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.learning.photo_models import load_photo_model
from geoloc_dagster.prediction.image_folder import predict_folders
from geoloc_dagster.storage import read_json, read_parquet, write_parquet
from geoloc_dagster_tests.learning.globe import Globe, make_globe, multitask_recipe, town_photo, write_scene_labels


@pytest.fixture
def region(tmp_path: Path) -> tuple[Settings, Layout, Globe]:
    """Everything up to the labels, where a region has it."""
    layout = Layout(tmp_path / "data")
    (layout.root / "tables").mkdir(parents=True)
    globe = make_globe(layout.root / "tables", photos=150, grey=True)
    globe.maps.rename(layout.segmentation_maps)
    write_parquet(layout.catalog, globe.catalog)
    write_partitioning(layout.s2_partitions, globe.labels.partitioning, rules=[], lvl_min=2, lvl_max=30, facts={})
    assert globe.labels.cells is not None
    write_parquet(layout.cell_labels, globe.labels.cells)
    write_scene_labels(layout.scene_labels, globe)
    write_boundary(layout.boundary, Boundary("globe", box(-180, -90, 180, 90), "EPSG:4326", 5.1e8))
    region = {"name": "globe", "boundary": "region.geojson", "start_point": [0, 0]}
    return Settings.model_validate({"region": region, "data_root": layout.root, "folder": tmp_path}), layout, globe


def saved(settings: Settings, recipe: MultitaskRecipe) -> MultitaskRecipe:
    (settings.folder / "recipes").mkdir(exist_ok=True)
    (settings.folder / "recipes" / f"{recipe.name}.yaml").write_text(recipe.to_yaml())
    return recipe


def test_held_out_photos_are_measured_with_their_maps_and_their_scene(region: tuple[Settings, Layout, Globe]):
    settings, layout, globe = region
    recipe = saved(settings, multitask_recipe(budget={"epochs": 10, "batch_size": 32}))
    model = train_recipe(recipe, layout, provenance=provenance_of(layout, recipe))
    facts = read_json(model.folder / "training.json")["provenance"]
    assert {"segmentation_maps_version", "scene_labels_version"} <= facts.keys()
    found = evaluate_any(settings, layout, recipe.name)
    assert found.model_version == model.model_version
    report = found.metrics["test"]
    assert report["figures"]["hierarchy"]["within_m"]["200000"]["value"] > 0.6, "the maps tell the town"
    assert report["scene"]["accuracy"]["value"] >= 0
    (settings.folder / "photos").mkdir()
    (settings.folder / "photos/a.jpg").write_bytes(town_photo(2, 1, 0, np.random.default_rng(0)))
    answered = predict_folders(load_photo_model(model.folder), [settings.folder / "photos"], settings.folder / "out.csv")
    assert answered.answered == 1, "a photo of anybody's has no map"
    assert {row.split(",")[1] for row in (settings.folder / "out.csv").read_text().splitlines()[1:]} == {
        "coarse",
        "fine",
        "hierarchy",
    }
    table = read_parquet(layout.evaluations / recipe.name / f"{model.model_version}-test" / "queries.parquet")
    assert table.num_rows == report["n_photos"] == globe.catalog["split"].to_pylist().count("test")
    assert all(table["of_interest"].to_pylist())


def test_photos_of_other_scenes_are_answered_and_marked_and_not_measured(region: tuple[Settings, Layout, Globe]):
    settings, layout, globe = region
    changes = {"scene_of_interest": "urban", "branches": {"segmentation": False}, "budget": {"epochs": 1, "batch_size": 8}}
    recipe = saved(settings, multitask_recipe(**changes, optimiser={"name": "adamw", "warmup_epochs": 0}))
    train_recipe(recipe, layout)
    report = evaluate_any(settings, layout, recipe.name).metrics["test"]
    table = next(read_parquet(path) for path in layout.evaluations.glob("*/*-test/queries.parquet"))
    assert globe.labels.scenes is not None
    assert table.num_rows == globe.catalog["split"].to_pylist().count("test")
    assert {row["scene"] for row in table.to_pylist() if row["of_interest"]} == {"urban"}
    assert "urban" not in {row["scene"] for row in table.to_pylist() if not row["of_interest"]}
    assert report["n_photos"] + report["n_of_other_scenes"] == table.num_rows
    assert np.isfinite(table["hierarchy_error_m"].to_numpy()).all()
