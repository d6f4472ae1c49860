"""What everything else rests on: the server honours conditions, and concurrent commits of one table lose nothing."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from geoloc_dagster.errors import ObjectStorageError, StaleWriteError
from geoloc_dagster.object_storage.store import ObjectStore
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster_tests.object_storage.conftest import copy_at
from geoloc_dagster_tests.object_storage.server import BUCKET, client_of

WRITERS, COMMITS = 2, 6


def refused(function, **arguments) -> bool:
    try:
        function(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
            raise
        return True
    return False


def test_of_many_who_create_one_object_at_once_one_does(server: str, prefix: str) -> None:
    client = client_of(server)

    def create(writer: int) -> bool:
        body = str(writer).encode()
        return not refused(client.put_object, Bucket=BUCKET, Key=f"{prefix}/created", Body=body, IfNoneMatch="*")

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(create, range(8)))
    assert sum(done) == 1
    assert client.get_object(Bucket=BUCKET, Key=f"{prefix}/created")["Body"].read() == str(done.index(True)).encode()


def test_of_many_who_replace_one_version_of_an_object_at_once_one_does(server: str, prefix: str) -> None:
    client = client_of(server)
    key = f"{prefix}/replaced"
    etag = client.put_object(Bucket=BUCKET, Key=key, Body=b"first")["ETag"]

    def write(writer: int) -> bool:
        return not refused(client.put_object, Bucket=BUCKET, Key=key, Body=f"writer {writer}".encode(), IfMatch=etag)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(write, range(8)))
    assert sum(done) == 1
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == f"writer {done.index(True)}".encode()


def test_the_project_proves_it_before_it_uses_a_server(store: ObjectStore) -> None:
    store.prove_conditions("proof", b"1")
    store.prove_conditions("proof", b"1")  # also where the object is there already
    assert store.get("proof") == b"1"


def test_a_server_that_ignores_conditions_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    unconditional = obstore.put
    monkeypatch.setattr(obstore, "put", lambda client, name, content, **_: unconditional(client, name, content))
    with pytest.raises(ObjectStorageError, match="ignores If-None-Match"):
        store.prove_conditions("proof", b"1")


def test_a_write_on_something_that_has_changed_is_refused(store: ObjectStore) -> None:
    first = store.put_if("pointer", b"1", None)
    second = store.put_if("pointer", b"2", first)
    for stale in (None, first):
        with pytest.raises(StaleWriteError, match="pointer"):
            store.put_if("pointer", b"3", stale)
    assert store.get("pointer") == b"2"
    assert store.put_if("pointer", b"2", first) == second  # it is there already: the answer to the first attempt was lost


def append(root: Path, store: ObjectStore, writer: int) -> None:
    """What one process does: commits of its own rows, a machine of its own."""
    table = copy_at(root / str(writer), store).root / "tables" / "rows.lance"
    for commit in range(COMMITS):
        append_rows(table, pa.table({"writer": [writer], "commit": [commit], "bytes": [bytes(2_000)]}))


def test_two_processes_that_append_to_one_table_at_once_lose_nothing(store: ObjectStore, tmp_path: Path) -> None:
    append(tmp_path, store, 0)  # the table is there
    with ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(append, [tmp_path] * WRITERS, [store] * WRITERS, range(1, WRITERS + 1)))
    copy = copy_at(tmp_path / "0", store)
    table = open_table(copy.root / "tables" / "rows.lance")
    assert table is not None
    rows = sorted(zip(*(table.to_table()[name].to_pylist() for name in ("writer", "commit")), strict=True))
    assert rows == [(writer, commit) for writer in range(WRITERS + 1) for commit in range(COMMITS)]
    copy.pull()  # brings the checksums that the others have recorded
    verify_table(copy.root / "tables" / "rows.lance")


def test_wrong_keys_and_a_missing_bucket_are_named(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ObjectStorageError, match="NoSuchBucket") as missing:
        replace(store, bucket="nobodys").put("a", b"1")
    assert "Make the bucket" in missing.value.remedy
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ObjectStorageError, match="SignatureDoesNotMatch") as wrong:
        replace(store, prefix="other").put("a", b"1")
    assert "AWS_SECRET_ACCESS_KEY" in wrong.value.remedy
    assert "wrong" not in str(wrong.value)


def test_keys_come_from_the_credentials_file_that_the_environment_names(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    lines = [f"{name.lower()} = {os.environ[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    (tmp_path / "keys").write_text("\n".join(["[default]", "region = x", "[geoloc]", *lines]))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    with pytest.raises(ObjectStorageError, match=r"no keys in its section \[default\]"):
        store.put("a", b"1")
    monkeypatch.setenv("AWS_PROFILE", "geoloc")
    replace(store, prefix="other").put("a", b"1")
