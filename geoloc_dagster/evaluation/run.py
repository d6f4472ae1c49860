"""The whole evaluation of one recipe as one folder that is either complete or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from shapely.geometry.base import BaseGeometry

from geoloc_dagster import storage
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.evaluation.bootstrap import PairedDifference
from geoloc_dagster.evaluation.further import Further, measure_further
from geoloc_dagster.evaluation.protocol import Vectors, split_rows
from geoloc_dagster.evaluation.reports import compare, markdown, place_outcomes, summarise
from geoloc_dagster.evaluation.retrieval import RetrievalReport, evaluate
from geoloc_dagster.viz import style
from geoloc_dagster.viz.charts import recall_bars, recall_by_year
from geoloc_dagster.viz.maps import Layer, recall_map
from geoloc_dagster.viz.sheets import Tile, contact_sheet

SHEET_HITS: Final = 2
SHEET_MISSES: Final = 2
SHEET_NEIGHBOURS: Final = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation folder.

    Attributes:
        folder: report.json, queries.parquet, atlas.parquet, table.md, sheet.jpg, manifest.json, and the pictures map.png,
            recall.png, years.png, year_matrix.png, age_gap.png and, where districts have outlines, atlas.png.
        summary: what report.json says.
        report: of the model.
        baselines: name -> report, on the same rows.
        differences: baseline -> R@1 gained over it on the same queries.
        further: across years, at unseen places, by district.
    """

    folder: Path
    summary: dict[str, Any]
    report: RetrievalReport
    baselines: dict[str, RetrievalReport]
    differences: dict[str, PairedDifference]
    further: Further


def evaluate_all(
    catalog: pa.Table,
    vectors: Vectors,
    out_folder: Path,
    *,
    name: str,
    crops_path: Path,
    baselines: Mapping[str, Vectors] | None = None,
    geometry: Any = None,
    split: str = "test",
    ks: Sequence[int] = (1, 5, 10),
    radii_m: Sequence[int] = (25, 50, 100),
    bootstrap: int = 1000,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    gallery: pa.Table | None = None,
    outlines: Mapping[str, BaseGeometry | None] | None = None,
) -> Evaluation:
    """Evaluate a model and its baselines on one split and write the folder, replacing an older one whole.

    Args:
        catalog: the feature table; rows of other splits are left out, but train places appear on the map.
        vectors: descriptors of the split's captures by capture id; others are ignored.
        out_folder: e.g. `evaluations/<recipe>/<model version>`.
        name: what the figures call the model.
        crops_path: Lance table of crops, read for the contact sheet only.
        baselines: name -> descriptors of the same captures.
        geometry: the region as a shapely (Multi)Polygon in (lng, lat), or None.
        split: which split.
        ks: cut-offs of recall.
        radii_m: radii in metres of the geographic hit.
        bootstrap: resamples.
        seed: of the resampling and of the choice of pictures.
        facts: JSON values to record beside the figures, e.g. recipe, model version, table versions.
        gallery: rows of other places (`unseen.unseen_gallery`), for the protocol `unseen_place`; `vectors` holds theirs too. None
            leaves it out. Baselines take part where they have vectors of them.
        outlines: district -> polygon in (lng, lat), for the atlas.

    Raises:
        IntegrityError: a usable row has no vector, or a crop of the sheet is not what was written.
        NotEnoughDataError: the split gives no queries or no gallery.
    """
    rows = split_rows(catalog, split)
    names = rows["capture_id"].to_pylist()

    def measured(descriptors: Vectors) -> RetrievalReport:
        return evaluate(descriptors.aligned(names), rows, ks=ks, radii_m=radii_m, bootstrap=bootstrap, seed=seed)

    report = measured(vectors)
    others = {label: measured(descriptors) for label, descriptors in (baselines or {}).items()}
    differences = {label: compare(report.queries, o.queries, n=max(1, bootstrap), seed=seed) for label, o in others.items()}
    descriptors = {name: vectors, **(baselines or {})}
    further = measure_further(catalog, rows, report, descriptors, gallery, outlines, ks=ks, bootstrap=bootstrap, seed=seed)
    summary = {
        **summarise(report),
        **further.summary(name),
        "name": name,
        "split": split,
        "facts": dict(facts or {}),
        "baselines": {label: summarise(other) | further.summary(label) for label, other in others.items()},
        "gained_over": {label: difference.as_dict() for label, difference in differences.items()},
    }
    reports = {name: report, **others}
    with storage.atomic_folder(out_folder) as folder:
        storage.write_json(folder / "report.json", summary)
        storage.write_parquet(folder / "queries.parquet", further.with_errors(report.queries, name))
        text = markdown(reports, differences, f"{name} on `{split}`") + further.markdown()
        storage.write_bytes(folder / "table.md", text.encode())
        further.write_atlas(folder)
        pictures = _pictures(catalog, rows, reports, geometry, crops_path, seed)
        for file, picture in {**pictures, **further.pictures(name, geometry, "Street views: " + credit(rows))}.items():
            storage.write_bytes(folder / file, picture)
        storage.write_manifest(folder, name=name, split=split)
    return Evaluation(out_folder, summary, report, others, differences, further)


