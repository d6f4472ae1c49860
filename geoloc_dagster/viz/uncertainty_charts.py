"""Charts of uncertainty: confidence against truth, coverage of regions by group, and how much of the map has to be searched."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from geoloc_dagster.evaluation.confidence import Reliability
from geoloc_dagster.evaluation.conformal_report import OVERALL, Coverage, CoverageReport
from geoloc_dagster.evaluation.geolocation import MIN_GROUPS
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.recall_area import RecallArea
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES

_LINES = ((style.BLUE, "-"), (style.ORANGE, "--"), (style.GREEN, "-."), (style.VERMILION, ":"), (style.MUTED, (0, (5, 1, 1, 1))))
_ROW_IN = 0.29


def reliability_diagram(result: Reliability, *, title: str, subtitle: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """PNG: the share that is right against the confidence, one point per bin with its 95 % interval, over the photos of each bin.

    Points on the diagonal mean that 0.7 is right in 70 of 100 cases; below it the model is too sure.

    Args:
        result: of `confidence.reliability`.
        title: what was measured; the calibration error is added.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    made = style.figure(6.2, 6.4)
    upper, lower = made.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1], "hspace": 0.14})
    upper.plot([0, 1], [0, 1], color=style.MUTED, lw=1.2, linestyle=(0, (5, 3)), label="as sure as right", zorder=1)
    for mask, fill, label in ((True, style.BLUE, "95 % interval"), (False, "white", f"fewer than {MIN_GROUPS} places")):
        bins = [one for one in result.bins if (one.n_groups >= MIN_GROUPS) == mask]
        if not bins:
            continue
        x, y = [one.confidence for one in bins], [one.share.value for one in bins]
        if mask:
            ends = np.array([[one.share.value - one.share.low, one.share.high - one.share.value] for one in bins]).T
            upper.errorbar(x, y, yerr=np.maximum(ends, 0), fmt="none", ecolor=style.INK, capsize=3, lw=1.2, zorder=3)
        upper.plot(x, y, "o", ms=8, mfc=fill, mec=style.BLUE, mew=1.6, label=label, clip_on=False, zorder=4)
    upper.set_ylim(0, 1)
    upper.set_ylabel(f"share within {radius_name(result.radius_m)}", color=style.INK)
    upper.grid(color=style.LAND)
    upper.legend(frameon=False, fontsize=9, loc="upper left")
    style.plain_axes(upper, title, f"{subtitle}{', ' if subtitle else ''}ECE {result.ece:.3f}, {result.n_photos:,} photos")
    edges = [one.low for one in result.bins]
    counts = [one.n_photos for one in result.bins]
    widths = [one.high - one.low for one in result.bins]
    lower.bar(edges, counts, widths, align="edge", color=style.SKY, edgecolor="white", lw=1.0)
    for one in result.bins:
        middle = (one.low + one.high) / 2
        lower.annotate(f"{one.n_photos:,}", (middle, one.n_photos), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    lower.set_ylim(0, 1.25 * max(counts, default=1))
    lower.set_xlim(0, 1)
    lower.set_yticks([])
    lower.set_ylabel("photos", color=style.INK)
    lower.set_xlabel("confidence", color=style.INK)
    style.plain_axes(lower, "")
    made.subplots_adjust(left=0.13, right=0.96, top=0.89, bottom=0.09)
    return style.render(made, "png", max_bytes)


def coverage_chart(
    report: CoverageReport, *, title: str, subtitle: str = "", most: int = 16, max_bytes: int = MAX_BYTES
) -> bytes:
    """PNG: coverage of all and of every group, with intervals of 95 % (thick) and 99 % (thin), against the nominal one.

    Args:
        report: of `conformal_report.coverage_report`.
        title: what was measured.
        subtitle: on how much.
        most: groups drawn per kind, those with most photos.
        max_bytes: cap of the picture.
    """
    rows: list[tuple[str, Coverage] | str] = [(OVERALL, report.overall)]
    for what, found in report.groups.items():
        chosen = set(sorted(found, key=lambda name: -found[name].n_photos)[:most])
        more = f" ({len(chosen)} of {len(found)})" if len(found) > most else ""
        rows.append(f"by {what}{more}")
        rows += [(name, one) for name, one in found.items() if name in chosen]
    made = style.figure(7.4, 1.6 + _ROW_IN * len(rows))
    axes = made.add_subplot()
    least = min((line[1].wide.low for line in rows if not isinstance(line, str) and line[1].enough), default=0.5)
    start = max(0.0, min(np.floor(least * 20) / 20, report.nominal - 0.1))
    axes.axvline(report.nominal, color=style.VERMILION, lw=1.6, linestyle=(0, (4, 2)), zorder=1)
    labels: list[str] = []
    for y, line in enumerate(rows):
        if isinstance(line, str):
            labels.append(line)
            continue
        labels.append(f"{line[0]}  n = {line[1].n_photos:,}")
        _interval(axes, y, line[1], start, report.nominal)
    axes.set_yticks(range(len(rows)), labels)
    for label, line in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if isinstance(line, str) else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(start, 1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.grid(axis="x", color=style.LAND)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"share of regions that hold the true position (dashed: {100 * report.nominal:g} %)", color=style.INK)
    style.tall_axes(axes, title, subtitle)
    for label in axes.get_yticklabels():
        label.set_color(style.INK)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def recall_area_chart(curves: Mapping[str, RecallArea], *, title: str, subtitle: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """PNG: the share of queries whose true place lies in the likeliest part of the map, as that part grows.

    Args:
        curves: name -> curve, at most five.
        title: what was measured.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    made = style.figure(7.2, 4.3)
    axes = made.add_subplot()
    for (name, curve), (colour, line) in zip(curves.items(), _LINES, strict=False):
        low, value, high = (np.array([getattr(one, end) for one in curve.recall]) for end in ("low", "value", "high"))
        axes.fill_between(curve.area_km2, low, high, color=colour, alpha=0.16, lw=0, step="post")
        label = f"{name}: area {curve.auc.value:.3f}"
        axes.step(curve.area_km2, value, where="post", color=colour, linestyle=line, lw=2.2, label=label)
    axes.set_xscale("log")
    axes.set_xlim(min(c.area_km2[0] for c in curves.values()), max(c.area_km2[-1] for c in curves.values()))
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda area, _: f"{area:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.grid(color=style.LAND)
    axes.set_axisbelow(True)
    axes.set_xlabel("area searched, km², the likeliest part first", color=style.INK)
    axes.set_ylabel("queries found", color=style.INK)
    style.plain_axes(axes, title, subtitle)
    axes.legend(frameon=False, fontsize=9.5, loc="best")
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def _interval(axes: Axes, y: int, one: Coverage, start: float, nominal: float) -> None:
    """Off the axes to the left it is drawn at their edge; over too few places it is a hollow mark without an interval."""
    value = max(one.covered.value, start)
    if one.enough:
        colour = style.BLUE if one.holds(nominal) else style.VERMILION
        axes.plot([max(one.wide.low, start), one.wide.high], [y, y], color=colour, lw=1.2, zorder=2)
        axes.plot([max(one.covered.low, start), one.covered.high], [y, y], color=colour, lw=4.2, solid_capstyle="butt", zorder=3)
        axes.plot([value], [y], "o" if one.holds(nominal) else "X", ms=8, mfc=colour, mec="white", zorder=4, clip_on=False)
        return
    axes.plot([value], [y], "o", ms=7, mfc="white", mec=style.GREY, mew=1.6, zorder=4, clip_on=False)
