"""Blurred before it is stored: unreadable where a box is, the same everywhere else, and off unless a file is named."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFilter

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.errors import ConfigError, ImageError
from geoloc_dagster.imagery.blur import Box, CaptureFacts, redact
from geoloc_dagster.imagery.boxes import BoxesFile, boxes_to_blur
from geoloc_dagster.imagery.collect import capture_id, collect_batch, collect_region_batch
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Panorama, View
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster.viz.sheets import _font  # pyright: ignore[reportPrivateUsage]
from geoloc_dagster_tests.dataset.exported import fill
from geoloc_dagster_tests.dataset.test_remarks import SECRETS, TURNS, away_db, pixels, scene, telling
from geoloc_dagster_tests.imagery.pictures import TERMS, encoded, files_of, jpeg, places, street, write_folder
from geoloc_dagster_tests.imagery.processes import NOW

LETTERS = "ABCDEFGHJKLMNPRSTUWXYZ0123456789"
PLATE = (60, 90, 160, 114)  # pixels of a 224 x 160 picture


def with_plate(text: str, kind: str = "PNG", seed: int = 1, **options: Any) -> bytes:
    picture = street(seed, 224, 160)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((PLATE[0], PLATE[1], PLATE[2] - 1, PLATE[3] - 1), fill="white", outline="black")
    draw.text((PLATE[0] + 6, PLATE[1] + 2), text, "black", _font(18, True))
    return encoded(picture, kind, **options)


def inside(content: bytes, box: tuple[int, int, int, int] = PLATE) -> np.ndarray:
    left, top, right, bottom = box
    return pixels(content)[top:bottom, left:right]


def outside(content: bytes, box: tuple[int, int, int, int] = PLATE, margin: int = 0) -> np.ndarray:
    """The picture with everything in and near the box set to nought."""
    left, top, right, bottom = box
    array = pixels(content).copy()
    array[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = 0
    return array


# --- what is left of a part -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_a_number_plate_cannot_be_read_back_by_blurring_every_candidate(kind: str):
    """The attacker knows everything but the text: background, typeface, method. Most plates look alike afterwards."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 92} if kind == "JPEG" else {}
    dice = random.Random(3)
    texts = ["".join(dice.choices(LETTERS, k=6)) for _ in range(120)]
    box = [Box(*PLATE, "pixels")]
    plates = {text: with_plate(text, kind, **options) for text in texts}
    assert len({hashlib.sha256(plate).digest() for plate in plates.values()}) == len(texts)
    blurred = {text: inside(redact(plate, box)).astype(np.int16) for text, plate in plates.items()}
    classes = Counter(blur.tobytes() for blur in blurred.values())  # equal blurs: the attacker can only guess among their texts
    right = sum(1 / classes[blur.tobytes()] for blur in blurred.values()) / len(texts)
    assert right < 0.10, len(classes)
    sharpened = Image.fromarray(blurred[texts[0]].astype(np.uint8)).filter(ImageFilter.UnsharpMask(6, 500, 0))
    assert np.ptp(np.asarray(sharpened.convert("L")).mean(axis=0)) < 120


