"""Lists of photos as they are published: every form is read, every bad row is named, and the good ones go on."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.imagery.licences import spdx_of
from geoloc_dagster.imagery.photo_ids import id_of_url, safe_id
from geoloc_dagster.imagery.photo_table import PhotoTable, read_photo_lists

ODD = sorted((Path(__file__).parent / "odd" / "photo_list").glob("*.json"))
GOOD = "id,url,lat,lng\n1,https://a.example/1.jpg,59.3,18.1\n"


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(tmp_path: Path, text: str | bytes, name: str = "list.csv", **options: Any) -> PhotoTable:
    return read_photo_lists([written(tmp_path / name, text)], **options)


@pytest.mark.parametrize("case", ODD, ids=lambda path: path.stem)
def test_an_odd_row_becomes_a_photo_or_is_refused_with_its_reason(case: Path, tmp_path: Path):
    said = json.loads(case.read_text())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(said["row"]))
    writer.writeheader()
    writer.writerow(said["row"])
    table = read(tmp_path, text.getvalue())
    if "refused" in said:
        assert table.photos == []
        assert said["refused"] in str(table.problems[0])
        assert str(table.problems[0]).startswith("list.csv, line 2: ")
        return
    (photo,) = table.photos
    assert [problem.reason for problem in table.problems if said.get("doubt", "") not in problem.reason] == []
    assert (table.bad_rows, table.bad_scenes) == (0, int("doubt" in said))
    for name, value in said["photo"].items():
        found = getattr(photo, name)
        assert (found.isoformat() if isinstance(found, dt.date) else found) == value


def test_bad_rows_are_named_by_their_lines_and_the_good_ones_go_on(tmp_path: Path):
    rows = ["1,https://a.example/1.jpg,59.3,18.1", "2,ftp://a.example/2.jpg,59.3,18.1", "3,https://a.example/3.jpg,59.3"]
    rows += ["", "4,https://a.example/4.jpg,95,18.1", "1,https://a.example/5.jpg,59.3,18.1", "6,https://a.example/6.jpg,1,2"]
    table = read(tmp_path, "id,url,lat,lng\n" + "\n".join(rows) + "\n")
    assert [photo.photo_id for photo in table.photos] == ["1", "6"]
    assert [problem.line for problem in table.problems] == [3, 4, 6, 7]
    assert "not 4" in table.problems[1].reason
    assert "line 2 of list.csv" in table.problems[3].reason
    assert table.bad_rows == 4


def test_rows_that_are_not_text_are_bad_rows(tmp_path: Path):
    table = read(tmp_path, GOOD.encode() + b"2,https://a.example/\xff.jpg,59.3,18.1\n3,https://a.example/3.jpg,59.3,18.1\n")
    assert [photo.photo_id for photo in table.photos] == ["1", "3"]
    assert "UTF-8" in table.problems[0].reason


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_spreadsheets_write_lists_in_several_ways(tmp_path: Path, delimiter: str, mark: bytes):
    table = read(tmp_path, mark + GOOD.replace(",", delimiter).encode().replace(b"\n", b"\r\n"))
    assert [(photo.photo_id, photo.lat_deg) for photo in table.photos] == [("1", 59.3)]


def test_two_columns_without_a_header_are_ids_and_urls(tmp_path: Path):
    text = "1a/aa/007.jpg,http://a.example/7.jpg\n1b/bb/008.jpg,http://a.example/8.jpg\n"
    table = read(tmp_path, text, need_position=False)
    assert [(photo.photo_id, photo.url) for photo in table.photos] == [
        ("1a_aa_007", "http://a.example/7.jpg"),
        ("1b_bb_008", "http://a.example/8.jpg"),
    ]


def test_positions_and_urls_of_two_lists_are_joined_by_id(tmp_path: Path):
    places = "IMG_ID,AUTHOR,LAT,LON,S3_Label\n1a/aa/1.jpg,me,59.3,18.1,0\n1b/bb/2.jpg,me,59.3,18.1,1\n"
    urls = written(tmp_path / "urls.csv", "1a/aa/1.jpg,http://a.example/1.jpg\n9/9/9.jpg,http://a.example/9.jpg\n")
    table = read(tmp_path, places, urls=[urls])
    assert [(photo.photo_id, photo.url, photo.creator) for photo in table.photos] == [("1a_aa_1", "http://a.example/1.jpg", "me")]
    assert [(problem.line, problem.reason) for problem in table.problems] == [(3, "it has no URL")]


def test_a_parquet_list_keeps_its_types_and_its_bad_rows_are_named(tmp_path: Path):
    path = tmp_path / "list.parquet"
    columns = {
        "link": ["https://a.example/1.jpg", None, "https://a.example/3.jpg"],
        "photoid": ["007", "008", "009"],
        "latitude": [59.3, 59.3, float("nan")],
        "longitude": [18.1, 18.1, 18.1],
        "datetaken": pa.array([dt.datetime(2012, 5, 6, 7, tzinfo=dt.UTC), None, None], pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(columns), path)
    table = read_photo_lists([path], columns={"url": "link"})
    assert [(photo.photo_id, photo.captured_on) for photo in table.photos] == [("007", dt.date(2012, 5, 6))]
    assert [problem.line for problem in table.problems] == [2, 3]


NO_LISTS = {
    "empty": b"",
    "blank": b"\n \n",
    "picture": b"\xff\xd8\xff\xe0\0\0\0",
    "no_url": b"id,lat,lng\n1,2,3\n",
    "no_position": b"id,url\n1,https://a.example/1.jpg\n",
    "broken_parquet": b"PAR1" + b"x" * 100,
    "page": b"<!doctype html><html>",
}


@pytest.mark.parametrize("what", NO_LISTS)
def test_a_file_that_is_no_list_is_one_clear_error(tmp_path: Path, what: str):
    with pytest.raises(PhotoListError) as caught:
        read(tmp_path, NO_LISTS[what], f"{what}.csv")
    assert f"{what}.csv" in str(caught.value)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path):
    with pytest.raises(PhotoListError, match="missing"):
        read_photo_lists([tmp_path / "absent.csv"])
    with pytest.raises(PhotoListError, match="'link'"):
        read(tmp_path, GOOD, columns={"url": "link"})


@given(st.text(max_size=80))
def test_whatever_an_id_was_it_is_safe_or_refused(published: str):
    found = safe_id(published)
    assert found is None or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found)


def test_photos_without_ids_are_told_apart_by_their_urls():
    urls = [f"https://a.example/{number}.jpg" for number in range(1_000)]
    assert len({id_of_url(url) for url in urls}) == len(urls)
    assert all(safe_id(id_of_url(url)) == id_of_url(url) for url in urls)


@pytest.mark.parametrize(
    ("written_as", "spdx"),
    [
        ("http://creativecommons.org/licenses/by/2.0/", "CC-BY-2.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("Creative Commons BY-NC-ND 2.0", "CC-BY-NC-ND-2.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("CC BY", "CC BY"),
        ("etalab-2.0", "etalab-2.0"),
        ("© all mine", "proprietary"),
    ],
)
def test_licences_become_spdx_ids_where_they_say_enough(written_as: str, spdx: str):
    assert spdx_of(written_as) == spdx


BENCHMARKS = {"im2gps_places365.csv": 237, "im2gps3k_places365.csv": 2_997, "yfcc25600_places365.csv": 25_600}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_lists_are_read_as_they_are(shared_data: Path, name: str):
    template = (
        "https://photos.example/{server}/{photo}_{secret}.jpg" if name.startswith("im2gps") else "https://photos.example/{id}"
    )
    table = read_photo_lists([shared_data / "photos" / name], url_template=template)
    assert (len(table.photos), table.bad_rows) == (BENCHMARKS[name], 0)
    assert len({photo.photo_id for photo in table.photos}) == BENCHMARKS[name]
    assert all(photo.creator and photo.lat_deg is not None for photo in table.photos)
    with (shared_data / "photos" / name).open() as stream:
        first = next(csv.DictReader(stream))
    assert (table.photos[0].lat_deg, table.photos[0].creator) == (float(first["LAT"]), first["AUTHOR"])


SCENES = {"im2gps_places365.csv": [19, 80, 138], "im2gps3k_places365.csv": [545, 845, 1_607]} | {
    "yfcc25600_places365.csv": [9_307, 5_390, 10_903]
}


@pytest.mark.parametrize("name", SCENES)
def test_the_benchmark_lists_say_of_every_photo_which_scene_it_is(shared_data: Path, name: str):
    template = "https://photos.example/{photo}.jpg" if name.startswith("im2gps") else "https://photos.example/{id}"
    table = read_photo_lists([shared_data / "photos" / name], url_template=template)
    assert table.bad_scenes == 0
    assert [sum(photo.scene_3 == scene for photo in table.photos) for scene in range(3)] == SCENES[name]
    for photo in table.photos:
        likely = [photo.prob_indoor, photo.prob_natural, photo.prob_urban]
        assert likely[photo.scene_3 or 0] == max(one or 0.0 for one in likely)
    assert {photo.scene_16 for photo in table.photos} == set(range(16))


def test_scenes_are_read_under_names_of_ones_own_and_from_parquet(tmp_path: Path):
    columns = {"url": ["https://a.example/1.jpg", "https://a.example/2.jpg"], "lat": [1.0, 2.0], "lng": [3.0, 4.0]}
    columns |= {"kind": pa.array([2, None], pa.int8()), "inside": [0.25, 0.5], "green": [0.25, 0.25], "town": [0.5, 0.3]}
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table(columns), path)
    names = {"scene_3": "kind", "prob_indoor": "inside", "prob_natural": "green", "prob_urban": "town"}
    table = read_photo_lists([path], columns=names)
    assert [(photo.scene_3, photo.prob_urban) for photo in table.photos] == [(2, 0.5), (None, None)]
    assert [problem.line for problem in table.problems] == [2]
    assert len(table.photos) == 2


def test_without_urls_the_benchmark_lists_say_what_they_lack(shared_data: Path):
    with pytest.raises(PhotoListError, match="no column url among 'IMG_ID'"):
        read_photo_lists([shared_data / "photos" / "im2gps_places365.csv"])
