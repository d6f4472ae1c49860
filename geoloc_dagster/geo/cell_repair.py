"""Tokens of cells that a spreadsheet took for numbers: what is wrong with each, and what it must have been.

`47e63` became `4.7E+064`, `478e4` became `4780000`, and `064` became `64`. A token is right if its cell holds the mean position
beside it and it does not end in zeros: one that does is the number of another (`470` was `47e1`), and would be a larger cell,
which holds the mean as well, so that looking at the mean alone misses it. Text that is no number was changed by no spreadsheet:
there the token is believed, and a mean outside its cell is not.

A wrong token is repaired where one cell alone fits: it holds the mean, has the same number, and neither lies in another cell of
the file nor holds one. Where two fit, one in the other (`346e4` and `346e04`), the counts decide: the larger holds no other cell,
so what it holds beside the smaller are a few cells that were dropped; if that is still no more than cells of the file hold, it
would not have been cut, and the smaller cannot be there.
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


def judge(rows: Sequence[WrittenCell]) -> list[Verdict]:
    """The verdict on each row, in their order, all of one level."""
    verdicts = [_alone(row) for row in rows]
    known = _Known([v.cell for v in verdicts if v.cell is not None])
    bounds = _Bounds.of(rows, verdicts)
    open_rows = {n: _fitting(rows[n]) for n, verdict in enumerate(verdicts) if verdict.cell is None}
    settled = True
    while settled:  # each that is made out can rule out candidates of others
        settled = False
        for n, fitting in list(open_rows.items()):
            left = [cell for cell in fitting if not known.meets(cell)]
            others = [rows[other].leaf for other in open_rows if other != n]
            cell = left[0] if len(left) == 1 else bounds.largest_of(left, rows[n].count, others)
            if cell is not None:
                verdicts[n] = Verdict(cell, verdicts[n].kind)
                known.add(cell)
                del open_rows[n]
                settled = True
    return verdicts


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


class _Known:
    """Cells that are certain, none in another."""

    def __init__(self, cells: Sequence[int]) -> None:
        self._cells = sorted(cells)

    def add(self, cell: int) -> None:
        bisect.insort(self._cells, cell)

    def meets(self, cell: int) -> bool:
        """Whether one of them lies in the cell, or the cell in one of them."""
        at = bisect.bisect_left(self._cells, cell)
        near = self._cells[max(0, at - 1) : at + 1]  # of two cells that meet, one holds the other
        return any(_holds(cell, other) or _holds(other, cell) for other in near)


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

    def largest_of(self, cells: Sequence[int], count: int, others: Sequence[int]) -> int | None:
        """The largest of cells that lie in each other, where none of the smaller can be in its place."""
        if not cells or self.most < 4 * self.least:  # else a cell might be cut into nothing but cells to drop
            return None
        levels = s2.levels(cells).tolist()
        dropped = 3 * (levels[-1] - levels[0]) * max(0, self.least - 1)
        if levels[0] < self.level_min or count + dropped > self.most or any(_holds(cells[0], leaf) for leaf in others):
            return None
        return cells[0]
