"""The fusion of a region: its experts gathered, fitted on dev, measured on test, and written as one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.fusion_report import FusionReport, measure_fusion, write_report
from geoloc_dagster.evaluation.geolocation import scale_of
from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid, write_grid
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.geo.evenly import points_inside
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.prediction.ensemble import member_indexes, members_of
from geoloc_dagster.prediction.experts import I64, Hits, Verified
from geoloc_dagster.prediction.fusion import FUSION_FILE, GRID_FILE, VIEWS_FILE, Fusion, head_file
from geoloc_dagster.prediction.fusion_fit import fit_fusion, say_all
from geoloc_dagster.prediction.panel import (
    PLACES,
    RETRIEVAL,
    Expert,
    HitsExpert,
    Photos,
    PlacesExpert,
    Search,
    classifier_expert,
    look_all,
    view_table,
)
from geoloc_dagster.prediction.parts import BESIDE, CLASSIFIERS, KINDS
from geoloc_dagster.prediction.questions import Division, Questions, distances_within_places, distinct_places, divide_catalog
from geoloc_dagster.prediction.verification import verification_over
from geoloc_dagster.retrieval.encoder import Pictures, Vectors
from geoloc_dagster.retrieval.index import GalleryIndex, latest_index, load_index
from geoloc_dagster.retrieval.place_head import learn_place_head
from geoloc_dagster.retrieval.pointer import write_pointer
from geoloc_dagster.storage import atomic_folder, read_parquet, write_json, write_manifest, write_parquet

LATEST = "LATEST.json"
_CITY_KM2 = 20_000
_CITY_LEVEL, _COUNTRY_LEVEL = 20, 13  # cells of 8 m and of 1 km
_BLOCK = 256
_LEAST_RADIUS_M = 25  # positions of places are not better known
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FusionResult:
    """What became of a fusion.

    Attributes:
        folder: of it; None where there was too little to calibrate on.
        reason: why there is none; empty otherwise.
        weights: of the experts.
        report: of held-out places, JSON-ready.
        picture: how it did, PNG.
        questions: of test.
    """

    folder: Path | None
    reason: str
    weights: dict[str, float]
    report: dict[str, Any]
    picture: bytes
    questions: int


def make_fusion(settings: Settings, layout: Layout, progress: Progress | None = None) -> FusionResult:
    """Fit and measure the fusion of the champions, and write it; the same parts give the same folder.

    Raises:
        NoReleaseError: there is no champion.
        IntegrityError: a part has changed since it was written.
        ModelMismatchError: the index holds vectors of another model than the champion.
    """
    from geoloc_dagster.learning.recipe import recipe_of

    champions = champions_of(layout)
    if not champions:
        return FusionResult(None, "no champion answers single photos", {}, {}, b"", 0)
    models = {f"the champion of {kind}": folder for kind, folder in champions.items()}
    models |= {f"the newest model of {one.recipe}": one.folder for one in members_of(layout, settings.fusion.ensemble)}
    learned = [name for name, folder in models.items() if "dev" in recipe_of(folder).data.splits]
    if learned:
        return FusionResult(None, f"{learned[0]} learned from dev itself", {}, {}, b"", 0)
    try:
        catalog = read_parquet(layout.catalog)
        made = fit_and_measure(settings, layout, champions, divide_catalog(catalog), progress)
    except NotEnoughDataError as error:
        return FusionResult(None, error.cause, {}, {}, b"", 0)
    report = made.report.with_atlas(catalog, settings, read_boundary(layout.boundary).geometry)
    folder = _write(layout, made.fusion, made.experts, report)
    weights = {name: fit.weight for name, fit in made.fusion.experts.items()}
    picture = made.report.pictures["reliability.png"]
    return FusionResult(folder, "", weights, made.report.summary, picture, made.report.queries.num_rows)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A fusion in memory: what was fitted, by whom, what the experts saw of test, and how it did there.

    `networks` are the folders of the models whose vectors the experts look at, by model version.
    """

    fusion: Fusion
    experts: list[Expert]
    networks: dict[str, Path]
    found: dict[str, Any]
    report: FusionReport


