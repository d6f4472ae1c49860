"""A frame of codes and the tables that turn them into a picture and a class map."""

from __future__ import annotations

import functools
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator import sky
from geoloc_dagster.emulator.ground import GroundMap
from geoloc_dagster.emulator.hashing import units
from geoloc_dagster.emulator.lens import Camera
from geoloc_dagster.emulator.light import Light
from geoloc_dagster.emulator.materials import SKY, Codes, Colours

Integers = npt.NDArray[np.int64]
Short = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_local = threading.local()
_GRAIN = 1024


class Frame:
    """Codes in columns: entry `column * height + row` is a slot in the tables plus the code of a texture.

    The buffers are kept per thread and size: new ones would cost more than the drawing.
    """

    GROUND: Final = -1_000_000
    """A slot for what `fill_ground` will replace."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        # 32 bits: conversions from floats are four times as fast as to 64, and half as much memory is moved.
        self.codes: Short = np.empty(width * height, np.int32)
        self._rows = np.tile(np.arange(height, dtype=np.float32), width)
        self._texel = np.empty(width * height, np.float32)
        self._index = np.empty(width * height, np.int32)
        self._found: Codes = np.empty(width * height, np.uint8)
        self._colours: list[npt.NDArray[np.uint32]] = []
        self._classes: list[npt.NDArray[np.uint8]] = []
        self._used = 0

    @staticmethod
    def of(width: int, height: int) -> Frame:
        """An empty frame of this thread."""
        frames: dict[tuple[int, int], Frame] = _local.__dict__.setdefault("frames", {})
        if (width, height) not in frames:
            while len(frames) > 3:
                frames.pop(next(iter(frames)))
            frames[width, height] = Frame(width, height)
        frame = frames[width, height]
        frame._colours, frame._classes, frame._used = [], [], 0
        return frame

    def add(self, radiance: Colours, classes: npt.NDArray[np.uint8], light: Light) -> int:
        """Put radiances (..., 3) and their classes (...) into the tables; the slot of the first."""
        slot = self._used
        self._colours.append(light.develop(radiance).reshape(-1))
        self._classes.append(classes.reshape(-1))
        self._used += self._classes[-1].size
        return slot

    def add_sky(self, light: Light) -> int:
        """The slot of the sky's codes."""
        return self.add(sky.paint_sky(light), np.full(sky.SKY_CODES, SKY, np.uint8), light)

    def fill(self, pool: Codes, length: Integers, start: Floats, step: Floats, base: Integers, slot: Integers) -> None:
        """Fill the whole frame by runs: texels `start + row * step` of the texture columns that begin at `base`."""
        texel, index = self._texel, self._index
        np.multiply(np.repeat(step, length), self._rows, out=texel)
        np.add(texel, np.repeat(start, length), out=texel)
        np.copyto(index, texel, casting="unsafe")
        np.add(index, np.repeat(base.astype(np.int32), length), out=index)
        # The indices are right by construction; without a mode `take` would copy its output to check them.
        np.take(pool, index, out=self._found, mode="wrap")
        np.add(np.repeat(slot.astype(np.int32), length), self._found, out=self.codes)

    def fill_ground(
        self,
        ground: GroundMap,
        camera: Camera,
        directions: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        depth: npt.NDArray[np.float64],
        slots: Integers,
        first: int,
    ) -> None:
        """Fill the ground of some rows from a map, wherever `fill` left it open."""
        if not len(depth):
            return
        scale, last = ground.cells_per_m, np.float32(ground.size - 1)
        cells: list[Short] = []
        beyond = float(depth.max()) * float(np.hypot(*directions).max()) > ground.reach_m
        for origin, low, direction in zip((camera.x_m, camera.y_m), ground.low_m, directions, strict=True):
            at = np.multiply.outer((direction * scale).astype(np.float32), depth.astype(np.float32))
            at += np.float32((origin - low) * scale)
            cells.append((np.clip(at, 0, last, out=at) if beyond else at).astype(np.int32))
        index = cells[0]
        index *= np.int32(ground.size)
        index += cells[1]
        codes = np.take(ground.codes, index, mode="wrap") + slots.astype(np.int32)
        part = self.codes.reshape(self.width, self.height)[:, first : first + len(depth)]
        np.copyto(part, codes, where=part < 0)

    def paint(self, place: Integers, codes: Codes, slot: Integers) -> None:
        """Put sprites' codes at entries of the frame, later ones over earlier ones; code 0 is transparent."""
        solid = np.flatnonzero(codes)
        self.codes[place[solid]] = (slot[solid] + codes[solid]).astype(np.int32)

    def table(self) -> npt.NDArray[np.uint32]:
        """Colour by slot, with the class in the highest byte."""
        return np.concatenate(self._colours) | np.concatenate(self._classes).astype(np.uint32) << np.uint32(24)


def finish(frame: Frame, grain: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The picture, a little soft and grainy as a camera's, and the class map, which is neither."""
    width, height = frame.width, frame.height
    packed = _transposed(np.take(frame.table(), frame.codes, mode="wrap").reshape(width, height))
    parts = packed.view(np.uint8).reshape(height, width, 4)
    classes = parts[..., 3].copy()
    _soften(packed)
    shift = (
        min(grain % (_GRAIN - 640), _GRAIN - height),
        min(grain // _GRAIN % (_GRAIN - 640), _GRAIN - width),
    )
    packed += _grain()[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
    rgb = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        rgb[..., channel] = parts[..., channel]
    return rgb, classes


def _transposed(columns: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A transposed copy, by strips: four times as fast as all at once, which misses the cache at every step."""
    rows = np.empty(columns.shape[::-1], np.uint32)
    for first in range(0, len(columns), 64):
        rows[:, first : first + 64] = columns[first : first + 64].T
    return rows


def _soften(packed: npt.NDArray[np.uint32]) -> None:
    """Average each pixel with its neighbour to the right and below: four bytes at a time, halves are dropped."""
    mask = np.uint32(0x7F7F7F7F)
    half = (packed >> np.uint32(1)) & mask
    packed[:, :-1] = half[:, :-1] + half[:, 1:]
    half = (packed >> np.uint32(1)) & mask
    packed[:-1] = half[:-1] + half[1:]


@functools.lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.uint32]:
    noise = (units(5, np.arange(_GRAIN * _GRAIN)) + units(6, np.arange(_GRAIN * _GRAIN))) * 4.4
    return (noise.astype(np.uint32) * np.uint32(0x010101)).reshape(_GRAIN, _GRAIN)


def grain_key(key: int, heading_deg: float) -> int:
    """Where in the grain a picture starts."""
    return (key ^ round(heading_deg * 64)) & 0x3FFFFFFF
