"""Pending batches by what they are expected to add, from the tables of a region: coverage, captures, evaluation, fusion."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.expected_gain import Gain, Pictures, Points, order_by_gain
from geoloc_dagster.dataset.reach import ASSUMED_REACH_M, NEARBY_M, Reach, assumed_reach, learn_reach
from geoloc_dagster.geo.distance import ecef_m
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import open_table

F64 = npt.NDArray[np.float64]

HIT_M: Final = 50.0  # a photo is found when its best match was taken within this
MIN_QUERIES: Final = 20  # fewer say nothing about a region
VAGUE: Final = 2.0  # how much more or less a point may weigh because answers there are vague or sharp
_DAYS: Final = 365.25


@dataclass(frozen=True, slots=True)
class GainOrder:
    """Batches best first, and what the order rests on, as half a sentence."""

    batches: tuple[Gain, ...]
    basis: str


def order_pending(layout: Layout, lacking: Mapping[str, Sequence[str]], today: dt.date) -> GainOrder:
    """Order batches by the photos that they are expected to let the model find.

    With an evaluation of the champion at unseen places, how far a picture reaches is learned from it, part by part of the
    region; without one the same reach is assumed everywhere, so that coverage and the age of pictures alone decide. Where a
    fusion says how large its regions are, points with vague answers weigh more.

    Args:
        layout: of the region's data root.
        lacking: batch -> locations to collect, in the order that decides between equals.
        today: from which ages are counted.

    Raises:
        IntegrityError: a table or an evaluation is damaged.
    """
    locations = _locations(layout)
    lat, lng = _points(layout, locations)
    points_m = ecef_m(lat, lng)
    reach, basis = _reach(layout, points_m)
    weight, vague = _vagueness(layout, points_m)
    held = _held(layout, today)
    batches = {key: _planned(locations, ids, today) for key, ids in lacking.items()}
    return GainOrder(tuple(order_by_gain(Points(points_m, weight, reach), held, batches)), basis + vague)


def oldest_first(layout: Layout, batches: Mapping[str, Sequence[str]], today: dt.date) -> dict[str, float | None]:
    """Batches for a revisit, those with the oldest pictures first: median years since the newest picture of their places."""
    newest = _newest_pictures(layout)
    ages: dict[str, float | None] = {}
    for key, ids in batches.items():
        known = newest[newest["location_id"].isin(list(ids))]["captured_on"].dropna()
        ages[key] = None if known.empty else float(np.median([(today - day).days / _DAYS for day in known]))
    return dict(sorted(ages.items(), key=lambda item: 0.0 if item[1] is None else -item[1]))


def _locations(layout: Layout) -> pd.DataFrame:
    held = read_parquet(layout.locations)
    wanted = [name for name in ("location_id", "lat_deg", "lng_deg", "captured_on") if name in held.column_names]
    frame: Any = held.select(wanted).to_pandas()
    return frame if "captured_on" in frame else frame.assign(captured_on=None)


def _points(layout: Layout, locations: pd.DataFrame) -> tuple[F64, F64]:
    """Every position at which there is a street view; the registered locations where nothing was looked up."""
    table = open_table(layout.street_view_metadata)
    found: Any = None
    if table is not None:
        found = table.to_table(columns=["lat_deg", "lng_deg"], filter="status = 'OK'").to_pandas().drop_duplicates()
    if found is None or found.empty:
        found = locations
    return found["lat_deg"].to_numpy(float), found["lng_deg"].to_numpy(float)


def _reach(layout: Layout, points_m: F64) -> tuple[Reach, str]:
    queries, version = _champion_queries(layout)
    if queries is None:
        assumed = f"by coverage and age alone, with a reach of {ASSUMED_REACH_M:.0f} m assumed: {version}"
        return assumed_reach(len(points_m)), assumed
    reach = learn_reach(
        points_m,
        ecef_m(queries["lat_deg"].to_numpy(float), queries["lng_deg"].to_numpy(float)),
        queries["unseen_nearest_m"].to_numpy(float),
        queries["unseen_error_m"].to_numpy(float) <= HIT_M,
        queries["location_id"].to_numpy(str),
    )
    return reach, f"by the evaluation of {version} at {reach.places:,} places, coverage and age"


def _champion_queries(layout: Layout) -> tuple[pd.DataFrame | None, str]:
    """The queries of the champion's leading split and its version; None and the reason where they cannot be used."""
    if not layout.champion.is_file():
        return None, "no model is evaluated yet"
    champion = read_json(layout.champion)
    version = str(champion["model_version"])
    path = layout.evaluations / str(champion["recipe"]) / version / "queries.parquet"
    if not path.is_file():
        return None, f"the evaluation of {version} is gone"
    table: pa.Table = read_parquet(path)
    columns = ["lat_deg", "lng_deg", "location_id", "unseen_error_m", "unseen_nearest_m"]
    if not set(columns) <= set(table.column_names):
        return None, f"{version} was not evaluated at unseen places"
    frame: Any = table.select(columns).to_pandas().dropna()
    if len(frame) < MIN_QUERIES:
        return None, f"{version} was evaluated on only {len(frame)} queries"
    return frame, version


