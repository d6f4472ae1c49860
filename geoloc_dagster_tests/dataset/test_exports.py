"""Exports: every format read back by its own reader, killed and gone on with, and refused where licences do not mix."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.dataset.exports.derivative import derivative
from geoloc_dagster.dataset.exports.formats import FORMATS
from geoloc_dagster.dataset.exports.licences import combined_licence
from geoloc_dagster.dataset.exports.run import export
from geoloc_dagster.dataset.exports.selection import Selection
from geoloc_dagster.errors import DiskFullError, ExportError, ImageError, IntegrityError
from geoloc_dagster_tests.dataset.exported import GPS, READERS, fill, with_exif
from geoloc_dagster_tests.imagery.disks import small_disk  # noqa: F401
from geoloc_dagster_tests.imagery.pictures import jpeg, street


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("exports"))
    fill(layout, 50)
    return layout


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


# --- formats --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_back_whole_by_its_own_reader(layout: Layout, tmp_path: Path, name: str):
    result = export(layout, "town", name, tmp_path / name, Selection(), shard_rows=17)
    assert (result.rows, result.shards, result.licence) == (50, 3, "CC-BY-SA-4.0")
    found = READERS[name](tmp_path / name)
    assert len(found) == 50
    for number in range(50):
        image, lat_deg = found[hashlib.sha256(str(number).encode()).hexdigest()[:32]]
        assert lat_deg == pytest.approx(59.3 + number * 1e-4, abs=1e-6)
        original = with_exif(number) if number % 3 == 0 else jpeg(number)
        with Image.open(io.BytesIO(image)) as left, Image.open(io.BytesIO(original)) as was:
            assert np.array_equal(np.asarray(left), np.asarray(was))
            assert not left.getexif()


def test_whom_to_name_is_said_for_every_picture(layout: Layout, tmp_path: Path):
    export(layout, "town", "webdataset", tmp_path / "out", Selection())
    with (tmp_path / "out" / "ATTRIBUTION.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 50
    assert {row["attribution"] for row in rows} == {"Photos by @ann\tand others"}
    assert all(row["licence"] == "CC-BY-SA-4.0" and row["source_url"].startswith("https://") for row in rows)


def test_a_stac_catalogue_and_a_croissant_description_are_valid(layout: Layout, tmp_path: Path):
    import mlcroissant
    import pystac

    export(layout, "town", "stac", tmp_path / "stac", Selection())
    collection = pystac.Collection.from_file(str(tmp_path / "stac" / "collection.json"))
    assert collection.license == "CC-BY-SA-4.0"
    undated = [item for item in collection.get_items() if item.datetime is None]
    assert len(undated) == 8
    assert all("start_datetime" in item.properties for item in undated)
    export(layout, "town", "croissant", tmp_path / "croissant", Selection())
    described = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant" / "croissant.json"))
    assert not described.metadata.issues.errors
    assert described.metadata.license == ["CC-BY-SA-4.0"]


def test_crops_are_exported_with_what_their_captures_say(tmp_path: Path):
    layout = Layout(tmp_path / "data")
    fill(layout, 12)
    for batch in ("100m-0000", "75m-0000"):
        write_crops(layout.panoramas, layout.crops, batch, CropSettings(size=16, min_decodable_share=0))
    export(layout, "town", "parquet", tmp_path / "out", Selection(what="crops"))
    found = READERS["parquet"](tmp_path / "out")
    assert len(found) == 12
    assert {Image.open(io.BytesIO(image)).size for image, _ in found.values()} == {(16, 16)}
    with (tmp_path / "out" / "ATTRIBUTION.tsv").open(newline="", encoding="utf-8") as stream:
        assert {row["creator"] for row in csv.DictReader(stream, delimiter="\t")} == {"ann"}


# --- killed, and gone on with ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["webdataset", "imagefolder", "stac"])
def test_a_killed_export_goes_on_and_ends_like_an_undisturbed_one(layout: Layout, tmp_path: Path, name: str):
    calm = export(layout, "town", name, tmp_path / "calm", Selection(), shard_rows=10)
    program = (
        "import sys; from pathlib import Path; from geoloc_dagster.config import Layout\n"
        "from geoloc_dagster.dataset.exports.run import export\n"
        "from geoloc_dagster.dataset.exports.selection import Selection\n"
        f"export(Layout(Path(sys.argv[1])), 'town', {name!r}, Path(sys.argv[2]), Selection(), shard_rows=10)"
    )
    command = [sys.executable, "-c", program, str(layout.root), str(tmp_path / "killed")]
    environment = {**os.environ, "GEOLOC_FAILPOINT": "export.shard_written:3"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    rest = export(layout, "town", name, tmp_path / "killed", Selection(), shard_rows=10)
    assert rest.shards == 3  # two were written down, the third was there without being known
    assert rest.digest == calm.digest
    assert tree_hash(tmp_path / "killed") == tree_hash(tmp_path / "calm")
    assert export(layout, "town", name, tmp_path / "killed", Selection(), shard_rows=10).shards == 0


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_harmed_shard_of_a_finished_export_is_written_again(layout: Layout, tmp_path: Path, name: str, harm: str):
    calm = export(layout, "town", name, tmp_path / "calm", Selection(), shard_rows=25)
    export(layout, "town", name, tmp_path / "harmed", Selection(), shard_rows=25)
    endings = {"webdataset": "*.tar", "msgpack": "*.msg", "parquet": "*.parquet"}
    victim = sorted((tmp_path / "harmed").rglob(endings.get(name, "*.jpg")))[0]
    if harm == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(content)
    again = export(layout, "town", name, tmp_path / "harmed", Selection(), shard_rows=25)
    assert again.shards == 1
    assert again.digest == calm.digest
    assert tree_hash(tmp_path / "harmed") == tree_hash(tmp_path / "calm")


def test_a_picture_that_is_not_the_one_that_was_stored_does_not_leave(tmp_path: Path):
    layout = Layout(tmp_path / "data")
    fill(layout, 8, wrong_checksum_of=5)
    with pytest.raises(IntegrityError, match="its checksum differs"):
        export(layout, "town", "webdataset", tmp_path / "out", Selection())
    assert not list((tmp_path / "out").glob("*.tar*"))


def test_a_table_that_grew_meanwhile_does_not_change_an_export_that_was_begun(tmp_path: Path):
    layout = Layout(tmp_path / "data")
    fill(layout, 10)
    before = export(layout, "town", "webdataset", tmp_path / "out", Selection())
    fill(layout, 14)
    after = export(layout, "town", "webdataset", tmp_path / "out", Selection())
    assert (after.rows, after.table_version, after.digest) == (10, before.table_version, before.digest)


def test_another_export_does_not_go_into_the_same_folder(layout: Layout, tmp_path: Path):
    export(layout, "town", "webdataset", tmp_path / "out", Selection())
    with pytest.raises(ExportError, match="holds another export"):
        export(layout, "town", "webdataset", tmp_path / "out", Selection(series=("75m",)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("three years")
    with pytest.raises(ExportError, match="is not empty"):
        export(layout, "town", "webdataset", tmp_path / "full", Selection())


def test_a_full_disk_keeps_what_is_finished_and_it_goes_on_with_more_space(
    layout: Layout,
    small_disk: Callable[..., Path],  # noqa: F811
):
    folder = small_disk("size=48k")
    with pytest.raises(DiskFullError):
        export(layout, "town", "webdataset", folder / "out", Selection(), shard_rows=10)
    small_disk("size=4m")
    assert export(layout, "town", "webdataset", folder / "out", Selection(), shard_rows=10).rows == 50
    assert len(READERS["webdataset"](folder / "out")) == 50


# --- which pictures -------------------------------------------------------------------------------------------------
def test_a_series_and_a_batch_can_be_chosen(layout: Layout, tmp_path: Path):
    assert export(layout, "town", "webdataset", tmp_path / "series", Selection(series=("75m",))).rows == 25
    assert export(layout, "town", "webdataset", tmp_path / "batch", Selection(batches=("75m-0000",))).rows == 10
    with pytest.raises(ExportError, match="no picture has the batch '75m-0009'"):
        export(layout, "town", "webdataset", tmp_path / "none", Selection(batches=("75m-0009",)))
    with pytest.raises(ExportError, match="no picture matches"):
        export(layout, "town", "webdataset", tmp_path / "none", Selection(series=("10m",)))


def test_licences_that_do_not_mix_are_not_mixed_and_can_be_chosen(tmp_path: Path):
    layout = Layout(tmp_path / "data")
    fill(layout, 12, licences=("CC-BY-SA-4.0", "proprietary"))
    with pytest.raises(ExportError, match="proprietary mixes with nothing"):
        export(layout, "town", "webdataset", tmp_path / "out", Selection())
    assert not (tmp_path / "out").exists()
    assert export(layout, "town", "webdataset", tmp_path / "out", Selection(licences=("CC-BY-SA-4.0",))).rows == 6
    with pytest.raises(ExportError, match="may not be passed on"):
        export(layout, "town", "webdataset", tmp_path / "mine", Selection(licences=("proprietary",)))
    export(layout, "town", "webdataset", tmp_path / "mine", Selection(licences=("proprietary",), restricted=True))
    assert '"redistributable": false' in (tmp_path / "mine" / "export.json").read_text()


@pytest.mark.parametrize(
    ("licences", "whole"),
    [
        (("CC0-1.0",), "CC0-1.0"),
        (("CC0-1.0", "PDDL-1.0"), "CC0-1.0"),
        (("CC0-1.0", "etalab-2.0"), "CC-BY-4.0"),
        (("etalab-2.0", "CC-BY-SA-4.0"), "CC-BY-SA-4.0"),
        (("CC-BY-SA-3.0", "CC-BY-SA-4.0"), "CC-BY-SA-4.0"),
        (("CC-BY-NC-4.0",), "CC-BY-NC-4.0"),
    ],
)
def test_the_whole_stands_under_the_licence_that_covers_its_parts(licences: tuple[str, ...], whole: str):
    assert combined_licence(dict.fromkeys(licences, 1)) == whole


@pytest.mark.parametrize("other", ["CC-BY-NC-4.0", "CC-BY-ND-4.0", "ODbL-1.0", "NOASSERTION", "proprietary"])
def test_conditions_of_their_own_keep_licences_apart(other: str):
    with pytest.raises(ExportError, match=other):
        combined_licence({"CC-BY-SA-4.0": 3, other: 1})


# --- what leaves ----------------------------------------------------------------------------------------------------
def test_remarks_are_removed_without_touching_a_pixel():
    before = with_exif(5)
    after, extension = derivative(before)
    assert extension == "jpg"
    assert b"Exif" in before
    assert b"Exif" not in after
    assert b"taken by somebody" not in after
    with Image.open(io.BytesIO(before)) as a, Image.open(io.BytesIO(after)) as b:
        assert a.getexif().get_ifd(GPS)
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_picture_that_lies_on_its_side_is_put_upright(orientation: int):
    upright, _ = derivative(with_exif(5, 1))
    turned, _ = derivative(with_exif(5, orientation))
    with Image.open(io.BytesIO(turned)) as picture, Image.open(io.BytesIO(upright)) as reference:
        assert not picture.getexif()
        assert picture.size == (reference.size if orientation < 5 else reference.size[::-1])


@pytest.mark.parametrize("progressive", [False, True])
def test_what_lies_behind_a_picture_does_not_leave_and_what_its_colours_mean_does(progressive: bool):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    street(3, 64, 48).save(buffer, "JPEG", icc_profile=profile, progressive=progressive)
    picture = buffer.getvalue()
    bare, _ = derivative(picture + with_exif(4))  # as cameras append their previews
    assert len(bare) <= len(picture)
    with Image.open(io.BytesIO(bare)) as left, Image.open(io.BytesIO(picture)) as was:
        assert np.array_equal(np.asarray(left), np.asarray(was))
        assert left.info["icc_profile"] == profile
    assert b"Exif" not in bare
    assert bare.endswith(b"\xff\xd9")


def test_what_is_no_picture_does_not_leave():
    with pytest.raises(ImageError):
        derivative(b"<html>")
