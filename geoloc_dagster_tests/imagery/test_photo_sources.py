"""Photos of one's own: positioned by what the camera wrote or by a list, named where neither says, and read from nowhere else."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.TiffImagePlugin import IFDRational
from typer.testing import CliRunner

from geoloc_dagster.cli import app
from geoloc_dagster.errors import CollectionSourceError, UnsafeArchiveError
from geoloc_dagster.imagery.exif import NoExifError, read_exif
from geoloc_dagster.imagery.photo_files import PhotoFiles, name_of, url_of
from geoloc_dagster.imagery.photo_ids import id_of_name
from geoloc_dagster.imagery.photo_sources import read_photos
from geoloc_dagster_tests.imagery.exif_photos import BASE, GPS, at, photo, write

SYDNEY = (-33.8567, 151.2152)
CENTIMETRE = 1e-6


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("place", [SYDNEY, (59.325, 18.07), (37.8199, -122.4783), (-54.8, -68.3), (0.0, 9.45)])
def test_a_position_is_read_in_every_byte_order_format_and_quarter_of_the_earth(
    encoding: str, big_endian: bool, place: tuple[float, float]
):
    content = photo(at(*place), encoding=encoding, big_endian=big_endian)
    assert (b"MM\0*" in content) == big_endian
    said = read_exif(content)
    assert (said.lat_deg, said.lng_deg) == pytest.approx(place, abs=CENTIMETRE)
    assert (said.captured_on, said.heading_deg, said.creator) == (None, None, None)


def test_date_heading_and_author_are_read_and_the_altitude_is_not():
    gps = at(*SYDNEY) | {
        GPS.GPSImgDirection: IFDRational(3725, 10),
        GPS.GPSImgDirectionRef: "T",
        GPS.GPSAltitude: IFDRational(1, 0),
    }
    camera = {BASE.DateTimeOriginal: "2015:06:07 23:59:59", BASE.DateTimeDigitized: "2016:01:01 00:00:00"}
    said = read_exif(photo(gps, camera=camera, base={BASE.Artist: "Ann  Example\0", BASE.DateTime: "2020:01:01 00:00:00"}))
    assert (said.captured_on, said.heading_deg, said.creator) == (dt.date(2015, 6, 7), 12.5, "Ann Example")


@pytest.mark.parametrize(
    ("camera", "base", "date"),
    [
        ({BASE.DateTimeOriginal: "0000:00:00 00:00:00"}, {}, None),
        ({BASE.DateTimeOriginal: "    :  :     :  :  ", BASE.DateTimeDigitized: "2011:02:03 00:00:00"}, {}, dt.date(2011, 2, 3)),
        ({}, {BASE.DateTime: "2020:01:01 00:00:00"}, None),
        ({BASE.DateTimeOriginal: "2011-02-03T04:05"}, {}, dt.date(2011, 2, 3)),
    ],
)
def test_a_date_is_when_the_photo_was_taken_or_unknown(camera: dict[int, Any], base: dict[int, Any], date: dt.date | None):
    assert read_exif(photo(at(*SYDNEY), camera=camera, base=base)).captured_on == date


def test_a_heading_from_magnetic_north_or_without_a_number_is_unknown():
    for extra in (
        {GPS.GPSImgDirection: IFDRational(90), GPS.GPSImgDirectionRef: "M"},
        {GPS.GPSImgDirection: IFDRational(0, 0), GPS.GPSImgDirectionRef: "T"},
    ):
        assert read_exif(photo(at(*SYDNEY) | extra)).heading_deg is None


NOWHERE = {
    "no_exif": (None, "no position"),
    "other_tags_only": ({GPS.GPSImgDirection: IFDRational(90)}, "no position"),
    "no_longitude": ({GPS.GPSLatitude: at(*SYDNEY)[GPS.GPSLatitude], GPS.GPSLatitudeRef: "S"}, "longitude"),
    "no_hemisphere": ({**at(*SYDNEY), GPS.GPSLatitudeRef: ""}, "N or S"),
    "strange_hemisphere": ({**at(*SYDNEY), GPS.GPSLongitudeRef: "Q"}, "E or W"),
    "zero_denominator": ({**at(*SYDNEY), GPS.GPSLatitude: (IFDRational(33), IFDRational(51), IFDRational(0, 0))}, "latitude"),
    "all_zero_denominators": ({**at(*SYDNEY), GPS.GPSLongitude: (IFDRational(0, 0),) * 3}, "longitude"),
    "infinite": ({**at(*SYDNEY), GPS.GPSLongitude: (IFDRational(7, 0), IFDRational(0), IFDRational(0))}, "longitude"),
    "beyond_the_pole": ({**at(*SYDNEY), GPS.GPSLatitude: (IFDRational(91), IFDRational(0), IFDRational(0))}, "0 to 90"),
    "null_island": (at(0.0, 0.0), "(0, 0)"),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_a_position_that_is_none_is_named(case: str):
    gps, reason = NOWHERE[case]
    with pytest.raises(NoExifError) as caught:
        read_exif(photo(gps))
    assert reason in str(caught.value)


def test_degrees_alone_are_a_position():
    gps = at(*SYDNEY) | {
        GPS.GPSLatitude: (IFDRational(338567, 10_000),),
        GPS.GPSLongitude: (IFDRational(151), IFDRational(12912, 1000)),
    }
    said = read_exif(photo(gps))
    assert (said.lat_deg, said.lng_deg) == pytest.approx((-33.8567, 151.2152), abs=CENTIMETRE)


GOOD = photo(at(*SYDNEY), camera={BASE.DateTimeOriginal: "2015:06:07 23:59:59"}, base={BASE.Artist: "Ann"})
WHERE = GOOD.index(b"Exif")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 260), st.integers(0, 255)), min_size=1, max_size=12), st.integers(30, len(GOOD)))
def test_whatever_is_broken_in_a_photo_it_has_a_position_on_earth_or_a_reason(changes: list[tuple[int, int]], length: int):
    content = bytearray(GOOD)
    for place, value in changes:
        content[WHERE + place] = value
    try:
        said = read_exif(bytes(content[:length]))
    except NoExifError:
        return
    assert abs(said.lat_deg) <= 90
    assert abs(said.lng_deg) <= 180


def album(folder: Path) -> Path:
    """Four good photos, and what else is in such a folder."""
    write(folder / "2015" / "a.jpg", photo(at(*SYDNEY), camera={BASE.DateTimeOriginal: "2015:06:07 08:09:10"}, seed=1))
    write(folder / "2015" / "IMG 1 (copy).JPG", photo(at(10, 20), base={BASE.Artist: "Ann"}, seed=2))
    write(folder / "b.png", photo(at(-10, -20), encoding="PNG", seed=3))
    write(folder / "ö" / "c.webp", photo(at(60, 30), encoding="WEBP", seed=4))
    write(folder / "nowhere.jpg", photo(seed=5))
    write(folder / "page.jpg", b"<html>")
    write(folder / "d.HEIC", b"ftypheic")
    write(folder / ".thumbnails" / "a.jpg", photo(at(*SYDNEY)))
    write(folder / "notes.txt", b"hello")
    return folder


def test_a_folder_gives_its_photos_and_names_those_without_a_position(tmp_path: Path):
    table = read_photos([album(tmp_path / "album")])
    found = {name_of(one.url): (one.photo_id, one.captured_on, one.creator) for one in table.photos}
    assert set(found) == {"2015/a.jpg", "2015/IMG 1 (copy).JPG", "b.png", "ö/c.webp"}
    assert found["2015/a.jpg"] == ("2015_a", dt.date(2015, 6, 7), None)
    assert found["2015/IMG 1 (copy).JPG"][2] == "Ann"
    problems = {problem.file: problem.reason for problem in table.problems}
    assert set(problems) == {"nowhere.jpg", "page.jpg", "d.HEIC"}
    assert "no position" in problems["nowhere.jpg"]
    assert "no picture" in problems["page.jpg"]
    assert ".heic is not read" in problems["d.HEIC"]
    assert str(table.problems[0]).startswith(f"{table.problems[0].file}: ")


def test_ids_are_of_names_alone_so_that_they_are_the_same_on_every_machine(tmp_path: Path):
    here, there = read_photos([album(tmp_path / "here")]), read_photos([album(tmp_path / "elsewhere" / "copy")])
    assert here.photos == there.photos
    assert id_of_name("ö/c.webp") == id_of_name("o\u0308/c.webp")
    assert len({one.photo_id for one in here.photos}) == 4


def test_a_tar_file_is_read_like_the_folder_that_it_holds(tmp_path: Path):
    folder = album(tmp_path / "album")
    with tarfile.open(tmp_path / "album.tar", "w") as archive:
        archive.add(folder, arcname=".", recursive=True)
        for name in ("2015/a.jpg", "ö/c.webp"):
            archive.add(folder / name, arcname=f"again/{name}")
    table = read_photos([tmp_path / "album.tar"])
    assert {"again/2015/a.jpg", "again/ö/c.webp"} < {name_of(one.url) for one in table.photos}
    files = PhotoFiles([tmp_path / "album.tar"])
    assert files.read("again/2015/a.jpg", 1 << 20) == (folder / "2015" / "a.jpg").read_bytes()
    assert len(files.read("again/2015/a.jpg", 100)) == 100


def test_an_archive_that_points_outside_is_refused_whole(tmp_path: Path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        entry = tarfile.TarInfo("../a.jpg")
        entry.size = len(GOOD)
        archive.addfile(entry, io.BytesIO(GOOD))
    with pytest.raises(UnsafeArchiveError, match="points outside"):
        read_photos([tmp_path / "bad.tar"])
    write(tmp_path / "zip.tar", b"PK\3\4")
    with pytest.raises(CollectionSourceError, match="uncompressed tar"):
        read_photos([tmp_path / "zip.tar"])


def test_nothing_outside_the_folder_is_read_and_nothing_that_is_no_plain_file(tmp_path: Path):
    secret = write(tmp_path / "secret" / "s.jpg", GOOD)
    folder = tmp_path / "album"
    write(folder / "good.jpg", GOOD)
    (folder / "link.jpg").symlink_to(secret)
    (folder / "inside.jpg").symlink_to(folder / "good.jpg")
    (folder / "linked").symlink_to(secret.parent, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    table = read_photos([folder])
    assert [name_of(one.url) for one in table.photos] == ["good.jpg"]
    assert {problem.file: problem.reason for problem in table.problems} == {
        "inside.jpg": "it is a link",
        "link.jpg": "it is a link",
        "pipe.jpg": "it is no plain file",
    }
    files = PhotoFiles([folder])
    for name in ("../secret/s.jpg", str(secret), "linked/s.jpg", "link.jpg", "inside.jpg", "pipe.jpg", "absent.jpg", "", "a\0b"):
        with pytest.raises(OSError):  # noqa: PT011 - whichever it is
            files.read(name, 1 << 20)


META = "IMG_ID,AUTHOR,LAT,LON,S3_Label\n"


@pytest.mark.parametrize("form", ["45/77/322.jpg", "322.jpg", "3f/45_77_322.jpg"])
def test_a_list_without_urls_says_where_the_photos_of_a_folder_are(tmp_path: Path, form: str):
    """As published in folders, flat, or as `geoloc download` writes them; the list decides, also against the EXIF."""
    folder = tmp_path / "images"
    write(folder / form, photo(at(*SYDNEY)))
    write(folder / "mine.jpg", photo(at(10, 20)))
    (tmp_path / "meta.csv").write_text(f"{META}45/77/322.jpg,43008843@N00,46.78,23.6,2\n46/1/9.jpg,me,1,2,0\n")
    table = read_photos([folder, tmp_path / "meta.csv"])
    listed, own = table.photos
    assert (listed.photo_id, listed.url) == ("45_77_322", url_of(form))
    assert (listed.lat_deg, listed.creator, listed.scene_3) == (46.78, "43008843@N00", 2)
    assert (own.photo_id, own.lat_deg) == ("mine", pytest.approx(10))
    assert [str(problem) for problem in table.problems] == ["meta.csv, line 3: it has no URL"]


def test_a_name_that_two_files_share_finds_neither_of_them(tmp_path: Path):
    for name in ("a/1.jpg", "b/1.jpg"):
        write(tmp_path / "images" / name, photo())
    (tmp_path / "meta.csv").write_text(f"{META}1.jpg,me,1,2,0\nb/1.jpg,me,3,4,0\n")
    table = read_photos([tmp_path / "meta.csv", tmp_path / "images"])
    assert [(one.url, one.lat_deg) for one in table.photos] == [("file:b/1.jpg", 3.0)]
    assert {problem.file: problem.line for problem in table.problems} == {"meta.csv": 2, "a/1.jpg": 0}


def test_a_list_cannot_name_files_by_url(tmp_path: Path):
    write(tmp_path / "images" / "1.jpg", GOOD)
    (tmp_path / "meta.csv").write_text("id,url,lat,lng\n7,file:1.jpg,1,2\n8,file:///etc/passwd,1,2\n")
    table = read_photos([tmp_path / "meta.csv", tmp_path / "images"])
    assert [name_of(one.url) for one in table.photos] == ["1.jpg"]
    assert [problem.line for problem in table.problems] == [2, 3]


def test_the_command_lists_a_folder_for_people_and_other_commands(tmp_path: Path):
    folder = album(tmp_path / "album")
    result = CliRunner().invoke(app, ["photos", "list", str(folder), "--output", str(tmp_path / "list.csv")])
    assert result.exit_code == 0
    assert f"4 photos in {tmp_path / 'list.csv'}; 3 left out" in result.stdout
    assert "left out: nowhere.jpg: it has no position in its EXIF" in result.stderr
    rows = list(csv.DictReader((tmp_path / "list.csv").open()))
    assert list(rows[0]) == ["IMG_ID", "AUTHOR", "LAT", "LON", "date", "heading"]
    assert (rows[0]["IMG_ID"], rows[0]["AUTHOR"], rows[0]["date"]) == ("2015/IMG 1 (copy).JPG", "Ann", "")
    again = read_photos([folder, tmp_path / "list.csv"])  # it finds the files again, now without opening them
    assert {one.photo_id for one in again.photos} == {one.photo_id for one in read_photos([folder]).photos}
    assert [one.url for one in again.photos] == [url_of(row["IMG_ID"]) for row in rows]
    assert [float(row["LAT"]) for row in rows] == [one.lat_deg for one in again.photos]
    refused = CliRunner().invoke(app, ["photos", "list", str(tmp_path / "absent"), "--output", str(tmp_path / "x.csv")])
    assert refused.exit_code != 0
    assert not (tmp_path / "x.csv").exists()
