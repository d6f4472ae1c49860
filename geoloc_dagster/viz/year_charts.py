"""Charts of recall across time: the years that ask against the years that answer, and the fall with the years between."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from geoloc_dagster.evaluation.retrieval import MIN_PLACES
from geoloc_dagster.evaluation.years import AcrossYears, GapBin, YearCell
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES, MAX_FILE_BYTES

# Light to dark in one hue, so that it reads in print and with every colour vision.
SCALE = LinearSegmentedColormap.from_list("share", ["#F3F8FC", style.SKY, style.BLUE, "#003B5C"])
_DARK = 0.5  # share from which white figures are easier to read than dark ones
_CELL_IN = 0.62


def year_matrix(result: AcrossYears, *, title: str, subtitle: str = "", max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """PNG: recall@1 of pictures of one year (rows) among those of another (columns), with the number of places of each cell.

    Cells of too few places are hatched, without a figure.

    Args:
        result: at least one year.
        title: what was measured.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    n = len(result.years)
    made = style.figure(max(6.4, 1.9 + _CELL_IN * n), max(3.6, 1.9 + _CELL_IN * 0.82 * n))
    axes = made.add_subplot()
    for a, asking in enumerate(result.years):
        for b, answering in enumerate(result.years):
            _cell(axes, b, a, result.matrix[asking, answering])
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    pictures = [f"{year}\n{result.matrix[year, year].n_gallery:,}" for year in result.years]
    axes.set_xticks(range(n), pictures)
    axes.set_yticks(range(n), [str(year) for year in result.years])
    axes.set_xlabel("year of the gallery (below it: its pictures)", color=style.INK)
    axes.set_ylabel("year of the query", color=style.INK)
    note = f"R@1 in per cent, small: places; hatched: fewer than {MIN_PLACES}"
    style.tall_axes(axes, title, "; ".join(filter(None, [subtitle, note])))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def age_gap_curve(result: AcrossYears, *, title: str, subtitle: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """PNG: recall@1 by the years between the query and the only picture of its view, with a band of 95 % and the counts."""
    made = style.figure(7.2, 4.0)
    axes = made.add_subplot()
    shown = [(i, one) for i, one in enumerate(result.gaps) if one.recall is not None]
    x = np.array([i for i, _ in shown], float)
    recalls = [one.recall for _, one in shown if one.recall is not None]
    if recalls:
        low, value, high = (np.array([getattr(one, name) for one in recalls]) for name in ("low", "value", "high"))
        axes.fill_between(x, low, high, color=style.SKY, alpha=0.35, lw=0, label="95 % interval by place")
        axes.plot(x, value, "o-", color=style.BLUE, ms=7, lw=2.2, clip_on=False, zorder=5)
        for place, share in zip(x, value, strict=True):
            axes.annotate(f"{share:.2f}", (place, share), (0, 9), textcoords="offset points", ha="center", fontsize=9.5)
        axes.legend(frameon=False, fontsize=9, loc="upper right")
    axes.set_xticks(range(len(result.gaps)), [_tick(one) for one in result.gaps])
    axes.set_xlim(-0.5, len(result.gaps) - 0.5)
    axes.set_ylim(0, 1.08)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.grid(axis="y", color=style.LAND)
    axes.set_axisbelow(True)
    axes.set_xlabel("years between the query and the only picture of its view (below: pairs, places)", color=style.INK)
    axes.set_ylabel("R@1", color=style.INK)
    style.plain_axes(axes, title, subtitle)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def _cell(axes: Axes, x: int, y: int, cell: YearCell) -> None:
    if cell.recall is None:
        hatch = "////" if cell.n_places else None
        fill = "white" if cell.n_places else style.LAND
        axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=fill, edgecolor=style.GREY, lw=0.0, hatch=hatch))
        if cell.n_places:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(x, y, str(cell.n_places), ha="center", va="center", fontsize=8, color=style.MUTED, bbox=box)
        return
    share = cell.recall.value
    axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=SCALE(share), edgecolor="none"))
    ink = "white" if share >= _DARK else style.INK
    axes.text(x, y - 0.08, f"{100 * share:.0f}", ha="center", va="center", fontsize=11.5, fontweight="bold", color=ink)
    axes.text(x, y + 0.29, f"{cell.n_places:,}", ha="center", va="center", fontsize=7.5, color=ink)


def _tick(one: GapBin) -> str:
    name = f"{one.low_years:g}+" if np.isinf(one.high_years) else f"{one.low_years:g}–{one.high_years:g}"
    return f"{name}\n{one.n_pairs:,}\n{one.n_places:,}"
