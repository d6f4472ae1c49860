"""Tables of text: one form that Markdown, the terminal and tests read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_dagster.evaluation.bootstrap import Interval

NONE = "–"
"""What stands in a cell for a figure that there is not."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """Plain text in rows; the first column names the row, the others are figures."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The title as a heading of the third rank, then the table."""
        return f"### {self.title}\n\n{markdown_table(self.header, self.rows)}"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all but the first column to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in [header, *lines]]
    rows = [escaped[0], rule, *escaped[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def percent(interval: Interval | None, digits: int = 1) -> str:
    """A share with its interval in per cent, e.g. `34.6 (28.4–41.0)`; without the interval where it has no width."""
    if interval is None or not np.isfinite(interval.value):
        return NONE
    value = f"{100 * interval.value:.{digits}f}"
    if interval.low == interval.high:
        return value
    return f"{value} ({100 * interval.low:.{digits}f}–{100 * interval.high:.{digits}f})"


def length(metres: float) -> str:
    """A distance that people read at a glance: `87 m`, `1.24 km`, `1,930 km`; a dash where there is none."""
    if not np.isfinite(metres):
        return NONE
    if metres < 1000:
        return f"{metres:.0f} m"
    km = metres / 1000
    return f"{km:.2f} km" if km < 10 else f"{km:,.0f} km"


def probability(p: float) -> str:
    """What a model says, which is never certain: `87%`, `over 99%`."""
    return "over 99%" if p > 0.99 else f"{p:.0%}"


def area(km2: float) -> str:
    """An area that people read at a glance: `87 m²`, `0.34 km²`, `1,930 km²`; a dash where there is none."""
    if not np.isfinite(km2):
        return NONE
    if km2 < 0.01:
        return f"{1e6 * km2:,.0f} m²"
    return f"{km2:.2g} km²" if km2 < 100 else f"{km2:,.0f} km²"
