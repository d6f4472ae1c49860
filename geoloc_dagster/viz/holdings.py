"""One picture of what a region holds: per year, per heading, and how far each district is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES

MOST_DISTRICTS = 20
_NAMED = 8  # bars that have room for their numbers


def holdings_picture(
    *,
    title: str,
    subtitle: str,
    years: Mapping[str, tuple[int, int]],
    headings: Mapping[str, int],
    districts: Sequence[tuple[str, int, int, int]],
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG of three charts.

    Args:
        title: of the whole.
        subtitle: figures that belong to it.
        years: year -> (captures, locations), in order.
        headings: heading -> captures, in order.
        districts: (name, registered, complete, captures), most important first; the first `MOST_DISTRICTS` are drawn.
        max_bytes: cap of the picture.
    """
    shown = districts[:MOST_DISTRICTS]
    made = style.figure(9.6, 4.2 + 0.26 * max(4, len(shown)))
    grid = made.add_gridspec(2, 2, height_ratios=[3.0, 1.1 + 0.26 * max(4, len(shown))], width_ratios=[3, 2])
    _bars(made.add_subplot(grid[0, 0]), {name: captures for name, (captures, _) in years.items()}, "Captures per year of capture")
    _bars(made.add_subplot(grid[0, 1]), headings, "Captures per heading")
    _districts(made.add_subplot(grid[1, :]), shown, len(districts))
    made.suptitle(title, x=0.02, ha="left", fontsize=15, fontweight="bold", color=style.INK)
    made.text(0.02, 1 - 0.55 / made.get_figheight(), subtitle, fontsize=10, color=style.MUTED, va="top")
    made.tight_layout(rect=(0, 0, 1, 1 - 0.75 / made.get_figheight()))
    return style.render(made, "png", max_bytes)


def _bars(axes: Axes, counts: Mapping[str, int], title: str) -> None:
    x = np.arange(len(counts))
    axes.bar(x, list(counts.values()), 0.8, color=style.BLUE)
    step = max(1, -(-len(counts) // 16))  # of many bars only some are named
    axes.set_xticks(x[::step], list(counts)[::step], rotation=45 if len(counts) > _NAMED else 0)
    if len(counts) <= _NAMED:
        for position, count in zip(x, counts.values(), strict=True):
            axes.annotate(_short(count), (position, count), (0, 2), textcoords="offset points", ha="center", fontsize=8.5)
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.grid(axis="y", color=style.LAND)
    axes.set_axisbelow(True)
    _none_yet(axes, counts)
    style.plain_axes(axes, title)


def _districts(axes: Axes, districts: Sequence[tuple[str, int, int, int]], total: int) -> None:
    """Registered locations in grey, complete ones in blue over them, with the captures in words."""
    y = np.arange(len(districts))[::-1]
    registered = [row[1] for row in districts]
    axes.barh(y, registered, 0.72, color=style.LAND, edgecolor=style.GREY, linewidth=0.8, label="registered")
    axes.barh(y, [row[2] for row in districts], 0.72, color=style.BLUE, label="complete")
    for position, (_, count, complete, captures) in zip(y, districts, strict=True):
        share = f"{complete / count:.0%}" if count else "–"
        axes.annotate(
            f"{share} complete, {_short(captures)} captures", (count, position), (5, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=style.MUTED,
        )  # fmt: skip
    axes.set_yticks(y, [row[0] for row in districts])
    axes.set_xlim(0, max([*registered, 1]) * 1.32)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("locations", color=style.INK)
    _none_yet(axes, districts)
    more = f" (the first {len(districts)} of {total})" if total > len(districts) else ""
    style.plain_axes(axes, f"Locations per district{more}")
    if districts:
        axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _none_yet(axes: Axes, things: Sequence[object] | Mapping[str, int]) -> None:
    if not things:
        axes.text(0.5, 0.5, "none yet", transform=axes.transAxes, ha="center", color=style.MUTED)
        axes.set_xticks([])
        axes.set_yticks([])


def _short(count: float) -> str:
    """`950`, `12.3 k`, `4.52 M`."""
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if count >= size:
            return f"{count / (1_000_000 if unit == 'M' else 1_000):.3g} {unit}"
    return f"{count:,.0f}"
