"""How a fusion does on held-out places: each expert alone and all together, whether its probabilities and regions hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from shapely.geometry.base import BaseGeometry

from geoloc_dagster import storage
from geoloc_dagster.config import Settings
from geoloc_dagster.evaluation.atlas import Atlas, Regions, atlas_table, make_atlas, newest_day, region_outlines, write_atlas
from geoloc_dagster.evaluation.bootstrap import intervals, paired_differences
from geoloc_dagster.evaluation.confidence import Reliability, reliability, reliability_table
from geoloc_dagster.evaluation.conformal_report import CoverageReport, coverage_report, coverage_tables, summarise_coverage
from geoloc_dagster.evaluation.geolocation import Scale, geo_score, verdict_of
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.recall_area import RecallArea, recall_area, recall_area_table, summarise_recall_area
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.regions import holds, true_places

if TYPE_CHECKING:
    from geoloc_dagster.prediction.fusion import FusedAnswers, Fusion
    from geoloc_dagster.prediction.questions import Questions

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
TOGETHER = "fusion"
_BOOTSTRAP = 1000


@dataclass(frozen=True, slots=True, eq=False)
class FusionReport:
    """What was measured.

    Attributes:
        summary: JSON-ready.
        queries: a row per photo: errors of every expert and together, probabilities, region.
        tables: for the terminal.
        pictures: file name -> PNG.
        atlas: of the districts, with what is drawn of it; None where the region has none.
    """

    summary: dict[str, Any]
    queries: pa.Table
    tables: list[TextTable]
    pictures: dict[str, bytes]
    atlas: tuple[Atlas, Mapping[str, BaseGeometry | None]] | None = None

    def with_atlas(self, catalog: pa.Table, settings: Settings, geometry: BaseGeometry) -> FusionReport:
        """The report with its districts: what is known of each, how many answers are near, and what their regions hold."""
        from geoloc_dagster.evaluation.run import credit
        from geoloc_dagster.viz.atlas import atlas_picture

        radius = next(iter(self.summary["ece"]))
        near = self.queries[f"error_m_{TOGETHER}"].to_numpy() <= int(radius)
        asked = self.queries.append_column("first_hit_rank", pa.array(near.astype(np.int64)))
        of_queries = Regions(
            self.queries["capture_id"].to_pylist(), self.queries["covered"].to_numpy(), self.queries["region_km2"].to_numpy()
        )
        atlas = make_atlas(catalog, asked, as_of=newest_day(catalog), regions=of_queries, seed=settings.splits.seed)
        outlines = region_outlines(settings, catalog)
        if not any(outlines.get(one.name) is not None for one in atlas.districts):
            return self
        found = f"within {radius} m, %"
        picture = atlas_picture(
            atlas,
            outlines,
            geometry=geometry,
            title="Fusion: atlas of districts",
            subtitle=f"ages on {atlas.as_of}",
            attribution="Street views: " + credit(catalog.filter(pc.field("usable"))),
            found=f"Answers {found}",
        )
        tables, pictures = [*self.tables, atlas_table(atlas, found=found)], self.pictures | {"atlas.png": picture}
        return replace(self, tables=tables, pictures=pictures, atlas=(atlas, outlines))


def measure_fusion(
    fusion: Fusion, said: Mapping[str, F32], questions: Questions, scale: Scale, coverage: float, *, seed: int = 0
) -> FusionReport:
    """Measure experts and fusion on photos that nothing was fitted on.

    Args:
        fusion: fitted.
        said: by each expert, over the grid.
        questions: where the photos were taken.
        scale: of GeoScore.
        coverage: of the regions.
        seed: of resampling.
    """
    truth = questions.truth
    answers = {name: fusion.answers(fusion.alone(name, values), coverage) for name, values in said.items()}
    answers[TOGETHER] = fusion.answers(fusion.log_probabilities(said), coverage)
    errors = {name: great_circle_m(truth.lat_deg, truth.lng_deg, one.lat_deg, one.lng_deg) for name, one in answers.items()}
    measures = {name: _measures(error, fusion.radii_m, scale) for name, error in errors.items()}
    figures = {name: intervals(values, truth.places, _BOOTSTRAP, seed) for name, values in measures.items()}
    best = max(said, key=lambda name: figures[name][-1].value)
    names = [*(str(radius) for radius in fusion.radii_m), "score"]
    gains = {name: paired_differences(measures[TOGETHER] - measures[name], truth.places, _BOOTSTRAP, seed) for name in said}
    where = true_places(fusion.grid, truth.lat_deg, truth.lng_deg)
    covered = holds(answers[TOGETHER].regions, where)
    frame: Any = questions.frame
    regions = coverage_report(
        covered,
        answers[TOGETHER].area_km2,
        truth.places,
        nominal=coverage,
        years=frame["year"],
        districts=frame["district"],
        bootstrap=_BOOTSTRAP,
        seed=seed,
    )
    areas_km2 = fusion.grid.areas_km2
    searched = {
        name: recall_area(one.log_probabilities, areas_km2, where.cells, truth.places, bootstrap=_BOOTSTRAP, seed=seed)
        for name, one in answers.items()
    }
    reliabilities = [
        reliability(errors[TOGETHER], answers[TOGETHER].within[:, number], truth.places, radius, seed=seed)
        for number, radius in enumerate(fusion.radii_m)
    ]
    summary = {
        "n_questions": len(questions),
        "n_places": len(np.unique(truth.places)),
        "grid_cells": len(fusion.grid),
        "best_expert": best,
        "figures": {name: dict(zip(names, [v.as_dict() for v in values], strict=True)) for name, values in figures.items()},
        "gained_over": {
            name: {key: one.as_dict() | {"verdict": verdict_of(one)} for key, one in zip(names, values, strict=True)}
            for name, values in gains.items()
        },
        "ece": {str(one.radius_m): one.ece for one in reliabilities},
        "coverage": summarise_coverage(regions),
        "recall_area": {name: summarise_recall_area(curve) for name, curve in searched.items()},
    }
    tables = [_figures_table(summary, names), *(reliability_table(one) for one in reliabilities[:2]), *coverage_tables(regions)]
    queries = _queries(questions, errors, answers[TOGETHER], covered, fusion.radii_m)
    return FusionReport(
        summary,
        queries,
        [*tables, recall_area_table(searched, _circles_km2(fusion.radii_m))],
        _pictures(reliabilities[0], regions, searched),
    )


def headline_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The few figures that a run's metadata shows."""
    radius = next(iter(summary["ece"]))
    return {
        f"within_{radius}_m": summary["figures"][TOGETHER][radius]["value"],
        f"best_expert_within_{radius}_m": summary["figures"][summary["best_expert"]][radius]["value"],
        f"ece_{radius}_m": summary["ece"][radius],
        "coverage": summary["coverage"]["overall"]["covered"]["value"],
    }


