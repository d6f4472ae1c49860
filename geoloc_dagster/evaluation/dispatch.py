"""Evaluation of a recipe of whichever kind."""

from __future__ import annotations

from collections.abc import Callable

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.evaluation.recipe import RecipeEvaluation
from geoloc_dagster.learning.recipe import load_recipe


def evaluate_any(
    settings: Settings, layout: Layout, recipe: str, progress: Callable[[int, int], None] | None = None
) -> RecipeEvaluation:
    """Evaluate the newest model of a recipe; raises as `evaluate_recipe` and `evaluate_cells_recipe` do."""
    read = load_recipe(recipe, settings.folder)
    if not read.places_photos:
        from geoloc_dagster.evaluation.scene_classifier import evaluate_scene_classifier

        return evaluate_scene_classifier(settings, layout, recipe, progress)
    if read.kind in ("cells", "scenes"):
        from geoloc_dagster.evaluation.cells_recipe import evaluate_cells_recipe

        return evaluate_cells_recipe(settings, layout, recipe, progress)
    if read.kind == "sequence":
        from geoloc_dagster.evaluation.sequence_recipe import evaluate_sequence_recipe

        return evaluate_sequence_recipe(settings, layout, recipe, progress)
    from geoloc_dagster.evaluation.recipe import evaluate_recipe

    return evaluate_recipe(settings, layout, recipe, progress)
