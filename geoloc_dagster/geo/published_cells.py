"""Cells of several levels from wherever they are: folders of `geoloc cells create`, and CSVs as others have published them.

Published levels may have holes: where a token could not be made out, the cells of the finer levels have no parent. Each level can
be used by itself all the same; the holes are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoloc_dagster.errors import PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_csv import ImportedLevel, read_cells_csvs
from geoloc_dagster.geo.partitioning import DROPPED, fingerprint_of_levels
from geoloc_dagster.geo.partitioning_folder import FILE, read_partitioning


@dataclass(frozen=True, slots=True)
class Hole:
    """Cells of the finest level that lie in no cell of another.

    Attributes:
        level: that holds none of them.
        finest: their level.
        tokens: of the cells.
    """

    level: str
    finest: str
    tokens: tuple[str, ...]

    def __str__(self) -> str:
        of = "cell" if len(self.tokens) == 1 else "cells"
        more = f" and {len(self.tokens) - 5:,} more" if len(self.tokens) > 5 else ""
        return f"{len(self.tokens):,} {of} of `{self.finest}` in no cell of `{self.level}`: {', '.join(self.tokens[:5])}{more}"


@dataclass(frozen=True, slots=True)
class CellSet:
    """Levels that were read together.

    Attributes:
        levels: coarsest first.
        files: where each was read.
        fingerprint: of the photos and rules where one folder says it, else of the cells.
        holes: none where every cell of the finest level lies in one cell of each other.
    """

    levels: tuple[ImportedLevel, ...]
    files: tuple[Path, ...]
    fingerprint: str
    holes: tuple[Hole, ...]

    def classes(self, leaf_ids: s2.U64) -> dict[str, np.ndarray]:
        """By level, the class label in its file of each position; `DROPPED` where it lies in no cell."""
        found: dict[str, np.ndarray] = {}
        for one in self.levels:
            places = one.level.classes(leaf_ids)
            labels = np.append(one.published, np.int32(DROPPED))
            found[one.level.name] = labels[places]  # DROPPED is the last of them
        return found


def read_cell_sets(sources: Sequence[str]) -> CellSet:
    """Read folders and CSVs, in any order.

    Args:
        sources: `FOLDER`, `FILE.csv` or `NAME=FILE.csv`; a CSV without a name has that of its file, without `cells_` before it.

    Raises:
        PartitioningError: one is neither, or two levels have one name.
        IntegrityError: a file of a folder has changed.
    """
    levels: list[tuple[ImportedLevel, Path]] = []
    csvs: list[tuple[Path, str]] = []
    fingerprint: str | None = None
    for source in sources:
        path, name = _named(source)
        if path.is_dir():
            made = read_partitioning(path)
            fingerprint = made.fingerprint
            own = [ImportedLevel(level, np.arange(len(level), dtype=np.int32), ()) for level in made.levels]
            levels += [(one, path / f"{one.level.name}.csv") for one in own]
        elif path.is_file() and path.name != FILE:
            csvs.append((path, name))
        else:
            raise PartitioningError(
                f"{path} is neither a folder nor a CSV of cells", "`geoloc cells create` makes such a folder."
            )
    levels += zip(read_cells_csvs(csvs), (path for path, _ in csvs), strict=True)
    names = [one.level.name for one, _ in levels]
    if len(set(names)) < len(names):
        raise PartitioningError(f"two levels have one name: {', '.join(names)}", "Name files: NAME=FILE.csv.")
    levels.sort(key=lambda one: len(one[0].level))  # stable, and the order of a folder
    read = tuple(one for one, _ in levels)
    if len(sources) > 1 or fingerprint is None:
        fingerprint = fingerprint_of_levels([one.level for one in read])
    return CellSet(read, tuple(path for _, path in levels), fingerprint, _holes(read))


def _named(source: str) -> tuple[Path, str]:
    name, equals, path = source.partition("=")
    if equals and not Path(source).exists():
        return Path(path), name
    stem = Path(source).stem
    return Path(source), stem.removeprefix("cells_") or stem


def _holes(levels: Sequence[ImportedLevel]) -> tuple[Hole, ...]:
    finest = levels[-1].level
    holes: list[Hole] = []
    for one in levels[:-1]:
        orphans = finest.ids[one.level.classes(finest.ids) == DROPPED]
        if orphans.size:
            holes.append(Hole(one.level.name, finest.name, tuple(s2.tokens(orphans))))
    return tuple(holes)
