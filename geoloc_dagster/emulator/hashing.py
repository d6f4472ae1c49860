"""Chance that can be repeated: every random decision of the city is a pure function of integers, never of call order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_STEP = 0x9E37_79B9_7F4A_7C15
_A = 0xBF58_476D_1CE4_E5B9
_B = 0x94D0_49BB_1331_11EB


def scramble(value: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64-bit integers in which every input bit moves every output bit."""
    value = ((value ^ (value >> 30)) * _A) & _MASK
    value = ((value ^ (value >> 27)) * _B) & _MASK
    return value ^ (value >> 31)


def key_of(*parts: int) -> int:
    """A 64-bit key of integers; their order counts, negative ones are allowed."""
    key = 0
    for part in parts:
        key = scramble((key + _STEP + part) & _MASK)
    return key


def units(key: int, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """One float in [0, 1) per number: `Dice(key_of(key, n))`'s first draw in bulk, though not the same value."""
    values = numbers.astype(np.uint64) * np.uint64(_STEP) + np.uint64(key)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_A)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_B)
    values ^= values >> np.uint64(31)
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Dice:
    """A stream of draws that a key starts; the same key gives the same stream."""

    def __init__(self, *parts: int) -> None:
        self._state = key_of(*parts)

    def key(self) -> int:
        """The next 64-bit key, for a stream of its own."""
        self._state = (self._state + _STEP) & _MASK
        return scramble(self._state)

    def unit(self) -> float:
        """A float in [0, 1)."""
        return (self.key() >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options; the weights need not add up to one."""
        if weights is None:
            return options[int(self.unit() * len(options))]
        left = self.unit() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]
