"""Does re-ranking pay? Nearest picture, votes with several kernels, headings and prototypes on the same queries.

Needs a region whose catalog is there (`geoloc run --config REGION --select +catalog`), and for a trained descriptor its
model. Every setting is chosen on `dev`, by the share of answers within 50 m, and every figure is of `test`; differences are
paired and resampled by place. Two protocols: `same_place`, as recipes are evaluated (query = newest picture of a view,
gallery = the rest of the split), and `unseen_place`, where each query's own location is taken out of its gallery, so that
the answer has to be found from the places around.

    python benchmarks/rerank.py --region demo --recipe retrieval
    python benchmarks/rerank.py --region examples/stockholm --recipe thumbnail
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load_file, save_file

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.evaluation.baselines import ThumbnailEncoder, embed_crops
from geoloc_dagster.evaluation.bootstrap import intervals, paired_bootstrap
from geoloc_dagster.evaluation.protocol import divide, split_rows
from geoloc_dagster.evaluation.ranking import normalise
from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.prediction.retrieval import vote_distribution
from geoloc_dagster.retrieval.cells import cell_ids
from geoloc_dagster.retrieval.headings import Headings, view_headings
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.prototypes import ClusterBy, Prototypes, RefineSettings, build_prototypes, refine
from geoloc_dagster.retrieval.rerank import VoteSettings, geographic_votes
from geoloc_dagster.retrieval.vote_choice import choose_vote, vote_grid
from geoloc_dagster.storage import read_parquet, write_json

K = 50
LEVEL = 16
RADII_M = (25.0, 50.0, 100.0)
COMPASS_ERROR_DEG = 20.0
BANDWIDTHS_DEG = (20.0, 30.0, 45.0)
PROTOCOLS = ("same_place", "unseen_place")
PROTOTYPE_TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0)
RESAMPLES = 2000


@dataclass(frozen=True)
class Hits:
    """Queries of one split under one protocol, with their nearest pictures: (Q,) and (Q, k) arrays."""

    lat: np.ndarray
    lng: np.ndarray
    place: np.ndarray
    heading: np.ndarray
    vectors: np.ndarray
    similarity: np.ndarray
    rows: np.ndarray
    index: GalleryIndex
    gallery_headings: Headings

    @property
    def hit_lat(self) -> np.ndarray:
        """Latitudes of the hits, (Q, k)."""
        return self.index.lat_deg[self.rows]

    @property
    def hit_lng(self) -> np.ndarray:
        """Longitudes of the hits, (Q, k)."""
        return self.index.lng_deg[self.rows]

    @property
    def hit_place(self) -> np.ndarray:
        """Locations of the hits, (Q, k)."""
        return self.index.rows["location_id"].to_numpy()[self.rows]

    @property
    def headings(self) -> Headings:
        """Directions of the hits, (Q, k)."""
        return self.gallery_headings[self.rows]


@dataclass(frozen=True)
class Answers:
    """What one method answers: positions, and the location that it names; (Q,) each."""

    lat: np.ndarray
    lng: np.ndarray
    place: np.ndarray

    def errors_m(self, hits: Hits) -> np.ndarray:
        """Great-circle metres to where the queries were taken, (Q,)."""
        return great_circle_m(self.lat, self.lng, hits.lat, hits.lng)


# --- the hits --------------------------------------------------------------------------------------------------------
def search(catalog: pa.Table, vectors: Any, split: str, protocol: str) -> Hits:
    """Exact nearest pictures of every query of a split."""
    rows = split_rows(catalog, split)
    matrix = vectors.aligned(rows["capture_id"].to_pylist())
    frame = rows.to_pandas()
    division = divide(frame, np.isfinite(matrix).all(axis=1))
    matrix = normalise(matrix)
    queries, gallery = frame.iloc[division.query], frame.iloc[division.gallery]
    index = in_memory(matrix[division.gallery], rows.take(pa.array(division.gallery)))
    similarity = matrix[division.query] @ matrix[division.gallery].T
    if protocol == "unseen_place":
        similarity[queries["location_id"].to_numpy()[:, None] == gallery["location_id"].to_numpy()[None]] = -np.inf
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :K]
    return Hits(
        lat=queries["lat_deg"].to_numpy(float),
        lng=queries["lng_deg"].to_numpy(float),
        place=queries["location_id"].to_numpy(),
        heading=queries["heading_deg"].to_numpy(float),
        vectors=matrix[division.query],
        similarity=np.take_along_axis(similarity, top, axis=1).astype(np.float64),
        rows=top,
        index=index,
        gallery_headings=view_headings(gallery["view"].tolist(), gallery["location_id"].tolist()),
    )


def in_memory(vectors: np.ndarray, rows: pa.Table) -> GalleryIndex:
    """The gallery of one split as an index that lies in no folder."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    lat, lng = (rows[name].to_numpy().astype(float) for name in ("lat_deg", "lng_deg"))
    return GalleryIndex(Path("none"), {"s2_level": LEVEL}, rows, lat, lng, cell_ids(lat, lng, LEVEL), index)


