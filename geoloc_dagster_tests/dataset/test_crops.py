"""From captures to crops: what is stored, what is flagged, and that a batch is replaced whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import CropResult, crop_picture, make_crops, write_crops
from geoloc_dagster.dataset.schema import CAPTURES, CROPS
from geoloc_dagster.errors import DiskFullError, GateError, ImageError, IntegrityError
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.quality import phash64
from geoloc_dagster.tables import append_rows, open_table, table_version, verify_table
from geoloc_dagster_tests.imagery.disks import small_disk  # noqa: F401 (a fixture is used by its name)
from geoloc_dagster_tests.imagery.pictures import TERMS, bomb, encoded, files_of, jpeg, places, street, write_folder, write_tar
from geoloc_dagster_tests.imagery.processes import CROPS as SETTINGS
from geoloc_dagster_tests.imagery.processes import NOW, batch_key, collect_all, crop_all, instants, kill_after

SCREENSHOT_BOX = (591, 0, 1261, 670)


def capture(image: bytes | None, number: int = 0, **columns) -> dict:
    row = {
        "capture_id": f"c{number:04d}",
        "batch": "100m-0000",
        "image": image,
        "sha256": None if image is None else hashlib.sha256(image).hexdigest(),
        "provider": "folder",
        "source": "city",
        "location_id": "7",
        "lat_deg": 59.3,
        "lng_deg": 18.0,
        "capture_precision": "month",
        "rotation": number % 4,
        "fetched_at": NOW,
        "run_id": "one",
        "licence": "CC0-1.0",
        "attribution": "someone",
        "status": "ok",
    }
    return row | columns


def captures(*images: bytes | None) -> pa.Table:
    return pa.Table.from_pylist([capture(image, number) for number, image in enumerate(images)], schema=CAPTURES)


def crops_of(path: Path, batch: str | None = None) -> list[dict]:
    table = open_table(path)
    assert table is not None
    rows = table.to_table(filter=None if batch is None else f"batch = '{batch}'").to_pylist()
    return sorted(rows, key=lambda row: row["capture_id"])


def psnr(left: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((left.astype(float) - right.astype(float)) ** 2)))


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """Two batches of two places each, twelve pictures per place."""
    path = tmp_path / "tables" / "captures.lance"
    provider = FolderProvider([write_tar(tmp_path / "city.tar", files_of(4, size=80))], TERMS)
    for number in range(2):
        where = places(2, first=2 * number)
        asyncio.run(
            collect_batch(
                provider,
                where,
                batch_key(number),
                path,
                visits_path=path.with_name("visits.lance"),
                run_id="one",
                now=NOW,
                commit_rows=9,
            )
        )
    return path


def test_the_crop_is_the_centre_square_scaled():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    crop = crop_picture(wide, 50, None)
    assert crop.size == (50, 50)
    assert np.asarray(crop)[:, :, 2].min() == 255
    assert np.asarray(crop)[:, :, 0].max() == 0


def test_the_crop_is_the_box_scaled():
    picture = Image.new("RGB", (300, 200), "red")
    picture.paste("blue", (40, 20, 140, 120))
    crop = np.asarray(crop_picture(picture, 50, (40, 20, 140, 120)))
    assert crop[:, :, 2].min() == 255
    assert crop[:, :, 0].max() == 0, "nothing from beyond the box bleeds in"


@pytest.mark.parametrize("box", [(0, 0, 301, 100), (-1, 0, 50, 50), (50, 0, 50, 50), (60, 0, 50, 50)])
def test_a_box_that_reaches_out_of_the_picture_is_said(box: tuple[int, int, int, int]):
    with pytest.raises(ImageError, match="does not fit into a picture of 300 x 200") as error:
        crop_picture(Image.new("RGB", (300, 200)), 50, box)
    assert "crops.box" in str(error.value)


def test_finished_crops_are_stored_byte_for_byte():
    images = [encoded(street(n, 64, 64), quality=75 + n, subsampling=n % 3) for n in range(5)]
    crops = make_crops(captures(*images), CropSettings(size=64, box=SCREENSHOT_BOX))
    assert crops["image"].to_pylist() == images
    assert crops["sha256"].to_pylist() == crops["capture_sha256"].to_pylist()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_of_that_size_become_jpeg(kind: str):
    (crop,) = make_crops(captures(encoded(street(1, 64, 64), kind)), CropSettings(size=64)).to_pylist()
    assert Image.open(io.BytesIO(crop["image"])).format == "JPEG"


def test_a_finished_crop_that_lies_on_its_side_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 3
    lying = encoded(street(1, 64, 64), quality=95, exif=exif)
    (crop,) = make_crops(captures(lying), CropSettings(size=64)).to_pylist()
    assert crop["image"] != lying
    upright = np.asarray(Image.open(io.BytesIO(crop["image"])))
    assert psnr(upright, np.asarray(street(1, 64, 64).rotate(180))) > 30


def test_what_is_measured_is_what_is_stored():
    (crop,) = make_crops(captures(jpeg(3, 200)), CropSettings(size=64, jpeg_quality=60)).to_pylist()
    grey = np.asarray(Image.open(io.BytesIO(crop["image"])).convert("L"))
    assert crop["brightness"] == pytest.approx(grey.mean(), rel=1e-6)
    assert crop["contrast"] == pytest.approx(grey.std(), rel=1e-5)
    assert crop["phash"] == phash64(grey)
    assert crop["flags"] == []


def test_bad_pictures_are_rows_without_a_picture_and_their_neighbours_are_whole():
    good, black = jpeg(1, 64), encoded(Image.new("RGB", (64, 64)))
    truncated = jpeg(2, 64)[:-80]
    table = make_crops(captures(good, truncated, None, bomb(), b"<html>", black, good), CropSettings(size=64))
    assert table.schema == CROPS
    rows = {row["capture_id"]: row for row in table.to_pylist()}
    assert {name: row["flags"] for name, row in rows.items()} == {
        "c0000": [],
        "c0001": ["undecodable"],
        "c0003": ["undecodable"],
        "c0004": ["undecodable"],
        "c0005": ["black"],
        "c0006": [],
    }
    assert {rows["c0001"][name] for name in ("image", "sha256", "phash", "brightness", "contrast")} == {None}
    assert rows["c0006"]["image"] == good
    assert rows["c0006"]["phash"] == rows["c0000"]["phash"] is not None


def test_bytes_that_are_not_those_collected_are_refused_by_name():
    row = capture(jpeg(1, 64)) | {"image": jpeg(2, 64)}
    with pytest.raises(IntegrityError, match="c0000 has changed since it was collected"):
        make_crops(pa.Table.from_pylist([row], schema=CAPTURES), CropSettings(size=64))


def test_a_batch_is_cropped_counted_and_carries_place_date_and_licence(captured: Path, tmp_path: Path):
    progress: list[tuple[int, int]] = []
    crops = tmp_path / "crops.lance"
    result = write_crops(captured, crops, batch_key(0), SETTINGS, lambda done, total: progress.append((done, total)))
    assert result == CropResult(rows=24, decodable_share=1.0, flags={}, table_version=2, changed=True)
    assert progress[-1] == (24, 24)
    names = ["capture_id", "source", "location_id", "lat_deg", "lng_deg", "captured_on", "rotation", "licence", "attribution"]
    table = open_table(captured)
    assert table is not None
    collected = table.to_table(columns=names, filter="batch = '100m-0000'").sort_by("capture_id").to_pylist()
    assert [{name: row[name] for name in names} for row in crops_of(crops)] == collected


def test_batches_do_not_touch_each_other(captured: Path, tmp_path: Path):
    crops = tmp_path / "crops.lance"
    write_crops(captured, crops, batch_key(0), SETTINGS)
    first = crops_of(crops)
    write_crops(captured, crops, batch_key(1), SETTINGS)
    assert crops_of(crops, batch_key(0)) == first
    write_crops(captured, crops, batch_key(0), CropSettings(size=32))
    assert {Image.open(io.BytesIO(row["image"])).size for row in crops_of(crops, batch_key(0))} == {(32, 32)}
    assert {Image.open(io.BytesIO(row["image"])).size for row in crops_of(crops, batch_key(1))} == {(64, 64)}
    assert len(crops_of(crops)) == 48


def test_a_repeated_batch_is_not_made_again(captured: Path, tmp_path: Path):
    crops = tmp_path / "crops.lance"
    first = write_crops(captured, crops, batch_key(0), SETTINGS)
    again = write_crops(captured, crops, batch_key(0), SETTINGS, lambda *_: pytest.fail("crops were made again"))
    assert (again.changed, again.table_version, again.rows) == (False, first.table_version, first.rows)
    assert not write_crops(captured, crops, batch_key(0), CropSettings(size=64, min_decodable_share=0.5)).changed


@pytest.mark.parametrize("settings", [CropSettings(size=48), CropSettings(size=64, jpeg_quality=70)])
def test_other_settings_make_the_batch_again(captured: Path, tmp_path: Path, settings: CropSettings):
    crops = tmp_path / "crops.lance"
    before = write_crops(captured, crops, batch_key(0), SETTINGS)
    after = write_crops(captured, crops, batch_key(0), settings)
    assert after.changed
    assert after.table_version > before.table_version
    back = write_crops(captured, crops, batch_key(0), SETTINGS)
    assert back.changed, "the note about a batch is about its newest crops"


def test_new_captures_make_the_batch_again(captured: Path, tmp_path: Path):
    crops = tmp_path / "crops.lance"
    write_crops(captured, crops, batch_key(0), SETTINGS)
    append_rows(captured, captures(jpeg(99, 80)))
    result = write_crops(captured, crops, batch_key(0), SETTINGS)
    assert (result.changed, result.rows) == (True, 25)


@pytest.mark.parametrize("damage", [b"", b"{", json.dumps({"inputs": "x"}).encode(), None])
def test_a_lost_or_damaged_note_only_costs_the_work(captured: Path, tmp_path: Path, damage: bytes | None):
    crops = tmp_path / "crops.lance"
    write_crops(captured, crops, batch_key(0), SETTINGS)
    before = crops_of(crops)
    (note,) = (tmp_path / "crops.lance.receipts").iterdir()
    note.unlink() if damage is None else note.write_bytes(damage)
    assert write_crops(captured, crops, batch_key(0), SETTINGS).changed
    assert crops_of(crops) == before


def test_a_batch_without_pictures_is_no_error(captured: Path, tmp_path: Path):
    crops = tmp_path / "crops.lance"
    result = write_crops(captured, crops, batch_key(7), SETTINGS)
    assert (result.rows, result.decodable_share, result.flags) == (0, 1.0, {})
    assert not write_crops(captured, crops, batch_key(7), SETTINGS).changed
    assert crops_of(crops) == []


def test_missing_captures_are_said(tmp_path: Path):
    with pytest.raises(IntegrityError, match=r"captures.lance is missing.*captures of a batch first"):
        write_crops(tmp_path / "captures.lance", tmp_path / "crops.lance", batch_key(0), SETTINGS)


def test_a_batch_key_is_checked_before_it_becomes_part_of_a_path(captured: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="not a batch key"):
        write_crops(captured, tmp_path / "crops.lance", "../100m-0000", SETTINGS)


def test_too_many_undecodable_pictures_hold_a_batch_back_and_write_nothing(tmp_path: Path):
    files = files_of(1)
    for name in sorted(files)[:3]:
        files[name] = files[name][:-60]
    source = write_folder(tmp_path / "city", files)
    path, crops = tmp_path / "captures.lance", tmp_path / "crops.lance"
    asyncio.run(
        collect_batch(
            FolderProvider([source], TERMS),
            places(1),
            batch_key(0),
            path,
            visits_path=path.with_name("v.lance"),
            run_id="1",
            now=NOW,
            commit_rows=99,
        )
    )
    with pytest.raises(GateError, match=r"batch 100m-0000: 75.0% of 12 captures can be decoded .* is 99.0%"):
        write_crops(path, crops, batch_key(0), SETTINGS)
    assert open_table(crops) is None
    assert list((crops / "data").iterdir()) == []
    lenient = CropSettings(size=64, min_decodable_share=0.75)
    result = write_crops(path, crops, batch_key(0), lenient)
    assert (result.rows, result.flags, result.decodable_share) == (12, {"undecodable": 3}, 0.75)
    with pytest.raises(GateError):
        write_crops(path, crops, batch_key(0), SETTINGS)
    assert len(crops_of(crops)) == 12, "what was let in by the limit of then is not deleted"


def test_a_disk_that_fills_up_leaves_the_crops_of_before(captured: Path, tmp_path: Path, monkeypatch):
    crops = tmp_path / "crops.lance"
    write_crops(captured, crops, batch_key(0), SETTINGS)
    before, version = crops_of(crops), table_version(crops)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", full)
        with pytest.raises(DiskFullError, match="no space left while writing"):
            write_crops(captured, crops, batch_key(0), CropSettings(size=48))
    assert (crops_of(crops), table_version(crops)) == (before, version)
    assert write_crops(captured, crops, batch_key(0), CropSettings(size=48)).changed


def test_a_full_disk_is_said_and_the_crops_of_before_stay(captured: Path, small_disk):  # noqa: F811
    crops = small_disk("size=256k") / "crops.lance"
    write_crops(captured, crops, batch_key(0), SETTINGS)
    before, version = crops_of(crops), table_version(crops)
    with pytest.raises(DiskFullError, match="no space left while writing"):
        write_crops(captured, crops, batch_key(0), CropSettings(size=512, jpeg_quality=100))
    assert (crops_of(crops), table_version(crops)) == (before, version)
    verify_table(crops)
    small_disk("size=64m")
    assert write_crops(captured, crops, batch_key(0), CropSettings(size=512, jpeg_quality=100)).rows == 24
    verify_table(crops)


@pytest.mark.slow
def test_cropping_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path):
    source = write_tar(tmp_path / "city.tar", files_of(10, size=80))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    collect_all(source, whole, 5, 2)
    shutil.copytree(whole, killed)
    arguments = ["crop", "-", str(killed), "5", "2"]
    kills = [kill_after(arguments, killed / "crops.lance", *instant) for instant in instants(5, 3, most_commits=2)]
    assert sum(kills) >= 2, "too few processes were killed while they worked"
    crop_all(killed, 5)
    crop_all(whole, 5)
    rows = crops_of(killed / "crops.lance")
    assert len(rows) == 120 == len({row["capture_id"] for row in rows})
    assert rows == crops_of(whole / "crops.lance")
    verify_table(killed / "crops.lance")


def test_crops_of_real_screenshots_match_the_published_ones(shared_data: Path):
    folder = shared_data / "stockholm" / "screenshots"
    published = sorted(folder.glob("*.jpg"))
    assert len(published) == 3
    for path in published:
        with Image.open(path) as reference:
            wanted = np.asarray(reference.convert("RGB"))
            tables = reference.quantization  # type: ignore[attr-defined]
        with Image.open(path.with_suffix(".png")) as screenshot:
            crop = crop_picture(screenshot.convert("RGB"), 224, SCREENSHOT_BOX)
        # The published crops are JPEGs of quality 75: compared after the same compression, 40.2, 47.0 and 45.3 dB.
        stream = io.BytesIO()
        crop.save(stream, "JPEG", qtables=tables)
        assert psnr(np.asarray(Image.open(stream)), wanted) > 40
        shifted = crop_picture(Image.open(path.with_suffix(".png")).convert("RGB"), 224, (592, 0, 1262, 670))
        assert psnr(np.asarray(shifted), wanted) < psnr(np.asarray(crop), wanted) - 1, "a box one pixel off is seen"
