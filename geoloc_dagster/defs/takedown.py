"""What taking pictures down means to the graph: the batches that lost some are new input to everything made of them."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from geoloc_dagster.config import Settings
from geoloc_dagster.defs.headless import open_instance
from geoloc_dagster.defs.region import Region


def report_takedown(
    settings: Settings, batches: Sequence[str], captures: int, instance: dg.DagsterInstance | None = None
) -> None:
    """Tell Dagster that these batches of pictures have changed, so that crops to release are stale and follow by themselves.

    Args:
        settings: the region.
        batches: that lost pictures.
        captures: that were taken down, all batches together.
        instance: where events go; that of the data root without it.
    """
    if not batches:
        return
    if instance is None:
        with open_instance(Region(settings).layout) as opened:
            report_takedown(settings, batches, captures, opened)
        return
    region = Region(settings)
    instance.add_dynamic_partitions(region.batches.name or "", list(batches))
    for batch in batches:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                region.key(region.pictures),
                partition=batch,
                description="Pictures of this batch were taken down.",
                metadata={"taken_down": captures},
            )
        )
