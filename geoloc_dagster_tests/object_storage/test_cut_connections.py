"""Connections that end in the middle: sent again where that is safe, one clear error where it is not, nothing lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.errors import ObjectStorageError
from geoloc_dagster.object_storage import store as store_module
from geoloc_dagster.object_storage.store import ObjectStore
from geoloc_dagster.object_storage.working_copy import Pulled, WorkingCopy
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster_tests.object_storage.conftest import copy_at
from geoloc_dagster_tests.object_storage.server import BUCKET, CuttingProxy


@pytest.fixture
def proxy(server: str) -> Iterator[CuttingProxy]:
    with CuttingProxy(server) as proxy:
        yield proxy


@pytest.fixture
def here(tmp_path: Path, proxy: CuttingProxy, prefix: str, monkeypatch: pytest.MonkeyPatch) -> WorkingCopy:
    """A machine whose way to the store leads over the proxy; it gives up after seconds."""
    monkeypatch.setattr(store_module, "RETRIES", 3)
    monkeypatch.setattr(store_module, "RETRY_S", 8)
    return copy_at(tmp_path / "here", ObjectStore(BUCKET, prefix, proxy.url, "us-east-1"))


@pytest.mark.parametrize("how", ["request", "answer"])
def test_a_file_whose_upload_is_cut_is_sent_again(here: WorkingCopy, proxy: CuttingProxy, store: ObjectStore, how: str) -> None:
    proxy.how, proxy.match, proxy.cuts = how, b"PUT ", 2
    storage.write_bytes(here.root / "buffers" / "a.csv", b"x" * 100_000)
    assert proxy.cut == 2
    assert store.get("buffers/a.csv") == b"x" * 100_000
    assert here.pull() == Pulled(0, 0)


def test_a_download_that_is_cut_is_finished(here: WorkingCopy, proxy: CuttingProxy, store: ObjectStore) -> None:
    store.put("onnx/model.bin", b"y" * 3_000_000)
    proxy.how, proxy.match, proxy.cuts = "answer", b"GET ", 2
    assert here.pull() == Pulled(1, 0)
    assert proxy.cut == 2
    assert (here.root / "onnx" / "model.bin").read_bytes() == b"y" * 3_000_000


@pytest.mark.parametrize("how", ["request", "answer"])
def test_a_pointer_whose_upload_is_cut_is_moved_once(
    here: WorkingCopy, proxy: CuttingProxy, store: ObjectStore, how: str
) -> None:
    pointer = here.root / "releases" / "CURRENT.json"
    write_pointer(pointer, {"release": "first"})
    proxy.how, proxy.match, proxy.cuts = how, b"PUT ", 1
    write_pointer(pointer, {"release": "second"})  # sent again, it finds itself where the answer alone was lost
    assert proxy.cut == 1
    assert read_pointer(pointer, "")["release"] == "second"
    assert store.get("releases/CURRENT.json") == pointer.read_bytes()
    assert here.is_current(pointer)
    write_pointer(pointer, {"release": "third"})


@pytest.mark.parametrize("how", ["request", "answer"])
def test_rows_whose_commit_is_cut_are_there_once_after_a_rerun(here: WorkingCopy, proxy: CuttingProxy, how: str) -> None:
    path = here.root / "tables" / "rows.lance"
    append_rows(path, pa.table({"row": [0]}))
    proxy.how, proxy.match, proxy.cuts = how, rb"PUT \S+rows.lance/_versions/", 1
    for _ in range(2):  # a run and its rerun, which writes what is not there, as every asset does
        for row in (1, 2, 3):
            if row not in open_table(path).to_table()["row"].to_pylist():
                with contextlib.suppress(ObjectStorageError):
                    append_rows(path, pa.table({"row": [row]}))
    assert proxy.cut == 1
    assert sorted(open_table(path).to_table()["row"].to_pylist()) == [0, 1, 2, 3]
    verify_table(path)


def test_a_store_that_is_away_is_one_clear_error_and_a_rerun_completes(here: WorkingCopy, proxy: CuttingProxy) -> None:
    path, table = here.root / "buffers" / "a.csv", here.root / "tables" / "rows.lance"
    storage.write_bytes(path, b"1")
    append_rows(table, pa.table({"row": [0]}))
    proxy.cuts = -1
    for attempt in (
        lambda: storage.write_bytes(path, b"2"),
        lambda: append_rows(table, pa.table({"row": [1]})),
        lambda: open_table(table),
        here.pull,
    ):
        with pytest.raises(ObjectStorageError, match="connection failed or was cut") as failed:
            attempt()
        assert "\n" not in str(failed.value)
    assert path.read_bytes() == b"1"
    proxy.cuts = 0
    storage.write_bytes(path, b"2")
    append_rows(table, pa.table({"row": [1]}))
    assert here.pull() == Pulled(0, 0)
    assert not list(here.root.rglob("*.part"))
