"""What live services have been asked per day, in one small database that all processes of a region share.

Budgets hold for the region, not for a process: whoever is about to ask takes its request from the day's budget first, in one
statement, so that two processes never take the same one. A killed process at worst leaves a request counted that it never
sent, so a budget is never exceeded.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path

from geoloc_dagster.errors import DataRootError, DiskFullError, IntegrityError
from geoloc_dagster.storage import translated_errors

_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    service TEXT NOT NULL, day TEXT NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (service, day, what)
) WITHOUT ROWID
"""
_TAKE = """
INSERT INTO used (service, day, what, count) SELECT :service, :day, :what, :count WHERE :count <= :limit
ON CONFLICT (service, day, what) DO UPDATE SET count = count + excluded.count WHERE count + excluded.count <= :limit
"""
_USED = "SELECT count FROM used WHERE service = :service AND day = :day AND what = :what"
_NO_LIMIT = 2**62


class Ledger:
    """Counts of (service, day, what); several processes and threads may share one file.

    Args:
        path: the database; made, with its folder, when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    def take(self, service: str, day: dt.date, what: str, count: int, limit: int) -> bool:
        """Take `count` from what `limit` leaves of the day, all or nothing; whether it was there.

        Raises:
            DataRootError: the database cannot be opened or written, or stays locked.
            DiskFullError: there is no space for it; nothing was taken.
            IntegrityError: the file is no such database, or is damaged.
        """
        if count < 0:
            raise ValueError(f"{count} cannot be taken")
        if count == 0:
            return True
        with self._open() as connection:
            parameters = {"service": service, "day": day.isoformat(), "what": what, "count": count, "limit": limit}
            return connection.execute(_TAKE, parameters).rowcount == 1

    def add(self, service: str, day: dt.date, what: str, count: int) -> None:
        """Count something that happened whatever the budget; raises as `take`."""
        self.take(service, day, what, count, _NO_LIMIT)

    def used(self, service: str, day: dt.date, what: str) -> int:
        """How much of a day has been taken so far; 0 where nothing was, and raises as `take`."""
        if not self._path.exists():
            return 0
        with self._open() as connection:
            row = connection.execute(_USED, {"service": service, "day": day.isoformat(), "what": what}).fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """The connection of this process, one thread at a time; a child of a fork opens its own."""
        with self._lock, translated_errors(self._path):
            try:
                if self._connection is None or self._pid != os.getpid():
                    self._connection, self._pid = self._connect(), os.getpid()
                yield self._connection
            except sqlite3.OperationalError as error:
                if "full" in str(error):
                    raise DiskFullError(f"no space left while writing {self._path}") from error
                raise DataRootError(f"cannot use {self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                remedy = "Move that file away; a new one is made, and today's count begins again."
                raise IntegrityError(f"{self._path} is damaged: {error}", remedy) from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        # A count that a power cut takes back costs a few requests too many; a sync per request would cost far more.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        return connection
