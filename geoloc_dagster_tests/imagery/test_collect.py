"""Collecting batches: every picture once, whatever happens in between."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import errno
import hashlib
from pathlib import Path

import lance
import pytest

from geoloc_dagster.errors import ConfigError, DataRootError, DiskFullError, PermissionMissingError
from geoloc_dagster.imagery.collect import CollectionResult, capture_id, collect_batch
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Location, Panorama, Terms, View
from geoloc_dagster.tables import open_table, table_version, verify_table
from geoloc_dagster_tests.imagery.pictures import TERMS, bomb, file_name, files_of, jpeg, places, write_folder, write_tar
from geoloc_dagster_tests.imagery.processes import NOW, collect_all, instants, kill_after


def collect(provider: FolderProvider, locations: list[Location], table: Path, batch="100m-0000", **options) -> CollectionResult:
    options = {"run_id": "one", "now": NOW, "commit_rows": 7, "visits_path": table.with_name("visits.lance")} | options
    return asyncio.run(collect_batch(provider, locations, batch, table, **options))


def rows_of(table: Path) -> list[dict]:
    dataset = open_table(table)
    assert dataset is not None
    return sorted(dataset.to_table().to_pylist(), key=lambda row: row["capture_id"])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "tables" / "captures.lance"


def test_a_row_says_what_the_name_says_and_holds_the_bytes_untouched(tmp_path: Path, table: Path):
    content = jpeg(3)
    source = write_tar(tmp_path / "Old_Town_v1.tar", {f"Old_Town_v1/000/{file_name('774', 2, 5, 'July 2017')}": content})
    place = Location("774", 59.325, 18.07, pano_id="abc", captured_on=dt.date(2017, 7, 1))
    result = collect(FolderProvider([source], TERMS, fov_deg=75), [place], table)
    (row,) = rows_of(table)
    assert row["image"] == content
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert (row["width"], row["height"], row["status"], row["failure"]) == (32, 32, "ok", None)
    assert (row["provider"], row["source"], row["location_id"]) == ("folder", "Old_Town_v1", "774")
    assert (row["lat_deg"], row["lng_deg"], row["pano_id"]) == (59.325, 18.07, "abc")
    assert (row["captured_on"], row["capture_precision"]) == (dt.date(2017, 7, 1), "month")
    assert (row["rotation"], row["heading_deg"], row["fov_deg"]) == (2, None, 75)
    assert (row["fetched_at"], row["run_id"]) == (NOW, "one")
    assert (row["licence"], row["attribution"]) == (TERMS.licence, TERMS.attribution)
    assert result == CollectionResult(1, 1, {}, len(content), table_version(table), negatives=0, pending=0, visited=1)


def test_a_panorama_id_is_not_given_to_pictures_of_another_date(tmp_path: Path, table: Path):
    source = write_folder(tmp_path / "photos", files_of(1))
    collect(FolderProvider([source], TERMS), [Location("0", 59, 18, "newest", dt.date(2022, 9, 1))], table)
    assert {(row["captured_on"].year, row["pano_id"]) for row in rows_of(table)} == {(2022, "newest"), (2016, None), (2011, None)}


def test_locations_without_pictures_are_counted_and_are_no_error(tmp_path: Path, table: Path):
    source = write_tar(tmp_path / "some.tar", files_of(3))
    result = collect(FolderProvider([source], TERMS), places(10), table)
    assert (result.rows_new, result.negatives, result.failures_by_kind) == (36, 7, {})
    empty = collect(FolderProvider([source], TERMS), places(5, first=100), table, batch="100m-0001")
    assert (empty.rows_new, empty.rows_total, empty.negatives) == (0, 0, 5)


def test_a_first_batch_without_any_picture_leaves_an_empty_table(tmp_path: Path, table: Path):
    source = write_tar(tmp_path / "some.tar", files_of(1))
    collect(FolderProvider([source], TERMS), places(2, first=50), table)
    assert rows_of(table) == []


def test_repeating_a_batch_adds_nothing_and_commits_nothing(tmp_path: Path, table: Path):
    provider = FolderProvider([write_tar(tmp_path / "some.tar", files_of(3))], TERMS)
    first = collect(provider, places(3), table)
    again = collect(provider, places(3), table, run_id="two")
    assert (again.rows_new, again.bytes, again.rows_total) == (0, 0, first.rows_total)
    assert again.table_version == first.table_version


def test_a_repeated_batch_fetches_only_what_is_new(tmp_path: Path, table: Path):
    files = files_of(2)
    source = write_folder(tmp_path / "growing", dict(list(files.items())[:13]))
    provider = FolderProvider([source], TERMS)
    assert collect(provider, places(2), table).rows_new == 13
    write_folder(source, files)
    assert collect(provider, places(2), table).rows_new == len(files) - 13
    assert len({row["capture_id"] for row in rows_of(table)}) == len(files) == len(rows_of(table))


def test_one_commit_per_commit_rows(tmp_path: Path, table: Path):
    provider = FolderProvider([write_tar(tmp_path / "some.tar", files_of(2))], TERMS)
    assert collect(provider, places(2), table, commit_rows=5).table_version == 5  # 24 rows


def test_progress_counts_locations(tmp_path: Path, table: Path):
    seen: list[tuple[int, int]] = []
    provider = FolderProvider([write_tar(tmp_path / "some.tar", files_of(2))], TERMS)
    collect(provider, places(3), table, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_bad_picture_costs_one_row_and_nothing_else(tmp_path: Path, table: Path):
    whole = files_of(1, dates=1)
    names = sorted(whole)
    bad = {names[0]: b"<html>are you a robot?</html>", names[1]: bomb(), names[2]: jpeg(1) + bytes(60_000)}
    source = write_folder(tmp_path / "mixed", whole | bad)
    result = collect(FolderProvider([source], TERMS, max_bytes=60_000), places(1), table)
    by_rotation = {row["rotation"]: row for row in rows_of(table)}
    assert [by_rotation[rotation]["failure"] for rotation in range(4)] == ["undecodable", "undecodable", "too_large", None]
    assert [by_rotation[rotation]["status"] for rotation in range(4)] == ["failed", "failed", "failed", "ok"]
    assert by_rotation[0]["image"] == bad[names[0]], "what was received is kept"
    assert by_rotation[2]["image"] is None
    assert by_rotation[3]["image"] == whole[names[3]]
    assert result.failures_by_kind == {"undecodable": 2, "too_large": 1}
    assert collect(FolderProvider([source], TERMS, max_bytes=60_000), places(1), table).rows_new == 0


def test_a_picture_that_cannot_be_read_now_is_tried_again_by_the_next_run(tmp_path: Path, table: Path):
    files = files_of(1, dates=1)
    source = write_folder(tmp_path / "photos", files)
    provider = FolderProvider([source], TERMS)
    provider.location_ids()  # lists the folder
    victim = source / sorted(files)[2]
    victim.write_bytes(b"")  # as if the disk had gone: shorter than it was listed
    result = collect(provider, places(1), table)
    assert (result.rows_new, result.pending, result.failures_by_kind) == (3, 1, {"unreadable": 1})
    victim.write_bytes(files[sorted(files)[2]])
    assert collect(FolderProvider([source], TERMS), places(1), table).rows_new == 1


def test_nothing_is_stored_against_the_terms(tmp_path: Path, table: Path):
    source = write_tar(tmp_path / "some.tar", files_of(1))
    forbidden = dataclasses.replace(TERMS, may_train=False)
    with pytest.raises(PermissionMissingError, match=r"do not allow training"):
        collect(FolderProvider([source], forbidden), places(1), table)
    assert not table.exists()
    permitted = dataclasses.replace(forbidden, permission="letter of 2026-01-02")
    assert collect(FolderProvider([source], permitted), places(1), table).rows_new == 12


@pytest.mark.parametrize(("licence", "attribution"), [("", "someone"), ("CC0-1.0", "  ")])
def test_terms_without_licence_or_attribution_are_refused(licence: str, attribution: str):
    with pytest.raises(ConfigError, match="licence and an attribution"):
        Terms(licence, attribution)


def test_the_identity_of_a_capture_is_its_place_date_and_view_not_its_panorama_id():
    panorama = Panorama(places(1)[0], "old", dt.date(2020, 5, 1), "month", "0", pano_id="one night")
    view = View(None, 1, 0.0, 90.0)
    reference = capture_id("folder", panorama, view)
    assert reference == "154df6fdee00f0ba0b0d2a7d52aec0ba", "stored tables know captures by this"
    assert capture_id("folder", dataclasses.replace(panorama, pano_id="another night"), view) == reference
    others = [
        capture_id("google", panorama, view),
        *(
            capture_id("folder", dataclasses.replace(panorama, **change), view)
            for change in ({"source": "new"}, {"captured_on": dt.date(2020, 6, 1)}, {"variant": "1"}, {"location": places(2)[1]})
        ),
        *(
            capture_id("folder", panorama, dataclasses.replace(view, **change))
            for change in ({"rotation": 2}, {"pitch_deg": 10.0}, {"fov_deg": 75.0}, {"rotation": None, "heading_deg": 90.0})
        ),
    ]
    assert len({reference, *others}) == 10


def test_a_full_disk_is_said_and_keeps_what_was_committed(tmp_path: Path, small_disk):
    provider = FolderProvider([write_tar(tmp_path / "some.tar", files_of(20, size=96))], TERMS)
    table = small_disk("size=512k") / "captures.lance"
    with pytest.raises(DiskFullError, match="no space left while writing") as error:
        collect(provider, places(20), table, commit_rows=20)
    assert "run the same command again" in str(error.value)
    kept = rows_of(table)
    assert 0 < len(kept) < 240
    assert all(hashlib.sha256(row["image"]).hexdigest() == row["sha256"] for row in kept)
    small_disk("size=16m")
    assert collect(provider, places(20), table).rows_total == 240
    assert len({row["capture_id"] for row in rows_of(table)}) == 240
    verify_table(table)


def test_a_disk_that_fills_between_commits_keeps_the_version_before(tmp_path: Path, table: Path, monkeypatch):
    provider = FolderProvider([write_tar(tmp_path / "some.tar", files_of(2))], TERMS)
    collect(provider, places(1), table)
    before, version = rows_of(table), table_version(table)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lance, "write_dataset", full)
        with pytest.raises(DiskFullError):
            collect(provider, places(2), table)
    assert (rows_of(table), table_version(table)) == (before, version)
    assert collect(provider, places(2), table).rows_total == 24


def test_a_read_only_disk_is_said(tmp_path: Path, small_disk):
    source = write_tar(tmp_path / "some.tar", files_of(1))
    with pytest.raises(DataRootError, match="cannot write"):
        collect(FolderProvider([source], TERMS), places(1), small_disk("ro") / "tables" / "captures.lance")


def test_a_table_below_a_file_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    source = write_tar(tmp_path / "some.tar", files_of(1))
    with pytest.raises(DataRootError, match="cannot write"):
        collect(FolderProvider([source], TERMS), places(1), tmp_path / "file" / "tables" / "captures.lance")


@pytest.mark.slow
def test_a_collection_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path):
    source = write_tar(tmp_path / "city.tar", files_of(12))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["collect", str(source), str(killed), "3", "4"]
    kills = [kill_after(arguments, killed / "captures.lance", *instant) for instant in instants(1, 4, most_commits=8)]
    assert sum(kills) >= 2, "too few processes were killed while they worked"
    collect_all(source, killed, 3, 4)
    collect_all(source, whole, 3, 4)
    rows = rows_of(killed / "captures.lance")
    assert len(rows) == 12 * 12 == len({row["capture_id"] for row in rows})
    assert rows == rows_of(whole / "captures.lance")
    verify_table(killed / "captures.lance")


@pytest.mark.slow
def test_the_real_collection_is_collected_whole(shared_data: Path, tmp_path: Path):
    provider = FolderProvider(sorted((shared_data / "stockholm" / "images").glob("*.tar")), TERMS)
    known = sorted(provider.location_ids(), key=int)
    locations = [Location(name, 59.3, 18.0) for name in [*known, "6500"]]
    result = collect(provider, locations, tmp_path / "captures.lance", commit_rows=4096)
    assert (result.rows_new, result.negatives, result.failures_by_kind) == (14_142, 1, {})
    dataset = open_table(tmp_path / "captures.lance")
    assert dataset is not None
    counts = dataset.to_table(columns=["source", "sha256"]).group_by("source").aggregate([("sha256", "count")]).to_pylist()
    assert {row["source"]: row["sha256_count"] for row in counts} == {
        "Cropped_Training_v1_buffer_100": 6_576,
        "Cropped_Training_v2_buffer_100": 4_649,
        "Cropped_Validation_v1_buffer_35": 2_917,
    }
