"""One array for all textures, so that a picture needs a single look-up; textures are drawn when they are first seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.materials import Codes


class ArenaFullError(Exception):
    """There is no room for one more texture; start another arena."""


class Arena:
    """Textures one after another, never moved or removed: whoever holds the arena may read without a lock.

    Its first byte is 0 and of no texture: what has one colour alone, such as the skyline, points there.

    Args:
        size: bytes.
    """

    def __init__(self, size: int = 96 << 20) -> None:
        self.codes: Codes = np.zeros(size, np.uint8)  # pages are taken when they are written
        self._used = 1
        self._known: dict[Hashable, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def find(self, key: Hashable, draw: Callable[[], npt.NDArray[np.uint8]]) -> tuple[int, int, int]:
        """Where a texture starts, its columns, and its rows; drawn at the first call.

        Raises:
            ArenaFullError: it does not fit any more.
        """
        known = self._known.get(key)
        if known is not None:
            return known
        codes = draw()
        with self._lock:
            if self._used + codes.size > len(self.codes):
                raise ArenaFullError
            start = self._used
            self._used += codes.size
            self.codes[start : start + codes.size] = codes.reshape(-1)
            self._known[key] = start, codes.shape[0], codes.shape[1]
        return start, codes.shape[0], codes.shape[1]
