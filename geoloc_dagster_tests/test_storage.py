"""Nothing is half-written, and nothing changed is believed."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.errors import DataRootError, DiskFullError, GateError, IntegrityError, SchemaVersionError, UnsafeFileError
from geoloc_dagster.tables import (
    append_rows,
    delete_rows,
    discard_files,
    open_table,
    replace_batch,
    replace_batch_files,
    verify_table,
    write_uncommitted,
)


def rows(batch: str, count: int, version: str = "1") -> pa.Table:
    schema = pa.schema(
        [
            pa.field("capture_id", pa.string(), nullable=False),
            pa.field("batch", pa.string()),
            pa.field("image", pa.large_binary()),
        ],
        metadata={b"geoloc_schema_version": version.encode()},
    )
    columns = {"capture_id": [f"{batch}{i}" for i in range(count)], "batch": [batch] * count, "image": [b"x" * 50] * count}
    return pa.table(columns, schema=schema)


def test_an_interrupted_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = storage.write_bytes(tmp_path / "a" / "file", b"old")

    def write_half() -> None:
        with storage.atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_an_interrupted_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with storage.atomic_folder(folder) as temporary:
        (temporary / "weights").write_bytes(b"old")

    def write_half() -> None:
        with storage.atomic_folder(folder) as temporary:
            (temporary / "weights").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (folder / "weights").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EACCES, DataRootError)]
)
def test_a_full_or_forbidden_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    path = storage.write_bytes(tmp_path / "table.parquet", b"old")

    def fail(self: Path, content: bytes) -> int:
        raise OSError(number, "simulated")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(expected, match=r"table\.parquet"):
        storage.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_changed_byte_of_a_parquet_file_never_reads_back_as_other_data(tmp_path: Path) -> None:
    table = pa.table({"n": [i * i % 977 for i in range(20_000)]})
    path = storage.write_parquet(tmp_path / "catalog.parquet", table)
    content = path.read_bytes()
    rng = random.Random(0)
    harmless = 0
    for _ in range(60):
        position = rng.randrange(len(content))
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :])
        with contextlib.suppress(IntegrityError):
            assert storage.read_parquet(path) == table  # a byte of the footer that nothing depends on
            harmless += 1
    assert harmless <= 10


def test_a_manifest_names_the_file_that_changed_and_the_one_that_is_gone(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "weights", b"weights")
    storage.write_bytes(tmp_path / "deep" / "recipe", b"recipe")
    assert storage.write_manifest(tmp_path, model_version="m-1")["model_version"] == "m-1"
    assert storage.verify_manifest(tmp_path)["model_version"] == "m-1"
    (tmp_path / "deep" / "recipe").write_bytes(b"recipE")
    with pytest.raises(IntegrityError, match="recipe has changed"):
        storage.verify_manifest(tmp_path)
    (tmp_path / "deep" / "recipe").unlink()
    with pytest.raises(IntegrityError, match="recipe is missing"):
        storage.verify_manifest(tmp_path)


def test_data_of_a_newer_version_is_refused_not_guessed(tmp_path: Path) -> None:
    append_rows(tmp_path / "crops.lance", rows("a", 1, version="2"))
    with pytest.raises(SchemaVersionError, match=r"crops\.lance has schema version 2"):
        open_table(tmp_path / "crops.lance")
    storage.write_json(tmp_path / "manifest.json", {"schema_version": 2, "files": {}})
    with pytest.raises(SchemaVersionError):
        storage.verify_manifest(tmp_path)


def test_a_batch_is_replaced_in_one_commit_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "crops.lance"
    append_rows(path, rows("a", 3))
    before = append_rows(path, rows("b", 2))
    assert replace_batch(path, rows("a", 1), "a") == before + 1
    dataset = open_table(path)
    assert sorted(dataset.to_table()["capture_id"].to_pylist()) == ["a0", "b0", "b1"]
    assert open_table(path, version=before).count_rows() == 5  # older versions stay readable


def written(path: Path, batch: str, count: int) -> list[str]:
    table = rows(batch, count)
    return write_uncommitted(path, table.to_batches(), table.schema, seal=True)


def ids_of(path: Path) -> list[str]:
    dataset = open_table(path)
    return [] if dataset is None else sorted(dataset.to_table()["capture_id"].to_pylist())


def test_files_written_elsewhere_become_a_batch_in_one_commit(tmp_path: Path) -> None:
    path = tmp_path / "crops.lance"
    before = append_rows(path, pa.concat_tables([rows("a", 3), rows("b", 2)]))  # two batches in one file
    append_rows(path, rows("c", 1))
    files = [*written(path, "a", 1), *written(path, "c", 0)]
    assert ids_of(path) == ["a0", "a1", "a2", "b0", "b1", "c0"], "nothing is seen before the commit"
    assert replace_batch_files(path, files, "a", rows("a", 1).schema) == before + 2
    assert ids_of(path) == ["a0", "b0", "b1", "c0"]
    replace_batch_files(path, [], "c", rows("a", 1).schema)
    assert ids_of(path) == ["a0", "b0", "b1"]
    verify_table(path)


def test_the_later_of_two_that_replace_one_batch_wins_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, schema = tmp_path / "crops.lance", rows("a", 1).schema
    append_rows(path, rows("b", 1))
    late, early = written(path, "a", 3), written(path, "a", 3)
    commit = lance.LanceDataset.commit

    def overtaken(*args, **kwargs):  # the other one commits after this one has looked and before it commits
        monkeypatch.setattr(lance.LanceDataset, "commit", commit)
        replace_batch_files(path, early, "a", schema)
        return commit(*args, **kwargs)

    monkeypatch.setattr(lance.LanceDataset, "commit", overtaken)
    replace_batch_files(path, late, "a", schema)
    assert ids_of(path) == ["a0", "a1", "a2", "b0"], "nothing is there twice"


def test_replacing_begins_again_where_others_changed_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, schema = tmp_path / "crops.lance", rows("a", 1).schema
    append_rows(path, pa.concat_tables([rows("a", 2), rows("b", 2)]))
    ours, theirs = written(path, "a", 3), written(path, "b", 1)
    commit = lance.LanceDataset.commit

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(lance.LanceDataset, "commit", commit)
        replace_batch_files(path, theirs, "b", schema)
        return commit(*args, **kwargs)

    monkeypatch.setattr(lance.LanceDataset, "commit", overtaken)
    replace_batch_files(path, ours, "a", schema)
    assert ids_of(path) == ["a0", "a1", "a2", "b0"]


def test_what_goes_wrong_while_rows_are_made_is_raised_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from rows("a", 1).to_batches()
        raise GateError("too dark")

    with pytest.raises(GateError, match="too dark"):
        write_uncommitted(tmp_path / "crops.lance", broken(), rows("a", 1).schema)


def test_files_that_were_purged_before_their_commit_are_not_committed(tmp_path: Path) -> None:
    path, schema = tmp_path / "crops.lance", rows("a", 1).schema
    append_rows(path, rows("a", 2))
    files = written(path, "a", 3)
    append_rows(path, rows("b", 1))
    delete_rows(path, "batch = 'b'")
    with pytest.raises(IntegrityError, match="was purged before it was committed"):
        replace_batch_files(path, files, "a", schema)
    assert ids_of(path) == ["a0", "a1"]


def test_what_is_discarded_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "crops.lance"
    discard_files(path, written(path, "a", 3))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_every_changed_byte_of_a_lance_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "panoramas.lance"
    append_rows(path, rows("a", 40))
    append_rows(path, rows("b", 40))
    verify_table(path)
    newest = min((path / "_versions").glob("*.manifest"), key=lambda file: int(file.stem))
    rng = random.Random(0)
    for file in [*(path / "data").iterdir(), newest]:
        content = file.read_bytes()
        for _ in range(10):
            position = rng.randrange(len(content))
            file.write_bytes(content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :])
            with pytest.raises(IntegrityError, match=file.name):
                verify_table(path)
        file.write_bytes(content)
    verify_table(path)


def test_a_table_whose_writer_was_killed_before_the_checksums_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "panoramas.lance"
    append_rows(path, rows("a", 4))
    for seal in (tmp_path / "panoramas.lance.sha256").iterdir():
        seal.unlink()
    verify_table(path)
    file = next((path / "data").iterdir())
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError):
        verify_table(path)


@pytest.mark.parametrize(("name", "content"), [("a.pkl", b""), ("a.npy", b"\x93NUMPY"), ("innocent.json", b"\x80\x04\x95")])
def test_pickles_are_refused_by_name_and_by_content(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeFileError, match=name):
        storage.refuse_pickles(tmp_path / name)


def test_a_manifest_names_every_file_but_what_people_put_beside(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "folder" / "weights.safetensors", b"a")
    storage.write_manifest(tmp_path / "folder")
    (tmp_path / "folder" / "map.png").write_bytes(b"a picture of it")
    (tmp_path / "folder" / ".weights.safetensors.1.part").write_bytes(b"left by a killed process")
    assert set(storage.verify_manifest(tmp_path / "folder")["files"]) == {"weights.safetensors"}
    (tmp_path / "folder" / "more.safetensors").write_bytes(b"a")
    with pytest.raises(IntegrityError, match=r"more\.safetensors is not in the manifest beside it"):
        storage.verify_manifest(tmp_path / "folder")
