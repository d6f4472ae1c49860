"""Charts of recall: against baselines, over capture years, over the size of the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geoloc_dagster.evaluation.bootstrap import Interval
from geoloc_dagster.evaluation.retrieval import MIN_PLACES, Group
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES

_FILLS = (style.BLUE, style.ORANGE, style.GREEN, style.SKY, style.GREY)
_HATCHES = ("", "//", "..", "xx", "\\\\")


def recall_bars(
    recalls: Mapping[str, Mapping[str, Interval]], *, title: str, subtitle: str = "", max_bytes: int = MAX_BYTES
) -> bytes:
    """PNG: recall@k of the model and its baselines side by side, with 95 % intervals.

    Args:
        recalls: descriptor name -> `recall@k` -> interval, the model first.
        title: what was measured.
        subtitle: on how much.
        max_bytes: cap of the picture.
    """
    cuts = list(next(iter(recalls.values())))
    made = style.figure(7.2, 4.0)
    axes = made.add_subplot()
    width = 0.8 / len(recalls)
    for i, (name, recall) in enumerate(recalls.items()):
        values = [recall[cut] for cut in cuts]
        x = np.arange(len(cuts)) + (i - (len(recalls) - 1) / 2) * width
        axes.bar(
            x,
            [v.value for v in values],
            width * 0.92,
            color=_FILLS[i % len(_FILLS)],
            hatch=_HATCHES[i % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.8,
            label=name,
        )
        axes.errorbar(x, [v.value for v in values], yerr=_whiskers(values), fmt="none", ecolor=style.INK, capsize=3, lw=1.2)
        for position, value in zip(x, values, strict=True):
            axes.text(position, value.high + 0.015, f"{value.value:.2f}", ha="center", fontsize=9, color=style.INK)
    axes.set_xticks(range(len(cuts)), [cut.replace("recall@", "R@") for cut in cuts])
    axes.set_ylim(0, 1.08)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.set_ylabel("share of queries found", color=style.INK)
    style.plain_axes(axes, title, subtitle)
    axes.legend(
        frameon=False,
        fontsize=9.5,
        loc="upper center",
        ncols=min(len(recalls), 5),
        columnspacing=1.0,
        handletextpad=0.4,
        bbox_to_anchor=(0.5, -0.08),
    )
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def recall_by_year(groups: Mapping[str, Group], *, title: str, cut: str = "recall@1", max_bytes: int = MAX_BYTES) -> bytes:
    """PNG: recall by capture year of the query, with 95 % intervals and the number of queries of each year."""
    made = style.figure(7.2, 3.8)
    axes = made.add_subplot()
    values = [group.recall[cut] for group in groups.values()]
    x = np.arange(len(values))
    enough = np.array([group.n_places >= MIN_PLACES for group in groups.values()], bool)
    sure = [value for value, keep in zip(values, enough, strict=True) if keep]
    if sure:
        heights = [v.value for v in sure]
        axes.errorbar(x[enough], heights, yerr=_whiskers(sure), fmt="none", ecolor=style.MUTED, capsize=4, lw=1.5, clip_on=False)
    for mask, fill, label in (
        (enough, style.BLUE, "95 % interval by place"),
        (~enough, "white", f"fewer than {MIN_PLACES} places"),
    ):
        heights = [value.value for value, keep in zip(values, mask, strict=True) if keep]
        axes.plot(x[mask], heights, "o", ms=8, mfc=fill, mec=style.BLUE, mew=1.6, label=label, clip_on=False, zorder=5)
    for position, value in zip(x, values, strict=True):
        axes.annotate(f"{value.value:.2f}", (position, value.value), (9, 3), textcoords="offset points", fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set_xticks(x, [f"{name}\nn = {group.n_queries:,}" for name, group in groups.items()])
    axes.set_xlim(-0.5, len(values) - 0.35)
    axes.set_ylim(0, 1.05)
    axes.grid(axis="y", color=style.LAND)
    axes.set_axisbelow(True)
    axes.set_xlabel("capture year of the query (n: queries)", color=style.INK)
    axes.set_ylabel(cut.replace("recall@", "R@"), color=style.INK)
    style.plain_axes(axes, title)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def growth_chart(
    sizes: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG: how a cost grows with size on two logarithmic axes, each curve with its fitted exponent.

    Args:
        sizes: (N,) positive, at least two different.
        measured: curve name -> (N,) positive values; NaN where it was not measured.
        title: what grows.
        x_label: with unit.
        y_label: with unit.
        max_bytes: cap of the picture.
    """
    made = style.figure(7.2, 4.2)
    axes = made.add_subplot()
    for i, (name, values) in enumerate(measured.items()):
        x, y = np.asarray(sizes, float), np.asarray(values, float)
        known = np.isfinite(y)
        slope = growth_exponent(x, y)
        line, mark = ("-", "--", ":", "-.")[i % 4], "os^D"[i % 4]
        axes.plot(
            x[known], y[known], mark + line, color=_FILLS[i % len(_FILLS)], ms=7, lw=2, label=f"{name}: ∝ n$^{{{slope:.2f}}}$"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(which="major", color=style.LAND)
    axes.set_xlabel(x_label, color=style.INK)
    axes.set_ylabel(y_label, color=style.INK)
    style.plain_axes(axes, title)
    axes.legend(frameon=False, fontsize=10)
    made.tight_layout()
    return style.render(made, "png", max_bytes)


def growth_exponent(sizes: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """The exponent b of values ~ sizes**b, fitted on logarithms; NaN values are left out."""
    x, y = np.asarray(sizes, float), np.asarray(values, float)
    known = np.isfinite(y)
    return float(np.polyfit(np.log(x[known]), np.log(y[known]), 1)[0])


def _whiskers(values: Sequence[Interval]) -> np.ndarray:
    """(2, N) lengths below and above the value, never negative."""
    lengths = np.array([[v.value - v.low, v.high - v.value] for v in values]).T
    return np.maximum(lengths, 0)
