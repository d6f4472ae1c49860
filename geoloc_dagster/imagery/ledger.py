"""What live services have been asked per day, in one small database that all processes of a region share.

Budgets hold for the region, not for a process: whoever is about to ask takes its request from the day's budgets first, from all
of them or from none, so that two processes never take the same one. A killed process at worst leaves a request counted that
it never sent, so a budget is never exceeded. Bytes are known only afterwards: what is in flight when they are spent still comes.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.database import Database

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
_GIVE_BACK = "UPDATE used SET count = max(0, count - :count) WHERE service = :service AND day = :day AND what = :what"
_USED = "SELECT count FROM used WHERE service = :service AND day = :day AND what = :what"
_NO_LIMIT = 2**62


class _SpentError(Exception):
    """One of several budgets has not enough left."""


class Ledger:
    """Counts of (service, day, what); several processes and threads may share one file.

    Args:
        path: the database; made, with its folder, when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, "today's count begins again")

    def take(self, service: str, day: dt.date, what: str, count: int, limit: int) -> bool:
        """Take `count` from what `limit` leaves of the day, all or nothing; whether it was there.

        Raises:
            DataRootError: the database cannot be opened or written, or stays locked.
            DiskFullError: there is no space for it; nothing was taken.
            IntegrityError: the file is no such database, or is damaged.
        """
        return self.take_all(service, day, [(what, count, limit)]) is None

    def take_all(self, service: str, day: dt.date, takings: Sequence[tuple[str, int, int]]) -> str | None:
        """Take from several budgets, (what, count, limit) each, all or nothing; the first that is spent. Raises as `take`."""
        if any(count < 0 for _, count, _ in takings):
            raise ValueError(f"{min(count for _, count, _ in takings)} cannot be taken")
        wanted = [taking for taking in takings if taking[1]]
        if not wanted:
            return None
        try:
            with self._database.transaction() as connection:
                failpoint("ledger.begun")
                for what, count, limit in wanted:
                    if not _take(connection, service, day, what, count, limit):
                        raise _SpentError(what)
                failpoint("ledger.taken")
        except _SpentError as spent:
            return str(spent)
        failpoint("ledger.committed")
        return None

    def add(self, service: str, day: dt.date, what: str, count: int) -> None:
        """Count something that happened whatever the budget; raises as `take`."""
        self.take(service, day, what, count, _NO_LIMIT)

    def give_back(self, service: str, day: dt.date, amounts: Sequence[tuple[str, int]]) -> None:
        """Put back what was taken and not used, (what, count) each; raises as `take`."""
        with self._database.transaction() as connection:
            for what, count in amounts:
                connection.execute(_GIVE_BACK, {"service": service, "day": day.isoformat(), "what": what, "count": count})

    def used(self, service: str, day: dt.date, what: str) -> int:
        """How much of a day has been taken so far; 0 where nothing was, and raises as `take`."""
        if not self._database.path.exists():
            return 0
        with self._database.open() as connection:
            row = connection.execute(_USED, {"service": service, "day": day.isoformat(), "what": what}).fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self._database.close()


def _take(connection: sqlite3.Connection, service: str, day: dt.date, what: str, count: int, limit: int) -> bool:
    parameters = {"service": service, "day": day.isoformat(), "what": what, "count": count, "limit": limit}
    return connection.execute(_TAKE, parameters).rowcount == 1
