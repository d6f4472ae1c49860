"""A small SQLite file that several processes and threads share, with one clear error for what goes wrong."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path

from geoloc_dagster.errors import DataRootError, DiskFullError, IntegrityError
from geoloc_dagster.storage import translated_errors

_BUSY_S = 30.0


class Database:
    """One file, one connection per process.

    Args:
        path: of the file; made, with its folder, when it is first used.
        schema: statements that make what is missing.
        lost: what is lost when a damaged file is moved away, for people.
    """

    def __init__(self, path: Path, schema: str, lost: str) -> None:
        self.path = path
        self._schema = schema
        self._lost = lost
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    @contextlib.contextmanager
    def open(self) -> Generator[sqlite3.Connection]:
        """The connection of this process, one thread at a time; a child of a fork opens its own.

        Raises:
            DataRootError: the file cannot be opened or written, or stays locked.
            DiskFullError: there is no space for it; nothing was changed.
            IntegrityError: the file is no such database, or is damaged.
        """
        with self._lock, translated_errors(self.path):
            try:
                if self._connection is None or self._pid != os.getpid():
                    self._connection, self._pid = self._connect(), os.getpid()
                yield self._connection
            except sqlite3.OperationalError as error:
                if "full" in str(error):
                    raise DiskFullError(f"no space left while writing {self.path}") from error
                raise DataRootError(f"cannot use {self.path}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise IntegrityError(
                    f"{self.path} is damaged: {error}", f"Move that file away; a new one is made, and {self._lost}."
                ) from error

    @contextlib.contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """The same, with everything that is done within taken back where an exception leaves it; raises as `open`."""
        with self.open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        _use_write_ahead_log(connection)
        # What a power cut takes back costs a few requests too many; a sync per request would cost far more.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(self._schema)
        return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Change the mode of the journal; where two processes do so at once, SQLite tells one that it is locked without waiting."""
    given_up_at = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > given_up_at:
                raise
        time.sleep(random.uniform(0.001, 0.02))
