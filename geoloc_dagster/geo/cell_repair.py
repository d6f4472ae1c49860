"""Tokens of cells that a spreadsheet took for numbers: what is wrong with each, and what it must have been.

`47e63` became `4.7E+064`, `478e4` became `4780000`, and `064` became `64`. A token is right if its cell holds the mean position
beside it and it does not end in zeros: one that does is the number of another (`470` was `47e1`), and would be a larger cell,
which holds the mean as well, so that looking at the mean alone misses it. Text that is no number was changed by no spreadsheet:
there the token is believed, and a mean outside its cell is not.

A wrong token is repaired where one cell alone fits: it holds the mean, has the same number, and neither lies in another cell of
the file nor holds one. Where two fit, one in the other (`346e4` and `346e04`), the counts decide: the larger holds no other cell,
so what it holds beside the smaller are a few cells that were dropped; if that is still no more than cells of the file hold, it
would not have been cut, and the smaller cannot be there. Levels that were made together tell more: each cell of a finer one is in
one cell of a coarser one, has no more photos than it, and as many only where it is the same.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation, Overflow
from typing import Literal

import numpy as np

from geoloc_dagster.geo import s2

Kind = Literal["scientific", "zeros_at_end", "zeros_at_start", "no_token", "mean_outside", "not_holding"]
REASONS: dict[Kind, str] = {
    "scientific": "is a number in scientific notation",
    "zeros_at_end": "ends in zeros, as a multiplied-out number does",
    "zeros_at_start": "has lost the zeros at its start: its cell does not hold its mean position",
    "no_token": "is no token of an S2 cell",
    "mean_outside": "is a token, but its mean position lies outside its cell",
    "not_holding": "names a cell that does not hold its mean position",
}
_NUMBER = re.compile(r"\d+(e\d+)?")
_SCIENTIFIC = re.compile(r"\d+(\.\d+)?[eE]\+\d+")
_SPREADSHEET = Context(prec=15)  # significant digits that a spreadsheet keeps
_FACE_0 = 1 << 60  # its token is 1


@dataclass(frozen=True, slots=True)
class WrittenCell:
    """A row of a file: the token as it stands there, its photos, and the leaf cell of their mean position."""

    written: str
    count: int
    leaf: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a written token is.

    Attributes:
        cell: its id; None where it could not be made out.
        kind: what is wrong with the row; None where nothing is.
    """

    cell: int | None
    kind: Kind | None


def judge(levels: Sequence[Sequence[WrittenCell]]) -> list[list[Verdict]]:
    """The verdict on each row of each level, in their order; the levels were made together, or there is one."""
    read = [_Level(rows) for rows in levels]
    for level in read:
        level.settle()
    ordered = sorted(read, key=lambda level: len(level.rows))
    pairs = [(coarse, fine) for n, coarse in enumerate(ordered) for fine in ordered[n + 1 :]]
    told = any(level.open for level in read)
    while told:
        told = False
        for coarse, fine in pairs:
            if (coarse.open or fine.open) and _nested(coarse, fine):
                _compare(coarse, fine)
                told |= coarse.settle() | fine.settle()
    return [level.verdicts for level in read]


def number_of(text: str) -> Decimal | None:
    """The number as which a spreadsheet reads a text; None where it does not."""
    try:
        number = _SPREADSHEET.create_decimal(text)
    except (InvalidOperation, Overflow):
        return None
    return number if number.is_finite() else None


def _alone(row: WrittenCell) -> Verdict:
    """What can be said of a row without the others."""
    text = row.written.lower()
    try:
        cell = int(s2.from_tokens([text])[0])
    except ValueError:
        ends = text.isdigit() and text.endswith("0")
        return Verdict(None, "scientific" if _SCIENTIFIC.fullmatch(text) else "zeros_at_end" if ends else "no_token")
    if number_of(text) is not None and s2.tokens([cell])[0] != text:
        return Verdict(None, "zeros_at_end")
    if _holds(cell, row.leaf):
        return Verdict(cell, None)
    fitting = _fitting(row)
    if fitting or number_of(text) is not None:
        return Verdict(None, "zeros_at_start" if fitting else "not_holding")
    return Verdict(cell, "mean_outside")


def _fitting(row: WrittenCell) -> list[int]:
    """Cells around the mean position whose token may have become what is written, the largest first."""
    cells = [int(s2.parents(np.uint64(row.leaf), level)) for level in range(s2.MAX_LEVEL + 1)]
    number, text = number_of(row.written), row.written.lower().rstrip("0")

    def fits(token: str) -> bool:
        if number is not None:
            return _NUMBER.fullmatch(token) is not None and number_of(token) == number
        return token.startswith("0") and token.lstrip("0") == text

    return [cell for cell, token in zip(cells, s2.tokens(cells), strict=True) if fits(token)]


def _holds(cell: int, leaf: int) -> bool:
    below = (cell & -cell) - 1
    return cell - below <= leaf <= cell + below


