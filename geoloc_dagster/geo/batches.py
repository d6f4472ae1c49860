"""Partition keys: a batch is a fixed group of locations of one series, the unit of collection and of backfill."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

_KEY = re.compile(r"(?P<series>[a-z0-9]{1,24})-(?P<number>\d{4,6})")


@dataclass(frozen=True, order=True, slots=True)
class BatchKey:
    """`{series}-{nnnn}`, e.g. `100m-0003`: the fourth batch of the 100 m buffer.

    The series is `100m`, `75m`, … for buffers, `usa2deg` for grid-cell sampling, `photos` for photo lists.
    """

    series: str
    number: int

    def __post_init__(self) -> None:
        if _KEY.fullmatch(str(self)) is None:
            raise ValueError(f"not a batch key: series {self.series!r}, number {self.number}; expected e.g. '100m-0003'")

    def __str__(self) -> str:
        return f"{self.series}-{self.number:04d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key back from its text; raises ValueError for anything that `str` would not have written."""
        match = _KEY.fullmatch(text)
        key = None if match is None else cls(match["series"], int(match["number"]))
        if key is None or str(key) != text:
            raise ValueError(f"not a batch key: {text!r}; expected e.g. '100m-0003'")
        return key


def buffer_series(spacing_m: int) -> str:
    """The series of a buffer, `100m` for 100."""
    return f"{spacing_m}m"


def chunk(
    location_ids: Sequence[str], series: str, batch_size: int, *, first_number: int = 0
) -> Iterator[tuple[BatchKey, list[str]]]:
    """Cut ranked location ids into batches of at most `batch_size`, numbered on from `first_number`."""
    for offset in range(0, len(location_ids), batch_size):
        yield BatchKey(series, first_number + offset // batch_size), list(location_ids[offset : offset + batch_size])


def select_series(keys: Iterable[str], series: str) -> list[str]:
    """The keys of one series, in order; what a backfill of that buffer passes."""
    return [str(key) for key in sorted(BatchKey.parse(text) for text in keys) if key.series == series]
