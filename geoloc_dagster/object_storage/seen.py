"""Which version of each object the files of a working copy are: name -> ETag, shared by all processes of this machine."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.errors import DataRootError

_BUSY_S = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """A small SQLite file. Lost, it costs fetching everything again, and nothing else."""

    path: Path

    def all(self) -> dict[str, str]:
        """Everything that was noted."""
        with self._open() as connection:
            return dict(connection.execute("SELECT name, etag FROM seen").fetchall())

    def etag(self, name: str) -> str | None:
        """The ETag of one object; None where none was noted."""
        with self._open() as connection:
            found = connection.execute("SELECT etag FROM seen WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def note(self, etags: Mapping[str, str]) -> None:
        """Note the ETags of some objects."""
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", list(etags.items()))

    def drop(self, names: Iterable[str]) -> None:
        """Forget some objects."""
        with self._open() as connection:
            connection.executemany("DELETE FROM seen WHERE name = ?", [(name,) for name in names])

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY, etag TEXT NOT NULL) WITHOUT ROWID")
                yield connection
        except sqlite3.Error as error:
            raise DataRootError(
                f"{self.path} cannot be used: {error}", "Delete it while nothing runs; the next command makes it again."
            ) from error
