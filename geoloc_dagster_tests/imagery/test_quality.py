"""Decoding within limits, what is wrong with a picture, and its perceptual hash."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from geoloc_dagster.errors import ImageError
from geoloc_dagster.imagery.archive import list_source, read_member
from geoloc_dagster.imagery.quality import decode, phash64, phash64_many, picture_flags, thumbnail
from geoloc_dagster_tests.imagery.pictures import bomb, encoded, jpeg, street


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))


def bits_apart(left: int, right: int) -> int:
    return (left ^ right).bit_count()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_decoded_to_rgb(kind: str):
    decoded = decode(encoded(street(1, 40, 30), kind))
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode: str):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encoded(street(1).convert(mode), kind)).mode == "RGB"


def test_a_picture_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    content = encoded(street(1, 40, 20), exif=exif)
    assert decode(content).size == (20, 40)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_picture_is_refused_not_shown_half_grey(share: float):
    content = jpeg(1, 128)
    with pytest.raises(ImageError):
        decode(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff", b"<html></html>", b"GIF89a" + bytes(50), b"\x80\x04K\x01.", b"%PDF-1.7"]
)
def test_what_is_no_picture_is_refused(content: bytes):
    with pytest.raises(ImageError):
        decode(content)


def test_a_changed_byte_gives_a_picture_or_an_image_error_and_nothing_else():
    rng = np.random.default_rng(0)
    outcomes = {"picture": 0, "refused": 0}
    for kind in ("JPEG", "PNG", "WEBP"):
        whole = bytearray(encoded(street(2, 64, 64), kind))
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
            try:
                assert decode(bytes(damaged)).mode == "RGB"
                outcomes["picture"] += 1
            except ImageError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (8_000, 7_000), (60_000, 1_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int):
    content = bomb(width, height)
    assert len(content) < 60_000
    tracemalloc.start()
    with pytest.raises(ImageError, match="pixels"):
        decode(content)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_the_pixel_limit_is_the_callers():
    content = jpeg(1, 100)
    assert decode(content, max_pixels=10_000).size == (100, 100)
    with pytest.raises(ImageError, match="100 x 100 pixels, more than 9,999"):
        decode(content, max_pixels=9_999)


def night(lamp: int) -> np.ndarray:
    """A tunnel: grey levels of 36 to 50, a few lamps."""
    rng = np.random.default_rng(lamp)
    picture = Image.fromarray(np.repeat(rng.integers(36, 51, (28, 28, 1), dtype=np.uint8), 3, axis=2)).resize((224, 224))
    ImageDraw.Draw(picture).line([(20 + lamp, 40), (80 + lamp, 60)], fill=(250, 240, 200), width=3)
    return np.asarray(picture)


def test_black_and_uniform_frames_are_flagged_and_dark_ones_are_not():
    black = np.zeros((224, 224, 3), np.uint8)
    assert picture_flags(black) == ["black"]
    notice = Image.fromarray(black)
    ImageDraw.Draw(notice).text((60, 100), "Sorry, we have no imagery here.", fill=(255, 255, 255))
    assert picture_flags(np.asarray(notice)) == ["black"]
    compressed = decode(encoded(Image.fromarray(black + 2), quality=30))
    assert picture_flags(np.asarray(compressed)) == ["black"]
    blank = Image.new("RGB", (224, 224), (228, 227, 223))
    ImageDraw.Draw(blank).text((60, 100), "Sorry, we have no imagery here.", fill=(80, 80, 80))
    assert picture_flags(np.asarray(decode(encoded(blank)))) == ["uniform"]
    assert [picture_flags(night(lamp)) for lamp in range(5)] == [[]] * 5
    assert [picture_flags(np.asarray(street(seed, 224, 224))) for seed in range(20)] == [[]] * 20


def test_the_hash_survives_compression_and_scaling_and_tells_streets_apart():
    hashes = [phash64(grey(street(seed, 224, 224))) for seed in range(60)]
    again = [decode(encoded(street(seed, 224, 224).resize((202, 202)), quality=60)) for seed in range(60)]
    assert max(bits_apart(phash64(grey(image)), before) for image, before in zip(again, hashes, strict=True)) <= 6
    different = [bits_apart(left, right) for i, left in enumerate(hashes) for right in hashes[:i]]
    assert min(different) > 10
    assert 30 < np.mean(different) < 34


def test_many_hashes_at_once_are_those_of_each():
    greys = [grey(street(seed, 100, 80)) for seed in range(17)]
    together = phash64_many(np.stack([thumbnail(picture) for picture in greys]))
    assert together.dtype == np.uint64
    assert together.tolist() == [phash64(picture) for picture in greys]
    assert phash64_many(np.zeros((0, 32, 32), np.uint8)).shape == (0,)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_a_flat_picture_hashes_to_zero_not_to_rounding_noise(level: int):
    assert phash64(np.full((224, 224), level, np.uint8)) == 0


def test_brightness_does_not_change_the_hash():
    picture = grey(street(5, 224, 224)) // 2
    assert bits_apart(phash64(picture), phash64(picture + 60)) == 0


@pytest.mark.slow
def test_exactly_the_black_frames_of_the_real_collection_are_flagged(shared_data: Path):
    flagged: dict[str, set[str]] = {}
    for archive in sorted((shared_data / "stockholm" / "images").glob("*.tar")):
        for member in list_source(archive).members:
            rgb = np.asarray(decode(read_member(member, 1 << 20)))
            for flag in picture_flags(rgb):
                flagged.setdefault(flag, set()).add(Path(member.name).name.split("_")[0])
    # Seen on a contact sheet: six black frames; the next darkest pictures are tunnels that show lamps and lanes.
    assert flagged == {"black": {"423", "432", "1113", "1225", "1254", "5103"}}
