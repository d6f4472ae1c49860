"""Class maps of crops: compressed without loss, read in the order asked for, and never those of another crop."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geoloc_dagster.dataset.class_maps import (
    CLASSES,
    COLOURS,
    ClassMapReader,
    decode_map,
    encode_map,
    numbers_of,
    read_class_maps,
    resize_map,
)
from geoloc_dagster.dataset.schema import SEGMENTATION_MAPS
from geoloc_dagster.emulator.materials import CLASSES as CITY_CLASSES
from geoloc_dagster.emulator.planet_canvas import PixelClass
from geoloc_dagster.errors import ImageError, IntegrityError
from geoloc_dagster.tables import append_rows

ROAD, WATER, SIGN = CLASSES.index("road"), CLASSES.index("water"), CLASSES.index("sign")


def quarters(a: int, b: int, c: int, d: int, side: int = 32) -> np.ndarray:
    half = side // 2
    return np.kron(np.array([[a, b], [c, d]], np.uint8), np.ones((half, half), np.uint8))


def row(capture_id: str, classes: np.ndarray | None, sha256: str = "s", **columns: Any) -> dict[str, Any]:
    made = {"class_map": None if classes is None else encode_map(classes), "width": 32, "height": 32}
    return {"capture_id": capture_id, "batch": "100m-0000", "crop_sha256": sha256, "source": "emulator"} | made | columns


def table_of(folder: Path, *rows: dict[str, Any], schema: pa.Schema = SEGMENTATION_MAPS) -> Path:
    append_rows(folder / "maps.lance", pa.Table.from_pylist(list(rows), schema=schema))
    return folder / "maps.lance"


def test_a_map_is_kept_without_loss_small_and_shows_its_classes_in_colour():
    classes = np.random.default_rng(0).integers(0, len(CLASSES), (40, 70)).astype(np.uint8)
    assert np.array_equal(decode_map(encode_map(classes)), classes)
    plain = quarters(0, 1, 2, 8, 224)
    assert len(encode_map(plain)) < 1_000
    with Image.open(io.BytesIO(encode_map(plain))) as image:
        shown = np.asarray(image.convert("RGB"))
    assert [tuple(shown[y, x]) for y, x in ((0, 0), (0, 223), (223, 0), (223, 223))] == [COLOURS[n] for n in (0, 1, 2, 8)]


def test_a_number_that_is_no_class_is_not_written():
    with pytest.raises(ValueError, match="class 9 of 9"):
        encode_map(quarters(0, 1, 2, len(CLASSES)))


def test_every_class_has_a_colour_of_its_own():
    assert len(set(COLOURS)) == len(CLASSES)


def test_a_picture_that_is_no_map_is_refused():
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    for encoded in (stream.getvalue(), b"no picture", encode_map(quarters(0, 1, 2, 3, 224))[:80]):
        with pytest.raises(ImageError, match="class map"):
            decode_map(encoded)


def test_classes_of_other_lists_keep_their_names_and_unknown_ones_are_other():
    city = numbers_of(CITY_CLASSES)
    assert [CLASSES[city[number]] for number in range(len(CITY_CLASSES))] == list(CITY_CLASSES)
    planet = numbers_of([one.name for one in PixelClass])
    assert CLASSES[planet[PixelClass.WATER]] == "water"
    assert CLASSES[planet[PixelClass.SKY]] == "sky"
    assert CLASSES[planet[PixelClass.GROUND]] == CLASSES[planet[PixelClass.INTERIOR]] == CLASSES[planet[200]] == "other"


def test_resizing_mixes_no_classes():
    small = resize_map(quarters(ROAD, WATER, SIGN, 0, 224), 97)
    assert set(np.unique(small)) == {0, ROAD, WATER, SIGN}
    assert [small[0, 0], small[0, 96], small[96, 0], small[96, 96]] == [ROAD, WATER, SIGN, 0]


def test_maps_come_in_the_order_asked_for_at_the_size_asked_for(tmp_path: Path):
    table = table_of(tmp_path, *(row(f"c{number}", quarters(number, 0, 0, number)) for number in range(5)))
    maps = read_class_maps(table, ["c3", "c0", "c4", "c3"], 16, {"c3": "s", "c4": "s"})
    assert (maps.dtype, maps.shape) == (np.uint8, (4, 16, 16))
    assert maps[:, 0, 0].tolist() == [3, 0, 4, 3]
    assert read_class_maps(table, [], 16).shape == (0, 16, 16)


def test_maps_that_are_missing_are_counted_with_the_remedy(tmp_path: Path):
    with pytest.raises(IntegrityError, match=r"missing.*segmentation_maps"):
        read_class_maps(tmp_path / "none.lance", ["c0"], 16)
    table = table_of(tmp_path, row("c0", quarters(0, 1, 2, 3)), row("c1", None))
    with pytest.raises(IntegrityError, match=r"2 captures have no class map.*c1.*Materialise `segmentation_maps`"):
        read_class_maps(table, ["c0", "c1", "c2"], 16)


def test_a_map_of_another_crop_is_not_used(tmp_path: Path):
    table = table_of(tmp_path, row("c0", quarters(0, 1, 2, 3)), row("c1", quarters(0, 1, 2, 3), "old"))
    with pytest.raises(IntegrityError, match=r"1 class maps.*other crops.*c1.*segmentation_maps"):
        ClassMapReader(table).maps(["c0", "c1"], 16, {"c0": "s", "c1": "new"})


def test_damaged_maps_and_foreign_numbers_are_named(tmp_path: Path):
    stream = io.BytesIO()
    Image.fromarray(quarters(0, 1, 2, 200)).save(stream, "PNG")
    broken = row("c1", None, class_map=b"\x89PNG broken")
    table = table_of(tmp_path, row("c0", None, class_map=stream.getvalue()), broken)
    reader = ClassMapReader(table)
    with pytest.raises(IntegrityError, match=r"c0.*no class"):
        reader.maps(["c0"], 16)
    with pytest.raises(IntegrityError, match=r"c1.*not a readable class map"):
        reader.maps(["c1"], 16)


def test_a_table_of_other_classes_is_refused(tmp_path: Path):
    other = SEGMENTATION_MAPS.with_metadata({b"classes": b'["sky", "ground"]'})
    with pytest.raises(IntegrityError, match="other classes: sky, ground"):
        ClassMapReader(table_of(tmp_path, row("c0", quarters(0, 1, 1, 0)), schema=other))
