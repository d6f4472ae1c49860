"""`geoloc download`: a list into a plain folder, with a report, resumed and filtered."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from typer.testing import CliRunner

from geoloc_dagster.cli import app
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import DataRootError
from geoloc_dagster.imagery.photo_folder import Download, filter_list, read_outcomes
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.imagery.photo_lists import download_list, job, write_list


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.clear_hits()
    return shared


def asked(service: EmulatorThread) -> list[str]:
    return [hit["what"] for hit in service.hits()["requests"] if hit["endpoint"] == "photo"]


def fetch_list(folder: Path, path: Path, options: dict[str, Any] | None = None, **more: Any) -> Download:
    return download_list(job(folder, **(options or {})), path, 1, **more)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def mixed(service: EmulatorThread, tmp_path: Path) -> Path:
    """Twenty good photos, and odd ones that stop nobody."""
    odd = ("missing", "noai", "private", "small", "gif", "truncated")
    rows = [{"id": f"{n:03d}", "url": f"{service.url}/photos/good/{n}.jpg"} for n in range(20)]
    rows += [
        {"id": name, "url": f"{service.url}/photos/{'private/7' if name == 'private' else 'odd/' + name}.jpg"} for name in odd
    ]
    return write_list(tmp_path / "list.csv", [*rows, {"id": "bad", "url": "nothing"}])


def test_what_came_and_what_did_not_is_written_down_with_its_kind(service: EmulatorThread, tmp_path: Path):
    result = fetch_list(tmp_path, mixed(service, tmp_path), {"min_side_px": 100})
    assert (result.came, result.bad_rows) == (20, 1)
    kinds = {"missing": "gone", "noai": "opted_out", "private": "disallowed", "small": "too_small", "gif": "not_an_image"}
    kinds["truncated"] = "truncated"
    assert {row["id"]: row["kind"] for row in rows_of(tmp_path / "out" / "failures.csv")} == kinds
    report = rows_of(tmp_path / "out" / "downloads.csv")
    assert all((tmp_path / "out" / row["file"]).is_file() for row in report if row["kind"] == "ok")
    assert len(report) == 26
    assert rows_of(tmp_path / "out" / "bad_rows.csv") == [
        {"file": "list.csv", "line": "28", "reason": "'nothing' is no http(s) URL"}
    ]


def test_a_second_run_asks_only_for_what_may_still_come(service: EmulatorThread, tmp_path: Path):
    path = mixed(service, tmp_path)
    fetch_list(tmp_path, path)
    service.clear_hits()
    result = fetch_list(tmp_path, path)
    assert set(asked(service)) == {"odd/truncated.jpg"}
    assert result.came == 21
    next((tmp_path / "out").glob("??/003.jpg")).unlink()
    service.clear_hits()
    fetch_list(tmp_path, path)
    assert set(asked(service)) == {"odd/truncated.jpg", "good/3.jpg"}


@pytest.mark.parametrize("behind", [b"o", b",ok"])  # in a word, or behind it, where half a line looks like a short one
def test_a_report_that_was_cut_off_loses_no_file(service: EmulatorThread, tmp_path: Path, behind: bytes):
    path = mixed(service, tmp_path)
    fetch_list(tmp_path, path)
    report = tmp_path / "out" / "downloads.csv"
    content = report.read_bytes()
    report.write_bytes(content[: content.rfind(behind, 0, 400) + len(behind)])
    service.clear_hits()
    fetch_list(tmp_path, path)
    assert not any(what.startswith("good/") for what in asked(service))
    assert all(len(row) == 5 and None not in row.values() for row in rows_of(report) if row["kind"] == "ok")
    assert {name for name, one in read_outcomes(tmp_path / "out").items() if one.kind == "gone"} == {"missing"}


def test_another_folder_is_not_taken_for_a_download(tmp_path: Path, service: EmulatorThread):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "downloads.csv").write_text("name,size\na,1\n")
    with pytest.raises(DataRootError, match="not a report"):
        fetch_list(tmp_path, mixed(service, tmp_path))


def test_lists_are_filtered_by_what_came(service: EmulatorThread, tmp_path: Path):
    places = write_list(
        tmp_path / "places.csv", [{"IMG_ID": f"{n:03d}.jpg", "AUTHOR": f"a, b {n}", "LAT": n, "LON": n} for n in range(15, 25)]
    )
    fetch_list(tmp_path, mixed(service, tmp_path), filter_files=[places])
    kept = rows_of(tmp_path / "out" / "downloaded_places.csv")
    assert [row["IMG_ID"] for row in kept] == [f"{n:03d}.jpg" for n in range(15, 20)]
    assert kept[0]["AUTHOR"] == "a, b 15"


def test_a_list_without_a_header_is_filtered_by_its_first_column(tmp_path: Path):
    path = tmp_path / "urls.csv"
    path.write_text("1a/1.jpg,http://a.example/1.jpg\n1b/2.jpg,http://a.example/2.jpg\n")
    assert filter_list(path, {"1b_2"}, tmp_path / "kept.csv") == 1
    assert (tmp_path / "kept.csv").read_text() == "1b/2.jpg,http://a.example/2.jpg\n"


def test_shuffling_is_the_same_every_time_and_rows_can_be_limited(service: EmulatorThread, tmp_path: Path):
    path = write_list(tmp_path / "list.csv", [{"id": f"{n:03d}", "url": f"{service.url}/photos/good/{n}.jpg"} for n in range(60)])
    orders: list[list[str]] = []
    for name in ("a", "b"):
        service.clear_hits()
        fetch_list(tmp_path, path, {"target": tmp_path / name, "concurrency": 1}, shuffle_seed=10, most=12)
        orders.append(asked(service))
    assert orders[0] == orders[1]
    assert len(orders[0]) == 12
    assert orders[0] != sorted(orders[0], key=lambda what: int(Path(what).stem))


def test_the_command_line_makes_photos_smaller_and_says_what_it_did(service: EmulatorThread, tmp_path: Path):
    path = write_list(tmp_path / "list.csv", [{"id": f"{n}", "url": f"{service.url}/photos/good/{n}.jpg"} for n in range(10)])
    more = ["--shuffle", "--size", "128", "--rate", "500", "--processes", "1"]
    result = CliRunner().invoke(app, ["download", "--output", str(tmp_path / "out"), "--url-csv", str(path), *more])
    assert result.exit_code == 0, result.output
    assert "10 photos are in" in result.output
    files = list((tmp_path / "out").glob("??/*.jpg"))
    assert {Image.open(io.BytesIO(file.read_bytes())).size for file in files} == {(171, 128)}
    suffixed = CliRunner().invoke(
        app, ["download", "--output", str(tmp_path / "z"), "--url-csv", str(path), "--size-suffix", "z", "--rate", "500"]
    )
    assert suffixed.exit_code == 0, suffixed.output
    assert "gone: 10" in suffixed.output
    assert any(what.endswith("/9_z.jpg") for what in asked(service))


def test_the_list_of_the_emulated_host_is_one_that_can_be_downloaded(service: EmulatorThread, tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes(httpx2.get(f"{service.url}/photos/list.csv").content)
    assert fetch_list(tmp_path, path, most=25).came == 25