# --- the methods -----------------------------------------------------------------------------------------------------
def nearest(hits: Hits) -> Answers:
    return Answers(hits.hit_lat[:, 0], hits.hit_lng[:, 0], hits.hit_place[:, 0])


def vote(hits: Hits, settings: VoteSettings, *, photo_headings: bool = False) -> Answers:
    columns = slice(settings.k)
    votes = geographic_votes(
        hits.similarity[:, columns],
        hits.hit_lat[:, columns],
        hits.hit_lng[:, columns],
        settings,
        headings=hits.headings[:, columns],
        photo_heading_deg=compass(hits.heading) if photo_headings else None,
    )
    return Answers(votes.lat_deg, votes.lng_deg, hits.hit_place[np.arange(len(hits.rows)), votes.winner])


def compass(heading_deg: np.ndarray) -> np.ndarray:
    """Headings as a phone would have them: with an error of a standard deviation of 20°."""
    return heading_deg + np.random.default_rng(0).normal(0, COMPASS_ERROR_DEG, len(heading_deg))


def chosen_vote(dev: Hits, candidates: list[VoteSettings]) -> VoteSettings:
    return choose_vote(dev.similarity, dev.hit_lat, dev.hit_lng, dev.lat, dev.lng, headings=dev.headings, candidates=candidates)


def refined(hits: Hits, prototypes: Prototypes, settings: VoteSettings, refinement: RefineSettings) -> Answers:
    """The vote's distribution over cells, refined; where the refinement is cancelled, the vote's answer."""
    votes = geographic_votes(hits.similarity, hits.hit_lat, hits.hit_lng, settings)
    parts = [
        vote_distribution(hits.index.cells, hits.index.cells[rows], weights)
        for rows, weights in zip(hits.rows, votes.weights, strict=True)
    ]
    log_p = np.stack([log_probabilities for _, log_probabilities in parts])
    result = refine(prototypes, hits.vectors, log_p, parts[0][0], refinement, answers=(votes.lat_deg, votes.lng_deg))
    places = hits.index.rows["location_id"].to_numpy()
    winner = hits.hit_place[np.arange(len(hits.rows)), votes.winner]
    return Answers(result.lat_deg, result.lng_deg, np.where(result.row >= 0, places[result.row], winner))


def best_refinement(dev: Hits, settings: VoteSettings) -> tuple[ClusterBy, RefineSettings]:
    def share(by: ClusterBy, temperature: float) -> float:
        refinement = RefineSettings(temperature=temperature)
        return float(np.mean(refined(dev, prototypes[by], settings, refinement).errors_m(dev) <= 50))

    kinds: tuple[ClusterBy, ...] = ("embedding", "position")
    prototypes = {by: build_prototypes(dev.index, LEVEL, by=by) for by in kinds}
    by, temperature = max(product(prototypes, PROTOTYPE_TEMPERATURES), key=lambda pair: share(*pair))
    return by, RefineSettings(temperature=temperature)


def methods(dev: Hits, test: Hits, protocol: str) -> dict[str, tuple[Answers, str]]:
    """Every method's answers on test, with the settings that dev chose."""
    disc = chosen_vote(dev, vote_grid(VoteSettings(k=K)))
    gaussian = chosen_vote(dev, vote_grid(VoteSettings(k=K, kernel="gaussian")))
    leader = chosen_vote(dev, [disc, gaussian])
    headed = chosen_vote(dev, [replace(s, heading_bandwidth_deg=b) for s in (disc, gaussian) for b in BANDWIDTHS_DEG])
    found: dict[str, tuple[Answers, str]] = {
        "nearest picture": (nearest(test), ""),
        "vote, T 0.01, disc of 50 m": (vote(test, VoteSettings()), ""),
        "vote, disc": (vote(test, disc), said(disc)),
        "vote, gaussian": (vote(test, gaussian), said(gaussian)),
        "vote, headings of hits": (vote(test, headed), said(headed)),
    }
    if np.isfinite(test.heading).any():
        found["vote, the photo's heading known"] = (vote(test, disc, photo_headings=True), f"{said(disc)}; compass errs by 20°")
    if protocol == "same_place":  # prototypes are made of one gallery, and here every query would need its own
        by, refinement = best_refinement(dev, leader)
        prototypes = build_prototypes(test.index, LEVEL, by=by)
        answers = refined(test, prototypes, leader, refinement)
        found["prototypes in cells of the vote"] = (answers, f"by {by}, T {refinement.temperature:g}, {len(prototypes.cells)}")
    return found


