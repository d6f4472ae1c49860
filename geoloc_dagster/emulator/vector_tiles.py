"""Writing vector tiles: points and lines with properties.

Contract: Mapbox Vector Tile Specification 2.1, https://github.com/mapbox/vector-tile-spec.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EXTENT = 4096
_POINT, _LINE = 1, 2
_MOVE_TO, _LINE_TO = 1, 2
Value = str | float | int | bool


@dataclass(frozen=True, slots=True)
class Feature:
    """A point (one position) or a line (several), in tiles from the north-west corner, and what is said of it."""

    positions: Sequence[tuple[float, float]]
    properties: Mapping[str, Value]


def write_tile(layers: Mapping[str, Iterable[Feature]]) -> bytes:
    """One tile of named layers."""
    return b"".join(_part(3, _layer(name, features)) for name, features in layers.items())


def _layer(name: str, features: Iterable[Feature]) -> bytes:
    keys: dict[str, int] = {}
    values: dict[tuple[type, Value], int] = {}
    body: list[bytes] = []
    for feature in features:
        tags = [
            number
            for key, value in feature.properties.items()
            for number in (keys.setdefault(key, len(keys)), values.setdefault((type(value), value), len(values)))
        ]
        line = len(feature.positions) > 1
        kind = b"\x18" + _varint(_LINE if line else _POINT)
        body.append(_part(2, _part(2, _packed(tags)) + kind + _part(4, _packed(_geometry(feature.positions)))))
    body += [_part(3, key.encode()) for key in keys]
    body += [_part(4, _value(value)) for _, value in values]
    return b"\x78\x02" + _part(1, name.encode()) + b"".join(body) + b"\x28" + _varint(EXTENT)


def _geometry(positions: Sequence[tuple[float, float]]) -> list[int]:
    """Commands and steps from position to position."""
    numbers = [_MOVE_TO | 1 << 3]
    x = y = 0
    for index, position in enumerate(positions):
        if index == 1:
            numbers.append(_LINE_TO | (len(positions) - 1) << 3)
        column, row = (round(part * EXTENT) for part in position)
        numbers += [_zigzag(column - x), _zigzag(row - y)]
        x, y = column, row
    return numbers


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"\x38\x01" if value else b"\x38\x00"
    if isinstance(value, int):
        return b"\x20" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x19" + struct.pack("<d", value)
    return _part(1, value.encode())


def _part(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _packed(numbers: Iterable[int]) -> bytes:
    return b"".join(map(_varint, numbers))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1
