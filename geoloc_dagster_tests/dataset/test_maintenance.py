"""Maintenance takes what nobody refers to, leaves what something pins, and says what it would do before it does it."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.maintenance import Done, maintain, pinned_versions
from geoloc_dagster.dataset.table_upkeep import SMALL_FILES, content_version
from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.tables import append_rows, delete_rows, open_table, replace_batch, table_version, verify_table
from geoloc_dagster_tests.prediction.world import FIRST, released
from geoloc_dagster_tests.retrieval.city import City, build_city

TABLE = pa.schema([pa.field("capture_id", pa.string()), pa.field("batch", pa.string()), pa.field("bytes", pa.large_binary())])


def grow(layout: Layout, commits: int, *, first: int = 0) -> Path:
    """The crops table in so many commits of one row."""
    for i in range(first, first + commits):
        row = {"capture_id": f"c{i}", "batch": "100m-0000", "bytes": np.random.default_rng(i).bytes(2_000)}
        append_rows(layout.crops, pa.Table.from_pylist([row], schema=TABLE))
    return layout.crops


def tidy(layout: Layout, *, days: float = 30, keep: int = 7, apply: bool = True) -> list[Done]:
    """Maintenance, some days from now."""
    return maintain(layout, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=days), keep_versions_days=keep, apply=apply)


def versions(path: Path) -> list[int]:
    return [int(one["version"]) for one in open_table(path).versions()]


def rows(path: Path, version: int | None = None) -> int:
    return int(open_table(path, version).count_rows())


def test_a_dry_run_says_what_there_is_to_do_and_changes_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = grow(layout, SMALL_FILES)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    (said,) = tidy(layout, apply=False)
    assert said.what == f"crops.lance: {SMALL_FILES - 1} of {SMALL_FILES} versions, {SMALL_FILES} small files put together"
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    assert versions(path) == list(range(1, SMALL_FILES + 1))


def test_old_versions_go_small_files_become_one_and_every_row_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = grow(layout, SMALL_FILES)
    tidy(layout)
    tidy(layout)  # what the compaction left is old by then
    assert rows(path) == SMALL_FILES
    assert len(list((path / "data").glob("*"))) == 1
    assert len(versions(path)) <= 2
    verify_table(path)
    seals = {seal.name for seal in path.with_name("crops.lance.sha256").glob("*")}
    assert seals <= {file.name for folder in ("data", "_versions") for file in (path / folder).glob("*")}


def test_young_versions_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = grow(layout, 3)
    assert tidy(layout, days=3) == []
    assert versions(path) == [1, 2, 3]


def test_a_compaction_is_no_news_to_what_was_made_of_the_table_and_a_new_row_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = grow(layout, SMALL_FILES)
    seen = table_version(path)
    assert content_version(path) == seen
    tidy(layout)
    assert table_version(path) > seen
    assert content_version(path) == seen
    grow(layout, 1, first=100)
    assert content_version(path) == table_version(path)


@pytest.fixture
def pinned(tmp_path: Path) -> Layout:
    """A release whose model saw version 2 of the crops and whose index is of the first embeddings; both have gone on since."""
    city: City = build_city(tmp_path)
    layout = released(city)
    folder = layout.checkpoints / "retrieval" / FIRST
    training = storage.read_json(folder / "training.json") | {"provenance": {"crops_version": 2}}
    storage.write_json(folder / "training.json", training)
    for _ in range(2):
        table = open_table(layout.embeddings).to_table()
        replace_batch(layout.embeddings, table.filter(pa.compute.field("batch") == "75m-0000"), "75m-0000")
    return layout


def test_the_local_features_of_an_index_are_pinned_too(tmp_path: Path) -> None:
    layout = released(build_city(tmp_path))
    path = layout.indexes / storage.read_json(layout.indexes / "LATEST.json")["index"] / "manifest.json"
    storage.write_json(path, storage.read_json(path) | {"local_features_version": 7})
    assert pinned_versions(layout)[layout.local_features] == {7}


def test_what_a_release_was_made_from_stays_readable(pinned: Layout) -> None:
    index = next(pinned.indexes.glob("index-*/manifest.json"))
    of_index = int(storage.read_json(index)["embeddings_version"])
    assert pinned_versions(pinned) == {pinned.crops: {2}, pinned.embeddings: {of_index}}
    assert table_version(pinned.embeddings) > of_index
    before = rows(pinned.crops, 2), rows(pinned.embeddings, of_index)
    tidy(pinned, keep=0)
    assert (rows(pinned.crops, 2), rows(pinned.embeddings, of_index)) == before
    assert versions(pinned.crops) == [2, table_version(pinned.crops)]
    tables = open_table(pinned.embeddings).tags.list()
    assert [tag["version"] for tag in tables.values()] == [of_index]


def test_a_version_that_nothing_names_any_more_is_let_go(pinned: Layout) -> None:
    tidy(pinned, keep=0)
    folder = pinned.checkpoints / "retrieval" / FIRST
    storage.write_json(folder / "training.json", storage.read_json(folder / "training.json") | {"provenance": {}})
    tidy(pinned, keep=0)
    assert versions(pinned.crops) == [table_version(pinned.crops)]
    assert open_table(pinned.crops).tags.list() == {}


def test_a_takedown_is_stronger_than_a_pin(pinned: Layout) -> None:
    tidy(pinned, keep=0)
    name = open_table(pinned.crops).to_table(columns=["capture_id"], limit=1)["capture_id"][0].as_py()
    assert delete_rows(pinned.crops, f"capture_id = '{name}'") == 1
    assert len(versions(pinned.crops)) == 1
    assert tidy(pinned, keep=0) is not None  # the pin that is gone is no error


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    storage.write_json(tmp_path / "reports" / "summary.json", {})
    part = tmp_path / "reports" / ".summary.json.0123abcd.part"
    part.write_bytes(b"x" * 500)
    folder = tmp_path / "index" / ".index-1.0123abcd.part"
    folder.mkdir(parents=True)
    (folder / "vectors.faiss").write_bytes(b"x" * 1_000)
    old = tmp_path / "reports" / ".summary.json.89abcdef.old"
    old.write_bytes(b"y")
    unrelated = [tmp_path / ".hidden.part", tmp_path / "reports" / "x.0123abcd.part"]
    for file in unrelated:
        file.write_bytes(b"z")
    assert tidy(layout, days=0.5) == []
    done = tidy(layout, days=2)
    assert {one.what: one.bytes for one in done} == {
        "leftover index/.index-1.0123abcd.part": 1_000,
        "leftover reports/.summary.json.0123abcd.part": 500,
        "leftover reports/.summary.json.89abcdef.old": 1,
    }
    assert not part.exists()
    assert not folder.exists()
    assert not old.exists()
    assert all(file.exists() for file in unrelated)


def test_the_only_copy_of_something_is_kept_and_said(tmp_path: Path) -> None:
    """Killed between the two renames: the earlier folder has its temporary name, and nothing has the real one."""
    old = tmp_path / "evaluations" / ".retrieval-1.0123abcd.old"
    old.mkdir(parents=True)
    (old / "report.json").write_text("{}")
    (said,) = tidy(Layout(tmp_path), days=2)
    assert "only copy of retrieval-1" in said.what
    assert (old / "report.json").exists()


def test_a_leftover_that_is_written_to_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / ".big.0123abcd.part"
    folder.mkdir()
    (folder / "part").write_bytes(b"x")
    later = dt.datetime.now(dt.UTC).timestamp() + 2 * 86_400
    os.utime(folder / "part", (later, later))
    assert tidy(Layout(tmp_path), days=2) == []


def test_a_damaged_table_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = grow(layout, 3)
    broken = layout.crops.with_name("broken.lance")
    (broken / "_versions").mkdir(parents=True)
    (broken / "_versions" / "1.manifest").write_bytes(b"no manifest")
    done = tidy(layout)
    assert any(one.what.startswith("broken.lance was left alone: GEO-503") for one in done)
    assert len(versions(path)) == 1
    with pytest.raises(IntegrityError):
        open_table(broken)
