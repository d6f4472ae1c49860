"""What two splits have in common: places, panoramas, pictures and, where that matters, creators, named row by row."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ["kind", "left", "right", "left_split", "right_split", "left_location", "right_location", "shared"]
_KINDS = {"location": "location_id", "panorama": "pano_id", "near_duplicate": "duplicate_group"}
_RANK = {"train": 0, "dev": 1, "test": 2}


def find_leaks(catalog: pa.Table, *, creators: bool = False) -> pd.DataFrame:
    """Usable rows of different splits that share a location, a panorama, a picture or a creator.

    Every leaking row occurs in at least one pair: with the first row of each other split that shares the same thing. So the
    table stays in proportion to the number of leaking rows, even if one error picture is filed a thousand times.

    Args:
        catalog: of schema CATALOG; rows that are not usable, or in no split, are seen by nobody and cannot leak.
        creators: whether a creator in two splits is a leak: so where it is divided by them.

    Returns:
        Columns kind (location, panorama, near_duplicate, creator), left and right (capture ids, left in the split that should
        give way: train before dev before test), their splits and locations, and shared (the location, panorama, duplicate group
        or creator).
    """
    kinds = _KINDS | ({"creator": "creator"} if creators else {})
    wanted = ["capture_id", "split", "usable", *kinds.values()]
    frame = catalog.filter(pc.field("usable")).select(wanted).to_pandas()
    frame = frame[frame["split"].isin(_RANK)].sort_values("capture_id")
    found = [_shared(frame, kind, column) for kind, column in kinds.items()]
    return pd.concat(found, ignore_index=True)


def leaking_captures(leaks: pd.DataFrame) -> set[str]:
    """Capture ids to leave out so that no leak remains: of every pair the one in train, or in dev where it leaks into test."""
    return set(leaks["left"])


def near_train_share(catalog: pa.Table, radius_m: float, split: str = "test") -> float:
    """The share of the places of a split that lie within `radius_m` of a place of train; NaN where the split has no places."""
    rows: Any = catalog.filter(pc.field("split") == split).select(["location_id", "near_train_m"]).to_pandas()
    near = rows.groupby("location_id")["near_train_m"].min() <= radius_m
    return float(near.mean()) if len(near) else float("nan")


def _shared(frame: Any, kind: str, column: str) -> pd.DataFrame:
    rows = frame.dropna(subset=[column])
    rows = rows[rows.groupby(column)["split"].transform("nunique") > 1]
    rows = rows.assign(shared=rows[column], rank=rows["split"].map(_RANK))[
        ["capture_id", "split", "location_id", "shared", "rank"]
    ]
    first = rows.drop_duplicates(["shared", "split"])
    pairs = rows.merge(first, on="shared", suffixes=("_a", "_b"))
    # Each row with the representatives of the other splits; turned so that the left one is the one to give way.
    forward, backward = pairs[pairs["rank_a"] < pairs["rank_b"]], pairs[pairs["rank_a"] > pairs["rank_b"]]
    both = [_sides(forward, "_a", "_b"), _sides(backward, "_b", "_a")]
    leaks: Any = pd.concat(both).drop_duplicates(["left", "right"]).sort_values(["left", "right"], ignore_index=True)
    return leaks.assign(kind=kind)[COLUMNS]


def _sides(pairs: Any, left: str, right: str) -> Any:
    columns = {
        f"capture_id{left}": "left",
        f"capture_id{right}": "right",
        f"split{left}": "left_split",
        f"split{right}": "right_split",
        f"location_id{left}": "left_location",
        f"location_id{right}": "right_location",
        "shared": "shared",
    }
    return pairs[list(columns)].rename(columns=columns)
