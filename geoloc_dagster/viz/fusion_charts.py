"""Charts of a fusion: whether its probabilities come true, and whether its regions hold what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from geoloc_dagster.evaluation.confidence import Reliability
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES


def reliability_panels(reliabilities: Sequence[Reliability], summary: Mapping[str, Any], *, max_bytes: int = MAX_BYTES) -> bytes:
    """PNG: for two radii the share that came true against the probability that was said, and coverage by year beside them.

    Args:
        reliabilities: by radius, ascending; the first and the middle one are shown.
        summary: of the fusion's report, with `coverage`.
        max_bytes: cap of the picture.
    """
    made = style.figure(11.4, 4.2)
    shown = [reliabilities[0], reliabilities[len(reliabilities) // 2]]
    for number, one in enumerate(shown):
        _reliability(made.add_subplot(1, 3, number + 1), one)
    _coverage(made.add_subplot(1, 3, 3), summary["coverage"])
    made.tight_layout(w_pad=2.5)
    return style.render(made, "png", max_bytes)


def _reliability(axes: Axes, one: Reliability) -> None:
    axes.plot([0, 1], [0, 1], "--", color=style.GREY, lw=1.2, zorder=1)
    most = max((each.n_photos for each in one.bins), default=1)
    for each in one.bins:
        axes.bar(
            (each.low + each.high) / 2,
            0.18 * each.n_photos / most,
            each.high - each.low,
            color=style.LAND,
            edgecolor="white",
            zorder=0,
        )
        axes.plot([each.confidence] * 2, [each.share.low, each.share.high], color=style.BLUE, lw=1.8, zorder=3)
        axes.plot(each.confidence, each.share.value, "o", ms=7, color=style.BLUE, mec="white", zorder=4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability that was said", color=style.INK)
    axes.set_ylabel("share that came true", color=style.INK)
    name = radius_name(one.radius_m)
    style.plain_axes(axes, f"Within {name}", f"ECE {one.ece:.3f}, {one.n_photos:,} photos; grey: how many")


def _coverage(axes: Axes, said: Mapping[str, Any]) -> None:
    groups = {"all": said["share"], **said["by_year"]}
    nominal = said["nominal"]
    axes.axhline(nominal, ls="--", color=style.GREY, lw=1.2)
    for number, one in enumerate(groups.values()):
        colour = style.ORANGE if number == 0 else style.BLUE
        axes.plot([number] * 2, [one["low"], one["high"]], color=colour, lw=1.8)
        axes.plot(number, one["value"], "o", ms=7, color=colour, mec="white")
    axes.set_xticks(range(len(groups)), list(groups))
    lowest = min(one["low"] for one in groups.values())
    axes.set_ylim(max(0.0, np.floor(20 * min(lowest, nominal - 0.05)) / 20), 1.005)
    axes.set_xlabel("capture year of the photo", color=style.INK)
    axes.set_ylabel("regions that hold the place", color=style.INK)
    style.plain_axes(axes, "Regions", f"meant to hold {nominal:.0%}; median {said['median_region_km2']:.3g} km²")
