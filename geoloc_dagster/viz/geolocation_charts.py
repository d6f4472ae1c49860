"""Charts of photo geolocation: how far answers lie from the truth, and what levels reach of what their cells allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from geoloc_dagster.evaluation.geolocation import F64, HIERARCHY, MIN_GROUPS, Figures, Scale
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.oracle import LevelOracle
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES

_LINES = (style.SKY, style.GREEN, style.ORANGE, style.VERMILION, style.MUTED)
_DASHES = ((0, (1, 1.2)), (0, (3, 1.5)), (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (2, 4)))
_HATCHES = ("..", "//", "xx", "\\\\", "--")
_FARTHEST_M = 20_020_000.0  # half way around the globe
_POINTS = 500


def error_curves(
    errors_m: Mapping[str, F64], scale: Scale, *, title: str, subtitle: str = "", max_bytes: int = MAX_BYTES
) -> bytes:
    """PNG: the share of photos within any distance, one curve per kind of answer, with the radii of the tables marked.

    Args:
        errors_m: `p_key` -> (N,) errors, infinite without an answer: such a curve ends below 1.
        scale: whose radii are marked.
        title: what was measured.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    made = style.figure(7.2, 4.4)
    axes = made.add_subplot()
    nearest, farthest = scale.radii_m[0] / 10, min(_FARTHEST_M, scale.radii_m[-1] * 20.0)
    x = np.geomspace(nearest, farthest, _POINTS)
    for radius in scale.radii_m:
        axes.axvline(radius, color=style.GREY, lw=0.9, zorder=1)
        axes.text(radius, 1.015, radius_name(radius), ha="center", va="bottom", fontsize=9, color=style.MUTED)
    for i, (key, errors) in enumerate(errors_m.items()):
        y = np.searchsorted(np.sort(errors), x, side="right") / len(errors)
        axes.plot(x, y, label=key, zorder=4 if key == HIERARCHY else 3, **_stroke(key, i))
    axes.set_xscale("log")
    axes.set_xlim(nearest, farthest)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda metres, _: _tick(metres)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda _, __: ""))
    _share_axis(axes)
    axes.set_xlabel("great-circle error", color=style.INK)
    style.plain_axes(axes, "")
    _above(axes, title, 42, fontsize=13, fontweight="bold", color=style.INK)
    _above(axes, subtitle, 26, fontsize=9.5, color=style.MUTED)
    _legend_below(axes, -0.17)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def level_bars(
    figures: Mapping[str, Figures],
    bounds: Mapping[str, LevelOracle],
    *,
    title: str,
    subtitle: str = "",
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG: the share within each radius by kind of answer, with 95 % intervals, under what the cells of its level allow.

    Args:
        figures: `p_key` -> figures of the model.
        bounds: level -> its oracle; the hierarchy stands under the last, the finest. May be empty.
        title: what was measured.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    radii = list(next(iter(figures.values())).within_m)
    made = style.figure(8.4, 4.4)
    axes = made.add_subplot()
    width = 0.84 / len(figures)
    for i, (key, of_key) in enumerate(figures.items()):
        x = np.arange(len(radii)) + (i - (len(figures) - 1) / 2) * width
        _bars(axes, x, width, key, i, of_key)
        level = list(bounds)[-1] if key == HIERARCHY and bounds else key
        if level in bounds:
            limits = [share.value for share in bounds[level].own.within_m.values()]
            axes.bar(x, limits, width * 0.92, color=style.LAND, zorder=1)
            axes.hlines(limits, x - width * 0.46, x + width * 0.46, color=style.INK, lw=1.8, zorder=5)
    axes.set_xticks(range(len(radii)), [f"within {radius_name(radius)}" for radius in radii])
    axes.set_xlim(-0.55, len(radii) - 0.45)
    _share_axis(axes)
    style.plain_axes(axes, title, subtitle)
    axes.tick_params(axis="x", length=0, pad=18)
    if bounds:
        axes.plot([], [], color=style.INK, lw=1.8, label="every photo in its own cell")
    _legend_below(axes, -0.13)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def _bars(axes: Axes, x: npt.NDArray[np.floating], width: float, key: str, i: int, figures: Figures) -> None:
    shares = list(figures.within_m.values())
    values = np.array([share.value for share in shares])
    hatch = "" if key == HIERARCHY else _HATCHES[i % len(_HATCHES)]
    axes.bar(x, values, width * 0.92, color=_colour(key, i), hatch=hatch, edgecolor="white", lw=0.6, label=key, zorder=2)
    if figures.n_groups >= MIN_GROUPS:
        whiskers = np.array([[share.value - share.low, share.high - share.value] for share in shares]).T
        axes.errorbar(x, values, yerr=np.maximum(whiskers, 0), fmt="none", ecolor=style.INK, capsize=2.5, lw=1.1, zorder=4)
    for position, value in zip(x, values, strict=True):
        axes.annotate(f"{100 * value:.0f}", (position, 0), (0, -4), textcoords="offset points", ha="center", va="top", fontsize=9)


def _above(axes: Axes, text: str, points: float, **look: Any) -> None:
    axes.annotate(text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", **look)


def _legend_below(axes: Axes, height: float) -> None:
    columns = len(axes.get_legend_handles_labels()[0])
    axes.legend(
        frameon=False,
        fontsize=9.5,
        loc="upper center",
        ncols=min(columns, 6),
        columnspacing=1.3,
        handlelength=2.6,
        handletextpad=0.5,
        bbox_to_anchor=(0.5, height),
    )


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.grid(axis="y", color=style.LAND)
    axes.set_axisbelow(True)
    axes.set_ylabel("share of photos", color=style.INK)


def _colour(key: str, i: int) -> str:
    return style.BLUE if key == HIERARCHY else _LINES[i % len(_LINES)]


def _stroke(key: str, i: int) -> dict[str, Any]:
    """The hierarchy is the heavy line; levels differ by dashes too, so that they are told apart without colour."""
    if key == HIERARCHY:
        return {"color": style.BLUE, "lw": 2.6}
    return {"color": _colour(key, i), "lw": 2.0, "linestyle": _DASHES[i % len(_DASHES)]}


def _tick(metres: float) -> str:
    return f"{metres / 1000:,g} km" if metres >= 1000 else f"{metres:g} m"
