"""Which batches still have to be collected; found in the tables, never remembered elsewhere."""

from __future__ import annotations

from geoloc_dagster.config import Layout
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.storage import open_table, read_parquet


def registered_batches(layout: Layout) -> list[str]:
    """Every registered batch, largest spacing first and in rank order within it; empty before `buffer_csvs`."""
    if not layout.locations.is_file():
        return []
    table = read_parquet(layout.locations, columns=["batch", "series"])
    order = list(dict.fromkeys(table.column("series").to_pylist()))  # as registered: largest spacing first
    keys = {BatchKey.parse(text) for text in table.column("batch").to_pylist()}
    return [str(key) for key in sorted(keys, key=lambda key: (order.index(key.series), key.number))]


def collected_batches(layout: Layout) -> set[str]:
    """Batches with at least one row in `panoramas`."""
    dataset = open_table(layout.panoramas)
    if dataset is None:
        return set()
    return set(dataset.to_table(columns=["batch"]).column("batch").unique().to_pylist())


def pending_batches(layout: Layout) -> list[str]:
    """Registered batches without any capture, in the order in which they should be collected."""
    collected = collected_batches(layout)
    return [key for key in registered_batches(layout) if key not in collected]
