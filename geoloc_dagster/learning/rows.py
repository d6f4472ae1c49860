"""Which rows of the catalog a recipe learns from, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.learning.recipe import DataSpec


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a training, ordered by capture id; every array has one entry per row.

    Attributes:
        capture_ids: of the crops.
        sha256: of the crops, by capture id.
        places: class of each row, 0..C-1.
        locations: location of each row, as a number.
        dates: days since 1970; unknown dates share one value.
    """

    capture_ids: list[str]
    sha256: dict[str, str]
    places: np.ndarray
    locations: np.ndarray
    dates: np.ndarray

    @property
    def place_count(self) -> int:
        """How many classes there are."""
        return int(self.places.max()) + 1

    def fingerprint(self) -> str:
        """Hex sha256 over what is learned from: capture ids, picture checksums, places."""
        digest = hashlib.sha256()
        for capture_id, place in zip(self.capture_ids, self.places.tolist(), strict=True):
            digest.update(f"{capture_id} {self.sha256[capture_id]} {place}\n".encode())
        return digest.hexdigest()


def select_rows(spec: DataSpec, catalog: pa.Table) -> TrainingRows:
    """Choose the usable rows of the recipe's splits that lie at a place with enough pictures.

    Raises:
        NotEnoughDataError: nothing is left.
    """
    frame = usable_rows(catalog, spec.splits, spec.exclude_flags)
    keys = ["location_id", "view"] if spec.place == "view" else ["location_id"]
    if len(frame):
        pictures = pd.Series(frame.groupby(keys)["capture_id"].transform("size"))
        frame = pd.DataFrame(frame[pictures >= spec.min_pictures])
    if frame.empty:
        raise NotEnoughDataError(
            f"no place of split {', '.join(spec.splits)} has {spec.min_pictures} usable pictures",
            "Collect more batches, or look at the catalog's flags and splits.",
        )
    frame = frame.sort_values(by="capture_id")
    days = pd.to_datetime(frame["captured_on"]).to_numpy().astype("datetime64[D]").astype(np.int64)
    return TrainingRows(
        capture_ids=frame["capture_id"].tolist(),
        sha256=dict(zip(frame["capture_id"], frame["sha256"], strict=True)),
        places=frame.groupby(keys).ngroup().to_numpy().astype(np.int64),
        locations=frame.groupby("location_id").ngroup().to_numpy().astype(np.int64),
        dates=days,
    )


def usable_rows(catalog: pa.Table, splits: Sequence[str], exclude_flags: Sequence[str]) -> pd.DataFrame:
    """Rows of some splits that the catalog calls usable and that carry none of the flags."""
    columns = ["capture_id", "location_id", "view", "captured_on", "sha256", "flags", "split", "usable", "is_query"]
    frame = catalog.select(columns).to_pandas()
    excluded = set(exclude_flags)
    clean = np.array([excluded.isdisjoint(flags) for flags in frame["flags"]], dtype=bool)
    return pd.DataFrame(frame[frame["split"].isin(list(splits)) & frame["usable"] & clean])