def test_what_is_left_has_a_few_cells_of_a_few_colours():
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (160, 224, 3), np.uint8))
    left = inside(redact(encoded(noise, "PNG"), [Box(*PLATE, "pixels")]))
    spectrum = np.abs(np.fft.fft2(left.astype(float).mean(axis=2)))
    rows, columns = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in spectrum.shape)
    fine = (rows[:, None] > 4) | (columns[None, :] > 8)
    assert spectrum[fine].max() < 0.01 * spectrum[0, 0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_every_other_pixel_is_the_same_where_the_format_allows_it(kind: str, mode: str):
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encoded(Image.open(io.BytesIO(with_plate("ABC123"))).convert(mode), kind, **options)
    after = redact(content, [Box(*PLATE, "pixels")])
    assert Image.open(io.BytesIO(after)).format == kind
    assert np.array_equal(outside(after), outside(content))
    assert np.abs(inside(after).astype(int) - inside(content)).mean() > 20


def test_what_is_hidden_under_transparency_goes_too():
    picture = Image.open(io.BytesIO(with_plate("ABC123"))).convert("RGBA")
    picture.putalpha(0)
    after = Image.open(io.BytesIO(redact(encoded(picture, "PNG"), [Box(*PLATE, "pixels")])))
    assert np.ptp(np.asarray(after)[92:112, 62:158, :3].astype(int), axis=(0, 1)).max() < 140


@pytest.mark.parametrize("options", [{"quality": 60}, {"quality": 92}, {"quality": 85, "progressive": True, "subsampling": 2}])
def test_the_rest_of_a_jpeg_stays_what_it_was(options: dict[str, Any]):
    content = with_plate("ABC123", "JPEG", **options)
    after = redact(content, [Box(*PLATE, "pixels")])
    assert away_db(outside(after, margin=16), outside(content, margin=16)) > 45
    assert Image.open(io.BytesIO(after)).quantization == Image.open(io.BytesIO(content)).quantization
    assert len(after) < 1.2 * len(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_boxes_lie_where_a_person_sees_them_and_no_preview_shows_what_was_there(orientation: int, kind: str):
    red = Box(0, 0, 1 / 3, 1 / 4)  # the red corner of the scene, upper left for whoever looks at it
    after = redact(telling(kind, orientation), [red])
    assert after.count(b"\xff\xd8\xff") <= 1
    assert not any(secret in after for secret in SECRETS)
    assert not Image.open(io.BytesIO(after)).getexif()
    part, margin = (0, 0, 22, 16), 34 if kind == "JPEG" and orientation > 1 else 12
    flat = Image.new("RGB", (64, 64), (0, 0, 0))
    assert np.abs(inside(after, part).astype(int) - (255, 0, 0)).mean() < 40  # quantised, still reddish
    assert away_db(outside(after, part, margin), outside(encoded(scene(), "PNG"), part, margin)) > 28
    assert away_db(outside(after, part, margin), outside(encoded(flat, "PNG"), part, margin)) < 20


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "1"])
def test_odd_kinds_of_pictures_are_blurred_as_well(mode: str):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    content = encoded(Image.open(io.BytesIO(with_plate("ABC123"))).convert(mode), kind)
    after = redact(content, [Box(*PLATE, "pixels")])
    assert away_db(outside(after, margin=16), outside(content, margin=16)) > 35
    assert np.ptp(inside(after)[2:-2, 2:-2].astype(int), axis=(0, 1)).max() < 160


def test_a_box_that_is_partly_outside_is_cut_and_one_beside_the_picture_is_an_error():
    content = jpeg(1, 64)
    assert np.abs(inside(redact(content, [Box(0.5, 0.5, 1, 1)]), (40, 40, 64, 64)).astype(int)).size
    assert redact(content, [Box(50, 50, 900, 900, "pixels")]) != content
    with pytest.raises(ImageError, match="lies beside a picture of 64 x 64 pixels"):
        redact(content, [Box(64, 0, 90, 20, "pixels")])
    with pytest.raises(ImageError):
        redact(b"<html>", [Box(0, 0, 1, 1)])


