"""Which batches still have to be collected, and which are due for another visit; found in the tables, never remembered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc

from geoloc_dagster.config import Layout
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table


def registered_batches(layout: Layout) -> list[str]:
    """Every registered batch, largest spacing first and in rank order within it; empty before `buffer_csvs`."""
    return list(_locations_by_batch(layout))


def complete_locations(visits_path: Path, *, since: dt.datetime | None = None) -> set[str]:
    """Locations that gave everything they had, at a visit at or after `since` (aware) or at any time."""
    dataset = open_table(visits_path)
    if dataset is None:
        return set()
    visits = dataset.to_table(columns=["location_id", "visited_at"], filter="pending = 0")
    if since is not None:
        visits = visits.filter(pc.greater_equal(visits["visited_at"], since))  # pyright: ignore[reportAttributeAccessIssue]
    return set(visits["location_id"].to_pylist())


def pending_batches(layout: Layout) -> dict[str, int]:
    """Registered batches with locations that were never visited to the end, and how many, in the order to collect them."""
    return _lacking(layout, complete_locations(layout.visits))


def stale_batches(layout: Layout, before: dt.datetime) -> dict[str, int]:
    """Complete batches with locations whose last complete visit was before `before` (aware), and how many."""
    pending = pending_batches(layout)
    stale = _lacking(layout, complete_locations(layout.visits, since=before))
    return {key: count for key, count in stale.items() if key not in pending}


def lacking_locations(layout: Layout, batches: Iterable[str], since: dt.datetime | None = None) -> dict[str, list[str]]:
    """The locations of each batch that were not visited to the end, at `since` (aware) or later, or at any time."""
    complete = complete_locations(layout.visits, since=since)
    held = _locations_by_batch(layout)
    return {key: [id for id in held[key] if id not in complete] for key in batches}


def within_budget(batches: dict[str, int], views: int | None, views_per_location: float) -> list[str]:
    """The first batches that a budget of views is expected to pay for; at least one where there is any budget at all.

    Args:
        batches: locations to visit per batch, in order.
        views: that may be asked for; without limit when None.
        views_per_location: expected.
    """
    if views is None:
        return list(batches)
    chosen: list[str] = []
    for key, count in batches.items():
        if views <= 0:
            break
        chosen.append(key)
        views -= round(count * views_per_location)
    return chosen


def dates_per_location(visits_path: Path) -> float:
    """Mean number of dates that visited locations had; 1 before the first visit."""
    dataset = open_table(visits_path)
    if dataset is None or dataset.count_rows() == 0:
        return 1.0
    mean = pc.mean(dataset.to_table(columns=["dates"])["dates"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    return max(1.0, float(mean))


def _locations_by_batch(layout: Layout) -> dict[str, list[str]]:
    if not layout.locations.is_file():
        return {}
    table = read_parquet(layout.locations, columns=["location_id", "batch", "series"])
    order = list(dict.fromkeys(table.column("series").to_pylist()))  # as registered: largest spacing first
    locations: dict[str, list[str]] = {}
    for location_id, batch in zip(table.column("location_id").to_pylist(), table.column("batch").to_pylist(), strict=True):
        locations.setdefault(batch, []).append(location_id)
    keys = sorted(map(BatchKey.parse, locations), key=lambda key: (order.index(key.series), key.number))
    return {str(key): locations[str(key)] for key in keys}


def _lacking(layout: Layout, complete: set[str]) -> dict[str, int]:
    """Batches that hold other locations than these, with their number."""
    counts = {key: sum(id not in complete for id in ids) for key, ids in _locations_by_batch(layout).items()}
    return {key: count for key, count in counts.items() if count}
