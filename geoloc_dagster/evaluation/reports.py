"""Reports that people and machines read: JSON-ready summaries, Markdown tables, comparisons of stored results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.evaluation.bootstrap import Interval, PairedDifference, paired_bootstrap
from geoloc_dagster.evaluation.retrieval import MIN_PLACES, NEAR_TRAIN_M, Group, RetrievalReport
from geoloc_dagster.evaluation.tables import markdown_table

VARIANT_NAMES = {
    "all_rows": "flagged pictures take part",
    "far_from_train": f"queries {NEAR_TRAIN_M:.0f} m or more from every training place",
    "other_dates": "own place on the query's own date left out",
}
SCHEMA_VERSION = 1


def summarise(report: RetrievalReport) -> dict[str, Any]:
    """The report without its per-query table, as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": {
            "query": "newest picture of each view with at least two dates",
            "gallery": "the other pictures of the same split",
            "ks": list(report.ks),
            "radii_m": list(report.radii_m),
            "bootstrap": report.bootstrap,
            "interval": "95 %, places resampled",
            "seed": report.seed,
        },
        "n_queries": report.n_queries,
        "n_gallery": report.n_gallery,
        "n_places": report.n_places,
        "same_place": _recall(report.same_place),
        "within_m": {radius: _recall(recall) for radius, recall in report.within_m.items()},
        "distance_m": report.distance_m,
        "by_year": {name: _group(group) for name, group in report.by_year.items()},
        "by_district": {name: _group(group) for name, group in report.by_district.items()},
        "variants": {name: _group(group) for name, group in report.variants.items()},
    }


def compare(queries_a: pa.Table, queries_b: pa.Table, *, k: int = 1, n: int = 1000, seed: int = 0) -> PairedDifference:
    """recall@k of A minus that of B on the queries that both tables hold, with places resampled.

    Args:
        queries_a: per-query table of one model (`RetrievalReport.queries` or `queries.parquet`).
        queries_b: the same of another model.
        k: cut-off.
        n: resamples.
        seed: of the resampling.

    Raises:
        ModelMismatchError: the two have no query in common, so they were not measured on the same thing.
    """
    columns = ["capture_id", "location_id", "first_hit_rank"]
    a = queries_a.select(columns).to_pandas().set_index("capture_id")
    b = queries_b.select(columns).to_pandas().set_index("capture_id")
    common = a.index.intersection(b.index).sort_values()
    if len(common) == 0:
        raise ModelMismatchError("the two evaluations have no query in common", "Evaluate both models on the current catalog.")
    ranks = [frame.loc[common, "first_hit_rank"].to_numpy() for frame in (a, b)]
    hits = [(rank >= 1) & (rank <= k) for rank in ranks]
    return paired_bootstrap(hits[0], hits[1], a.loc[common, "location_id"].to_numpy(), n, seed)


def results_table(reports: Mapping[str, RetrievalReport]) -> str:
    """Markdown: one line per descriptor with recall by place and within the radii."""
    first = next(iter(reports.values()))
    header = ["", *(f"R@{k}" for k in first.ks), *(f"R@1 within {radius} m" for radius in first.within_m), "median distance"]
    lines = [
        [
            name,
            *(_cell(value) for value in report.same_place.values()),
            *(_cell(recall["recall@1"]) if "recall@1" in recall else "–" for recall in report.within_m.values()),
            f"{report.distance_m['median']:.0f} m",
        ]
        for name, report in reports.items()
    ]
    return markdown_table(header, lines)


def groups_table(groups: Mapping[str, Group], title: str) -> str:
    """Markdown: one line per group with its sizes and recall."""
    first = next(iter(groups.values()))
    header = [title, "queries", "places", "gallery", *(name.replace("recall", "R") for name in first.recall)]
    lines = [
        [
            VARIANT_NAMES.get(name, name),
            str(group.n_queries),
            str(group.n_places),
            str(group.n_gallery),
            *(_cell(v) if group.n_places >= MIN_PLACES else f"{v.value:.3f}" for v in group.recall.values()),
        ]
        for name, group in groups.items()
    ]
    return markdown_table(header, lines)


def differences_table(differences: Mapping[str, PairedDifference]) -> str:
    """Markdown: R@1 gained over each baseline, on the same queries."""
    lines = [
        [name, f"{d.difference:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", f"{d.p:.3f}", str(d.n_queries), str(d.n_places)]
        for name, d in differences.items()
    ]
    return markdown_table(["R@1 gained over", "difference", "95 % interval", "p", "queries", "places"], lines)


def markdown(reports: Mapping[str, RetrievalReport], differences: Mapping[str, PairedDifference], heading: str) -> str:
    """The whole evaluation as one Markdown page; the first of `reports` is the model, the others its baselines."""
    report = next(iter(reports.values()))
    intro = (
        f"{report.n_queries:,} queries at {report.n_places:,} places, {report.n_gallery:,} gallery pictures. A query is the "
        "newest picture of a view that has at least two dates; a hit is a picture of the same location. In brackets: 95 % "
        f"intervals over {report.bootstrap:,} resamples of places."
    )
    parts = [f"## {heading}", intro, results_table(reports)]
    if differences:
        parts.append(differences_table(differences))
    parts += [groups_table(report.by_year, "year of the query"), groups_table(report.by_district, "district")]
    parts.append(groups_table(report.variants, "rule"))
    return "\n\n".join(parts) + "\n"


def place_outcomes(queries: pa.Table) -> pd.DataFrame:
    """Per location: lat_deg, lng_deg, number of queries and the share of them found at rank 1 (`found`)."""
    frame = queries.select(["location_id", "lat_deg", "lng_deg", "first_hit_rank"]).to_pandas()
    frame["found"] = np.asarray(frame["first_hit_rank"] == 1, float)
    grouped = frame.groupby("location_id").agg(
        lat_deg=("lat_deg", "first"), lng_deg=("lng_deg", "first"), queries=("found", "size"), found=("found", "mean")
    )
    return grouped.reset_index()


def _recall(recall: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval.as_dict() for name, interval in recall.items()}


def _group(group: Group) -> dict[str, Any]:
    sizes = {"n_queries": group.n_queries, "n_gallery": group.n_gallery, "n_places": group.n_places}
    return {**sizes, **_recall(group.recall)}


def _cell(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"
