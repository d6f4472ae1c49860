"""Which pictures of the catalog are asked where they were taken, and which pictures answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.dataset.held_out import asked
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.fusion_fit import Truth

_COLUMNS = [
    "capture_id",
    "location_id",
    "view",
    "lat_deg",
    "lng_deg",
    "district",
    "year",
    "captured_on",
    "split",
    "usable",
    "is_query",
    "creator",
    "sha256",
]


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Pictures of one split that are asked about, one row each in `frame`, ordered by capture id."""

    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def capture_ids(self) -> list[str]:
        """Of the pictures."""
        return self.frame["capture_id"].tolist()

    @property
    def truth(self) -> Truth:
        """Where they were taken; photographers are found or missed together where they are known, places elsewhere."""
        frame: Any = self.frame
        places = frame["creator"].fillna(frame["location_id"]) if self.of_photos else frame["location_id"]
        return Truth(frame["lat_deg"].to_numpy(np.float64), frame["lng_deg"].to_numpy(np.float64), places.to_numpy(np.str_))

    @property
    def of_photos(self) -> bool:
        """Whether these are photos, each of a place of its own, and not the newest pictures of views."""
        return not bool(self.frame["is_query"].any())

    @property
    def sha256(self) -> dict[str, str]:
        """Of their crops."""
        return dict(zip(self.frame["capture_id"], self.frame["sha256"], strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """The questions of dev and test, and the usable rows that may answer them."""

    dev: Questions
    test: Questions
    gallery: pd.DataFrame


def divide_catalog(catalog: pa.Table) -> Division:
    """Questions and gallery of a region.

    Of views with several dates the newest picture asks, and the older ones of all splits answer. Where no view has several dates
    the photos of dev and test ask, and only those of train answer.
    """
    frame: Any = catalog.select(_COLUMNS).append_column("asks", asked(catalog)).to_pandas()
    frame = frame[frame["usable"]].sort_values("capture_id", ignore_index=True)
    asks = frame.pop("asks")
    dev, test = (Questions(frame[asks & (frame["split"] == split)].reset_index(drop=True)) for split in ("dev", "test"))
    return Division(dev, test, frame[~asks].reset_index(drop=True))


def distinct_places(gallery: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(lat, lng) of the places of a gallery, one each."""
    places: Any = gallery.drop_duplicates("location_id")
    return places["lat_deg"].to_numpy(np.float64), places["lng_deg"].to_numpy(np.float64)


def distances_within_places(gallery: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Metres from the position of each place, as `distinct_places` gives it, to its newest picture; without those of one date."""
    first: Any = gallery.drop_duplicates("location_id").set_index("location_id")
    newest: Any = (
        gallery.sort_values("captured_on", na_position="first")
        .drop_duplicates("location_id", keep="last")
        .set_index("location_id")
    )
    newest = newest.loc[first.index]
    again = (first["captured_on"].ne(newest["captured_on"]) & first["capture_id"].ne(newest["capture_id"])).to_numpy()
    here, there = first[again], newest[again]
    return great_circle_m(here["lat_deg"], here["lng_deg"], there["lat_deg"], there["lng_deg"])