def _vagueness(layout: Layout, points_m: F64) -> tuple[F64, str]:
    """(P,) weights around 1 by how large the newest fusion's regions are nearby, and what to say of it."""
    even = np.ones(len(points_m))
    pointer = layout.fusions / "LATEST.json"
    if not pointer.is_file():
        return even, ""
    path = layout.fusions / str(read_json(pointer)["fusion"]) / "queries.parquet"
    if not path.is_file():
        return even, ""
    frame: Any = read_parquet(path, ["lat_deg", "lng_deg", "region_km2"]).to_pandas().dropna()
    frame = frame[frame["region_km2"] > 0]
    if len(frame) < MIN_QUERIES:
        return even, ""
    area = np.log(frame["region_km2"].to_numpy(float))
    queries_m = ecef_m(frame["lat_deg"].to_numpy(float), frame["lng_deg"].to_numpy(float))
    excess = np.empty(len(points_m))
    for start in range(0, len(points_m), 2_000):
        near = np.exp(-0.5 * ((points_m[start : start + 2_000, None] - queries_m[None]) ** 2).sum(axis=2) / NEARBY_M**2)
        excess[start : start + 2_000] = near @ (area - np.median(area)) / (near.sum(axis=1) + 5.0)  # five queries' worth of doubt
    return np.clip(np.exp(excess / 2), 1 / VAGUE, VAGUE), ", more where the fusion's answers are vague"


def _newest_pictures(layout: Layout) -> pd.DataFrame:
    """One row per location with pictures: its position and the newest date."""
    table = open_table(layout.panoramas)
    columns = ["location_id", "lat_deg", "lng_deg", "captured_on"]
    if table is None:
        return pd.DataFrame({name: [] for name in columns})
    captures: Any = table.to_table(columns=columns, filter="status = 'ok'").to_pandas()
    return captures.sort_values("captured_on", na_position="first").drop_duplicates("location_id", keep="last")


def _held(layout: Layout, today: dt.date) -> Pictures:
    return _pictures(_newest_pictures(layout), today)


def _planned(locations: pd.DataFrame, ids: Iterable[str], today: dt.date) -> Pictures:
    return _pictures(locations[locations["location_id"].isin(list(ids))], today)


def _pictures(rows: pd.DataFrame, today: dt.date) -> Pictures:
    """Positions with ages; a picture without a date is as old as the median of the others."""
    ages = np.array([np.nan if pd.isna(day) else max(0.0, (today - day).days / _DAYS) for day in rows["captured_on"]], float)
    known = ages[~np.isnan(ages)]
    ages[np.isnan(ages)] = np.median(known) if len(known) else 0.0
    return Pictures(ecef_m(rows["lat_deg"].to_numpy(float), rows["lng_deg"].to_numpy(float)), ages)
