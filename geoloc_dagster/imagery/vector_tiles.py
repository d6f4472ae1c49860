"""Reading points from vector tiles.

Contract: Mapbox Vector Tile Specification 2.1, https://github.com/mapbox/vector-tile-spec, in protocol buffers. The libraries
that read whole tiles bring a polygon clipper and one major version of protobuf with them; points need neither.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Value = str | float | int | bool
_LAYER, _NAME, _FEATURE, _KEY, _VALUE, _EXTENT = 3, 1, 2, 3, 4, 5
_TAGS, _KIND, _GEOMETRY = 2, 3, 4
_POINT = 1
_MOVE_TO = 1
_EXTENT_DEFAULT = 4096


@dataclass(frozen=True, slots=True)
class Point:
    """One point feature.

    Attributes:
        x: of its first position, in tiles: 0 is the tile's west edge, 1 its east edge; a buffer goes beyond.
        y: likewise, from north to south.
        properties: what is said of it.
    """

    x: float
    y: float
    properties: Mapping[str, Value]


def read_points(tile: bytes, layer: str) -> list[Point]:
    """The points of one layer; none where the tile has no such layer.

    Raises:
        ValueError: these bytes are no vector tile.
    """
    points: list[Point] = []
    for number, content in _fields(tile):
        if number == _LAYER and isinstance(content, bytes):
            points += _points(content, layer)
    return points


def _points(layer: bytes, wanted: str) -> Iterator[Point]:
    name, extent = "", _EXTENT_DEFAULT
    keys: list[str] = []
    values: list[Value | None] = []
    features: list[bytes] = []
    for number, content in _fields(layer):
        if isinstance(content, int):
            extent = content if number == _EXTENT else extent
        elif number == _NAME:
            name = content.decode()
        elif number == _FEATURE:
            features.append(content)
        elif number == _KEY:
            keys.append(content.decode())
        elif number == _VALUE:
            values.append(_value(content))
    if not extent:
        raise ValueError("a layer without extent")
    if name == wanted:
        yield from (point for feature in features if (point := _point(feature, keys, values, extent)) is not None)


def _point(feature: bytes, keys: list[str], values: list[Value | None], extent: int) -> Point | None:
    """None where it is no point."""
    tags: list[int] = []
    geometry: list[int] = []
    kind = 0
    for number, content in _fields(feature):
        if number == _KIND and isinstance(content, int):
            kind = content
        elif number in (_TAGS, _GEOMETRY):
            (tags if number == _TAGS else geometry).extend(_varints(content) if isinstance(content, bytes) else (content,))
    if kind != _POINT:
        return None
    if len(tags) % 2 or len(geometry) < 3 or geometry[0] & 7 != _MOVE_TO:
        raise ValueError("a point without a position, or a key without a value")
    try:
        said = {keys[key]: values[value] for key, value in zip(tags[::2], tags[1::2], strict=True)}
    except IndexError:
        raise ValueError("a feature names a key or value that its layer does not have") from None
    known = {key: value for key, value in said.items() if value is not None}
    return Point(_signed(geometry[1]) / extent, _signed(geometry[2]) / extent, known)


def _value(content: bytes) -> Value | None:
    """A property's value; None of a kind that the specification does not know."""
    value: Value | None = None
    for number, raw in _fields(content):
        if isinstance(raw, int):
            if number in (4, 5):
                value = raw - (1 << 64) if number == 4 and raw >> 63 else raw
            elif number in (6, 7):
                value = _signed(raw) if number == 6 else bool(raw)
        elif number == 1:
            value = raw.decode()
        elif (number, len(raw)) in ((2, 4), (3, 8)):
            (value,) = struct.unpack("<f" if number == 2 else "<d", raw)
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: their numbers and contents, integers for varints."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > end:
            raise ValueError("a field that goes on after the end")
        yield tag >> 3, data[at : at + length]
        at += length


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number that goes on after the end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _signed(value: int) -> int:
    """The number that zigzag coding wrote: 0, -1, 1, -2 and so on."""
    return (value >> 1) ^ -(value & 1)
