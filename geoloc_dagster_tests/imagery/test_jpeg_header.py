"""The size of a JPEG without opening it is the size that opening it gives, or none at all."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoloc_dagster.imagery.jpeg_header import jpeg_size


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height), 128).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(40_000)}, {"comment": b"\xff\xd9"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_jpeg_has_the_size_that_it_opens_with(mode: str, options: dict[str, Any]):
    assert jpeg_size(jpeg(321, 47, mode, **options)) == (321, 47)


def test_what_is_not_plain_is_left_to_a_decoder():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    for content in (b"", b"\xff\xd8", jpeg(8, 8, "CMYK"), stream.getvalue(), png.getvalue(), b"\xff\xd8\xff\xd9" * 8):
        assert jpeg_size(content) is None


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    damage=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 900),
)
def test_a_damaged_header_gives_no_other_size_than_a_decoder_reads(
    size: tuple[int, int], damage: list[tuple[int, int]], cut: int
):
    content = bytearray(jpeg(*size))
    for at, value in damage:
        if at < len(content):
            content[at] = value
    whole = bytes(content[: len(content) - cut])
    found = jpeg_size(whole)
    try:
        opened = Image.open(io.BytesIO(whole), formats=["JPEG"]).size
    except (OSError, SyntaxError, ValueError, IndexError, TypeError, KeyError):
        return  # a table of the header is broken, which decoding finds
    assert found in (None, opened)
