"""What a night's collection consists of: the next batches, within the day's budgets, and why these."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pending import (
    dates_per_location,
    lacking_locations,
    pending_batches,
    stale_batches,
    within_budget,
)


@dataclass(frozen=True, slots=True)
class Night:
    """The batches to collect in their order, each with the reason why it is its turn; or why there are none."""

    batches: dict[str, str] = field(default_factory=dict[str, str])
    nothing: str = ""


def batches_of_the_night(settings: Settings, layout: Layout, night: dt.datetime) -> Night:
    """The batches to collect.

    Batches with places that were never visited to the end come first: in rank order, or with `automation.order: gain` by what
    they are expected to add. Then come complete ones of which a place was last visited more than `automation.rescan_after_days`
    ago: a place is looked at about once a month, and the revisits spread over the nights instead of falling on one.

    Args:
        settings: the region.
        layout: of its data root.
        night: aware; its date (UTC) is the day of the budget.

    Raises:
        IntegrityError: a table or an evaluation is damaged.
    """
    live = settings.capture.provider != "folder"
    revisits = live and settings.capture.provider != "photo_list"  # a photo was taken once
    pending = pending_batches(layout)
    before = night - dt.timedelta(days=settings.automation.rescan_after_days)
    stale = stale_batches(layout, before) if revisits else {}
    if not pending and not stale:
        return Night(nothing="every registered batch is complete" + (" and was visited lately" if revisits else ""))
    left: int | None = None
    if live:
        from geoloc_dagster.imagery.factory import images_left

        left = images_left(settings, night.date())
    if left == 0:
        return Night(nothing="today's budget of pictures is spent")
    if settings.automation.order == "gain":
        reasons = _by_gain(layout, pending, night.date()) | _by_age(layout, stale, before, night.date())
    else:
        reasons = {key: f"next in rank order, {count:,} locations to visit" for key, count in pending.items()}
        reasons |= {key: _revisit(count, settings) for key, count in stale.items()}
    counts = {key: (pending | stale)[key] for key in reasons}
    views = dates_per_location(layout.visits) * (len(settings.capture.headings_deg) if revisits else 1)
    keys = within_budget(counts, left, views)[: settings.automation.batches_per_night]
    return Night({key: reasons[key] for key in keys})


def _by_gain(layout: Layout, pending: dict[str, int], today: dt.date) -> dict[str, str]:
    """Pending batches, those that add most per location first, with what they are expected to add."""
    if not pending:
        return {}
    from geoloc_dagster.dataset.gain_order import order_pending

    order = order_pending(layout, lacking_locations(layout, pending), today)
    total = len(order.batches)
    return {
        gain.key: (
            f"number {number} of {total} by gain: {gain.locations:,} locations are expected to let {gain.share:.2%} of the "
            f"region's photos be found that are not now, where {gain.found_before:.0%} are found and a picture reaches "
            f"{gain.reach_m:.0f} m ({order.basis})"
        )
        for number, gain in enumerate(order.batches, start=1)
    }


def _by_age(layout: Layout, stale: dict[str, int], before: dt.datetime, today: dt.date) -> dict[str, str]:
    """Batches that are due for another visit, those with the oldest pictures first."""
    if not stale:
        return {}
    from geoloc_dagster.dataset.gain_order import oldest_first

    ages = oldest_first(layout, lacking_locations(layout, stale, since=before), today)
    return {key: _aged(stale[key], age) for key, age in ages.items()}


def _aged(count: int, age: float | None) -> str:
    known = "their pictures have no date" if age is None else f"their newest pictures are {age:.1f} years old (median)"
    return f"{count:,} locations are due for another visit; {known}"


def _revisit(count: int, settings: Settings) -> str:
    return f"{count:,} locations were last visited more than {settings.automation.rescan_after_days} days ago"
