"""What every derivative owes the people in a picture and its reader: upright, right colours, not a word about where or who."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms, ImageOps

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import make_crops
from geoloc_dagster.dataset.exports.derivative import derivative
from geoloc_dagster.dataset.remarks import without_remarks
from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.imagery.quality import decode
from geoloc_dagster.prediction.photo import as_picture
from geoloc_dagster.prediction.picture import _thumbnail  # pyright: ignore[reportPrivateUsage]
from geoloc_dagster.viz.sheets import Tile, contact_sheet
from geoloc_dagster_tests.imagery.pictures import jpeg, street

SIDE = 64
SECRETS = (b"59.3293N", b"Anna Who", b"somebody's garden", b"my camera", b"Photoshop 3.0")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="59.3293N"/></rdf:RDF></x:xmpmeta>'
)
TURNS = {  # how to lay a picture down so that its EXIF orientation puts it upright again
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
KINDS = {"JPEG": {"quality": 95, "subsampling": 0, "comment": b"somebody's garden"}, "PNG": {}, "WEBP": {"lossless": True}}


def scene(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A picture that looks different in each of the eight ways to lie."""
    picture = street(7, width, height)
    picture.paste((255, 0, 0), (0, 0, width // 3, height // 4))
    picture.paste((0, 0, 255), (2 * width // 3, 0, width, height // 8))
    return picture


def telling(kind: str, orientation: int, picture: Image.Image | None = None, **options: Any) -> bytes:
    """A picture that lies as EXIF says, and says in EXIF, XMP and where else it can who took it and where."""
    picture = picture or scene()
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = "Anna Who"
    exif[0x0110] = "my camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (59.0, 19.0, 45.0), 3: "E", 4: (18.0, 4.0, 0.0), 29: "59.3293N"})
    stream = io.BytesIO()
    laid = picture if turn is None else picture.transpose(turn)
    extra: dict[str, Any] = {} if kind == "PNG" else {"xmp": XMP}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Author", "Anna Who")
        extra = {"pnginfo": info}
    laid.save(stream, kind, exif=exif, **KINDS[kind], **extra, **options)
    content = stream.getvalue()
    return _with_thumbnails(content) if kind == "JPEG" else content


def _with_thumbnails(content: bytes) -> bytes:
    """A JPEG with a thumbnail in its JFIF header, one in a JFXX segment, IPTC, and a preview behind its end."""
    small = bytes((9, 99, 199)) * 4
    end = 4 + int.from_bytes(content[4:6], "big")
    header = b"JFIF\0\1\1\0\0\1\0\1\2\2" + small
    segments = [(0xE0, header), (0xE0, b"JFXX\0\x10" + jpeg(3)), (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4Anna Who")]
    inserted = b"".join(bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return content[:2] + inserted + content[end:] + jpeg(4, comment=b"somebody's garden")


def silent(content: bytes) -> None:
    """No metadata that any reader finds, and none of the words in the bytes."""
    for secret in SECRETS:
        assert secret not in content, secret
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert not picture.getexif()
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression", "dpi",
                                     "icc_profile", "adobe", "adobe_transform"}  # fmt: skip
    assert content.count(b"\xff\xd8\xff") == 1, "a thumbnail or preview is left"
    assert bytes((9, 99, 199)) * 4 not in content


def pixels(content: bytes) -> np.ndarray:
    """As a reader sees it that knows neither EXIF nor colour profiles."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def away_db(left: np.ndarray, right: np.ndarray) -> float:
    assert left.shape == right.shape
    error = np.mean((left.astype(float) - right.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def crop(content: bytes, size: int) -> bytes:
    row = {
        "capture_id": "c", "batch": "100m-0000", "image": content, "sha256": hashlib.sha256(content).hexdigest(),
        "provider": "folder", "source": "s", "location_id": "l", "lat_deg": 1.0, "lng_deg": 2.0, "capture_precision": "day",
        "rotation": 0, "fetched_at": 0, "run_id": "r", "licence": "CC0-1.0", "attribution": "a", "status": "ok",
    }  # fmt: skip
    (made,) = make_crops(pa.Table.from_pylist([row], schema=CAPTURES), CropSettings(size=size, jpeg_quality=95)).to_pylist()
    assert made["flags"] == []
    assert made["sha256"] == hashlib.sha256(made["image"]).hexdigest()
    return made["image"]


DERIVATIVES: dict[str, Callable[[bytes], bytes]] = {
    "a crop that was one already": lambda content: crop(content, SIDE),
    "a crop": lambda content: crop(content, SIDE // 2),
    "an export": lambda content: derivative(content)[0],
    "the export of a crop": lambda content: derivative(crop(content, SIDE))[0],
    "the photo beside an answer": lambda content: _thumbnail(content) or b"",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", TURNS)
def test_the_test_pictures_say_what_they_should(kind: str, orientation: int):
    content = telling(kind, orientation)
    assert away_db(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))), np.asarray(scene())) > 30
    assert b"Anna Who" in content
    assert b"59.3293N" in content
    if kind == "JPEG":
        assert all(secret in content for secret in SECRETS)


@pytest.mark.parametrize("how", DERIVATIVES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", TURNS)
def test_every_derivative_is_upright_and_silent(orientation: int, kind: str, how: str):
    made = DERIVATIVES[how](telling(kind, orientation))
    silent(made)
    wanted = scene() if how != "a crop" else scene().resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)
    assert away_db(pixels(made), np.asarray(wanted)) > 24
    assert all(away_db(pixels(made), np.asarray(wanted.transpose(turn))) < 20 for turn in Image.Transpose)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", TURNS)
def test_an_encoder_reads_a_photo_upright_and_a_contact_sheet_shows_it_so(orientation: int, kind: str):
    content = telling(kind, orientation, scene(96, 48))
    square = scene(96, 48).crop((24, 0, 72, 48))
    assert away_db(as_picture(content, 48).transpose(1, 2, 0), np.asarray(square)) > 28
    sheet = contact_sheet([[Tile(content)]], title="one")
    silent(sheet)
    assert away_db(pixels(sheet), pixels(contact_sheet([[Tile(telling(kind, 1, scene(96, 48)))]], title="one"))) > 35


def test_a_jpeg_that_lies_upright_keeps_every_pixel_and_one_without_remarks_every_byte():
    content = telling("JPEG", 1)
    assert np.array_equal(pixels(derivative(content)[0]), pixels(content))
    assert np.array_equal(pixels(crop(content, SIDE)), pixels(content))
    for options in ({}, {"progressive": True}, {"subsampling": 2, "restart_marker_blocks": 3}):
        plain = jpeg(5, 96, **options)
        assert without_remarks(plain) == plain


def test_a_broken_picture_is_a_grey_tile_among_its_neighbours():
    sheet = contact_sheet([[Tile(jpeg(1)), Tile(jpeg(2)[:-200]), Tile(b"<html>")]], title="three")
    assert Image.open(io.BytesIO(sheet)).format == "JPEG"


# --- what colours mean ----------------------------------------------------------------------------------------------
def swapped_profile() -> bytes:
    """A colour profile under which the first channel is blue and the third is red: nobody overlooks that it is ignored."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = profile.index(b"rXYZ", 128), profile.index(b"bXYZ", 128)
    swapped = bytearray(profile)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(swapped).replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))


def in_profile(kind: str, orientation: int = 1) -> bytes:
    red, green, blue = scene().split()
    return telling(kind, orientation, Image.merge("RGB", (blue, green, red)), icc_profile=swapped_profile())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_pictures_in_other_colour_spaces_become_srgb_where_they_are_encoded_again(kind: str, orientation: int):
    content = in_profile(kind, orientation)
    assert away_db(pixels(content), np.asarray(scene())) < 20, "without its profile it would be wrong"
    for how in ("a crop that was one already", "the photo beside an answer"):
        made = DERIVATIVES[how](content)
        silent(made)
        assert "icc_profile" not in Image.open(io.BytesIO(made)).info
        assert away_db(pixels(made), np.asarray(scene())) > 24
    assert away_db(as_picture(content, SIDE).transpose(1, 2, 0), np.asarray(scene())) > 28


def test_an_export_that_is_not_encoded_again_keeps_its_profile_and_one_that_is_needs_none():
    kept, _ = derivative(in_profile("JPEG"))
    assert Image.open(io.BytesIO(kept)).info["icc_profile"] == swapped_profile()
    assert np.array_equal(pixels(kept), pixels(in_profile("JPEG")))
    turned, _ = derivative(in_profile("JPEG", 6))
    assert "icc_profile" not in Image.open(io.BytesIO(turned)).info
    assert away_db(pixels(turned), np.asarray(scene())) > 24


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("profile", [b"no profile at all", b"", LAB])
def test_a_profile_that_is_broken_or_of_another_kind_changes_nothing(profile: bytes):
    stream = io.BytesIO()
    scene().save(stream, "JPEG", quality=95, icc_profile=profile)
    assert away_db(np.asarray(decode(stream.getvalue())), pixels(stream.getvalue())) > 60


def test_four_colours_of_print_stay_what_they_are():
    stream = io.BytesIO()
    scene().convert("CMYK").save(stream, "JPEG", quality=95, comment=b"my camera")
    made, _ = derivative(stream.getvalue())
    silent(made)
    assert np.array_equal(pixels(made), pixels(stream.getvalue()))