def said(settings: VoteSettings) -> str:
    heading = "" if settings.heading_bandwidth_deg is None else f", {settings.heading_bandwidth_deg:g}°"
    return f"{settings.kernel}, T {settings.temperature:g}, {settings.radius_m:g} m{heading}"


# --- the report ------------------------------------------------------------------------------------------------------
def table(test: Hits, found: dict[str, tuple[Answers, str]], title: str, named: bool) -> tuple[TextTable, dict[str, Any]]:
    base = nearest(test).errors_m(test)
    lines: list[list[str]] = []
    figures: dict[str, Any] = {}
    for name, (answers, settings) in found.items():
        errors = answers.errors_m(test)
        hits = np.column_stack([errors <= radius for radius in RADII_M] + [answers.place == test.place])
        shares = intervals(hits, test.place, RESAMPLES, seed=0)
        gains = [paired_bootstrap(errors <= r, base <= r, test.place, RESAMPLES, seed=0) for r in RADII_M]
        gain = gains[1]
        lines.append(
            [
                name,
                settings,
                *(f"{100 * share.value:.1f}" for share in shares[:3]),
                f"{100 * shares[3].value:.1f}" if named else "–",
                f"{np.median(errors):.1f}",
                f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})",
            ]
        )
        figures[name] = {
            "settings": settings,
            "within_m": {f"{r:g}": share.as_dict() for r, share in zip(RADII_M, shares[:3], strict=True)},
            "same_location": shares[3].as_dict(),
            "gain_over_nearest": {f"{r:g}": g.as_dict() for r, g in zip(RADII_M, gains, strict=True)},
        }
    header = ["method", "chosen on dev", "25 m, %", "50 m, %", "100 m, %", "same place, %", "median, m", "50 m above nearest"]
    return TextTable(title, header, lines), figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", type=Path, required=True, help="folder with geoloc.yaml, or the file")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--recipe", default="retrieval", help="whose newest model, or `thumbnail`")
    parser.add_argument("--out", type=Path, help="JSON of every figure")
    arguments = parser.parse_args()
    layout = Layout(arguments.data_root or load_settings(arguments.region).data_root)
    catalog = read_parquet(layout.catalog)
    vectors = descriptors(layout, catalog, arguments.recipe)
    figures: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        started = time.perf_counter()
        dev, test = (search(catalog, vectors, split, protocol) for split in ("dev", "test"))
        found = methods(dev, test, protocol)
        title = (
            f"{arguments.recipe}, {protocol}: {len(test.place):,} queries of {len(np.unique(test.place)):,} places, "
            f"{test.index.rows.num_rows:,} gallery pictures; chosen on {len(dev.place):,} queries of dev"
        )
        text, figures[protocol] = table(test, found, title, named=protocol == "same_place")
        print(text.markdown(), f"\n{time.perf_counter() - started:.0f} s\n", flush=True)
    if arguments.out is not None:
        write_json(arguments.out, figures)


def descriptors(layout: Layout, catalog: pa.Table, recipe: str) -> Any:
    """Vectors of all pictures of dev and test, kept below `benchmarks` of the data root for the next time."""
    from geoloc_dagster.evaluation.protocol import Vectors

    encoder: Any = (
        ThumbnailEncoder() if recipe == "thumbnail" else load_encoder(require_training(layout.checkpoints / recipe).folder)
    )
    rows = catalog.filter(pc.field("split").isin(["dev", "test"]))
    names = rows["capture_id"].to_pylist()
    kept = layout.root / "benchmarks" / f"vectors-{encoder.model_version}.safetensors"
    if not kept.is_file():
        made = embed_crops(encoder, layout.crops, names)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({"matrix": made.aligned(names)}, kept)
    return Vectors(tuple(names), load_file(kept)["matrix"])


if __name__ == "__main__":
    main()