def _pictures(
    catalog: pa.Table, rows: pa.Table, reports: Mapping[str, RetrievalReport], geometry: Any, crops_path: Path, seed: int
) -> dict[str, bytes]:
    name, report = next(iter(reports.items()))
    cut = f"recall@{report.ks[0]}"
    share = report.same_place[cut]
    sizes = f"{report.n_queries:,} queries at {report.n_places:,} places, {report.n_gallery:,} gallery pictures"
    found = f"R@{report.ks[0]} {share.value:.3f} (95 % {share.low:.3f}–{share.high:.3f})"
    attribution = "Street views: " + credit(rows)
    by_name = {label: one.same_place for label, one in reports.items()}
    places = place_outcomes(report.queries)
    return {
        "sheet.jpg": query_sheet(report, rows, crops_path, title=f"{name}: nearest pictures", seed=seed),
        "map.png": recall_map(
            geometry,
            places["lat_deg"].to_numpy(),
            places["lng_deg"].to_numpy(),
            places["found"].to_numpy(),
            title=f"{name}: where places are found again",
            subtitle=f"{found}, {sizes}",
            attribution=attribution,
            gallery=_other_layer(catalog, rows["split"][0].as_py()),
        ),
        "recall.png": recall_bars(by_name, title="A place found among other dates", subtitle=sizes + "; 95 % intervals by place"),
        "years.png": recall_by_year(report.by_year, title=f"{name}: by year of the query", cut=cut),
    }


def query_sheet(report: RetrievalReport, rows: pa.Table, crops_path: Path, *, title: str, seed: int = 0) -> bytes:
    """JPEG: a few found and a few missed queries with their nearest neighbours, drawn at random from different places.

    Args:
        report: whose neighbours are shown.
        rows: the catalog rows that were evaluated.
        crops_path: Lance table of crops; only the pictures shown are read.
        title: what is shown.
        seed: of the choice.

    Raises:
        IntegrityError: a crop is missing or has changed.
    """
    queries = report.queries.to_pandas()
    chosen = _choose(queries, seed)
    shown = [[queries["capture_id"][i], *queries["neighbours"][i][:SHEET_NEIGHBOURS]] for i in chosen]
    reader = CropReader(crops_path)
    pictures = reader.encoded(sorted({capture for line in shown for capture in line}))
    about = rows.select(["capture_id", "location_id", "view", "captured_on"]).to_pandas().set_index("capture_id")
    tiles = [_line(queries.loc[i].to_dict(), pictures, about) for i in chosen]
    share = float((queries["first_hit_rank"] == 1).mean())
    n_hits = int((queries["first_hit_rank"][chosen] == 1).sum())
    subtitle = f"Left: the query. {n_hits} found, {len(chosen) - n_hits} missed, at random; {share:.0%} of all are found"
    taken = rows.filter(pc.field("capture_id").isin(list(pictures)))
    return contact_sheet(tiles, title=title, subtitle=subtitle, attribution="Pictures: " + credit(taken))


def credit(rows: pa.Table) -> str:
    """Whom to name for the pictures of these rows, with their licences."""
    pairs = rows.select(["attribution", "licence"]).group_by(["attribution", "licence"]).aggregate([]).to_pylist()
    return "; ".join(sorted(f"{pair['attribution']} ({pair['licence']})" for pair in pairs))


def _choose(queries: pd.DataFrame, seed: int) -> list[int]:
    """Positions of found, then missed queries, each of another place where there are enough."""
    order = np.random.default_rng(seed).permutation(len(queries))
    shuffled = queries.iloc[order].drop_duplicates("location_id")
    hit = shuffled["first_hit_rank"] == 1
    found, missed = shuffled.index[hit].tolist(), shuffled.index[~hit].tolist()
    total = SHEET_HITS + SHEET_MISSES
    n_missed = min(len(missed), max(SHEET_MISSES, total - len(found)))
    return [*found[: total - n_missed], *missed[:n_missed]]


def _line(query: Mapping[str, Any], pictures: Mapping[str, bytes | None], about: pd.DataFrame) -> list[Tile]:
    own = about.loc[query["capture_id"]]
    tiles = [Tile(pictures[query["capture_id"]], (f"{own['location_id']} · {own['view']}", f"{own['captured_on']:%Y-%m}"))]
    near = list(zip(query["neighbours"], query["distances_m"], strict=True))
    for capture, metres in near[:SHEET_NEIGHBOURS]:
        row = about.loc[capture]
        date = "no date" if pd.isna(row["captured_on"]) else f"{row['captured_on']:%Y-%m}"
        away = f"{metres:.0f} m" if metres < 1000 else f"{metres / 1000:.1f} km"
        captions = (f"{row['location_id']} · {row['view']}", f"{date} · {away}")
        tiles.append(Tile(pictures[capture], captions, hit=bool(row["location_id"] == own["location_id"])))
    return tiles


def _other_layer(catalog: pa.Table, split: str) -> Layer | None:
    """The places of the other splits, small and grey."""
    places = catalog.filter(pc.field("split") != split).select(["location_id", "lat_deg", "lng_deg"]).to_pandas()
    places = places.drop_duplicates("location_id")
    if places.empty:
        return None
    lat, lng = places["lat_deg"].to_numpy(), places["lng_deg"].to_numpy()
    return Layer(lat, lng, "place of another split", style.GREY, "s", 9.0, context=True)
