"""What others reached on the usual test photos, to print beside our own figures.

The figures are those of the papers, or of the tables in which later papers quote them, in per cent within 1, 25, 200, 750 and
2,500 km. Read them with care: backbones, training photos (MP-16, 4.7 million, or galleries of 14 million) and the use of language
models differ, and photographers of YFCC4k are in MP-16 too, which lifts what retrieval reaches within 1 km.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from geoloc_dagster.evaluation.bootstrap import Interval
from geoloc_dagster.evaluation.geolocation import WORLD_RADII_M, Figures, Shares
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.tables import TextTable, percent

BLANK = "-"
"""What stands where a row lacks a radius."""

SETS: dict[str, tuple[str, ...]] = {
    "im2gps": ("im2gps", "im2gps237"),
    "im2gps3k": ("im2gps3k", "im2gps3ktest", "im2gps2997"),
    "yfcc4k": ("yfcc4k", "yfcc4536"),
    "yfcc26k": ("yfcc26k", "yfcc25k", "yfcc25600", "yfcc26600"),
}
_DECORATION = re.compile(r"(places365|mp16|test|val|photos|images|meta)")


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a published table.

    Attributes:
        method: as it is called where it was published.
        year: of publication as far as known, else empty.
        set_name: key of `SETS`.
        percent: radius in metres -> the figure as it was printed; radii that were not printed are missing.
    """

    method: str
    year: str
    set_name: str
    percent: dict[int, str]


def published_rows(name: str) -> tuple[PublishedRow, ...]:
    """The published rows of a set of test photos, in the order of publication; none where the set is not known.

    Args:
        name: of the set or its file: `im2gps3k`, `im2gps_test`, `data/yfcc25600_places365.csv`, …
    """
    wanted = set_called(name)
    return tuple(row for row in _all_rows() if row.set_name == wanted)


def set_called(name: str) -> str | None:
    """The key of `SETS` that goes by this name or file name; None where there is none."""
    stem = re.sub(r"\.(csv|parquet|json|tar|zip)$", "", re.split(r"[/\\]", name.strip().lower())[-1])
    plain = re.sub(r"[^a-z0-9]", "", _DECORATION.sub("", stem))
    return next((key for key, names in SETS.items() if plain in names), None)


def published_table(
    name: str, ours: Mapping[str, Figures | Shares], order: Literal["published", "1 km"] = "published"
) -> TextTable:
    """Our rows, with their intervals, among those that were published.

    Args:
        name: of the set, as `published_rows` knows it.
        ours: name -> figures on the scale of the world.
        order: `published` puts ours last; `1 km` sorts all by that figure, the best first, rows without it last.
    """
    rows = [(_first(row.percent), [row.method, row.year, *_printed(row)]) for row in published_rows(name)]
    for method, figures in ours.items():
        share = figures.within_m.get(WORLD_RADII_M[0])
        rows.append((-1.0 if share is None else 100 * share.value, [f"ours: {method}", "", *_ours(figures.within_m)]))
    if order == "1 km":
        rows.sort(key=lambda row: -row[0])
    known = set_called(name)
    title = f"{known}: published and ours, %" if known else f"{name}: ours, % (no published figures are known of this set)"
    return TextTable(title, ["method", "year", *map(radius_name, WORLD_RADII_M)], [row for _, row in rows])


def _all_rows() -> Sequence[PublishedRow]:
    text = resources.files("geoloc_dagster.evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    columns = {radius: f"km_{radius // 1000}" for radius in WORLD_RADII_M}
    return [
        PublishedRow(
            line["method"], line["year"], line["set"], {radius: line[name] for radius, name in columns.items() if line[name]}
        )
        for line in csv.DictReader(io.StringIO(text, newline=""))
    ]


def _printed(row: PublishedRow) -> list[str]:
    return [row.percent.get(radius, BLANK) for radius in WORLD_RADII_M]


def _ours(within_m: Mapping[int, Interval]) -> list[str]:
    return [percent(within_m[radius]) if radius in within_m else BLANK for radius in WORLD_RADII_M]


def _first(figures: Mapping[int, str]) -> float:
    return float(figures.get(WORLD_RADII_M[0], "-1"))