def write_report(report: FusionReport, folder: Path) -> None:
    """`report.json`, `queries.parquet`, the pictures, and `atlas.parquet` where there are districts."""
    storage.write_json(folder / "report.json", report.summary)
    storage.write_parquet(folder / "queries.parquet", report.queries)
    for name, picture in report.pictures.items():
        storage.write_bytes(folder / name, picture)
    if report.atlas is not None:
        write_atlas(folder / "atlas.parquet", *report.atlas)


def _measures(error_m: F64, radii_m: tuple[int, ...], scale: Scale) -> F64:
    """(N, radii + 1): within each radius, and the GeoScore."""
    within = [(error_m <= radius).astype(np.float64) for radius in radii_m]
    return np.stack([*within, geo_score(error_m, scale)], axis=1)


def _queries(
    questions: Questions,
    errors: Mapping[str, F64],
    together: FusedAnswers,
    covered: npt.NDArray[np.bool_],
    radii: tuple[int, ...],
) -> pa.Table:
    own = questions.frame[["capture_id", "location_id", "view", "lat_deg", "lng_deg", "district", "year", "captured_on"]]
    table = pa.Table.from_pandas(own, preserve_index=False).replace_schema_metadata(None)
    columns = {f"error_m_{name}": error for name, error in errors.items()}
    columns |= {f"within_{radius}_m": together.within[:, number] for number, radius in enumerate(radii)}
    columns |= {"answer_lat_deg": together.lat_deg, "answer_lng_deg": together.lng_deg}
    columns |= {"covered": covered, "region_km2": together.area_km2}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def _figures_table(summary: Mapping[str, Any], names: list[str]) -> TextTable:
    heads = [*(radius_name(int(name)) for name in names[:-1]), "GeoScore"]
    rows: list[list[str]] = []
    for expert, figures in summary["figures"].items():
        shares = [f"{100 * figures[name]['value']:.1f}" for name in names[:-1]]
        rows.append([expert, *shares, f"{figures['score']['value']:.0f}"])
    for expert, gains in summary["gained_over"].items():
        shares = [f"{100 * gains[name]['difference']:+.1f} {gains[name]['verdict']}" for name in names[:-1]]
        rows.append([f"fusion less {expert}", *shares, f"{gains['score']['difference']:+.0f} {gains['score']['verdict']}"])
    title = f"Answers within a radius, %, of {summary['n_questions']:,} photos of {summary['n_places']:,} places"
    return TextTable(title, ["expert", *heads], rows)


def _circles_km2(radii_m: tuple[int, ...]) -> list[float]:
    """Areas of circles of every other radius, two digits."""
    return [float(f"{np.pi * (radius / 1000) ** 2:.2g}") for radius in radii_m[::2]]


def _pictures(sure: Reliability, regions: CoverageReport, searched: Mapping[str, RecallArea]) -> dict[str, bytes]:
    from geoloc_dagster.viz.uncertainty_charts import coverage_chart, recall_area_chart, reliability_diagram

    return {
        "reliability.png": reliability_diagram(sure, title="Fusion: probability and truth"),
        "coverage.png": coverage_chart(regions, title="Fusion: what regions hold"),
        "recall_area.png": recall_area_chart(searched, title="How much has to be searched"),
    }
