"""Which places and dates a sequence model learns from: the views of each, their headings and classes, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import DROPPED, I32, I64, Partitioning
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe

_COLUMNS = [
    "capture_id",
    "location_id",
    "captured_on",
    "view",
    "heading_deg",
    "lat_deg",
    "lng_deg",
    "sha256",
    "flags",
    "split",
    "usable",
]
_TURN_DEG = 90.0  # between two rotations


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """N places and dates in the order of place and date; captures of one stand together, by heading.

    Attributes:
        capture_ids: of all views, P of them.
        sha256: of the crops, by capture id.
        headings_deg: (P,) float32, NaN where unknown.
        first: (N,) the first capture of each.
        counts: (N,) how many captures it has, at least one.
        relative: (N,) bool: headings count from an unknown one, as rotations do.
        location_ids: N of them.
        dates: N of them, ISO 8601; empty where unknown.
        lat_deg: (N,).
        lng_deg: (N,).
        classes: (N, levels) int32: the class of each level, -1 where the place lies in none.
    """

    capture_ids: list[str]
    sha256: dict[str, str]
    headings_deg: npt.NDArray[np.float32]
    first: I64
    counts: I64
    relative: npt.NDArray[np.bool_]
    location_ids: list[str]
    dates: list[str]
    lat_deg: npt.NDArray[np.float64]
    lng_deg: npt.NDArray[np.float64]
    classes: I32

    def __len__(self) -> int:
        return len(self.location_ids)

    @property
    def most_views(self) -> int:
        """Of one place and date; the number of slots."""
        return int(self.counts.max()) if len(self) else 1

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(N, slots): whether there is a view."""
        return np.arange(self.most_views) < self.counts[:, None]

    @property
    def headings(self) -> npt.NDArray[np.float32]:
        """(N, slots) degrees, NaN where unknown or missing."""
        table = np.full((len(self), self.most_views), np.nan, np.float32)
        table[self.present] = self.headings_deg
        return table

    def captures_of(self, rows: Sequence[int]) -> list[int]:
        """Positions in `capture_ids` of the views of some rows, one row after the other."""
        return [at for row in rows for at in range(int(self.first[row]), int(self.first[row] + self.counts[row]))]

    def names(self) -> list[str]:
        """Place and date of each, for people and programs."""
        return [f"{place} {date}".strip() for place, date in zip(self.location_ids, self.dates, strict=True)]

    def fingerprint(self) -> str:
        """Hex sha256 over what is learned from: captures, checksums, headings, which belong together, classes."""
        digest = hashlib.sha256()
        for capture_id in self.capture_ids:
            digest.update(f"{capture_id} {self.sha256[capture_id]}\n".encode())
        digest.update(self.headings_deg.astype("<f4").tobytes() + self.counts.astype("<i8").tobytes())
        digest.update(self.relative.tobytes() + self.classes.astype("<i4").tobytes())
        return digest.hexdigest()


def levels_of(recipe: SequenceRecipe, classes: Partitioning) -> list[str]:
    """The levels that a recipe's model has a head for, coarsest first; raises PartitioningError for one that is not there."""
    names = [level.name for level in classes.levels]
    if recipe.heads.levels is None:
        return names
    for name in recipe.heads.levels:
        classes.level(name)
    return [name for name in names if name in recipe.heads.levels]


def usable_views(recipe: SequenceRecipe, catalog: pa.Table, splits: Sequence[str]) -> pd.DataFrame:
    """The rows of the catalog that a recipe looks at, of some splits."""
    frame: Any = catalog.select(_COLUMNS).to_pandas()
    excluded = set(recipe.data.exclude_flags)
    clean = np.array([excluded.isdisjoint(flags) for flags in frame["flags"]], dtype=bool)
    return frame[frame["split"].isin(list(splits)) & frame["usable"] & clean]


def select_sequences(
    recipe: SequenceRecipe, catalog: pa.Table, classes: Partitioning, splits: Sequence[str], *, labelled: bool = True
) -> SequenceRows:
    """Bring the usable views of some splits together by place and date.

    A view that was captured twice on a date counts once. Of more views than the recipe looks at, some all around are taken.

    Args:
        recipe: which views are looked at, and which levels it tells apart.
        catalog: the feature table.
        classes: that places lie in.
        splits: of the catalog.
        labelled: leave out places that lie in no class at any level.
    """
    frame: Any = usable_views(recipe, catalog, splits).copy()
    frame["date"] = pd.to_datetime(frame["captured_on"]).dt.strftime("%Y-%m-%d").fillna("")
    rotation = pd.to_numeric(frame["view"].str.extract(r"^r(\d)$", expand=False))
    frame["relative"] = frame["heading_deg"].isna() & rotation.notna()
    frame["heading_deg"] = frame["heading_deg"].fillna(rotation * _TURN_DEG)
    keys = ["location_id", "date"]
    frame = frame.sort_values([*keys, "heading_deg", "capture_id"])
    frame = frame[~(frame.duplicated([*keys, "view"]) & frame["heading_deg"].notna())]
    frame = frame[_around(frame.groupby(keys, sort=True), recipe.views.at_most)]
    levels = [classes.level(name) for name in levels_of(recipe, classes)]
    leaves = s2.leaf_ids(frame["lat_deg"].to_numpy(), frame["lng_deg"].to_numpy())
    of_view = np.stack([level.classes(leaves) for level in levels], axis=1)
    if labelled:
        known = (of_view != DROPPED).any(axis=1)
        frame, of_view = frame[known], of_view[known]
    by = frame.groupby(keys, sort=True)
    counts = by.size().to_numpy(np.int64)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if counts.size else np.empty(0, np.int64)
    leading = frame.iloc[first]
    return SequenceRows(
        frame["capture_id"].tolist(),
        dict(zip(frame["capture_id"], frame["sha256"], strict=True)),
        frame["heading_deg"].to_numpy(np.float32),
        first,
        counts,
        leading["relative"].to_numpy(bool),
        leading["location_id"].tolist(),
        leading["date"].tolist(),
        leading["lat_deg"].to_numpy(np.float64),
        leading["lng_deg"].to_numpy(np.float64),
        of_view[first],
    )


def require_sequences(recipe: SequenceRecipe, rows: SequenceRows) -> SequenceRows:
    """The same rows; raises NotEnoughDataError where they do not make a batch."""
    if len(rows) < recipe.budget.batch_size:
        raise NotEnoughDataError(
            f"recipe {recipe.name} has {len(rows):,} places and dates in {', '.join(recipe.data.splits)}, "
            f"fewer than the {recipe.budget.batch_size:,} of one batch",
            "Collect more places, or lower budget.batch_size.",
        )
    return rows


def _around(groups: Any, at_most: int) -> npt.NDArray[np.bool_]:
    """Which views to take: of n in the order of headings the first of each of `at_most` equal parts, or all."""
    place, n = groups.cumcount().to_numpy(), groups["capture_id"].transform("size").to_numpy()
    part = place * at_most // n
    before = (place - 1) * at_most // n
    return (n <= at_most) | (place == 0) | (part != before)
