"""A classifier on a set of photos with known positions: its tables, what its cells allow, and what was published of the set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.evaluation.geolocation import WORLD, GeolocationReport, Scale, evaluate_positions
from geoloc_dagster.evaluation.geolocation_reports import (
    comparison_table,
    decomposition_table,
    figures_table,
    geolocation_markdown,
    oracle_table,
    summarise_oracle,
    summarise_report,
)
from geoloc_dagster.evaluation.oracle import decompose, oracle
from geoloc_dagster.evaluation.photo_matching import Matched, match
from geoloc_dagster.evaluation.photo_tables import read_photos, read_predictions
from geoloc_dagster.evaluation.published import published_table, set_called
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.partitioning import Partitioning
from geoloc_dagster.storage import write_bytes, write_json


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """What was found on one set.

    Attributes:
        name: of the set.
        report: figures per level and of the hierarchy.
        tables: for people: figures, comparison, bounds of the cells, errors taken apart, by scene, published rows.
        remarks: what did not fit.
        summary: the same as plain JSON values.
    """

    name: str
    report: GeolocationReport
    tables: list[TextTable]
    remarks: list[str]
    summary: dict[str, Any]


def measure_files(
    predictions: Path, meta: Path, partitioning: Partitioning, *, scale: Scale = WORLD, bootstrap: int = 1000, seed: int = 0
) -> MeasuredSet:
    """Measure the predictions of one CSV against the positions of another.

    Raises:
        PhotoListError: one of them is no such CSV.
        NotEnoughDataError: no photo has a position.
    """
    matched = match(read_photos(meta), read_predictions(predictions))
    return measure_matched(meta.stem, matched, partitioning, scale=scale, bootstrap=bootstrap, seed=seed)


def measure_matched(
    name: str, matched: Matched, partitioning: Partitioning, *, scale: Scale = WORLD, bootstrap: int = 1000, seed: int = 0
) -> MeasuredSet:
    """All tables of one set of photos.

    Args:
        name: of the set, by which published rows are found.
        matched: photos and answers.
        partitioning: whose cells were told apart.
        scale: radii and score.
        bootstrap: resamples.
        seed: of these.
    """
    report = evaluate_positions(matched.truth, matched.answers, matched.groups, scale=scale, bootstrap=bootstrap, seed=seed)
    levels = [level for level in partitioning.levels if level.name in matched.answers]
    bounds = oracle(matched.truth, matched.groups, levels, scale=scale, bootstrap=bootstrap, seed=seed)
    tables = [figures_table(report.figures, f"{name}: {report.n_photos:,} photos by {report.n_groups:,} photographers")]
    if report.comparisons:
        tables.append(comparison_table(report.comparisons))
    if bounds:
        tables += [oracle_table(bounds), decomposition_table(decompose(report, bounds))]
    by_scene = _by_scene(matched, scale, bootstrap, seed)
    if by_scene:
        tables.append(figures_table(by_scene, "By scene", "scene, answer"))
    if set_called(name) is not None:
        tables.append(published_table(name, report.figures))
    summary = summarise_report(report) | {"set": name, "oracle": summarise_oracle(bounds), "remarks": matched.remarks()}
    return MeasuredSet(name, report, tables, matched.remarks(), summary)


def write_measured_set(measured: MeasuredSet, folder: Path) -> None:
    """Write `report.json` and `table.md` beside the predictions."""
    write_json(folder / "report.json", measured.summary)
    page = geolocation_markdown(measured.report, measured.name, measured.tables[1:], measured.remarks)
    write_bytes(folder / "table.md", page.encode())


def _by_scene(matched: Matched, scale: Scale, bootstrap: int, seed: int) -> dict[str, Any]:
    """The last answer, which is the hierarchy where there is one, for the photos of each scene."""
    last = list(matched.answers)[-1]
    found: dict[str, Any] = {}
    for scene in dict.fromkeys(sorted(matched.scenes.tolist())):
        rows = np.flatnonzero(matched.scenes == scene)
        if len(rows) == len(matched.ids):
            return {}
        report = evaluate_positions(
            matched.truth.take(rows),
            {last: matched.answers[last].take(rows)},
            matched.groups[rows],
            scale=scale,
            bootstrap=bootstrap,
            seed=seed,
        )
        found[f"{scene}, {last}"] = report.figures[last]
    return found
