"""What `geoloc cells` shows: levels, what was assigned, and what is wrong with published files, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from geoloc_dagster.dataset.photo_cells import RADII_KM, LevelCount
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.geo.published_cells import CellSet


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """One level in figures."""

    name: str
    cells: int
    photos: int
    least: int
    median: float
    most: int
    smallest_km2: float
    largest_km2: float
    s2_levels: tuple[int, int]

    @classmethod
    def of(cls, level: CellLevel) -> LevelFacts:
        """The figures of a level, which has cells."""
        areas, levels = s2.areas_m2(level.ids) / 1e6, s2.levels(level.ids)
        counts = level.counts
        return cls(
            level.name,
            len(level),
            int(counts.sum()),
            int(counts.min()),
            float(np.median(counts)),
            int(counts.max()),
            float(areas.min()),
            float(areas.max()),
            (int(levels.min()), int(levels.max())),
        )


def levels_table(title: str, facts: Sequence[LevelFacts], photos: int | None = None) -> Table:
    """A row per level; with the photos that were given, how many of them were dropped."""
    table = _table(title, "cells", "S2 levels", "photos", *(["dropped"] if photos is not None else []))
    for column in ("smallest, km²", "largest, km²", "photos per cell: min", "median", "max"):
        table.add_column(column, justify="right")
    for one in facts:
        low, high = one.s2_levels
        dropped = [] if photos is None else [f"{photos - one.photos:,} ({(photos - one.photos) / max(photos, 1):.1%})"]
        table.add_row(
            one.name,
            f"{one.cells:,}",
            f"{low}–{high}" if low < high else f"{low}",
            f"{one.photos:,}",
            *dropped,
            area(one.smallest_km2),
            area(one.largest_km2),
            f"{one.least:,}",
            f"{one.median:,.0f}",
            f"{one.most:,}",
        )
    return table


def assigned_table(title: str, counts: Sequence[LevelCount], placed: int) -> Table:
    """A row per level: how many photos have a class, and how many lie how near to its centre, of those with a position."""
    table = _table(title, "assigned", *(f"≤ {radius:,} km" for radius in RADII_KM))
    for count in counts:
        shares = [f"{within / max(placed, 1):.1%}" for within in count.within.values()]
        table.add_row(count.name, f"{count.assigned:,} ({count.assigned / max(placed, 1):.1%})", *shares)
    return table


def defects_table(cells: CellSet) -> Table | None:
    """A row per level that was read from a file with defects, by kind; None where there are none."""
    kinds = sorted({defect.kind for one in cells.levels for defect in one.defects})
    if not kinds:
        return None
    table = _table(
        "rows that are not as they were made", "defects", "repaired", "left out", *(k.replace("_", " ") for k in kinds)
    )
    for one in cells.levels:
        repaired = sum(defect.repaired is not None for defect in one.defects)
        by_kind = [str(sum(defect.kind == kind for defect in one.defects)) for kind in kinds]
        table.add_row(one.level.name, str(len(one.defects)), str(repaired), str(len(one.defects) - repaired), *by_kind)
    return table


def defect_lines(cells: CellSet) -> list[str]:
    """One line per defect, with its file and what is done about it; those that could not be repaired first."""
    named = [(defect, path) for one, path in zip(cells.levels, cells.files, strict=True) for defect in one.defects]
    return [f"{path.name} {defect}" for defect, path in sorted(named, key=lambda one: one[0].repaired is not None)]


def to_json(cells: CellSet) -> dict[str, Any]:
    """The tables as JSON values."""
    return {
        "fingerprint": cells.fingerprint,
        "levels": [asdict(LevelFacts.of(one.level)) for one in cells.levels],
        "defects": {
            one.level.name: [
                {"line": d.line, "written": d.written, "kind": d.kind, "reason": d.reason, "repaired": d.repaired}
                for d in one.defects
            ]
            for one in cells.levels
        },
        "holes": [{"level": hole.level, "finest": hole.finest, "tokens": list(hole.tokens)} for hole in cells.holes],
    }


def area(km2: float) -> str:
    """An area in km² to three digits, small ones in m²."""
    return f"{km2:,.0f}" if km2 >= 100 else f"{km2:.3g}" if km2 >= 0.001 else f"{km2 * 1e6:.3g} m²"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("level")
    for column in columns:
        table.add_column(column, justify="right")
    return table