# --- the file -------------------------------------------------------------------------------------------------------
ROWS = [
    {"capture_id": "c1", "left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.4, "label": "face"},
    {"capture_id": "c1", "left": 0.5, "top": 0.5, "right": 0.6, "bottom": 0.9, "label": "plate"},
    {"pano_id": "p1", "heading_deg": 360.0, "left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0, "label": "face"},
]


def write_boxes(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        words, numbers = ("capture_id", "pano_id", "label"), ("heading_deg", "left", "top", "right", "bottom")
        schema = pa.schema([(name, pa.string()) for name in words] + [(name, pa.float64()) for name in numbers])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_boxes_are_found_by_capture_or_by_panorama_and_heading(tmp_path: Path, ending: str):
    file = BoxesFile(write_boxes(tmp_path / f"boxes.{ending}", ROWS), "relative")
    assert file.boxes(b"", CaptureFacts("c1", None, None)) == [Box(0.1, 0.2, 0.3, 0.4), Box(0.5, 0.5, 0.6, 0.9)]
    assert file.boxes(b"", CaptureFacts("other", "p1", 0.02)) == [Box(0, 0, 1, 1)]
    assert list(file.boxes(b"", CaptureFacts("other", "p1", 90))) == []
    assert list(file.boxes(b"", CaptureFacts("other", "p1", None))) == []


GOOD = ROWS[0]
BAD = {
    "missing.json": (None, "No such file"),
    "odd.txt": ("x", r"\.txt is none of \.json, \.csv and \.parquet"),
    "broken.json": ('[{"capture_id": "c1"', "boxes to blur"),
    "object.json": ('{"boxes": []}', "holds no list of boxes"),
    "broken.parquet": ("PAR1 not really", "boxes to blur"),
    "no_name.json": ([{**GOOD, "capture_id": None}], "row 1: a row names its picture by capture_id"),
    "no_heading.json": ([GOOD, {**GOOD, "capture_id": None, "pano_id": "p"}], "row 2: a row names its picture"),
    "no_side.csv": ("capture_id,left,top,right\nc1,0,0,1\n", "row 1: bottom: Field required"),
    "empty_side.csv": ("capture_id,left,top,right,bottom\nc1,0,0,1,\n", "row 1: bottom: "),
    "inside_out.json": ([{**GOOD, "left": 0.5}], "row 1: left must be less than right"),
    "negative.json": ([{**GOOD, "left": -0.1}], "row 1: left: "),
    "pixels.json": ([{**GOOD, "right": 120}], "`capture.blur.unit` may have to be `pixels`"),
    "not_a_number.json": ('[{"capture_id": "c1", "left": NaN, "top": 0, "right": 1, "bottom": 1}]', "row 1: left: "),
    "words.json": (["face"], "row 1: "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_error_that_names_the_row(tmp_path: Path, name: str):
    content, said = BAD[name]
    if content is not None:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=said) as error:
        BoxesFile(tmp_path / name, "relative")
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


# --- when pictures are collected ------------------------------------------------------------------------------------
def name_of(rotation: int, n: int, provider: FolderProvider) -> str:
    async def all_dates() -> list[Panorama]:
        found = [answer async for answer in provider.find(places(1))]
        assert isinstance(found[0], Panorama)
        return await provider.history(found[0])

    panorama = next(one for one in asyncio.run(all_dates()) if one.variant == str(n))
    return capture_id("folder", panorama, View(None, rotation, 0.0, 90.0))


def gather(tmp_path: Path, boxes: Path | None, unit: str = "relative") -> tuple[list[dict[str, Any]], Any]:
    provider = FolderProvider([write_folder(tmp_path / "photos", files_of(1, size=64))], TERMS)
    table = tmp_path / "tables" / f"{'plain' if boxes is None else boxes.stem}.lance"
    result = asyncio.run(
        collect_batch(
            provider, places(1), "100m-0000", table, visits_path=table.with_name("v.lance"), run_id="r", now=NOW, commit_rows=5,
            redactor=None if boxes is None else BoxesFile(boxes, unit),  # type: ignore[arg-type]
        )
    )  # fmt: skip
    verify_table(table)
    dataset = open_table(table)
    assert dataset is not None
    return sorted(dataset.to_table().to_pylist(), key=lambda row: row["capture_id"]), result


def test_what_is_stored_is_blurred_and_its_checksum_is_of_what_is_stored(tmp_path: Path):
    plain, _ = gather(tmp_path, None)
    provider = FolderProvider([tmp_path / "photos"], TERMS)
    chosen = name_of(2, 1, provider)
    rows = [{"capture_id": chosen, "left": 0.25, "top": 0.25, "right": 0.5, "bottom": 0.5}]
    blurred, result = gather(tmp_path, write_boxes(tmp_path / "boxes.json", rows * 2))
    assert [row["redacted_boxes"] for row in plain] == [None] * 12
    assert Counter(row["redacted_boxes"] for row in blurred) == {0: 11, 2: 1}
    for before, after in zip(plain, blurred, strict=True):
        assert after["sha256"] == hashlib.sha256(after["image"]).hexdigest()
        if after["capture_id"] == chosen:
            assert (
                np.abs(inside(after["image"], (16, 16, 32, 32)).astype(int) - inside(before["image"], (16, 16, 32, 32))).max() > 9
            )
            assert before["image"][-400:-100] not in b"".join(
                path.read_bytes() for path in _files(tmp_path / "tables" / "boxes.lance")
            )
        else:
            assert after["image"] == before["image"]
    assert (result.pending, result.failures_by_kind) == (0, {})


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_whose_boxes_do_not_fit_is_not_stored_and_is_asked_for_again(tmp_path: Path):
    gather(tmp_path, None)
    chosen = name_of(0, 0, FolderProvider([tmp_path / "photos"], TERMS))
    rows = [{"capture_id": chosen, "left": 640, "top": 0, "right": 700, "bottom": 20}]
    stored, result = gather(tmp_path, write_boxes(tmp_path / "boxes.json", rows), "pixels")
    assert chosen not in {row["capture_id"] for row in stored}
    assert (len(stored), result.pending, result.failures_by_kind) == (11, 1, {"quality": 1})
    write_boxes(tmp_path / "boxes.json", [{**rows[0], "left": 10, "right": 30}])
    stored, result = gather(tmp_path, tmp_path / "boxes.json", "pixels")
    assert (len(stored), result.rows_new, result.pending) == (12, 1, 0)


def test_a_broken_picture_with_boxes_is_kept_without_its_bytes(tmp_path: Path):
    files = files_of(1, size=64)
    name = sorted(files)[0]
    write_folder(tmp_path / "photos", {**files, name: files[name][:-300]})
    provider = FolderProvider([tmp_path / "photos"], TERMS)
    every = [
        {"capture_id": name_of(r, n, provider), "left": 0, "top": 0, "right": 1, "bottom": 1} for r in range(4) for n in range(3)
    ]
    table = tmp_path / "t.lance"
    asyncio.run(
        collect_batch(
            provider, places(1), "100m-0000", table, visits_path=tmp_path / "v.lance", run_id="r", now=NOW, commit_rows=5,
            redactor=BoxesFile(write_boxes(tmp_path / "all.json", every), "relative"),
        )
    )  # fmt: skip
    dataset = open_table(table)
    assert dataset is not None
    failed = dataset.to_table(filter="status = 'failed'").to_pylist()
    assert [(row["failure"], row["image"], row["sha256"]) for row in failed] == [("undecodable", None, None)]
    assert dataset.count_rows(filter="redacted_boxes = 1") == 11


def test_a_region_without_the_option_has_no_redactor_and_with_a_bad_file_asks_nobody(tmp_path: Path):
    (tmp_path / "region.geojson").write_text("{}")
    config = tmp_path / "geoloc.yaml"
    text = "region: {name: x, boundary: region.geojson, start_point: [59, 18]}\ncapture: {provider: google, permission: yes it is"
    config.write_text(text + "}\n")
    assert boxes_to_blur(load_settings(config)) is None
    config.write_text(text + ", blur: {boxes: boxes.csv, unit: pixels}}\n")
    (tmp_path / "boxes.csv").write_text("capture_id,left,top,right,bottom\nc1,9,0,1,1\n")
    settings = load_settings(config)
    nobody: Any = object()  # whatever is asked of it raises AttributeError
    layout = Layout(tmp_path / "data")
    fill_locations(layout)
    with pytest.raises(ConfigError, match="row 1: left must be less than right"):
        asyncio.run(collect_region_batch(settings, layout, nobody, "100m-0000", run_id="r", now=NOW))
    assert not layout.panoramas.exists()


def fill_locations(layout: Layout) -> None:
    import geopandas as gpd
    import pandas as pd

    from geoloc_dagster.storage import write_geoparquet

    columns = {"location_id": ["0"], "batch": ["100m-0000"], "lat_deg": [59.0], "lng_deg": [18.0], "pano_id": [None]}
    frame = pd.DataFrame({**columns, "captured_on": [None], "series": ["100m"], "rank": [0]})
    write_geoparquet(layout.locations, gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy([18.0], [59.0]), crs="EPSG:4326"))


# --- tables of before -----------------------------------------------------------------------------------------------
def test_a_table_from_before_the_column_is_gone_on_with_and_an_older_writer_goes_on_with_one_that_has_it(tmp_path: Path):
    old = pa.schema([field for field in CAPTURES if field.name != "redacted_boxes"], metadata=CAPTURES.metadata)
    layout = Layout(tmp_path)
    fill(layout, 4)
    new = open_table(layout.panoramas)
    assert new is not None
    rows = new.to_table().to_pylist()
    table = tmp_path / "old.lance"
    append_rows(table, pa.Table.from_pylist(rows[:2], schema=old))
    append_rows(table, pa.Table.from_pylist([rows[2] | {"redacted_boxes": 3}], schema=CAPTURES))
    append_rows(table, pa.Table.from_pylist([rows[3]], schema=old))
    verify_table(table)
    dataset = open_table(table)
    assert dataset is not None
    assert dataset.schema.names == CAPTURES.names
    assert dataset.to_table(columns=["redacted_boxes"])["redacted_boxes"].to_pylist() == [None, None, 3, None]
    assert [row["image"] for row in dataset.to_table().to_pylist()] == [row["image"] for row in rows]
