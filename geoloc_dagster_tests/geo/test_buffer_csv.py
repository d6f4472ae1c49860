from __future__ import annotations

import csv
import datetime as dt
import pickle
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import BufferCsvError, UnsafeFileError
from geoloc_dagster.geo.buffer_csv import COLUMNS, read_buffer_csv, read_negatives, write_buffer_csv

LINE = (
    '7,36,145575,"59.32334726415095, 18.068294587686566",© Google,2010-08,59.32337218195028,18.06837475504807,'
    'QyREZjDEnZlqwlJPLk_KSg,OK,"59.32337218195028, 18.06837475504807",182.90905910810585,'
    "POINT (18.06837475504807 59.32337218195028),POINT (674589.4708723342 6580082.772498492)"
)
HEADER = ",".join(COLUMNS)


def saved(folder: Path, text: str | bytes, name: str = "new_order_buffer_100.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_line_becomes_a_location(tmp_path: Path):
    frame = read_buffer_csv(saved(tmp_path, f"{HEADER}\n{LINE}\n"))
    assert frame.iloc[0].to_dict() == {
        "location_id": "7",
        "series": "100m",
        "rank": 0,
        "lookup_id": "145575",
        "lat_deg": 59.32337218195028,
        "lng_deg": 18.06837475504807,
        "pano_id": "QyREZjDEnZlqwlJPLk_KSg",
        "captured_on": dt.date(2010, 8, 1),
        "requested_lat_deg": 59.32334726415095,
        "requested_lng_deg": 18.068294587686566,
        "copyright": "© Google",
        "dist_to_start_m": 182.90905910810585,
        "sorted_idx": 36,
    }


@pytest.mark.parametrize("text", [f"\ufeff{HEADER}\n{LINE}\n", f"{HEADER}\r\n{LINE}\r\n", f"{HEADER}\n\n{LINE}"])
def test_byte_order_marks_windows_line_ends_and_empty_lines_are_no_matter(tmp_path: Path, text: str):
    assert read_buffer_csv(saved(tmp_path, text))["location_id"].tolist() == ["7"]


def test_a_header_alone_is_an_empty_buffer(tmp_path: Path):
    assert len(read_buffer_csv(saved(tmp_path, HEADER + "\n"))) == 0


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is empty"),
        (HEADER.replace(",", ";") + "\n", "separated by semicolons, not commas"),
        (HEADER.replace(",", "\t") + "\n", "separated by tabs, not commas"),
        (HEADER.replace(",PanoID", "") + "\n", "lacks the column 'PanoID'"),
        (HEADER + ",Date\n", "names a column twice"),
        (f"{HEADER}\n{LINE}\n{LINE}\n", "lists the location 7 twice"),
        (f"{HEADER}\n{LINE}\n{LINE[:120]}", "line 3: .* the line may be cut off"),
        (f"{HEADER}\n{LINE}\n{LINE[:40]}", "line 3: .* the line may be cut off"),  # inside a quoted field
        (f"{HEADER}\n{LINE[:-1]}", r"line 2, column 'SWEREF_Points': .* malformed \(expected 'POINT"),
        (f"{HEADER}\n{LINE.replace('7,', '../7,', 1)}", "column 'new_order_idx': '../7' is malformed"),
        (f"{HEADER}\n{LINE.replace('7,', 'a' * 65 + ',', 1)}", "column 'new_order_idx'"),
        (f"{HEADER}\n{LINE.replace('145575', '1 or 2')}", "column 'Location_idx'"),
        (f"{HEADER}\n{LINE.replace(',59.32337218195028,', ',north,')}", "column 'Latitude': 'north' is malformed"),
        (f"{HEADER}\n{LINE.replace(',59.32337218195028,', ',nan,')}", r"column 'Latitude': .*not a finite number"),
        (f"{HEADER}\n{LINE.replace(',59.32337218195028,', ',95,')}", "a latitude is between"),
        (f"{HEADER}\n{LINE.replace(',18.06837475504807,', ',500,')}", "a longitude is between"),
        (f"{HEADER}\n{LINE.replace('2010-08', '2010-13')}", "column 'Date': '2010-13' is malformed"),
        (f"{HEADER}\n{LINE.replace(',OK,', ',ZERO_RESULTS,')}", "column 'Status'"),
        (f"{HEADER}\n{LINE.replace('36,', '3.5,', 1)}", "column 'sorted_idx'"),
        (f"{HEADER}\n{LINE}".encode("latin-1"), r"is not UTF-8 \(byte \d+\)"),
        (f"{HEADER}\n{LINE.replace('© Google', 'a' * 140_000)}", "field larger than field limit"),
    ],
)
def test_one_clear_error_names_the_file_and_the_line_or_column(tmp_path: Path, text: str | bytes, cause: str):
    with pytest.raises(BufferCsvError, match=cause) as refused:
        read_buffer_csv(saved(tmp_path, text))
    assert "new_order_buffer_100.csv" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_every_place_at_which_a_file_can_be_cut_off_is_noticed_or_loses_whole_lines_only(tmp_path: Path):
    text = f"{HEADER}\n{LINE}\n"
    for length in range(len(HEADER) + 2, len(text) - 1):
        path = saved(tmp_path, text.encode()[: length + len("©".encode()) - 1])
        if path.read_text(errors="replace").rstrip() in (HEADER, text.rstrip()):
            continue
        with pytest.raises(BufferCsvError):
            read_buffer_csv(path)


