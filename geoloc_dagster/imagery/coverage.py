"""Lookups that were made before: read from CSVs into the coverage table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.schema import STREET_VIEW_METADATA
from geoloc_dagster.geo.buffer_csv import read_buffer_csv, read_negatives
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.tables import append_rows, open_table, table_version


@dataclass(frozen=True, slots=True)
class LookupCounts:
    """What the coverage table holds; a point that was asked again counts once, by its newest answer."""

    rows_new: int
    rows_total: int
    covered: int
    table_version: int


def import_lookups(
    files: Sequence[Path], negatives: Sequence[Path], table_path: Path, *, start_point: tuple[float, float], now: dt.datetime
) -> LookupCounts:
    """Append the lookups of the CSVs that the table does not hold yet, nearest to the start point first, in one commit.

    Raises:
        BufferCsvError: a file lacks a column or holds malformed values; nothing is written then.
    """
    frames = [_covered(read_buffer_csv(path)) for path in files] + [_negative(read_negatives(path)) for path in negatives]
    existing = open_table(table_path)
    known: set[str] = set() if existing is None else set(existing.to_table(columns=["lookup_id"]).column("lookup_id").to_pylist())
    if frames:
        lookups = pd.concat(frames, ignore_index=True).drop_duplicates("lookup_id", keep="first")
        lookups = lookups[~lookups["lookup_id"].isin(list(known))]
        distance = geodesic_m(lookups["requested_lat_deg"], lookups["requested_lng_deg"], start_point[0], start_point[1])
        lookups = lookups.iloc[np.argsort(distance, kind="stable")].assign(looked_up_at=pd.Timestamp(now))
        if len(lookups):
            append_rows(table_path, pa.Table.from_pandas(lookups, schema=STREET_VIEW_METADATA, preserve_index=False))
    return count_lookups(table_path, rows_before=len(known))


def import_region_lookups(settings: Settings, layout: Layout, *, now: dt.datetime) -> int:
    """Import the CSVs that the configuration names; returns the number of new rows."""
    coverage = settings.coverage
    counts = import_lookups(
        [settings.resolve(path) for path in coverage.files],
        [settings.resolve(path) for path in coverage.negatives],
        layout.street_view_metadata,
        start_point=settings.region.start_point,
        now=now,
    )
    return counts.rows_new


def count_lookups(table_path: Path, *, rows_before: int = 0) -> LookupCounts:
    """Count the rows of the coverage table; zeros where it has not been written yet."""
    dataset = open_table(table_path)
    if dataset is None:
        return LookupCounts(0, 0, 0, 0)
    answers = dataset.to_table(columns=["lookup_id", "status"])
    covered = pc.count_distinct(answers.filter(pc.field("status") == "OK")["lookup_id"])  # pyright: ignore[reportAttributeAccessIssue]
    points = pc.count_distinct(answers["lookup_id"])  # pyright: ignore[reportAttributeAccessIssue]
    return LookupCounts(answers.num_rows - rows_before, points.as_py(), covered.as_py(), table_version(table_path))


def read_lookups(table_path: Path) -> pa.Table:
    """The newest answer of every point, covered or not; no rows where the table has not been written yet."""
    dataset = open_table(table_path)
    if dataset is None:
        return STREET_VIEW_METADATA.empty_table()
    table = dataset.to_table()
    newest = table.to_pandas()["lookup_id"].drop_duplicates(keep="last").index.to_numpy()
    return table.take(newest)


def covered_locations(table_path: Path) -> pd.DataFrame:
    """The lookups that found a street view, one row per panorama position, in table order."""
    dataset = open_table(table_path)
    if dataset is None:
        return STREET_VIEW_METADATA.empty_table().to_pandas()
    return dataset.to_table(filter="status = 'OK'").to_pandas()


def _covered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(lookup_id=frame["lookup_id"].astype(str), status="OK")


def _negative(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "lookup_id": frame["lookup_id"].astype(str),
            "requested_lat_deg": frame["lat_deg"],
            "requested_lng_deg": frame["lng_deg"],
            "status": "ZERO_RESULTS",
        }
    )
