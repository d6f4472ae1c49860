"""The protocol `unseen_place`: the gallery holds no picture of the places that are asked about.

In `same_place` the gallery holds older pictures of every place, so a place can be found again. Here it holds the pictures of
the training places alone: nothing but nearness is left to find, so a hit is a picture taken within a radius. What can be
reached is bounded by how near a training place there is at all (the oracle), and what a blind guess reaches is how many there
are (chance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import KDTree

from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.evaluation.bootstrap import Interval, intervals, quantile_intervals
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.protocol import Vectors
from geoloc_dagster.evaluation.ranking import Side, normalise, rank
from geoloc_dagster.evaluation.tables import TextTable, length, percent
from geoloc_dagster.geo.distance import great_circle_m, unit_vectors

RADII_M = (25, 50, 100, 250, 1000)
_PAIRS_PER_BLOCK = 4_000_000

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unseen:
    """What a descriptor reaches where the gallery holds none of the places.

    Attributes:
        gallery: which pictures it holds, in words.
        within_m: radius in metres -> `recall@k` with "hit = one of the k nearest pictures was taken within that radius".
        oracle: radius -> share of the queries with any gallery picture within it: no model can be above.
        chance: radius -> share of the gallery within it, mean over the queries: what a picture drawn at random gives.
        distance_m: median and 90th percentile of the distance from the query to its best match.
        nearest_m: the same of the distance to the nearest gallery picture there is.
        queries: one row per query: capture_id, location_id, `error_m` of the best match, `nearest_m`.
    """

    gallery: str
    ks: tuple[int, ...]
    n_queries: int
    n_gallery: int
    n_places: int
    n_gallery_places: int
    within_m: dict[int, dict[str, Interval]]
    oracle: dict[int, Interval]
    chance: dict[int, float]
    distance_m: dict[str, Interval]
    nearest_m: dict[str, Interval]
    queries: pa.Table


def unseen_gallery(catalog: pa.Table, split: str, gallery_splits: Sequence[str], *, newest_only: bool = False) -> pa.Table:
    """The usable rows of other splits at places of which the split has no usable picture, by capture id; it may be empty.

    Args:
        catalog: the feature table.
        split: whose queries ask.
        gallery_splits: e.g. those that the model was trained on.
        newest_only: one picture per view, the newest, which is a gallery of a fraction of the size.

    Raises:
        ValueError: the gallery is to hold the split that asks.
    """
    if split in gallery_splits:
        raise ValueError(f"the gallery cannot hold {split}, whose places are asked about")
    asked = catalog.filter((pc.field("split") == split) & pc.field("usable"))["location_id"].unique().to_pylist()
    rows = catalog.filter(pc.field("usable") & pc.field("split").isin(list(gallery_splits)))
    rows = rows.filter(~pc.field("location_id").isin(asked)).sort_by("capture_id")
    if newest_only and rows.num_rows:
        frame = rows.select(["location_id", "view", "captured_on", "capture_id"]).to_pandas()
        newest = frame.sort_values(["captured_on", "capture_id"], na_position="first").groupby(["location_id", "view"]).tail(1)
        rows = rows.take(pa.array(np.sort(newest.index.to_numpy())))
    return rows


def evaluate_unseen(
    vectors: Vectors,
    queries: pa.Table,
    gallery: pa.Table,
    *,
    described: str = "usable pictures of the training places",
    ks: Sequence[int] = (1, 5, 10),
    radii_m: Sequence[int] = RADII_M,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Unseen:
    """Measure how near the best matches lie where the place itself cannot be found.

    Args:
        vectors: descriptors of the queries and of the gallery by capture id; others are ignored.
        queries: catalog rows of one split; those that are usable queries ask.
        gallery: rows of other places (`unseen_gallery`).
        described: the gallery in words, for the report.
        ks: cut-offs of recall.
        radii_m: radii in metres.
        bootstrap: resamples of the intervals.
        seed: of the resampling.

    Raises:
        IntegrityError: a place is on both sides, or a picture has no finite vector.
        NotEnoughDataError: no query, or an empty gallery.
    """
    queries = queries.filter(pc.field("usable") & pc.field("is_query"))
    if not queries.num_rows or not gallery.num_rows:
        raise NotEnoughDataError(f"{queries.num_rows} queries and {gallery.num_rows} gallery pictures of other places")
    places = np.asarray(queries["location_id"].to_pylist())
    shared = np.intersect1d(places, np.asarray(gallery["location_id"].to_pylist()))
    if len(shared):
        raise IntegrityError(f"place {shared[0]} both asks and answers, so it is not unseen", "Use `unseen_gallery`.")
    near = rank(_side(vectors, queries, 0), _side(vectors, gallery, 1), max(ks)).neighbours
    lat, lng = _positions(queries)
    gallery_lat, gallery_lng = _positions(gallery)
    found = great_circle_m(lat[:, None], lng[:, None], gallery_lat[np.maximum(near, 0)], gallery_lng[np.maximum(near, 0)])
    metres = np.where(near >= 0, found, np.inf)
    spots = pd.DataFrame({"lat": gallery_lat, "lng": gallery_lng}).value_counts().reset_index()
    least = _nearest_m(lat, lng, spots)

    def shares(columns: list[np.ndarray]) -> list[Interval]:
        return intervals(np.stack(columns, axis=1), places, bootstrap, seed)

    def recall(radius: int) -> dict[str, Interval]:
        found = shares([np.asarray((metres[:, :k] <= radius).any(axis=1)) for k in ks])
        return {f"recall@{k}": share for k, share in zip(ks, found, strict=True)}

    def spread(values: np.ndarray) -> dict[str, Interval]:
        return dict(zip(("median", "p90"), quantile_intervals(values, places, (0.5, 0.9), bootstrap, seed), strict=True))

    return Unseen(
        gallery=described,
        ks=tuple(ks),
        n_queries=len(places),
        n_gallery=gallery.num_rows,
        n_places=len(np.unique(places)),
        n_gallery_places=len(set(gallery["location_id"].to_pylist())),
        within_m={radius: recall(radius) for radius in radii_m},
        oracle=dict(zip(radii_m, shares([least <= radius for radius in radii_m]), strict=True)),
        chance=_chance(lat, lng, spots, radii_m),
        distance_m=spread(metres[:, 0]),
        nearest_m=spread(least),
        queries=queries.select(["capture_id", "location_id"])
        .append_column("error_m", pa.array(metres[:, 0], pa.float32()))
        .append_column("nearest_m", pa.array(least, pa.float32())),
    )


def unseen_table(results: dict[str, Unseen]) -> TextTable:
    """One row per descriptor, then the oracle and chance, which are the same for all."""
    first = next(iter(results.values()))
    header = ["", *(f"R@1 within {radius_name(r)}, %" for r in first.within_m), "median distance"]
    rows = [
        [name, *(percent(one.within_m[r][f"recall@{one.ks[0]}"]) for r in first.within_m), length(one.distance_m["median"].value)]
        for name, one in results.items()
    ]
    rows.append(["oracle: any within", *map(percent, first.oracle.values()), length(first.nearest_m["median"].value)])
    rows.append(["chance", *(f"{100 * share:.1f}" for share in first.chance.values()), ""])
    title = f"unseen_place: {first.n_queries:,} queries, {first.n_gallery:,} {first.gallery} ({first.n_gallery_places:,} places)"
    return TextTable(title, [header[0], *(h.replace("R@1", f"R@{first.ks[0]}") for h in header[1:])], rows)


def summarise_unseen(result: Unseen) -> dict[str, Any]:
    """The same as plain JSON values."""
    return {
        "protocol": {
            "query": "newest picture of each view with at least two dates",
            "gallery": f"{result.gallery}; none of a place that is asked about",
            "hit": "a picture taken within the radius",
        },
        "n_queries": result.n_queries,
        "n_gallery": result.n_gallery,
        "n_places": result.n_places,
        "n_gallery_places": result.n_gallery_places,
        "within_m": {str(r): {cut: one.as_dict() for cut, one in recall.items()} for r, recall in result.within_m.items()},
        "oracle": {str(r): one.as_dict() for r, one in result.oracle.items()},
        "chance": {str(r): share for r, share in result.chance.items()},
        "distance_m": {name: one.as_dict() for name, one in result.distance_m.items()},
        "nearest_m": {name: one.as_dict() for name, one in result.nearest_m.items()},
    }


def _side(vectors: Vectors, rows: pa.Table, place: int) -> Side:
    names = rows["capture_id"].to_pylist()
    matrix = vectors.aligned(names)
    missing = ~np.isfinite(matrix).all(axis=1)
    if missing.any():
        raise IntegrityError(
            f"{int(missing.sum())} pictures have no finite vector, the first is capture {names[int(np.argmax(missing))]}",
            "Embed the queries and the gallery with the same model.",
        )
    return Side(normalise(matrix), np.full(len(names), place))


def _positions(rows: pa.Table) -> tuple[F64, F64]:
    return rows["lat_deg"].to_numpy().astype(np.float64), rows["lng_deg"].to_numpy().astype(np.float64)


def _nearest_m(lat: F64, lng: F64, spots: pd.DataFrame) -> F64:
    """To the nearest gallery picture, on the sphere as hits are measured, so that no hit lies nearer than the nearest."""
    spot_lat, spot_lng = spots["lat"].to_numpy(float), spots["lng"].to_numpy(float)
    tree: Any = KDTree(unit_vectors(spot_lat, spot_lng))
    nearest = np.asarray(tree.query(unit_vectors(lat, lng))[1], np.int64)
    return great_circle_m(lat, lng, spot_lat[nearest], spot_lng[nearest])


def _chance(lat: F64, lng: F64, spots: pd.DataFrame, radii_m: Sequence[int]) -> dict[int, float]:
    """Mean over the queries of the share of gallery pictures within each radius."""
    spot_lat, spot_lng, weight = (spots[name].to_numpy(float) for name in ("lat", "lng", "count"))
    asked, times = np.unique(np.stack([lat, lng], axis=1), axis=0, return_counts=True)
    block = max(1, _PAIRS_PER_BLOCK // len(spots))
    totals = np.zeros(len(radii_m))
    for start in range(0, len(asked), block):
        part, count = asked[start : start + block], times[start : start + block]
        metres = great_circle_m(part[:, :1], part[:, 1:], spot_lat[None], spot_lng[None])
        totals += [float(count @ ((metres <= radius) @ weight)) for radius in radii_m]
    return dict(zip(radii_m, (totals / (len(lat) * weight.sum())).tolist(), strict=True))
