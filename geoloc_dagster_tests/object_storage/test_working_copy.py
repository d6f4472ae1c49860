"""Two machines at one data root: what one publishes the other finds, and nothing that was not published is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.errors import DataRootError, IntegrityError, StaleWriteError
from geoloc_dagster.object_storage.binding import working_copy_of
from geoloc_dagster.object_storage.store import Listed, ObjectStore
from geoloc_dagster.object_storage.working_copy import Pulled, WorkingCopy
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer
from geoloc_dagster.tables import (
    append_rows,
    commit_files,
    delete_rows,
    open_table,
    remove_table,
    replace_batch,
    table_exists,
    table_sizes,
    table_version,
    tables_in,
    verify_table,
    write_uncommitted,
)
from geoloc_dagster_tests.object_storage.conftest import copy_at


@pytest.fixture
def here(tmp_path: Path, store: ObjectStore) -> WorkingCopy:
    return copy_at(tmp_path / "here", store)


@pytest.fixture
def there(tmp_path: Path, store: ObjectStore) -> WorkingCopy:
    return copy_at(tmp_path / "there", store)


def objects(store: ObjectStore) -> set[str]:
    return {one.name for one in store.list()}


def make_folder(path: Path, **files: str) -> None:
    with storage.atomic_folder(path) as made:
        for name, text in files.items():
            storage.write_bytes(made / f"{name}.txt", text.encode())
        storage.write_manifest(made, kind="test")


def test_a_path_knows_its_working_copy(here: WorkingCopy, there: WorkingCopy, tmp_path: Path) -> None:
    assert working_copy_of(here.root / "a" / "b" / "c.parquet") == here
    assert working_copy_of(there.root / "a.json") == there
    assert working_copy_of(tmp_path / "elsewhere" / "a.json") is None


def test_what_one_machine_writes_the_other_pulls_once(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    storage.write_json(here.root / "reports" / "summary.json", {"rows": 1})
    storage.write_bytes(here.root / "buffers" / "empty.csv", b"")
    storage.write_parquet(here.root / "dataset" / "catalog.parquet", pa.table({"row": [1, 2]}))
    make_folder(here.root / "index" / "one", a="A", b="B")
    expected = {"reports/summary.json", "buffers/empty.csv", "dataset/catalog.parquet"}
    expected |= {f"index/one/{name}" for name in ("a.txt", "b.txt", "manifest.json")}
    assert objects(store) == expected
    assert there.pull() == Pulled(fetched=6, removed=0)
    assert there.pull() == here.pull() == Pulled(fetched=0, removed=0)
    assert storage.read_json(there.root / "reports" / "summary.json") == {"rows": 1}
    assert storage.read_parquet(there.root / "dataset" / "catalog.parquet").num_rows == 2
    storage.verify_manifest(there.root / "index" / "one")
    assert not list(there.root.rglob("*.part"))


def test_a_file_larger_than_a_part_of_an_upload_arrives_whole_and_once(here: WorkingCopy, there: WorkingCopy) -> None:
    content = os.urandom(12 << 20)
    storage.write_bytes(here.root / "onnx" / "large.bin", content)
    assert there.pull() == Pulled(1, 0)
    assert (there.root / "onnx" / "large.bin").read_bytes() == content
    assert there.pull() == here.pull() == Pulled(0, 0)


def test_a_change_and_a_removal_arrive(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    make_folder(here.root / "evaluations" / "one", a="A", b="B")
    storage.write_bytes(here.root / "buffers" / "old.csv", b"1")
    there.pull()
    make_folder(here.root / "evaluations" / "one", a="changed", c="C")
    storage.remove_file(here.root / "buffers" / "old.csv")
    assert {one for one in objects(store) if one.endswith(("txt", "csv"))} == {"evaluations/one/a.txt", "evaluations/one/c.txt"}
    assert there.pull() == Pulled(fetched=3, removed=2)
    assert sorted(path.name for path in (there.root / "evaluations" / "one").iterdir()) == ["a.txt", "c.txt", "manifest.json"]
    storage.verify_manifest(there.root / "evaluations" / "one")
    assert not (there.root / "buffers").exists()


def test_what_was_never_published_stays(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    own = [here.root / name for name in ("notes.txt", "checkpoints/small/.work-1/last.ckpt", "service/ledger.sqlite")]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    storage.write_bytes(here.root / "dagster" / "dagster.yaml", b"logs: here")
    storage.write_bytes(here.root / "service" / "browsers" / "1.json", b"{}")
    storage.write_json(here.root / "checkpoints" / "small" / ".job-1" / "job.json", {})
    storage.write_bytes(here.root / "service" / "evidence" / "page.html", b"<p>")
    assert objects(store) == {"service/evidence/page.html"}
    assert here.pull() == Pulled(0, 0)
    assert all(path.read_bytes() == b"mine" for path in own)


def test_a_lost_file_is_fetched_again(here: WorkingCopy) -> None:
    storage.write_bytes(here.root / "buffers" / "a.csv", b"1")
    (here.root / "buffers" / "a.csv").unlink()
    assert here.pull() == Pulled(1, 0)
    assert (here.root / "buffers" / "a.csv").read_bytes() == b"1"


def test_what_is_published_while_a_pull_is_under_way_is_neither_overwritten_nor_removed(
    here: WorkingCopy, there: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(there.root / "reports" / "a.txt", b"first")
    fetch = ObjectStore.fetch

    def slow_fetch(self: ObjectStore, listed: Listed, target: Path) -> bool:
        came = fetch(self, listed, target)
        monkeypatch.setattr(ObjectStore, "fetch", fetch)
        storage.write_bytes(here.root / "reports" / "a.txt", b"second")
        storage.write_bytes(here.root / "reports" / "b.txt", b"new")
        return came

    monkeypatch.setattr(ObjectStore, "fetch", slow_fetch)
    here.pull()
    assert {path.name: path.read_bytes() for path in (here.root / "reports").iterdir()} == {"a.txt": b"second", "b.txt": b"new"}
    assert here.pull() == Pulled(0, 0)
    assert there.pull() == Pulled(2, 0)


def test_a_damaged_or_lost_note_of_what_was_seen_costs_fetching_again(here: WorkingCopy) -> None:
    storage.write_bytes(here.root / "buffers" / "a.csv", b"1")
    for file in here.seen.path.parent.glob("seen.sqlite*"):
        file.write_bytes(b"no database at all" * 100)
    with pytest.raises(DataRootError, match="cannot be used") as refused:
        here.pull()
    assert "Delete it" in refused.value.remedy
    for file in here.seen.path.parent.glob("seen.sqlite*"):
        file.unlink()
    assert here.pull() == Pulled(1, 0)
    assert here.pull() == Pulled(0, 0)


def test_a_pointer_that_another_machine_has_moved_is_not_moved_back(here: WorkingCopy, there: WorkingCopy) -> None:
    write_pointer(here.root / "releases" / "CURRENT.json", {"release": "first"})
    there.pull()
    write_pointer(there.root / "releases" / "CURRENT.json", {"release": "second"})
    with pytest.raises(StaleWriteError, match="CURRENT"):
        write_pointer(here.root / "releases" / "CURRENT.json", {"release": "third"})
    assert read_pointer(here.root / "releases" / "CURRENT.json", "")["release"] == "first"
    assert not here.is_current(here.root / "releases" / "CURRENT.json")
    here.pull()
    assert here.is_current(here.root / "releases" / "CURRENT.json")
    assert read_pointer(here.root / "releases" / "CURRENT.json", "")["release"] == "second"
    write_pointer(here.root / "releases" / "CURRENT.json", {"release": "third"})


@pytest.mark.parametrize(("point", "arrives"), [("file.synced", False), ("object.put", True)])
def test_a_process_killed_while_it_publishes_leaves_the_old_or_the_new(
    here: WorkingCopy, there: WorkingCopy, point: str, arrives: bool
) -> None:
    path = here.root / "reports" / "summary.json"
    storage.write_json(path, "old")
    code = f"from pathlib import Path; from geoloc_dagster.storage import write_json; write_json(Path({str(path)!r}), 'new')"
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "GEOLOC_FAILPOINT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert storage.read_json(path) == "old"
    there.pull()
    here.pull()
    for copy in (here, there):
        assert storage.read_json(copy.root / "reports" / "summary.json") == ("new" if arrives else "old")


def test_a_folder_is_not_there_before_its_manifest(here: WorkingCopy, there: WorkingCopy) -> None:
    path = here.root / "index" / "one"
    code = (
        "from pathlib import Path\nfrom geoloc_dagster.storage import atomic_folder, write_bytes, write_manifest\n"
        f"with atomic_folder(Path({str(path)!r})) as made:\n    write_bytes(made / 'a.txt', b'A')\n    write_manifest(made)\n"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "GEOLOC_FAILPOINT": "object.folder_put"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    there.pull()
    assert not (there.root / "index" / "one" / "manifest.json").exists()
    assert subprocess.run(command, check=False).returncode == 0
    there.pull()
    storage.verify_manifest(there.root / "index" / "one")


def rows(*ids: str, batch: str = "a") -> pa.Table:
    return pa.table({"capture_id": list(ids), "batch": [batch] * len(ids), "image": [f"picture {one}".encode() for one in ids]})


def test_tables_lie_in_the_store_alone_and_are_one_for_all(here: WorkingCopy, there: WorkingCopy) -> None:
    name = Path("tables") / "crops.lance"
    assert open_table(here.root / name) is None
    assert not table_exists(here.root / name)
    append_rows(here.root / name, rows("1", "2"))
    assert append_rows(there.root / name, rows("3", batch="b")) == 2
    assert replace_batch(here.root / name, rows("1", "4"), "a") == table_version(there.root / name)
    table = open_table(there.root / name)
    assert table is not None
    assert sorted(table.to_table()["capture_id"].to_pylist()) == ["1", "3", "4"]
    assert open_table(there.root / name, 1).count_rows() == 2  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(IntegrityError, match="cannot be opened"):
        open_table(here.root / name, 99)
    assert not (here.root / name).exists()
    assert tables_in(here.root / "tables") == [here.root / name]
    assert sum(table_sizes(here.root / name).values()) > 1_000


def test_uncommitted_files_of_several_writers_are_committed_at_once(here: WorkingCopy) -> None:
    path = here.root / "tables" / "photos.lance"
    append_rows(path, rows("1"))
    files = [write_uncommitted(path, rows(one).to_batches(), rows(one).schema) for one in ("2", "3")]
    assert table_version(path) == 1
    assert commit_files(path, [file for part in files for file in part]) == 2
    verify_table(path)


def test_a_changed_or_missing_file_of_a_table_is_found(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    path = here.root / "tables" / "crops.lance"
    append_rows(path, rows("1"))
    there.pull()
    verify_table(there.root / "tables" / "crops.lance")
    data = next(one for one in objects(store) if "/data/" in one)
    content = store.get(data)
    store.put(data, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"has changed since it was written \(ETag differs\)"):
        verify_table(path)
    store.put(data, content)
    verify_table(path)
    store.remove(data)
    with pytest.raises(IntegrityError, match="is missing"):
        verify_table(there.root / "tables" / "crops.lance")


def test_a_table_that_was_copied_from_disk_keeps_its_checksums(here: WorkingCopy, store: ObjectStore, tmp_path: Path) -> None:
    local = tmp_path / "local" / "tables" / "crops.lance"
    append_rows(local, rows("1"))
    for file in (file for file in local.parent.rglob("*") if file.is_file()):
        store.put(file.relative_to(tmp_path / "local").as_posix(), file)
    here.pull()
    path = here.root / "tables" / "crops.lance"
    verify_table(path)
    data = next(one for one in objects(store) if "/data/" in one)
    store.put(data, store.get(data)[:-1] + b"!")
    with pytest.raises(IntegrityError, match="has changed"):
        verify_table(path)


def test_a_table_that_was_copied_to_disk_gets_checksums_of_its_own(here: WorkingCopy, store: ObjectStore, tmp_path: Path) -> None:
    append_rows(here.root / "tables" / "crops.lance", rows("1"))
    for one in store.list():
        target = tmp_path / "local" / one.name
        target.parent.mkdir(parents=True, exist_ok=True)
        assert store.fetch(one, target)
    path = tmp_path / "local" / "tables" / "crops.lance"
    verify_table(path)
    assert all(len(seal.read_text()) == 64 for seal in path.with_name("crops.lance.sha256").iterdir())


def test_rows_that_are_deleted_are_gone_from_every_object(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    path = here.root / "tables" / "crops.lance"
    append_rows(path, rows("1", "2"))
    append_rows(path, rows("3"))
    there.pull()
    assert delete_rows(path, "capture_id = '2'") == 1
    assert not any(b"picture 2" in store.get(name) for name in objects(store) if name.startswith("tables/crops.lance/"))
    there.pull()
    verify_table(there.root / "tables" / "crops.lance")
    there_seals = {seal.name for seal in (there.root / "tables" / "crops.lance.sha256").iterdir()}
    assert there_seals == {name.rpartition("/")[2] for name in objects(store) if name.startswith("tables/crops.lance.sha256/")}


def test_a_removed_table_can_be_made_again(here: WorkingCopy, there: WorkingCopy, store: ObjectStore) -> None:
    path = here.root / "tables" / "embeddings.lance"
    append_rows(path, rows("1"))
    there.pull()
    remove_table(path)
    assert objects(store) == set()
    append_rows(there.root / "tables" / "embeddings.lance", rows("2"))
    here.pull()
    verify_table(path)