def fit_and_measure(
    settings: Settings, layout: Layout, champions: Mapping[str, Path], division: Division, progress: Progress | None = None
) -> Measured:
    """Fit a fusion on the questions of dev and measure it on those of test; nothing is written.

    Args:
        settings: of the region.
        layout: of the region.
        champions: folders by kind.
        division: questions and gallery.
        progress: called with (photos looked at, photos) of dev, then of test.

    Raises:
        NotEnoughDataError: dev has too few places.
    """
    members = members_of(layout, settings.fusion.ensemble)
    indexes, networks = dict[str, GalleryIndex](), dict[str, Path]()
    if "retrieval" in champions:
        indexes[""] = load_index(latest_index(layout.indexes))
        beside = [one for one in members if one.kind == "retrieval"]
        indexes |= {BESIDE + recipe: index for recipe, index in member_indexes(layout, beside, indexes[""]).items()}
        networks = {indexes[""].model_version: champions["retrieval"], **{one.model_version: one.folder for one in beside}}
    grid = region_grid(settings, layout, division.gallery)
    classifiers = {kind: champions[kind] for kind in CLASSIFIERS if kind in champions}
    classifiers |= {one.expert: one.folder for one in members if one.kind in CLASSIFIERS}
    experts = gather(classifiers, grid, indexes, division.gallery)
    scale = scale_of(score_m(*_bounds(layout)))
    questions = (division.dev, division.test)
    found = [look_at(experts, asked, layout, list(indexes.values()), progress) for asked in questions]
    chosen = settings.fusion
    fusion = fit_fusion(
        experts,
        found[0],
        division.dev.truth,
        grid,
        [radius for radius in scale.radii_m if radius >= _LEAST_RADIUS_M],
        refused=chosen.refused,
        largest_region_km2=chosen.largest_region_km2,
        away_m=distances_within_places(division.gallery),
        seed=settings.splits.seed,
    )
    said = say_all(fusion, experts, found[1])
    report = measure_fusion(fusion, said, division.test, scale, chosen.coverage, seed=settings.splits.seed)
    return Measured(fusion, experts, networks, found[1], report)


def region_grid(settings: Settings, layout: Layout, gallery: pd.DataFrame) -> AnswerGrid:
    """The grid of a region: cells as small as its places in a city, of a kilometre at least in a country."""
    boundary = read_boundary(layout.boundary)
    level = settings.fusion.finest_level or (_CITY_LEVEL if boundary.area_km2 <= _CITY_KM2 else _COUNTRY_LEVEL)
    return build_grid(
        *distinct_places(gallery),
        inside=points_inside(boundary.geometry),
        finest_level=level,
        most_cells=settings.fusion.most_cells,
    )


def gather(
    classifiers: Mapping[str, Path], grid: AnswerGrid, indexes: Mapping[str, GalleryIndex], gallery: pd.DataFrame
) -> list[Expert]:
    """The experts over a gallery: classifiers' folders by name, `indexes` by what follows the names of their experts."""
    experts = [expert for beside, index in indexes.items() for expert in index_experts(index, gallery, grid, beside)]
    experts += [trained_classifier(name, folder, grid) for name, folder in classifiers.items()]
    if indexes and indexes[""].local is not None:
        rows = rows_in(indexes[""], gallery)
        experts.append(verification_over(indexes, rows, np.unique(indexes[""].views()[rows]), grid))
    return experts


def champions_of(layout: Layout) -> dict[str, Path]:
    """The folders of the champions that there are, by kind, every byte of them checked."""
    kinds = [kind for kind in KINDS if layout.champion_of(kind).exists()]
    return {kind: read_champion(layout, layout.champion_of(kind)).folder for kind in kinds}


