"""Figures of geolocation as JSON-ready values, text tables and one Markdown page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from geoloc_dagster.evaluation.geolocation import HIERARCHY, MIN_GROUPS, Comparison, Figures, GeolocationReport, Shares
from geoloc_dagster.evaluation.oracle import Decomposed, LevelOracle
from geoloc_dagster.evaluation.tables import NONE, TextTable, length, percent

SCHEMA_VERSION = 1


def summarise_report(report: GeolocationReport) -> dict[str, Any]:
    """The report as plain JSON values; a distance that is infinite or not known is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "radii_m": list(report.scale.radii_m),
        "score_m": report.scale.score_m,
        "bootstrap": report.bootstrap,
        "interval": "95 %, groups resampled",
        "seed": report.seed,
        "n_photos": report.n_photos,
        "n_groups": report.n_groups,
        "figures": {key: summarise_figures(figures) for key, figures in report.figures.items()},
        "hierarchy_against": [summarise_comparison(comparison) for comparison in report.comparisons],
    }


def summarise_shares(shares: Shares | Figures) -> dict[str, Any]:
    """Shares and score as plain JSON values."""
    return {
        "within_m": {str(radius): share.as_dict() for radius, share in shares.within_m.items()},
        "geo_score": shares.score.as_dict(),
    }


def summarise_figures(figures: Figures) -> dict[str, Any]:
    """Figures of one kind of answer as plain JSON values."""
    return {
        "n_photos": figures.n_photos,
        "n_unanswered": figures.n_unanswered,
        "n_groups": figures.n_groups,
        **summarise_shares(figures),
        "median_m": _finite(figures.median_m),
        "mean_m": _finite(figures.mean_m),
        "percentile_90_m": _finite(figures.percentile_90_m),
    }


def summarise_comparison(comparison: Comparison) -> dict[str, Any]:
    """One comparison as plain JSON values."""
    return {
        "level": comparison.level,
        "radius_m": comparison.radius_m,
        "is_best": comparison.is_best,
        "verdict": comparison.verdict,
        **comparison.difference.as_dict(),
    }


def summarise_oracle(bounds: Mapping[str, LevelOracle]) -> dict[str, Any]:
    """The bounds of every level as plain JSON values."""
    return {
        name: {"n_cells": bound.n_cells, "own": summarise_figures(bound.own), "nearest": summarise_figures(bound.nearest)}
        for name, bound in bounds.items()
    }


def figures_table(figures: Mapping[str, Figures], title: str, first: str = "answer") -> TextTable:
    """One row per kind of answer: shares in per cent with intervals, GeoScore, distances, photos without an answer."""
    radii = next(iter(figures.values())).within_m
    header = [
        first,
        *(f"{radius_name(r)}, %" for r in radii),
        "GeoScore",
        "median",
        "mean",
        "90th percentile",
        "photos",
        "unanswered",
    ]
    return TextTable(title, header, [_figures_row(name, row) for name, row in figures.items()])


def comparison_table(comparisons: Sequence[Comparison]) -> TextTable:
    """What the hierarchy gains over each level within each radius, in percentage points; a star marks the best level."""
    radii = sorted({comparison.radius_m for comparison in comparisons})
    levels = list(dict.fromkeys(comparison.level for comparison in comparisons))
    by_pair = {(comparison.level, comparison.radius_m): comparison for comparison in comparisons}
    rows = [[f"over {level}", *(_gain(by_pair[level, radius]) for radius in radii)] for level in levels]
    title = f"{HIERARCHY} against single levels, percentage points (* the best level there, chosen on these photos)"
    return TextTable(title, ["gain", *map(radius_name, radii)], rows)


def oracle_table(bounds: Mapping[str, LevelOracle]) -> TextTable:
    """Two rows per level: the centre of the photo's own cell, and the nearest centre."""
    named = {
        f"{name} ({bound.n_cells:,} cells), {what}": figures
        for name, bound in bounds.items()
        for what, figures in (("own cell", bound.own), ("nearest centre", bound.nearest))
    }
    return figures_table(named, "What these cells allow", "oracle")


def decomposition_table(rows: Sequence[Decomposed]) -> TextTable:
    """Per answer and radius: what the cells allow, what the model reaches, and which part of it that is."""
    header = ["answer", "within", "own cell, %", "nearest centre, %", "model, %", "model / own", "model / nearest"]
    lines = [
        [
            row.p_key if row.p_key == row.cells else f"{row.p_key} (cells: {row.cells})",
            radius_name(row.radius_m),
            *(f"{100 * share:.1f}" for share in (row.own, row.nearest, row.model)),
            *(NONE if ratio is None else f"{ratio:.2f}" for ratio in (row.of_own, row.of_nearest)),
        ]
        for row in rows
    ]
    return TextTable("Errors of the cells and of the model", header, lines)


def geolocation_markdown(
    report: GeolocationReport,
    heading: str,
    tables: Sequence[TextTable] = (),
    remarks: Sequence[str] = (),
    words: tuple[str, str] | None = None,
) -> str:
    """The whole evaluation as one Markdown page.

    Args:
        report: of all photos.
        heading: of the page.
        tables: more, set behind those of the report.
        remarks: what did not fit, one line each (`Matched.remarks`).
        words: what was asked about, and by what it is grouped.
    """
    asked, groups = words or ("photos", "groups (photographers or places)")
    intro = (
        f"{report.n_photos:,} {asked} by {report.n_groups:,} {groups}. Shares are per cent of all {asked}, "
        f"those without an answer counted as misses. In brackets: 95 % intervals over {report.bootstrap:,} resamples of groups."
    )
    parts = [f"## {heading}", intro, figures_table(report.figures, "Great-circle accuracy").markdown()]
    if remarks:
        parts.insert(2, "\n".join(f"- {remark}" for remark in remarks))
    if report.comparisons:
        parts.append(comparison_table(report.comparisons).markdown())
    return "\n\n".join([*parts, *(table.markdown() for table in tables)]) + "\n"


def share_cells(figures: Figures) -> list[str]:
    """The shares in per cent, with intervals where there are groups enough for them."""
    sure = figures.n_groups >= MIN_GROUPS
    return [percent(share) if sure else f"{100 * share.value:.1f}" for share in figures.within_m.values()]


def radius_name(radius_m: int) -> str:
    """`25 m`, `1 km`, `2,500 km`."""
    return f"{radius_m / 1000:,g} km" if radius_m >= 1000 else f"{radius_m} m"


def _figures_row(name: str, figures: Figures) -> list[str]:
    score = figures.score
    interval = "" if score.low == score.high or figures.n_groups < MIN_GROUPS else f" ({score.low:.0f}–{score.high:.0f})"
    return [
        name,
        *share_cells(figures),
        f"{score.value:.0f}{interval}",
        *(length(metres) for metres in (figures.median_m, figures.mean_m, figures.percentile_90_m)),
        f"{figures.n_photos:,}",
        f"{figures.n_unanswered:,}",
    ]


def _gain(comparison: Comparison) -> str:
    d = comparison.difference
    star = " *" if comparison.is_best else ""
    return f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f}) {comparison.verdict}{star}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
