"""`geoloc compare`: what one recipe gains over another, on the same queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.console import open_console
from geoloc_dagster.errors import RecipeError

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The region's geoloc.yaml. Default: GEOLOC_CONFIG, else ./geoloc.yaml.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where everything is, in place of the file's data_root.")]


def compare(
    recipe_a: Annotated[str, typer.Argument(metavar="RECIPE_A", help="The recipe that the verdicts are about.")],
    recipe_b: Annotated[str, typer.Argument(metavar="RECIPE_B", help="The one that it is compared with.")],
    split: Annotated[str | None, typer.Option("--split", help="dev or test. Default: test where both have it.")] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=1, help="Resamples of places.")] = 10_000,
    everything: Annotated[bool, typer.Option("--all", help="Every measure for every year and district.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Is recipe A better than B? The newest models of both on the same queries, paired, overall and by year and district."""
    settings = load_settings(config, data_root=data_root)
    for recipe in (recipe_a, recipe_b):
        if recipe not in settings.recipes:
            raise RecipeError(
                f"recipe {recipe!r} is not one of this region's: {', '.join(settings.recipes)}",
                "Add it to `recipes` in geoloc.yaml.",
            )
    from geoloc_dagster.console import text_table
    from geoloc_dagster.evaluation.compare_recipes import compare_recipes, comparison_table, summarise_comparison

    result = compare_recipes(open_data_root(settings), recipe_a, recipe_b, split=split, bootstrap=bootstrap)
    if as_json:
        typer.echo(json.dumps(summarise_comparison(result), indent=2))
        return
    measures = list(dict.fromkeys(gain.measure for gain in result.gains)) if everything else None
    open_console().print(text_table(comparison_table(result, measures)))
    left_out = max(result.n_a, result.n_b) - result.n_common
    if left_out:
        typer.echo(f"{left_out:,} queries that only one of them answered are left out", err=True)
