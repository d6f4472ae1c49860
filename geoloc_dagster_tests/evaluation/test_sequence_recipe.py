"""A trained sequence model is measured on places it has not seen, beside chance and beside itself asked with one view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.dispatch import evaluate_any
from geoloc_dagster.evaluation.geolocation import HIERARCHY, WORLD
from geoloc_dagster.evaluation.recipe import RecipeEvaluation
from geoloc_dagster.evaluation.sequence_recipe import evaluate_sequence_model
from geoloc_dagster.evaluation.sequence_views import ask_sequences, by_views
from geoloc_dagster.evaluation.summary import headline, recipe_figures
from geoloc_dagster.geo.boundary import load_boundary, write_boundary
from geoloc_dagster.geo.grid_cells import write_grid_cells
from geoloc_dagster.learning.dispatch import train_recipe
from geoloc_dagster.learning.recipe import load_recipe
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.learning.sequence_model import load_sequence_model
from geoloc_dagster.learning.sequence_rows import select_sequences
from geoloc_dagster.report import run_report
from geoloc_dagster.storage import read_parquet, verify_manifest, write_parquet
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region
from geoloc_dagster_tests.learning.crossroads import make_crossroads, sequence_recipe, squares


def write_world(folder: Path, **recipe: Any) -> tuple[Settings, Layout]:
    """A region of the eight towns as its assets leave it before training."""
    config = write_region(
        folder,
        boundary=rectangle((-90, -180), (90, 180)),
        region={"name": "crossroads", "start_point": [0, 0], "max_area_km2": 6e8},
        grid_cells={"step_deg": 2},
        recipes=["towns"],
    )
    (folder / "recipes").mkdir()
    made = sequence_recipe(name="towns", heads={"classes": "grid_cells"}, **recipe)
    (folder / "recipes" / "towns.yaml").write_text(made.to_yaml())
    settings = load_settings(config, environ={})
    layout = Layout(settings.data_root)
    world = make_crossroads(layout.crops.parent)
    write_parquet(layout.catalog, world.catalog)
    write_grid_cells(layout.grid_cells, squares())
    write_boundary(layout.boundary, load_boundary(folder / "region.geojson", name="crossroads", max_area_km2=6e8))
    return settings, layout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Layout, RecipeEvaluation]:
    settings, layout = write_world(tmp_path_factory.mktemp("towns"))
    train_recipe(load_recipe("towns", settings.folder), layout)
    return settings, layout, evaluate_any(settings, layout, "towns")


def test_several_views_beat_one_by_place(measured: tuple[Settings, Layout, RecipeEvaluation]):
    _, _, found = measured
    assert set(found.metrics) == {"dev", "test"}
    test = found.metrics["test"]
    assert test["kind"] == "sequence"
    assert test["figures"][HIERARCHY]["within_m"]["25000"]["value"] > 0.9
    gain = test["over_single_view"]["25 km"]
    assert gain["verdict"] == "better"
    assert gain["low"] > 0.2
    shares = [test["by_views"][str(count)]["within_m"]["25000"]["value"] for count in (1, 2, 3)]
    assert shares[0] < 0.5 < shares[2]
    assert shares == sorted(shares)
    assert test["by_views"]["3"]["within_m"] == test["figures"][HIERARCHY]["within_m"]
    assert test["baselines"]["fullest class"]["within_m"]["25000"]["value"] < 0.3
    assert test["baselines"]["random training place"]["within_m"]["25000"]["value"] < 0.3


def test_what_is_left_says_what_every_place_was_answered(measured: tuple[Settings, Layout, RecipeEvaluation]):
    settings, layout, found = measured
    folder = found.folder.with_name(f"{found.model_version}-test")
    verify_manifest(folder)
    assert {"report.json", "table.md", "queries.parquet", "sheet.jpg", "errors.png"} <= {path.name for path in folder.iterdir()}
    queries = read_parquet(folder / "queries.parquet").to_pandas()
    assert (queries["views"] == 3).all()
    assert np.isclose(queries["merit"].mean(), found.metrics["test"]["merit"])
    assert queries["merit"].mean() > queries["single_view_merit"].mean() + 0.1
    assert queries["capture_id"].is_unique
    table = (folder / "table.md").read_text()
    for heading in ("By number of views", "All views over one of them", "Without looking", "places and dates"):
        assert heading in table
    assert headline(found.metrics)["test.photos"] == len(queries)
    summary = recipe_figures(layout, ["towns"])
    assert summary["recipes"]["towns"]["test"]["over_single_view"]["25 km"]["verdict"] == "better"
    page = run_report(settings, layout, summary)
    assert "A place that the model has never seen is placed within" in page
    assert "random training place" in page


def test_a_view_alone_is_asked_alone(measured: tuple[Settings, Layout, RecipeEvaluation]):
    _, layout, _ = measured
    model = load_sequence_model(require_training(layout.checkpoints / "towns").folder)
    rows = select_sequences(model.recipe, read_parquet(layout.catalog), model.partitioning, ["test"])
    asked = ask_sequences(model, rows, layout.crops)
    fewer = asked.present.clone()
    fewer[::2, 1:] = False  # every second place has but one view
    asked = type(asked)(rows, asked.features, fewer)
    found = by_views(model, asked, WORLD, bootstrap=50)
    assert np.isnan(found.single[::2, 1:]).all()
    assert np.isfinite(found.single[:, 0]).all()
    assert found.figures[3].n_photos == len(rows) // 2
    assert found.gain is not None
    assert found.gain[0].n_queries == len(rows) // 2
    one = torch.zeros_like(fewer)
    one[:, 0] = True
    assert np.allclose(found.single[:, 0], asked.errors_m(model, one))


def test_a_model_that_learned_from_every_split_cannot_be_measured(tmp_path: Path):
    splits = {"image_size": 16, "stored_size": 20, "splits": ["train", "dev", "test"]}
    settings, layout = write_world(tmp_path, data=splits, budget={"epochs": 1, "batch_size": 64})
    made = train_recipe(load_recipe("towns", settings.folder), layout)
    with pytest.raises(NotEnoughDataError, match="no split is held out"):
        evaluate_sequence_model(settings, layout, "towns", made.folder, read_parquet(layout.catalog))
