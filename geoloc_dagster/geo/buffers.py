"""Buffers: ranked locations that are at least so many metres from every other, and the batches they are collected in.

A *buffer* of X metres holds the locations that are X metres or more from every registered one. Buffers are built from the
largest spacing to the smallest, so that a collection that stops early is spread evenly. What is registered once never changes:
not its id, its position, its rank, nor its batch; new lookups only add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from geoloc_dagster.errors import BufferCsvError
from geoloc_dagster.geo.batches import BatchKey, buffer_series, chunk
from geoloc_dagster.geo.distance import FloatArray, geodesic_m
from geoloc_dagster.geo.spacing import close_pairs, keep_apart

__all__ = ["LOCATION_COLUMNS", "assign_batches", "build_buffers", "close_pairs", "keep_apart", "rank_from_start"]

LOCATION_COLUMNS = [
    "location_id",
    "series",
    "rank",
    "lookup_id",
    "lat_deg",
    "lng_deg",
    "pano_id",
    "captured_on",
    "requested_lat_deg",
    "requested_lng_deg",
    "copyright",
    "dist_to_start_m",
]
_OPTIONAL_COLUMNS = ["requested_lat_deg", "requested_lng_deg", "copyright"]


def rank_from_start(lat_deg: FloatArray, lng_deg: FloatArray, start_point: tuple[float, float]) -> npt.NDArray[np.int64]:
    """The order of points by geodesic distance from `start_point` (lat, lng); ties go by latitude, longitude, then position."""
    lat, lng = np.asarray(lat_deg, dtype=np.float64), np.asarray(lng_deg, dtype=np.float64)
    return np.lexsort((lng, lat, geodesic_m(start_point[0], start_point[1], lat, lng))).astype(np.int64)


def build_buffers(
    metadata: pd.DataFrame,
    start_point: tuple[float, float],
    spacings_m: Sequence[int],
    registered: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Register every lookup that is far enough from what is registered, nearest to the start point first.

    The result does not depend on the order of the rows of `metadata`. Without `registered`, any two locations are at least as
    far apart as the smaller of their two series' spacings; a registered set that breaks this is kept as it is, and
    `close_pairs` counts its defects.

    Args:
        metadata: lookups with the columns lookup_id, lat_deg, lng_deg, pano_id, captured_on, and where they are known
            requested_lat_deg, requested_lng_deg, copyright. Where there is a column status, only rows that say OK count.
        start_point: (lat, lng) degrees.
        spacings_m: metres, largest first.
        registered: an earlier result; its rows come back first and unchanged.

    Returns:
        `LOCATION_COLUMNS`. location_id continues the highest number so far; rank counts from 0 within a series.

    Raises:
        ValueError: the spacings do not go down, or a position is not a finite number.
    """
    if list(spacings_m) != sorted(set(spacings_m), reverse=True):
        raise ValueError(f"spacings must go down and name each once, not {list(spacings_m)}")
    candidates: Any = _candidates(metadata, start_point)
    known: Any = candidates.iloc[:0].reindex(columns=LOCATION_COLUMNS) if registered is None else registered[LOCATION_COLUMNS]
    candidates = candidates[~candidates["lookup_id"].isin(known["lookup_id"])]
    chosen = _choose(candidates, known, spacings_m)
    series = [buffer_series(spacing_m) for spacing_m in spacings_m]
    counts = [len(rows) for rows in chosen]
    first_id, first_rank = next_id(known), [next_rank(known, name) for name in series]
    ranks = [np.arange(first, first + count) for first, count in zip(first_rank, counts, strict=True)]
    nothing = np.zeros(0, dtype=np.int64)  # so that no spacings at all give no locations
    added = candidates.iloc[np.concatenate([*chosen, nothing])].assign(
        location_id=[str(number) for number in range(first_id, first_id + sum(counts))],
        series=np.repeat(series, counts),
        rank=np.concatenate([*ranks, nothing]),
    )
    frames = [frame[LOCATION_COLUMNS] for frame in (known, added) if len(frame)] or [known]
    return pd.concat(frames, ignore_index=True).astype({"rank": np.int64, "location_id": str, "series": str})


