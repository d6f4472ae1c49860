"""Vector tiles: what is written is read, protobuf's own reader and writer agree with ours, and noise is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.emulator.vector_tiles import EXTENT, Feature, write_tile
from geoloc_dagster.geo.mercator import tile_degrees, tile_position
from geoloc_dagster.imagery.vector_tiles import read_points
from geoloc_dagster_tests.imagery.tile_message import TILE

EMPTY_TILE = bytes.fromhex("1a1678010a0f6d6170696c6c6172792d656d707479288020")


VALUES = st.one_of(
    st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.text(st.characters(codec="utf-8"))
)
PARTS = st.integers(-EXTENT, 2 * EXTENT).map(lambda value: value / EXTENT)
POINTS = st.lists(st.tuples(st.tuples(PARTS, PARTS), st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_what_is_written_is_read(points: list[Any]):
    line = Feature([(0.0, 0.0), (1.0, 0.5)], {"id": 1})
    tile = write_tile({"sequence": [line], "image": [Feature([where], said) for where, said in points]})
    read = read_points(tile, "image")
    assert [((point.x, point.y), dict(point.properties)) for point in read] == points
    kinds = [[type(value) for value in point.properties.values()] for point in read]
    assert kinds == [[type(value) for value in said.values()] for _, said in points]
    assert read_points(tile, "sequence") == []  # a line is no point
    assert read_points(tile, "overview") == []


@settings(max_examples=50, deadline=None)
@given(POINTS)
def test_the_protobuf_library_reads_what_we_write(points: list[Any]):
    (layer,) = TILE.FromString(write_tile({"image": [Feature([where], said) for where, said in points]})).layers
    assert (layer.name, layer.version, layer.extent, len(layer.features)) == ("image", 2, EXTENT, len(points))
    for feature, (_, said) in zip(layer.features, points, strict=True):
        names = [layer.keys[number] for number in feature.tags[::2]]
        values = [getattr(value, value.ListFields()[0][0].name) for value in (layer.values[n] for n in feature.tags[1::2])]
        assert dict(zip(names, values, strict=True)) == said


def test_we_read_what_the_protobuf_library_writes_in_every_kind_of_value():
    tile = TILE()
    layer = tile.layers.add(name="image", version=2, extent=512, keys=["a", "b", "c", "d", "e", "f", "g", "nothing"])
    for name, value in {
        "string_value": "Zürich", "float_value": 0.5, "double_value": 1e-9, "int_value": -5, "uint_value": (1 << 64) - 1,
        "sint_value": -3, "bool_value": True,
    }.items():  # fmt: skip
        setattr(layer.values.add(), name, value)
    layer.values.add()  # of no kind
    layer.features.add(id=9, type=1, tags=[n for i in range(8) for n in (i, i)], geometry=[9, 512, 1023])
    layer.features.add(type=3, geometry=[9, 0, 0])
    (point,) = read_points(tile.SerializeToString(), "image")
    assert (point.x, point.y) == (256 / 512, -512 / 512)
    expected = {"a": "Zürich", "b": 0.5, "c": 1e-9, "d": -5, "e": (1 << 64) - 1, "f": -3, "g": True}
    assert point.properties == expected


def test_the_tile_that_says_that_there_is_nothing():
    assert len(EMPTY_TILE) == 24
    assert read_points(EMPTY_TILE, "image") == []
    assert read_points(b"", "image") == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_a_value_error_or_no_points_and_nothing_else(noise: bytes):
    with contextlib.suppress(ValueError):
        assert all(isinstance(point.properties, dict) for point in read_points(noise, "image"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_tile_that_was_cut_or_changed_is_refused_or_still_readable(data: st.DataObject):
    tile = bytearray(write_tile({"image": [Feature([(0.25, 0.75)], {"id": 7, "is_pano": True, "sequence_id": "s"})] * 5}))
    at = data.draw(st.integers(0, len(tile) - 1))
    tile[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        assert len(read_points(bytes(tile[: data.draw(st.integers(0, len(tile)))]), "image")) <= 5


@pytest.mark.parametrize("noise", [b'{"status": "OK", "pano_id": ', b"<html></html>", b"\xff" * 40, b"\x1a\x05abc"])
def test_what_is_no_tile_is_refused(noise: bytes):
    with pytest.raises(ValueError, match=r"\w"):
        read_points(noise, "image")


@given(st.floats(-85, 85), st.floats(-180, 179.999999), st.integers(0, 20))
def test_positions_go_into_tiles_and_back(lat_deg: float, lng_deg: float, zoom: int):
    column, row = tile_position(lat_deg, lng_deg, zoom)
    assert 0 <= column < 2**zoom
    assert 0 <= row < 2**zoom
    lat, lng = tile_degrees(np.array([column]), np.array([row]), zoom)
    assert (float(lat[0]), float(lng[0])) == pytest.approx((lat_deg, lng_deg), abs=1e-9)


def test_a_tile_of_the_documentation():
    assert tuple(map(int, tile_position(51.5074, -0.1278, 14))) == (8186, 5448)  # London
