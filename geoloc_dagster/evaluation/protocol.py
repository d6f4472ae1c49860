"""The retrieval protocol: which pictures ask, which answer, and what counts as missing.

A *query* is the newest picture of a view (one heading at one location) that was taken on at least two dates; the
*gallery* is every other picture of the same split. So a model always has to find a place across time, and no picture of
another split can help or distract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.errors import IntegrityError, NotEnoughDataError

COLUMNS = [
    "capture_id",
    "location_id",
    "view",
    "lat_deg",
    "lng_deg",
    "captured_on",
    "year",
    "district",
    "split",
    "usable",
    "is_query",
    "near_train_m",
]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Descriptors with the captures that they belong to: `matrix` is (N, D), one row per entry of `capture_ids`."""

    capture_ids: tuple[str, ...]
    matrix: np.ndarray

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.capture_ids):
            raise ValueError(f"{len(self.capture_ids)} capture ids need a matrix of as many rows, not one of {self.matrix.shape}")

    @classmethod
    def from_mapping(cls, vectors: Mapping[str, np.ndarray]) -> Vectors:
        """From one vector per capture id."""
        return cls(tuple(vectors), np.stack(list(vectors.values())) if vectors else np.empty((0, 0), np.float32))

    def joined(self, other: Vectors) -> Vectors:
        """Both, of one model; a capture that is in both is taken from this one."""
        known = set(self.capture_ids)
        new = [i for i, name in enumerate(other.capture_ids) if name not in known]
        ids = (*self.capture_ids, *(other.capture_ids[i] for i in new))
        return Vectors(ids, np.concatenate([self.matrix, other.matrix[new]]))

    def aligned(self, capture_ids: Sequence[str]) -> np.ndarray:
        """Float32 rows in the order of `capture_ids`; NaN where a capture has no vector."""
        rows = pd.Index(self.capture_ids).get_indexer(pd.Index(capture_ids))
        matrix = np.full((len(rows), self.matrix.shape[1]), np.nan, np.float32)
        matrix[rows >= 0] = self.matrix[rows[rows >= 0]]
        return matrix


@dataclass(frozen=True, slots=True)
class Division:
    """Positions of the queries and of the gallery in the rows of one split."""

    query: np.ndarray
    gallery: np.ndarray


def split_rows(catalog: pa.Table, split: str) -> pa.Table:
    """The rows of one split, in an order that does not depend on how the catalog was written.

    Raises:
        NotEnoughDataError: the split has no rows.
    """
    rows = catalog.filter(pc.field("split") == split).sort_by("capture_id")
    if rows.num_rows == 0:
        raise NotEnoughDataError(f"the catalog has no rows in the split `{split}`", "Give it places in the `splits:` section.")
    return rows


def select_queries(frame: pd.DataFrame, eligible: np.ndarray, min_dates: int = 2) -> np.ndarray:
    """Mark the newest eligible picture of every (location, view) with at least `min_dates` dates.

    Args:
        frame: columns location_id, view, captured_on, capture_id.
        eligible: (N,) bool; rows without a date are never eligible.
        min_dates: different dates that a view needs.

    Returns:
        (N,) bool, at most one True per (location, view); equal dates are decided by capture_id.
    """
    dated = frame.loc[eligible & frame["captured_on"].notna().to_numpy(), ["location_id", "view", "captured_on", "capture_id"]]
    enough = dated.groupby(["location_id", "view"])["captured_on"].transform("nunique") >= min_dates
    newest = dated[enough].sort_values(["captured_on", "capture_id"]).groupby(["location_id", "view"]).tail(1)
    chosen = np.zeros(len(frame), bool)
    chosen[frame.index.get_indexer(newest.index)] = True
    return chosen


def divide(frame: pd.DataFrame, has_vector: np.ndarray) -> Division:
    """Divide the usable rows of one split into queries and gallery, as the catalog's `usable` and `is_query` say.

    Raises:
        IntegrityError: a usable row has no vector, so the figure would silently be about fewer pictures.
        NotEnoughDataError: no query, or nothing to find them in.
    """
    member = frame["usable"].to_numpy(bool)
    missing = member & ~has_vector
    if missing.any():
        first = frame["capture_id"].to_numpy()[missing][0]
        raise IntegrityError(
            f"{int(missing.sum())} usable rows of the split have no finite vector, the first is capture {first}",
            "Embed every usable row of the split with the same model.",
        )
    asks = member & frame["is_query"].to_numpy(bool)
    division = Division(np.flatnonzero(asks), np.flatnonzero(member & ~asks))
    if len(division.query) == 0 or len(division.gallery) == 0:
        raise NotEnoughDataError(
            f"the split gives {len(division.query)} queries and {len(division.gallery)} gallery pictures",
            "Collect places with at least two dates per view, or lower `catalog.min_dates`.",
        )
    return division


def divide_all(frame: pd.DataFrame, has_vector: np.ndarray) -> Division:
    """Divide every row that has a vector, flagged or not, choosing the queries anew; it may give no query."""
    asks = select_queries(frame, has_vector)
    return Division(np.flatnonzero(asks), np.flatnonzero(has_vector & ~asks))
