"""What a night's collection consists of: the next batches, within the day's budgets."""

from __future__ import annotations

import datetime as dt

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pending import dates_per_location, pending_batches, stale_batches, within_budget


def batches_of_the_night(settings: Settings, layout: Layout, night: dt.datetime) -> tuple[list[str], str]:
    """The batches to collect, and why there are none where that is so.

    Batches with places that were never visited to the end come first, in rank order. Then come complete ones of which a place
    was last visited more than `automation.rescan_after_days` ago: a place is looked at about once a month, and the revisits
    spread over the nights instead of falling on one.

    Args:
        settings: the region.
        layout: of its data root.
        night: aware; its date (UTC) is the day of the budget.
    """
    live = settings.capture.provider != "folder"
    revisits = live and settings.capture.provider != "photo_list"  # a photo was taken once
    wanted = pending_batches(layout)
    if revisits:
        wanted |= stale_batches(layout, night - dt.timedelta(days=settings.automation.rescan_after_days))
    if not wanted:
        return [], "every registered batch is complete" + (" and was visited lately" if revisits else "")
    left: int | None = None
    if live:
        from geoloc_dagster.imagery.factory import images_left

        left = images_left(settings, night.date())
    views = dates_per_location(layout.visits) * (len(settings.capture.headings_deg) if revisits else 1)
    keys = within_budget(wanted, left, views)[: settings.automation.batches_per_night]
    return keys, "today's budget of pictures is spent"