def index_experts(index: GalleryIndex, gallery: pd.DataFrame, grid: AnswerGrid, beside: str = "") -> list[Expert]:
    """Nearest pictures, and a classifier learned from their vectors, over those rows of an index that are in the gallery."""
    vectors, rows = index.vectors(), rows_in(index, gallery)
    cells = grid.cells_of(index.lat_deg[rows], index.lng_deg[rows])
    classes, first, code = np.unique(index.views()[rows], return_index=True, return_inverse=True)
    head = learn_place_head(vectors[rows], code.astype(np.int64), len(classes))
    version = index.model_version
    return [
        HitsExpert(version, flat_search(vectors[rows]), cells, grid, RETRIEVAL + beside),
        PlacesExpert(version, head, view_table(cells[first], grid), grid, PLACES + beside, classes),
    ]


def rows_in(index: GalleryIndex, gallery: pd.DataFrame) -> I64:
    """The rows of an index that are in a gallery, ascending."""
    rows = pd.Index(index.rows["capture_id"].to_pylist()).get_indexer(pd.Index(gallery["capture_id"]))
    return np.sort(rows[rows >= 0]).astype(np.int64)


def flat_search(vectors: Vectors) -> Search:
    """Exact search by inner product."""
    import faiss

    index: Any = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index.search


def trained_classifier(name: str, folder: Path, grid: AnswerGrid) -> Expert:
    """The trained classifier in a folder, on a grid."""
    from geoloc_dagster.learning.photo_models import load_classifier

    return classifier_expert(name, load_classifier(folder), grid)


def look_at(
    experts: Sequence[Expert],
    questions: Questions,
    layout: Layout,
    indexes: Sequence[GalleryIndex],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What every expert sees of the questions: vectors from the indexes, pictures from the crops."""
    reader, sha256 = CropReader(layout.crops), questions.sha256
    vectors = {index.model_version: _vectors_of(index, questions.capture_ids) for index in indexes}
    found: dict[str, list[Any]] = {expert.name: [] for expert in experts}
    for start in range(0, len(questions), _BLOCK):
        ids = questions.capture_ids[start : start + _BLOCK]

        def pictures(size: int, ids: list[str] = ids) -> Pictures:
            return reader.pictures(ids, size, {name: sha256[name] for name in ids})

        block = Photos({version: values[start : start + len(ids)] for version, values in vectors.items()}, pictures)
        for name, seen in look_all(experts, block).items():
            found[name].append(seen)
        if progress is not None:
            progress(start + len(ids), len(questions))
    return {name: join(parts) for name, parts in found.items()}


def join(parts: list[Any]) -> Any:
    """What an expert saw of several blocks, as one."""
    if parts and isinstance(parts[0], Verified):
        return Verified(join([part.hits for part in parts]), [one for part in parts for one in part.features])
    if parts and isinstance(parts[0], Hits):
        rows = None if parts[0].rows is None else np.concatenate([part.rows for part in parts])
        return Hits(np.concatenate([part.similarity for part in parts]), np.concatenate([part.cells for part in parts]), rows)
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _vectors_of(index: GalleryIndex, capture_ids: list[str]) -> Vectors:
    rows = pd.Index(index.rows["capture_id"].to_pylist()).get_indexer(pd.Index(capture_ids))
    return index.vectors()[rows]


def _bounds(layout: Layout) -> tuple[float, float, float, float]:
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    return south, west, north, east


def _write(layout: Layout, fusion: Fusion, experts: Sequence[Expert], report: FusionReport) -> Path:
    content: Mapping[str, Any] = fusion.to_json()
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    with atomic_folder(layout.fusions / name) as folder:
        write_json(folder / FUSION_FILE, content)
        write_grid(folder / GRID_FILE, fusion.grid)
        for expert in experts:
            if isinstance(expert, PlacesExpert):
                expert.head.save(folder / head_file(expert.model_version))
                table: Any = expert.table
                cell = np.where(np.asarray(table.sum(axis=1)).ravel() > 0, np.asarray(table.argmax(axis=1)).ravel(), -1)
                write_parquet(folder / VIEWS_FILE, pa.table({"cell": cell.astype(np.int64), "view": expert.views.tolist()}))
        write_report(report, folder)
        write_manifest(folder, kind="fusion", experts={name: fit.model_version for name, fit in fusion.experts.items()})
    write_pointer(layout.fusions / LATEST, {"fusion": name})
    return layout.fusions / name
