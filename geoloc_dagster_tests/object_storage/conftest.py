"""One object server for the tests of a process, and a data root of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from geoloc_dagster.object_storage.binding import attach, working_copy_at
from geoloc_dagster.object_storage.store import ObjectStore
from geoloc_dagster.object_storage.working_copy import WorkingCopy
from geoloc_dagster_tests.object_storage.server import BUCKET, KEYS, object_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with an empty bucket."""
    with object_server(tmp_path_factory.mktemp("objects")) as url:
        yield url


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's keys in the environment, where the project looks for them."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix() -> str:
    """Of a data root that nobody else uses."""
    return f"root-{uuid4().hex[:8]}"


@pytest.fixture
def store(server: str, prefix: str) -> ObjectStore:
    """An empty data root."""
    return ObjectStore(BUCKET, prefix, server, "us-east-1")


def copy_at(root: Path, store: ObjectStore) -> WorkingCopy:
    """A working copy of a data root, as another machine would have it."""
    attach(root, bucket=store.bucket, prefix=store.prefix, endpoint=store.endpoint, region=store.region)
    copy = working_copy_at(root)
    assert copy is not None
    return copy
