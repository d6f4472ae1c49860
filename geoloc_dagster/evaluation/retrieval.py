"""Recall of a descriptor on one split: overall, by group, and under stricter and looser rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.evaluation.bootstrap import Interval, intervals
from geoloc_dagster.evaluation.protocol import COLUMNS, Division, divide, divide_all
from geoloc_dagster.evaluation.ranking import Ranking, Side, normalise, rank
from geoloc_dagster.geo.distance import great_circle_m

NEAR_TRAIN_M = 50.0
MIN_PLACES = 5  # of a group: an interval over fewer says nothing and is not shown
LISTED_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Group:
    """Recall of a part of the queries, or of all of them under another rule."""

    n_queries: int
    n_gallery: int
    n_places: int
    recall: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """What a descriptor reaches on one split.

    Attributes:
        same_place: `recall@k` with "hit = a picture of the same location, any view".
        within_m: radius in metres -> `recall@k` with "hit = a picture taken within that radius".
        distance_m: median and 90th percentile of the distance from the query to its best match.
        by_year: capture year of the query -> group (same gallery).
        by_district: district -> group (same gallery).
        variants: `all_rows` (flagged pictures take part), `far_from_train` (queries 50 m or more from every training place;
            same gallery), `other_dates` (pictures of the query's own place and date are left out of its gallery).
        queries: one row per query: rank of the first hit, neighbours, similarities, distances.
    """

    ks: tuple[int, ...]
    radii_m: tuple[int, ...]
    bootstrap: int
    seed: int
    n_queries: int
    n_gallery: int
    n_places: int
    same_place: dict[str, Interval]
    within_m: dict[str, dict[str, Interval]]
    distance_m: dict[str, float]
    by_year: dict[str, Group]
    by_district: dict[str, Group]
    variants: dict[str, Group]
    queries: pa.Table


@dataclass(frozen=True, slots=True)
class _Measure:
    """How shares are measured: the cut-offs and the resampling."""

    ks: tuple[int, ...]
    bootstrap: int
    seed: int

    def recall(self, rank_of_hit: np.ndarray, places: np.ndarray) -> dict[str, Interval]:
        """`recall@k` from ranks that start at 1 and are 0 where nothing was found."""
        hits = np.stack([(rank_of_hit >= 1) & (rank_of_hit <= k) for k in self.ks], axis=1)
        found = intervals(hits, places, self.bootstrap, self.seed)
        return {f"recall@{k}": interval for k, interval in zip(self.ks, found, strict=True)}

    def group(self, rank_of_hit: np.ndarray, places: np.ndarray, n_gallery: int) -> Group:
        """The same as a group with its sizes."""
        return Group(len(places), n_gallery, len(np.unique(places)), self.recall(rank_of_hit, places))


def evaluate(
    vectors: np.ndarray,
    rows: pa.Table,
    *,
    ks: Sequence[int] = (1, 5, 10),
    radii_m: Sequence[int] = (25, 50, 100),
    bootstrap: int = 1000,
    seed: int = 0,
) -> RetrievalReport:
    """Measure how well `vectors` find the place of every query among the other pictures of the split.

    Args:
        vectors: (N, D) descriptors, one per row, of any length; NaN where a picture has none (allowed for unusable rows only).
        rows: the catalog rows of one split (`protocol.split_rows`).
        ks: cut-offs of recall.
        radii_m: radii in metres of the geographic hit.
        bootstrap: resamples of the intervals.
        seed: of the resampling.

    Raises:
        IntegrityError: a usable row has no finite vector.
        NotEnoughDataError: the split gives no queries or no gallery.
        ValueError: not one vector per row.
    """
    frame = rows.select(COLUMNS).to_pandas()
    if vectors.ndim != 2 or len(vectors) != len(frame):
        raise ValueError(f"need one vector for each of the {len(frame)} rows, not {vectors.shape}")
    measure = _Measure(tuple(ks), bootstrap, seed)
    has_vector = np.asarray(np.isfinite(vectors).all(axis=1), bool)
    division = divide(frame, has_vector)
    vectors = normalise(vectors)
    depth = max(*ks, LISTED_NEIGHBOURS)
    ranking = _rank(frame, vectors, division, depth)
    queries = frame.iloc[division.query]
    distances = _distances_m(frame, division, ranking)
    places = queries["location_id"].to_numpy()
    n_gallery = len(division.gallery)
    return RetrievalReport(
        ks=measure.ks,
        radii_m=tuple(radii_m),
        bootstrap=bootstrap,
        seed=seed,
        n_queries=len(queries),
        n_gallery=n_gallery,
        n_places=len(np.unique(places)),
        same_place=measure.recall(ranking.first_hit, places),
        within_m={f"{r}": measure.recall(_first_within(distances, r), places) for r in radii_m},
        distance_m={"median": float(np.median(distances[:, 0])), "p90": float(np.percentile(distances[:, 0], 90))},
        by_year=_by(queries["year"], ranking, places, n_gallery, measure),
        by_district=_by(queries["district"], ranking, places, n_gallery, measure),
        variants=_variants(frame, vectors, has_vector, division, ranking, measure),
        queries=_query_table(frame, division, ranking, distances),
    )


def _rank(frame: pd.DataFrame, vectors: np.ndarray, division: Division, depth: int, *, other_dates: bool = False) -> Ranking:
    place, _ = pd.factorize(frame["location_id"])
    day = pd.factorize(frame["captured_on"])[0] if other_dates else None

    def side(positions: np.ndarray) -> Side:
        return Side(vectors[positions], place[positions], None if day is None else day[positions])

    return rank(side(division.query), side(division.gallery), depth)


def _distances_m(frame: pd.DataFrame, division: Division, ranking: Ranking) -> np.ndarray:
    """(Q, k) great-circle metres from each query to its neighbours; infinite where there is none."""
    lat, lng = frame["lat_deg"].to_numpy(float), frame["lng_deg"].to_numpy(float)
    found = division.gallery[np.maximum(ranking.neighbours, 0)]
    metres = great_circle_m(lat[division.query][:, None], lng[division.query][:, None], lat[found], lng[found])
    return np.where(ranking.neighbours >= 0, metres, np.inf)


def _first_within(distances: np.ndarray, radius_m: float) -> np.ndarray:
    """(Q,) rank from 1 of the first neighbour within the radius; 0 where none of the listed ones is."""
    inside = distances <= radius_m
    return np.where(inside.any(axis=1), inside.argmax(axis=1) + 1, 0)


def _by(labels: pd.Series, ranking: Ranking, places: np.ndarray, n_gallery: int, measure: _Measure) -> dict[str, Group]:
    names = labels.map(lambda label: "unknown" if pd.isna(label) else str(label if isinstance(label, str) else int(label)))
    return {
        str(name): measure.group(ranking.first_hit[mask], places[mask], n_gallery)
        for name in sorted(names.unique())
        for mask in [(names == name).to_numpy()]
    }


def _variants(
    frame: pd.DataFrame,
    vectors: np.ndarray,
    has_vector: np.ndarray,
    division: Division,
    ranking: Ranking,
    measure: _Measure,
) -> dict[str, Group]:
    location = frame["location_id"].to_numpy()
    places = location[division.query]
    variants: dict[str, Group] = {}
    everything = divide_all(frame, has_vector)
    if len(everything.query):
        loose = _rank(frame, vectors, everything, 1)
        variants["all_rows"] = measure.group(loose.first_hit, location[everything.query], len(everything.gallery))
    near_train_m = frame["near_train_m"].to_numpy(float, na_value=np.inf)[division.query]
    far = ~(near_train_m < NEAR_TRAIN_M)
    if far.any():
        variants["far_from_train"] = measure.group(ranking.first_hit[far], places[far], len(division.gallery))
    strict = _rank(frame, vectors, division, 1, other_dates=True)
    variants["other_dates"] = measure.group(strict.first_hit, places, len(division.gallery))
    return variants


def _query_table(frame: pd.DataFrame, division: Division, ranking: Ranking, distances: np.ndarray) -> pa.Table:
    queries = frame.iloc[division.query]
    gallery = frame.iloc[division.gallery]
    listed = ranking.neighbours[:, :LISTED_NEIGHBOURS]

    def lists(values: np.ndarray, of_gallery: bool, kind: pa.DataType) -> pa.Array:
        picked = [(values[near[near >= 0]] if of_gallery else values[i, : (near >= 0).sum()]) for i, near in enumerate(listed)]
        return pa.array([list(row) for row in picked], pa.list_(kind))

    own = ["capture_id", "location_id", "view", "lat_deg", "lng_deg", "captured_on", "year", "district", "near_train_m"]
    columns: Mapping[str, pa.Array] = {
        "first_hit_rank": pa.array(ranking.first_hit, pa.int32()),
        "neighbours": lists(gallery["capture_id"].to_numpy(), True, pa.string()),
        "neighbour_locations": lists(gallery["location_id"].to_numpy(), True, pa.string()),
        "similarities": lists(ranking.similarities, False, pa.float32()),
        "distances_m": lists(distances, False, pa.float32()),
    }
    table = pa.Table.from_pandas(queries[own], preserve_index=False)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.replace_schema_metadata(None)
