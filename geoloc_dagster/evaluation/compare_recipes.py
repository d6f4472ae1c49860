"""Two recipes on the same queries: what one gains over the other, overall and by year and district, with places resampled.

Both must have been evaluated on the same split of one catalog. Models of retrieval are compared by recall@1 too; with a
classifier of cells there are only distances in common: shares within radii and the GeoScore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import ModelMismatchError, NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import PairedDifference, paired_differences
from geoloc_dagster.evaluation.geolocation import HIERARCHY, Scale, Verdict, outcomes, scale_of, verdict_of
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.storage import read_json, read_parquet, verify_manifest

OVERALL = "all"
RECALL = "R@1"
SCORE = "GeoScore"


@dataclass(frozen=True, slots=True)
class Gain:
    """What A scores above B by one measure on one part of the queries; shares from 0 to 1, a GeoScore to 5000."""

    part: str
    measure: str
    a: float
    b: float
    difference: PairedDifference
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RecipeComparison:
    """A against B on the queries of both.

    Attributes:
        gains: overall first, then by `year` and `district`, all measures of a part together.
        n_common: queries that both answered; the others are left out.
        n_a: of A.
        n_b: of B.
    """

    name_a: str
    name_b: str
    split: str
    gains: tuple[Gain, ...]
    n_common: int
    n_a: int
    n_b: int


def compare_recipes(
    layout: Layout, recipe_a: str, recipe_b: str, *, split: str | None = None, bootstrap: int = 10_000, seed: int = 0
) -> RecipeComparison:
    """Compare the newest models of two recipes on the split that both are held out of, `test` where there is a choice.

    Raises:
        NoReleaseError: a recipe has not been trained.
        NotEnoughDataError: they were not evaluated, or on no split in common.
        ModelMismatchError: they have no query in common.
        IntegrityError: a file of an evaluation has changed.
    """
    found = {recipe: _folders(layout, recipe) for recipe in (recipe_a, recipe_b)}
    common = sorted(set(found[recipe_a]) & set(found[recipe_b]))
    wanted = split or (common[-1] if common else None)
    if wanted not in common:
        splits = "; ".join(f"{recipe}: {', '.join(sorted(folders)) or 'none'}" for recipe, folders in found.items())
        raise NotEnoughDataError(
            f"the newest models of the two recipes are not both evaluated on {wanted or 'one split'} ({splits})",
            "Materialise `evaluations` of both, or name a split of both with --split.",
        )
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    a, b = (_verified(found[recipe][wanted]) for recipe in (recipe_a, recipe_b))
    where = read_parquet(layout.catalog, ["capture_id", "year", "district"])
    scale = scale_of(score_m(south, west, north, east))
    return compare_queries(a, b, where, scale, names=(recipe_a, recipe_b), split=wanted, bootstrap=bootstrap, seed=seed)


def compare_queries(
    queries_a: pa.Table,
    queries_b: pa.Table,
    where: pa.Table,
    scale: Scale,
    *,
    names: tuple[str, str] = ("A", "B"),
    split: str = "",
    by: Sequence[str] = ("year", "district"),
    bootstrap: int = 10_000,
    seed: int = 0,
) -> RecipeComparison:
    """Compare two per-query tables (`queries.parquet`), of retrieval or of cells.

    Args:
        queries_a: of A.
        queries_b: of B, its queries in any order.
        where: capture_id, and a column for each name in `by`.
        scale: radii and GeoScore.
        names: what A and B are called.
        split: for the title.
        by: columns of `where` that queries are grouped by.
        bootstrap: resamples.
        seed: of the resampling.

    Raises:
        ModelMismatchError: they have no query in common.
    """
    a, b = _measures(queries_a, scale), _measures(queries_b, scale)
    common = a.index.intersection(b.index).sort_values()
    if not len(common):
        raise ModelMismatchError("the two evaluations have no query in common", "Evaluate both models on the current catalog.")
    measures = [name for name in a.columns if name in b.columns and name != "location_id"]
    first, second = a.loc[common, measures].to_numpy(float), b.loc[common, measures].to_numpy(float)
    places = a.loc[common, "location_id"].to_numpy(str)
    groups: Any = where.select(["capture_id", *by]).to_pandas().set_index("capture_id").reindex(common)

    def gains(part: str, rows: np.ndarray) -> list[Gain]:
        found = paired_differences(first[rows] - second[rows], places[rows], bootstrap, seed)
        means = first[rows].mean(axis=0).tolist(), second[rows].mean(axis=0).tolist()
        return [Gain(part, *line, verdict_of(line[-1])) for line in zip(measures, *means, found, strict=True)]

    made = gains(OVERALL, np.ones(len(common), bool))
    for column in by:
        labels = groups[column].map(_label).to_numpy(str)
        for label in sorted(set(labels.tolist())):
            made += gains(f"{column} {label}", labels == label)
    return RecipeComparison(*names, split, tuple(made), len(common), len(a), len(b))


def comparison_table(result: RecipeComparison, measures: Sequence[str] | None = None) -> TextTable:
    """One row per part and measure: both, the difference with its interval, and the verdict on A.

    Args:
        result: of two recipes.
        measures: shown by part; None shows the first and the GeoScore. Overall, all are shown.
    """
    named = list(dict.fromkeys(gain.measure for gain in result.gains))
    shown = list(measures) if measures is not None else list(dict.fromkeys([named[0], named[-1]]))
    rows = [_row(gain) for gain in result.gains if gain.part == OVERALL or gain.measure in shown]
    title = f"{result.name_a} against {result.name_b} on {result.split}: {result.n_common:,} queries, 95 % intervals by place"
    header = ["queries", "measure", result.name_a, result.name_b, "difference", "n", "places", f"{result.name_a} is"]
    return TextTable(title, header, rows)


def summarise_comparison(result: RecipeComparison) -> dict[str, Any]:
    """The same as plain JSON values."""
    return {
        "a": result.name_a,
        "b": result.name_b,
        "split": result.split,
        "n_common": result.n_common,
        "n_a": result.n_a,
        "n_b": result.n_b,
        "gains": [
            {"part": g.part, "measure": g.measure, "a": g.a, "b": g.b, "verdict": g.verdict, **g.difference.as_dict()}
            for g in result.gains
        ],
    }


def _folders(layout: Layout, recipe: str) -> dict[str, Path]:
    """Split -> folder of the evaluation of the newest model."""
    version = require_training(layout.checkpoints / recipe).model_version
    reports = sorted((layout.evaluations / recipe).glob(f"{version}*/report.json"))
    return {read_json(path)["split"]: path.parent for path in reports if (path.parent / "queries.parquet").is_file()}


def _verified(folder: Path) -> pa.Table:
    verify_manifest(folder, remedy="Materialise `evaluations` of that recipe again.")
    return read_parquet(folder / "queries.parquet")


def _measures(queries: pa.Table, scale: Scale) -> pd.DataFrame:
    """Per capture: its place, and what is measured of its answer."""
    frame = pd.DataFrame({"location_id": queries["location_id"].to_pylist()}, index=queries["capture_id"].to_pylist())
    if "first_hit_rank" in queries.column_names:
        frame[RECALL] = (queries["first_hit_rank"].to_numpy() == 1).astype(float)
        error = np.array([metres[0] if metres else np.inf for metres in queries["distances_m"].to_pylist()])
    elif f"{HIERARCHY}_error_m" in queries.column_names:
        error = queries[f"{HIERARCHY}_error_m"].to_numpy()
    else:
        raise ModelMismatchError(
            "an evaluation that says no positions cannot be compared by distance", "Name recipes of retrieval or of cells."
        )
    found = outcomes(error, scale)
    for i, radius in enumerate(scale.radii_m):
        frame[f"within {radius_name(radius)}"] = found[:, i]
    frame[SCORE] = found[:, -1]
    return frame


def _label(value: Any) -> str:
    if pd.isna(value):
        return "unknown"
    return value if isinstance(value, str) else str(int(value))


def _row(gain: Gain) -> list[str]:
    d = gain.difference
    if gain.measure == SCORE:
        figures = [f"{gain.a:.0f}", f"{gain.b:.0f}", f"{d.difference:+.0f} ({d.low:+.0f} to {d.high:+.0f})"]
    else:
        figures = [f"{gain.a:.3f}", f"{gain.b:.3f}", f"{d.difference:+.3f} ({d.low:+.3f} to {d.high:+.3f})"]
    return [gain.part, gain.measure, *figures, f"{d.n_queries:,}", f"{d.n_places:,}", gain.verdict]