def test_a_file_that_does_not_say_its_spacing_is_refused(tmp_path: Path):
    with pytest.raises(BufferCsvError, match="does not say its spacing"):
        read_buffer_csv(saved(tmp_path, f"{HEADER}\n{LINE}\n", "locations.csv"))


def test_missing_files_and_pickles_are_refused(tmp_path: Path):
    with pytest.raises(BufferCsvError, match="does not exist"):
        read_buffer_csv(tmp_path / "new_order_buffer_35.csv")
    with pytest.raises(UnsafeFileError, match="new_order_buffer_100"):
        read_buffer_csv(saved(tmp_path, pickle.dumps([1])))


def test_negative_answers_are_read(tmp_path: Path):
    path = saved(tmp_path, 'Location_idx,Location,Unnamed: 2\n111,"59.33, 17.98",\n', "none.csv")
    assert read_negatives(path).to_dict("records") == [{"lookup_id": "111", "lat_deg": 59.33, "lng_deg": 17.98}]
    with pytest.raises(BufferCsvError, match=r"line 2, column 'Location': .* \(expected 'lat, lng'\)"):
        read_negatives(saved(tmp_path, 'Location_idx,Location\n111,"59.33"\n', "none.csv"))


TEXT = st.text("aZ9_-=\"',; \n\r\t©ä\u2028", min_size=1, max_size=8)
ROWS = st.fixed_dictionaries(
    {
        "location_id": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
        "lookup_id": st.from_regex(r"[0-9]{1,9}", fullmatch=True),
        "lat_deg": st.floats(-80, 80),
        "lng_deg": st.floats(10, 26),
        "pano_id": TEXT,
        "captured_on": st.one_of(st.none(), st.dates(dt.date(1000, 1, 1))),
        "requested_lat_deg": st.floats(-90, 90),
        "requested_lng_deg": st.floats(-180, 180),
        "copyright": st.one_of(st.none(), TEXT),
        "dist_to_start_m": st.floats(0, 1e6),
        "sorted_idx": st.integers(0, 10**6),
    }
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=3, unique_by=lambda row: row["location_id"]))
def test_what_is_written_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]):
    frame = pd.DataFrame(rows).assign(series="35m", rank=range(len(rows)))
    path = write_buffer_csv(tmp_path_factory.getbasetemp() / "again_buffer_35.csv", frame, metric_crs="EPSG:32634")
    again = read_buffer_csv(path)
    for column in frame.columns:
        ours = [None if pd.isna(value) else value for value in again[column].astype(object)]
        assert ours == [None if pd.isna(value) else value for value in frame[column].astype(object)], column


def test_locations_without_a_request_or_a_published_order_are_written_too(tmp_path: Path):
    frame = read_buffer_csv(saved(tmp_path, f"{HEADER}\n{LINE}\n")).drop(columns="sorted_idx")
    frame = frame.assign(requested_lat_deg=None, requested_lng_deg=None, captured_on=None, rank=3)
    again = read_buffer_csv(write_buffer_csv(tmp_path / "a_buffer_100.csv", frame, metric_crs="EPSG:3006"))
    assert again["sorted_idx"].tolist() == [3]
    assert again[["requested_lat_deg", "captured_on"]].isna().all(axis=None)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path):
    path = saved(tmp_path, f"{HEADER}\n{LINE}\n")
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        write_buffer_csv(path, read_buffer_csv(path).assign(dist_to_start_m="far"), metric_crs="EPSG:3006")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("spacing_m", "count"), [(100, 1832), (75, 353), (60, 934), (50, 1362), (45, 525), (35, 1556)])
def test_the_published_files_are_written_again_as_they_are(shared_data: Path, tmp_path: Path, spacing_m: int, count: int):
    source = shared_data / "stockholm" / "buffer_csvs" / f"new_order_buffer_{spacing_m}.csv"
    frame = read_buffer_csv(source)
    assert len(frame) == count
    copy = write_buffer_csv(tmp_path / source.name, frame, metric_crs="EPSG:3006")
    with source.open(encoding="utf-8", newline="") as left, copy.open(encoding="utf-8", newline="") as right:
        published, ours = list(csv.reader(left)), list(csv.reader(right))
    assert [line[:-1] for line in ours] == [line[:-1] for line in published]
    for theirs, mine in zip(published[1:], ours[1:], strict=True):  # projections differ by rounding, nanometres
        assert _metres(mine[-1]) == pytest.approx(_metres(theirs[-1]), abs=1e-6)


def test_the_published_negatives_are_read(shared_data: Path):
    negatives = read_negatives(shared_data / "stockholm" / "no_response_locations.csv")
    assert len(negatives) == 15_485
    assert negatives["lookup_id"].is_unique


def _metres(point: str) -> list[float]:
    return [float(value) for value in point.removeprefix("POINT (").removesuffix(")").split()]