def _choose(candidates: pd.DataFrame, known: pd.DataFrame, spacings_m: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Row numbers of the candidates that each spacing takes, in rank order."""
    lat, lng = candidates["lat_deg"].to_numpy(np.float64), candidates["lng_deg"].to_numpy(np.float64)
    taken_lat, taken_lng = known["lat_deg"].to_numpy(np.float64), known["lng_deg"].to_numpy(np.float64)
    remaining, chosen = np.arange(len(lat)), list[npt.NDArray[np.int64]]()
    for spacing_m in spacings_m:
        kept = keep_apart(lat[remaining], lng[remaining], spacing_m, taken_lat, taken_lng)
        chosen.append(remaining[kept])
        taken_lat, taken_lng = np.append(taken_lat, lat[chosen[-1]]), np.append(taken_lng, lng[chosen[-1]])
        remaining = remaining[~kept]
    return chosen


def assign_batches(locations: pd.DataFrame, batch_size: int, registered_batches: pd.DataFrame | None = None) -> pd.DataFrame:
    """Give every location its batch; a registered batch is never filled up, emptied or renumbered.

    Args:
        locations: with the columns location_id, series and rank.
        batch_size: most locations of a batch.
        registered_batches: the columns location_id and batch, of everything registered so far.

    Returns:
        The same rows in the same order, with the column batch.

    Raises:
        BufferCsvError: a registered location is gone or has moved to another series.
    """
    if batch_size < 1:
        raise ValueError(f"a batch holds at least one location, not {batch_size}")
    batches: dict[str, str] = {}
    if registered_batches is not None:
        batches = dict(zip(registered_batches["location_id"], registered_batches["batch"], strict=True))
    _check_registered(locations, batches)
    next_number: dict[str, int] = {}
    for key in map(BatchKey.parse, set(batches.values())):
        next_number[key.series] = max(next_number.get(key.series, 0), key.number + 1)
    new: Any = locations[~locations["location_id"].isin(list(batches))]
    new = new.sort_values("rank", kind="stable")
    for series, group in new.groupby("series", sort=False):
        name = str(series)
        for key, ids in chunk(group["location_id"].tolist(), name, batch_size, first_number=next_number.get(name, 0)):
            batches.update(dict.fromkeys(ids, str(key)))
    return locations.assign(batch=[batches[location_id] for location_id in locations["location_id"]])


def _candidates(metadata: pd.DataFrame, start_point: tuple[float, float]) -> pd.DataFrame:
    """The usable lookups, nearest to the start first; ties go by position, then by lookup id, numbers in their order."""
    rows: Any = metadata[metadata["status"] == "OK"] if "status" in metadata.columns else metadata
    rows = rows.assign(**{column: None for column in _OPTIONAL_COLUMNS if column not in rows.columns})
    rows = rows.assign(lookup_id=rows["lookup_id"].astype(str))
    rows = rows.iloc[np.lexsort((rows["lookup_id"].to_numpy(str), rows["lookup_id"].str.len().to_numpy(np.int64)))]
    lat, lng = rows["lat_deg"].to_numpy(np.float64), rows["lng_deg"].to_numpy(np.float64)
    if not (np.isfinite(lat).all() and np.isfinite(lng).all()):
        bad = rows["lookup_id"].to_numpy()[~(np.isfinite(lat) & np.isfinite(lng))][0]
        raise ValueError(f"lookup {bad} has no position")
    rows = rows.assign(dist_to_start_m=geodesic_m(start_point[0], start_point[1], lat, lng))
    return rows.iloc[rank_from_start(lat, lng, start_point)]


def next_id(known: pd.DataFrame) -> int:
    """One more than the highest id that is a plain number; other ids are left out of the count."""
    return max((int(text) for text in known["location_id"] if str(text).isdecimal()), default=-1) + 1


def next_rank(known: pd.DataFrame, series: str) -> int:
    """One more than the highest rank of the series; 0 where it has none."""
    ranks: Any = known.loc[known["series"] == series, "rank"]
    return 0 if len(ranks) == 0 else int(ranks.max()) + 1


def _check_registered(locations: pd.DataFrame, batches: Mapping[str, str]) -> None:
    if not locations["location_id"].is_unique:
        twice = locations.loc[locations["location_id"].duplicated(), "location_id"].iloc[0]
        raise BufferCsvError(f"location {twice} is listed twice", "Keep one of the two rows; ids are unique across all files.")
    series_of = dict(zip(locations["location_id"], locations["series"], strict=True))
    remedy = "Put the buffer files back as they were registered; add new locations under new ids."
    for location_id, batch in batches.items():
        if location_id not in series_of:
            raise BufferCsvError(f"location {location_id} of the registered batch {batch} is missing", remedy)
        if series_of[location_id] != BatchKey.parse(batch).series:
            raise BufferCsvError(
                f"location {location_id} was registered in {batch}, now it is listed under {series_of[location_id]}", remedy
            )
