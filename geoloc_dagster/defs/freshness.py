"""How old each artifact may get before Dagster says so; only where a service is asked every night, as nothing else changes.

The windows follow from the configuration: what is looked at again every `rescan_after_days` shows in the catalog, the index and
the release soon after. Partitioned assets have none: a batch is as fresh as its last visit, which the schedule sees to.
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from geoloc_dagster.defs.region import Region

_SLACK = dt.timedelta(days=7)  # nights that a budget, a pause or an outage may cost


def lookups_policy(region: Region) -> dg.FreshnessPolicy | None:
    """Of `street_view_metadata`: negative answers expire, so that it is asked again at least that often."""
    if region.settings.coverage.provider == "csv":
        return None
    return _window(region.settings.coverage.recheck_after_days)


def imagery_policy(region: Region) -> dg.FreshnessPolicy | None:
    """Of `catalog`, `faiss_index` and `release`: every place is visited within the rescan interval, and they follow."""
    if region.settings.capture.provider in ("folder", "photo_list"):
        return None
    return _window(region.settings.automation.rescan_after_days)


def _window(days: int) -> dg.FreshnessPolicy:
    """A warning a week after it was due, a failure after twice the interval and a week."""
    due = dt.timedelta(days=days)
    return dg.FreshnessPolicy.time_window(warn_window=due + _SLACK, fail_window=2 * due + _SLACK)
