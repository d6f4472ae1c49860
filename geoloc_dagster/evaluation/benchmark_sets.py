"""A classifier on a set of photos with known positions: its tables, what its cells allow, and what was published of the set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.evaluation.confidence import (
    Reliability,
    RiskCoverage,
    coverage_table,
    reliability,
    reliability_table,
    risk_coverage,
    summarise_confidence,
)
from geoloc_dagster.evaluation.geolocation import WORLD, GeolocationReport, Scale, errors_m, evaluate_positions
from geoloc_dagster.evaluation.geolocation_reports import (
    comparison_table,
    decomposition_table,
    figures_table,
    geolocation_markdown,
    oracle_table,
    summarise_oracle,
    summarise_report,
)
from geoloc_dagster.evaluation.oracle import LevelOracle, decompose, oracle
from geoloc_dagster.evaluation.photo_matching import Matched, match
from geoloc_dagster.evaluation.photo_tables import read_photos, read_predictions
from geoloc_dagster.evaluation.published import published_table, set_called
from geoloc_dagster.evaluation.regions import (
    area_table,
    area_weighted,
    by_region,
    region_names,
    regions_table,
    summarise_area,
    summarise_regions,
)
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.partitioning import Partitioning
from geoloc_dagster.storage import write_bytes, write_json
from geoloc_dagster.viz.geolocation_charts import error_curves, level_bars


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """What was found on one set.

    Attributes:
        name: of the set.
        report: figures per level and of the hierarchy.
        tables: for people: figures, comparison, bounds of the cells, errors taken apart, by scene, published rows.
        remarks: what did not fit.
        summary: the same as plain JSON values.
        pictures: file name -> PNG.
        brief: the tables that one looks at first.
        words: what was asked about, and by what it is grouped; photos and photographers or places without it.
    """

    name: str
    report: GeolocationReport
    tables: list[TextTable]
    remarks: list[str]
    summary: dict[str, Any]
    pictures: dict[str, bytes]
    brief: list[TextTable]
    words: tuple[str, str] | None = None


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
    name: str,
    matched: Matched,
    partitioning: Partitioning,
    *,
    scale: Scale = WORLD,
    bootstrap: int = 1000,
    seed: int = 0,
    words: tuple[str, str] | None = None,
) -> MeasuredSet:
    """All tables of one set of photos.

    Args:
        name: of the set, by which published rows are found.
        matched: photos and answers.
        partitioning: whose cells were told apart.
        scale: radii and score.
        bootstrap: resamples.
        seed: of these.
        words: what was asked about, and by what it is grouped; photos and photographers without it.
    """
    report = evaluate_positions(matched.truth, matched.answers, matched.groups, scale=scale, bootstrap=bootstrap, seed=seed)
    levels = [level for level in partitioning.levels if level.name in matched.answers]
    bounds = oracle(matched.truth, matched.groups, levels, scale=scale, bootstrap=bootstrap, seed=seed)
    tables = [figures_table(report.figures, f"{name}: {_counted(report, words)}")]
    if report.comparisons:
        tables.append(comparison_table(report.comparisons))
    brief = list(tables)
    if bounds:
        tables += [oracle_table(bounds), decomposition_table(decompose(report, bounds))]
    last = list(matched.answers)[-1]
    options: dict[str, Any] = {"scale": scale, "bootstrap": bootstrap, "seed": seed}
    regions = by_region(matched.truth, matched.answers, matched.groups, region_names(matched.truth, scale=scale), **options)
    areas = area_weighted(matched.truth, matched.answers, matched.groups, **options)
    tables += [area_table(areas, report.figures), regions_table(regions, last)]
    if len(np.unique(matched.scenes)) > 1:
        by_scene = by_region(matched.truth, matched.answers, matched.groups, matched.scenes, **options)
        tables.append(regions_table(by_scene, last, "By scene", "scene"))
    sureness = _sureness(matched, last, scale, bootstrap, seed)
    tables += [coverage_table(sureness[0]), reliability_table(sureness[1])] if sureness else []
    if set_called(name) is not None:
        brief.append(published_table(name, report.figures))
        tables.append(brief[-1])
    summary = summarise_report(report) | {
        "set": name,
        "answers": list(matched.answers),
        "oracle": summarise_oracle(bounds),
        "regions": summarise_regions(regions),
        "by_area": summarise_area(areas),
        "confidence": summarise_confidence(*sureness) if sureness else None,
        "remarks": matched.remarks(),
    }
    pictures = _pictures(name, matched, report, bounds, words)
    return MeasuredSet(name, report, tables, matched.remarks(), summary, pictures, brief, words)


def write_measured_set(measured: MeasuredSet, folder: Path) -> None:
    """Write `report.json`, `table.md` and the pictures beside the predictions."""
    for file, content in measured.pictures.items():
        write_bytes(folder / file, content)
    write_json(folder / "report.json", measured.summary)
    further = measured.tables[2 if measured.report.comparisons else 1 :]  # the page has these by itself
    page = geolocation_markdown(measured.report, measured.name, further, measured.remarks, measured.words)
    write_bytes(folder / "table.md", page.encode())


def _sureness(matched: Matched, p_key: str, scale: Scale, bootstrap: int, seed: int) -> tuple[RiskCoverage, Reliability] | None:
    """What confidence is worth at the radius in the middle; None where answers have none."""
    confidence = matched.confidences[p_key]
    if not np.isfinite(confidence).any():
        return None
    error, radius_m = errors_m(matched.truth, matched.answers[p_key]), scale.radii_m[len(scale.radii_m) // 2]
    return (
        risk_coverage(error, confidence, matched.groups, radius_m, bootstrap=bootstrap, seed=seed),
        reliability(error, confidence, matched.groups, radius_m, bootstrap=bootstrap, seed=seed),
    )


def _pictures(
    name: str, matched: Matched, report: GeolocationReport, bounds: Mapping[str, LevelOracle], words: tuple[str, str] | None
) -> dict[str, bytes]:
    errors = {p_key: errors_m(matched.truth, answers) for p_key, answers in matched.answers.items()}
    subtitle = _counted(report, words)
    drawn = {"errors.png": error_curves(errors, report.scale, title=f"{name}: how far answers are off", subtitle=subtitle)}
    if bounds:
        title = f"{name}: each level under what its cells allow"
        drawn["levels.png"] = level_bars(report.figures, bounds, title=title, subtitle=subtitle)
    return drawn


def _counted(report: GeolocationReport, words: tuple[str, str] | None) -> str:
    asked, groups = words or ("photos", "photographers")
    return f"{report.n_photos:,} {asked} by {report.n_groups:,} {groups}"