class _Level:
    """The rows of one level, what is certain of them, and what each of the others may be.

    Attributes:
        rows: as written.
        verdicts: on each so far.
        open: cells that fit, by the place of the row, for rows that are not made out yet.
    """

    def __init__(self, rows: Sequence[WrittenCell]) -> None:
        self.rows = rows
        self.verdicts = [_alone(row) for row in rows]
        self._doubt_face_0()
        self.open = {n: _fitting(rows[n]) for n, verdict in enumerate(self.verdicts) if verdict.cell is None}
        self._bounds = _Bounds.of(rows, self.verdicts)
        self._cells = sorted((v.cell, row.count) for v, row in zip(self.verdicts, rows, strict=True) if v.cell is not None)

    def _doubt_face_0(self) -> None:
        """`01` that lost its zero is `1`, a whole face, which holds its mean position: believed only where all else allows it."""
        others = [v for v, row in zip(self.verdicts, self.rows, strict=True) if row.written != "1"]
        least = min((int(s2.levels(v.cell)) for v in others if v.cell is not None), default=0)
        alone = sum(_holds(_FACE_0, row.leaf) for row in self.rows) == 1
        if alone and least <= 1 and all(v.kind is None for v in others):
            return
        for n, row in enumerate(self.rows):
            if row.written == "1" and self.verdicts[n].kind is None:
                self.verdicts[n] = Verdict(None, "zeros_at_start")

    def settle(self) -> bool:
        """Make out what can be, each of which may rule out cells for others; whether there was anything."""
        found, settled = False, True
        while settled:
            settled = False
            for n in list(self.open):
                self.open[n] = [cell for cell in self.open[n] if not self.meeting(cell)]
                others = [self.rows[other].leaf for other in self.open if other != n]
                cell = self._bounds.only_one_of(self.open[n], self.rows[n].count, others)
                if cell is not None:
                    self.verdicts[n] = Verdict(cell, self.verdicts[n].kind)
                    bisect.insort(self._cells, (cell, self.rows[n].count))
                    del self.open[n]
                    found = settled = True
        return found

    def meeting(self, cell: int) -> list[tuple[int, int]]:
        """The certain cells, with their photos, that lie in a cell, or the one in which it lies."""
        below = (cell & -cell) - 1
        first = bisect.bisect_left(self._cells, (cell - below, 0))
        last = bisect.bisect_right(self._cells, (cell + below + 1, 0))
        near = self._cells[max(0, first - 1) : last + 1]  # one that holds it lies just before or after
        return [(other, count) for other, count in near if _holds(cell, other) or _holds(other, cell)]

    def photos_in(self, cell: int) -> int:
        """Of its cells in a cell, also of those that are not made out."""
        open_rows = (self.rows[n] for n in self.open)
        return sum(count for _, count in self.meeting(cell)) + sum(row.count for row in open_rows if _holds(cell, row.leaf))

    def without_home(self, coarse: _Level) -> list[int]:
        """Its cells, or leaf cells of what is not made out, that lie in no certain cell of a coarser level."""
        cells = [cell for cell, _ in self._cells] + [self.rows[n].leaf for n in self.open]
        return [cell for cell in cells if not any(_holds(other, cell) for other, _ in coarse.meeting(cell))]


def _nested(coarse: _Level, fine: _Level) -> bool:
    """Whether each certain cell of the finer level lies in one of the coarser, or in what one may be that is not made out."""
    may_be = [cells[0] for cells in coarse.open.values() if cells]
    return all(any(_holds(one, cell) for one in may_be) for cell in fine.without_home(coarse))


def _compare(coarse: _Level, fine: _Level) -> None:
    """Rule out cells of either level that the other does not allow."""
    homeless = fine.without_home(coarse)
    for n, cells in coarse.open.items():
        count = coarse.rows[n].count
        left = [cell for cell in cells if fine.photos_in(cell) <= count]
        if len(coarse.open) == 1:
            left = [cell for cell in left if all(_holds(cell, one) for one in homeless)]
        coarse.open[n] = left
    for n, cells in fine.open.items():
        count = fine.rows[n].count
        around = [(cell, coarse.meeting(cell)) for cell in cells]
        fine.open[n] = [
            cell
            for cell, met in around
            if all(_holds(other, cell) and (photos == count if other == cell else photos >= count) for other, photos in met)
        ]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What the right rows say of the rules by which the level was made.

    Attributes:
        least: photos of a cell; those with fewer may have been dropped.
        most: photos that a cell had which could have been cut, and was not.
        level_min: of S2.
    """

    least: int
    most: int
    level_min: int

    @classmethod
    def of(cls, rows: Sequence[WrittenCell], verdicts: Sequence[Verdict]) -> _Bounds:
        right = [(row.count, verdict.cell) for row, verdict in zip(rows, verdicts, strict=True) if verdict.cell is not None]
        if not right:
            return cls(0, 0, 0)
        levels = s2.levels([cell for _, cell in right]).tolist()
        deepest = max(levels)
        most = max((count for (count, _), level in zip(right, levels, strict=True) if level < deepest), default=0)
        return cls(min(row.count for row in rows), most, min(levels))

    def only_one_of(self, cells: Sequence[int], count: int, others: Sequence[int]) -> int | None:
        """Of cells that lie in each other, largest first, the one that can be there; None where several can.

        Args:
            cells: none of which meets a certain cell.
            count: photos of the row.
            others: leaf cells of rows that are not made out.
        """
        if len(cells) < 2:
            return cells[0] if cells else None
        if self.most < 4 * self.least:  # else a cell might be cut into nothing but cells to drop
            return None
        levels = s2.levels(cells).tolist()
        dropped = 3 * (levels[-1] - levels[0]) * max(0, self.least - 1)
        if levels[0] < self.level_min or count + dropped > self.most or any(_holds(cells[0], leaf) for leaf in others):
            return None
        return cells[0]
