"""Adaptive S2 cells: as small as photos allow, so that each class has enough of them and none has too many.

From the six faces down, a cell with more than `img_max` photos is cut into its four children, to `lvl_max` at most; what is left
with fewer than `img_min` is dropped. Several levels of one partitioning share `img_min` and have smaller and smaller `img_max`,
so every cell of the finest lies in one cell of each other level.

Source: Müller-Budack et al., Geolocation Estimation of Photos using a Hierarchical Model and Scene Classification, ECCV 2018;
Weyand et al., PlaNet, ECCV 2016. Class centres are means on the sphere, where the papers average latitudes and longitudes, which
fails at the antimeridian.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import PartitioningError
from geoloc_dagster.geo import s2

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

DROPPED = -1
"""The class of a position that lies in no cell of a level."""

HIERARCHY = "hierarchy"
"""The name of what all levels say together (f*), among the names of levels."""


@dataclass(frozen=True, slots=True)
class LevelRule:
    """How one level is made.

    Attributes:
        name: `coarse`, `middle`, `fine`, …
        img_min: cells with fewer photos are dropped.
        img_max: cells with more photos are cut, as far as `lvl_max` lets them.
    """

    name: str
    img_min: int
    img_max: int


@dataclass(frozen=True, slots=True)
class CellLevel:
    """The classes of one level; a class is the position of its cell in the order of ids.

    Attributes:
        name: of the level.
        ids: of the cells, ascending.
        counts: photos of each that the cells were made of.
        lat_deg: of the mean position of these.
        lng_deg: likewise.
    """

    name: str
    ids: s2.U64
    counts: I64
    lat_deg: F64
    lng_deg: F64

    def __len__(self) -> int:
        return self.ids.size

    def classes(self, leaf_ids: s2.U64) -> I32:
        """The class of each position, by its leaf cell; `DROPPED` where it lies in no cell."""
        if not self.ids.size:
            return np.full(leaf_ids.shape, DROPPED, np.int32)
        first, last = s2.ranges(self.ids)
        found = np.maximum(np.searchsorted(first, leaf_ids, side="right") - 1, 0)
        inside = (leaf_ids >= first[found]) & (leaf_ids <= last[found])
        return np.where(inside, found, DROPPED).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Partitioning:
    """Several levels of cells of one place or planet.

    Attributes:
        levels: coarsest first.
        parents: shape (cells of the finest level, levels): the class of each level that holds each of the finest cells.
        fingerprint: sha256 over tokens, rules and the photos they were made of: equal where the cells are.
    """

    levels: tuple[CellLevel, ...]
    parents: I32
    fingerprint: str

    def level(self, name: str) -> CellLevel:
        """By its name; raises PartitioningError where there is none."""
        for level in self.levels:
            if level.name == name:
                return level
        raise PartitioningError(f"there is no level {name!r}; there are {', '.join(level.name for level in self.levels)}")


def partition(
    lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike, rules: Sequence[LevelRule], *, lvl_min: int = 2, lvl_max: int = 30
) -> Partitioning:
    """Make the cells of positions; the order of these is of no account.

    Args:
        lat_deg: of the photos that are trained on, and no others.
        lng_deg: likewise.
        rules: coarsest first.
        lvl_min: no cell is larger than those of this S2 level.
        lvl_max: or smaller than those of this.

    Raises:
        PartitioningError: rules or levels do not fit each other, or no cell is left of a level.
        ValueError: a position is not on the globe.
    """
    _check(rules, lvl_min, lvl_max)
    leaves = np.sort(s2.leaf_ids(lat_deg, lng_deg))
    sums = _Sums(leaves)
    levels = tuple(_level(rule, leaves, sums, lvl_min, lvl_max) for rule in rules)
    for level in levels:
        if not len(level):
            raise PartitioningError(
                f"level `{level.name}` has no cells: nowhere are {rules[0].img_min:,} of the {leaves.size:,} positions together",
                "Lower img_min, or give more positions.",
            )
    said = {"rules": [[rule.name, rule.img_min, rule.img_max] for rule in rules], "levels": [lvl_min, lvl_max]}
    return Partitioning(levels, parent_table(levels), _fingerprint(levels, said, leaves))


def parent_table(levels: Sequence[CellLevel]) -> I32:
    """Which cell of each level holds each cell of the last.

    Raises:
        PartitioningError: one of them lies in no cell of another level.
    """
    fine = levels[-1]
    columns = [level.classes(fine.ids) for level in levels]
    for level, column in zip(levels, columns, strict=True):
        orphans = np.flatnonzero(column == DROPPED)
        if orphans.size:
            token = s2.tokens(fine.ids[orphans[:1]])[0]
            raise PartitioningError(
                f"{orphans.size:,} cells of `{fine.name}` lie in no cell of `{level.name}`; the first is {token}",
                "Levels that belong together have one img_min and smaller and smaller img_max.",
            )
    return np.stack(columns, axis=1) if fine.ids.size else np.empty((0, len(levels)), np.int32)


def fingerprint_of_levels(levels: Sequence[CellLevel]) -> str:
    """Sha256 over names and cells: equal where models of one can take the classes of the other, whatever photos made them."""
    digest = hashlib.sha256()
    for level in levels:
        digest.update(b"".join([level.name.encode(), b"\0", level.ids.astype("<u8").tobytes()]))
    return digest.hexdigest()


# --- making cells ----------------------------------------------------------------------------------------------------
class _Sums:
    """Mean positions of ranges of sorted leaf cells; made of their centres, so that no order of positions can show."""

    def __init__(self, leaves: s2.U64) -> None:
        lat_deg, lng_deg = s2.centres(leaves)
        lat, lng = np.radians(lat_deg), np.radians(lng_deg)
        across = np.cos(lat)
        self._points = np.stack([across * np.cos(lng), across * np.sin(lng), np.sin(lat)])

    def means(self, first: I64, last: I64) -> tuple[F64, F64]:
        """(lat, lng) in degrees of the means of positions `first` to before `last`, which ascend and are not empty."""
        if not first.size:
            return np.empty(0), np.empty(0)
        edges = np.stack([first, last], axis=1).ravel()
        end = self._points.shape[1]
        at_end = edges[-1] == end
        x, y, z = (np.add.reduceat(axis, edges[:-1] if at_end else edges)[::2] for axis in self._points)
        return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def _level(rule: LevelRule, leaves: s2.U64, sums: _Sums, lvl_min: int, lvl_max: int) -> CellLevel:
    cells = (np.arange(6, dtype=np.uint64) << np.uint64(61)) | np.uint64(1 << 60)
    kept: list[tuple[s2.U64, I64, I64]] = []
    for level in range(lvl_max + 1):
        low, high = s2.ranges(cells)
        first, last = np.searchsorted(leaves, low, side="left"), np.searchsorted(leaves, high, side="right")
        enough = last - first >= rule.img_min
        cells, first, last = cells[enough], first[enough], last[enough]
        cut = (last - first > rule.img_max) & (level < lvl_max) | (level < lvl_min)
        kept.append((cells[~cut], first[~cut], last[~cut]))
        cells = s2.children(cells[cut]).ravel()
    ids, first, last = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.argsort(ids)
    ids, first, last = ids[order], first[order], last[order]
    return CellLevel(rule.name, ids, last - first, *sums.means(first, last))


def _check(rules: Sequence[LevelRule], lvl_min: int, lvl_max: int) -> None:
    if not 0 <= lvl_min <= lvl_max <= s2.MAX_LEVEL:
        raise PartitioningError(f"S2 levels go from 0 to 30, the least first, not from {lvl_min} to {lvl_max}")
    if not rules or len({rule.name for rule in rules}) < len(rules):
        raise PartitioningError("a partitioning has at least one level, and each a name of its own")
    for rule in rules:
        if not 1 <= rule.img_min <= rule.img_max:
            raise PartitioningError(f"img_min of level `{rule.name}` is {rule.img_min}; it is at least 1 and at most img_max")
    if len({rule.img_min for rule in rules}) > 1:
        raise PartitioningError("all levels have one img_min", "With different ones, fine cells would lie in no coarse cell.")
    maxima = [rule.img_max for rule in rules]
    if maxima != sorted(set(maxima), reverse=True):
        raise PartitioningError(f"img_max gets smaller from level to level, not {maxima}", "Name the coarsest level first.")


def _fingerprint(levels: Sequence[CellLevel], said: object, leaves: s2.U64) -> str:
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    digest.update(hashlib.sha256(leaves.astype("<u8").tobytes()).digest())
    digest.update(fingerprint_of_levels(levels).encode())
    return digest.hexdigest()
