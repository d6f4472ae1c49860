"""Recall across time: every year of capture against every other, and how it falls with the years between two pictures.

Here *every* usable, dated picture asks, not only the newest of its view, or most pairs of years would stay empty. A hit is a
picture of the same location at the first rank.

In the matrix a picture of year a asks the pictures of year b alone; a place counts where b has a picture of it that was not
taken on the query's own day. Years with more pictures are harder, so each cell says how many there were. The age-gap curve is
free of that: a query meets one picture of its own view, of another day, and all pictures of all other places, whatever their
year.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.evaluation.bootstrap import Interval, intervals
from geoloc_dagster.evaluation.protocol import COLUMNS
from geoloc_dagster.evaluation.ranking import TIE, normalise
from geoloc_dagster.evaluation.retrieval import MIN_PLACES
from geoloc_dagster.evaluation.tables import NONE, TextTable, percent

GAP_EDGES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0)
_DAYS = 365.25
_BLOCK_BYTES = 64 * 2**20

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class YearCell:
    """Pictures of one year that ask those of one year. `recall` is None where fewer than `MIN_PLACES` places ask."""

    n_queries: int
    n_places: int
    n_gallery: int
    recall: Interval | None


@dataclass(frozen=True, slots=True)
class GapBin:
    """Pairs of pictures of one view, `low_years` or more and less than `high_years` apart; the last bin has no end."""

    low_years: float
    high_years: float
    n_pairs: int
    n_places: int
    recall: Interval | None

    @property
    def name(self) -> str:
        """`1–2 years`, `10 years or more`."""
        if np.isinf(self.high_years):
            return f"{self.low_years:g} years or more"
        return f"{self.low_years:g}–{self.high_years:g} years"


@dataclass(frozen=True, slots=True)
class AcrossYears:
    """Recall@1 across time.

    Attributes:
        years: of capture, ascending.
        matrix: (year that asks, year that answers) -> cell, all pairs.
        gaps: in order.
    """

    years: tuple[int, ...]
    matrix: dict[tuple[int, int], YearCell]
    gaps: tuple[GapBin, ...]


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Columns of the similarity table: by year, undated ones last; (N,) each."""

    vectors: np.ndarray
    place: I64
    view: I64
    day: I64
    year: I64
    starts: I64  # of each group of years in the columns

    @property
    def n_dated(self) -> int:
        return int(np.count_nonzero(self.year < len(self.starts)))


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Found or not: per query and year, and per pair of one view."""

    asked: npt.NDArray[np.bool_]  # (Q, Y): the year has an other day of the place
    found: npt.NDArray[np.bool_]  # (Q, Y)
    pair_place: I64
    pair_days: I64
    pair_found: npt.NDArray[np.bool_]


def across_years(
    vectors: np.ndarray,
    rows: pa.Table,
    *,
    gap_edges: Sequence[float] = GAP_EDGES,
    bootstrap: int = 1000,
    seed: int = 0,
) -> AcrossYears:
    """Measure recall@1 between years of capture and by the years between two pictures, in bounded memory.

    Args:
        vectors: (N, D) descriptors, one per row; NaN where a picture has none, which then takes no part.
        rows: catalog rows of one split (`protocol.split_rows`); unusable ones take no part.
        gap_edges: ascending years at which bins start; the last goes on.
        bootstrap: resamples of the intervals.
        seed: of the resampling.

    Raises:
        ValueError: not one vector per row, or edges that do not ascend.
    """
    if vectors.ndim != 2 or len(vectors) != rows.num_rows:
        raise ValueError(f"need one vector for each of the {rows.num_rows} rows, not {vectors.shape}")
    if list(gap_edges) != sorted(set(gap_edges)) or not len(gap_edges):
        raise ValueError(f"edges of age gaps ascend: {gap_edges}")
    frame = rows.select(COLUMNS).to_pandas()
    keep = frame["usable"].to_numpy(bool) & np.asarray(np.isfinite(vectors).all(axis=1))
    pictures, years = _pictures(frame[keep], vectors[keep])
    outcomes = _outcomes(pictures, len(years))
    sizes = np.bincount(pictures.year, minlength=len(years))
    matrix = {
        (asking, answering): _cell(pictures, outcomes, a, b, int(sizes[b]), bootstrap, seed)
        for a, asking in enumerate(years)
        for b, answering in enumerate(years)
    }
    return AcrossYears(tuple(years), matrix, _gaps(outcomes, gap_edges, bootstrap, seed))


def year_matrix_table(result: AcrossYears) -> TextTable:
    """One row per year that asks; a cell is recall@1 in per cent, or in brackets the number of places that are too few."""

    def text(cell: YearCell) -> str:
        if cell.recall is None:
            return f"({cell.n_places})" if cell.n_places else NONE
        return percent(cell.recall, 0)

    rows = [[str(a), *(text(result.matrix[a, b]) for b in result.years)] for a in result.years]
    pictures = [str(result.matrix[b, b].n_gallery) for b in result.years]
    title = f"R@1 in per cent: pictures of the row's year ask those of the column's (in brackets: places, under {MIN_PLACES})"
    return TextTable(title, ["asks / answers", *map(str, result.years)], [*rows, ["pictures", *pictures]])


def age_gap_table(result: AcrossYears) -> TextTable:
    """Recall@1 by the years between the query and the only picture of its view."""
    rows = [
        [one.name, f"{one.n_pairs:,}", f"{one.n_places:,}", NONE if one.recall is None else percent(one.recall)]
        for one in result.gaps
    ]
    return TextTable("By years between the query and the only picture of its view", ["apart", "pairs", "places", "R@1, %"], rows)


def summarise_years(result: AcrossYears) -> dict[str, Any]:
    """The same as plain JSON values; the matrix as rows of the year that asks, null where no place asks."""

    def cell(one: YearCell) -> dict[str, Any] | None:
        if not one.n_places:
            return None
        return {"n_queries": one.n_queries, "n_places": one.n_places, **_interval(one.recall)}

    return {
        "protocol": {
            "query": "every usable, dated picture of the row's year",
            "gallery": "usable pictures of the column's year, the query's own place on its own day left out",
            "age_gap": "one picture of the query's view of another day, beside all pictures of all other places",
        },
        "years": list(result.years),
        "n_gallery": [result.matrix[b, b].n_gallery for b in result.years],
        "recall@1": [[cell(result.matrix[a, b]) for b in result.years] for a in result.years],
        "age_gap": [
            {
                "low_years": one.low_years,
                "high_years": None if np.isinf(one.high_years) else one.high_years,
                "n_pairs": one.n_pairs,
                "n_places": one.n_places,
                **_interval(one.recall),
            }
            for one in result.gaps
        ],
    }


def _interval(recall: Interval | None) -> dict[str, float | None]:
    return {"value": None, "low": None, "high": None} if recall is None else {**recall.as_dict()}


def _pictures(frame: pd.DataFrame, vectors: np.ndarray) -> tuple[_Pictures, list[int]]:
    undated = (frame["captured_on"].isna() | frame["year"].isna()).to_numpy(bool)
    year = np.where(undated, np.inf, frame["year"].to_numpy(float, na_value=np.nan))
    years = sorted(int(value) for value in set(year[np.isfinite(year)].tolist()))
    code = np.searchsorted(np.asarray(years, float), year)  # undated: one beyond the last
    place = pd.factorize(frame["location_id"])[0]
    view = pd.factorize(pd.MultiIndex.from_frame(frame[["location_id", "view"]]))[0]
    order = np.lexsort((place, code))
    days = pd.to_datetime(frame["captured_on"]).to_numpy("datetime64[D]").astype(np.int64)
    place, view, days, code = (np.asarray(values[order], np.int64) for values in (place, view, days, code))
    starts = np.searchsorted(code, np.arange(len(years)))
    return _Pictures(normalise(vectors[order]), place, view, days, code, starts), years


def _outcomes(pictures: _Pictures, n_years: int) -> _Outcomes:
    """Compare every dated picture with all others, a block of rows at a time."""
    n, dated = len(pictures.place), pictures.n_dated
    asked, found = np.zeros((dated, n_years), bool), np.zeros((dated, n_years), bool)
    pairs: list[tuple[I64, I64, npt.NDArray[np.bool_]]] = []
    block = max(1, _BLOCK_BYTES // (4 * max(n, 1)))
    for start in range(0, dated, block):
        rows = np.arange(start, min(start + block, dated))
        similarity = pictures.vectors[rows] @ pictures.vectors.T
        row, column = _same_place(pictures.place, rows)
        own = similarity[row, column] - np.float32(TIE)
        similarity[row, column] = -np.inf
        others = _best_by_year(similarity, pictures.starts, dated)
        undated = similarity[:, dated:].max(axis=1, initial=-np.inf)
        query = rows[row]
        other_day = (pictures.day[query] != pictures.day[column]) & (column < dated)
        best = np.full((len(rows), n_years), -np.inf, np.float32)
        np.maximum.at(best, (row[other_day], pictures.year[column[other_day]]), own[other_day])
        asked[rows], found[rows] = np.isfinite(best), best > others
        same_view = other_day & (pictures.view[query] == pictures.view[column])
        rival = np.maximum(others.max(axis=1, initial=-np.inf), undated)
        days = np.abs(pictures.day[query] - pictures.day[column])[same_view]
        pairs.append((pictures.place[query[same_view]], days, (own > rival[row])[same_view]))
    empty = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
    place, days, hit = (np.concatenate(parts) for parts in zip(*(pairs or [empty]), strict=True))
    return _Outcomes(asked, found, place, days, hit)


def _same_place(place: I64, rows: I64) -> tuple[I64, I64]:
    """(row within the block, column) of every pair of one place."""
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    first, last = np.searchsorted(ordered, place[rows]), np.searchsorted(ordered, place[rows], side="right")
    counts = last - first
    row = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, order[np.repeat(first, counts) + within]


def _best_by_year(similarity: np.ndarray, starts: I64, dated: int) -> np.ndarray:
    """(B, Y) largest similarity of each row in the columns of each year."""
    return np.maximum.reduceat(similarity[:, :dated], starts, axis=1) if len(starts) else similarity[:, :0]


def _cell(pictures: _Pictures, outcomes: _Outcomes, a: int, b: int, n_gallery: int, bootstrap: int, seed: int) -> YearCell:
    dated = pictures.n_dated
    asks = (pictures.year[:dated] == a) & outcomes.asked[:, b]
    places = pictures.place[:dated][asks]
    recall = _recall(outcomes.found[asks, b], places, bootstrap, seed)
    return YearCell(int(asks.sum()), len(np.unique(places)), n_gallery, recall)


def _gaps(outcomes: _Outcomes, edges: Sequence[float], bootstrap: int, seed: int) -> tuple[GapBin, ...]:
    years = outcomes.pair_days / _DAYS
    return tuple(_bins(years, outcomes, edges, bootstrap, seed))


def _bins(years: np.ndarray, outcomes: _Outcomes, edges: Sequence[float], bootstrap: int, seed: int) -> Iterator[GapBin]:
    for low, high in zip(edges, [*edges[1:], float("inf")], strict=True):
        here = (years >= low) & (years < high)
        places = outcomes.pair_place[here]
        recall = _recall(outcomes.pair_found[here], places, bootstrap, seed)
        yield GapBin(low, high, int(here.sum()), len(np.unique(places)), recall)


def _recall(found: np.ndarray, places: np.ndarray, bootstrap: int, seed: int) -> Interval | None:
    if len(np.unique(places)) < MIN_PLACES:
        return None
    return intervals(found[:, None], places, bootstrap, seed)[0]
