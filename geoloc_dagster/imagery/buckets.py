"""Token buckets of services, and until when each wants to be left alone: shared by every process of a host, or kept in memory.

A bucket is the generic cell rate algorithm: one number, the time at which it would be full again. A request may leave while that
is at most `tolerance_s` ahead, and moves it one interval on. In every window of length T at most T / interval_s +
tolerance_s / interval_s + 1 requests leave, whoever asks.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.imagery.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY, full_at REAL NOT NULL, paused_until REAL NOT NULL
) WITHOUT ROWID
"""
# No claim leaves a bucket further ahead than tolerance + interval: one that is was left by a clock that has been set back since.
_FULL_AT = "CASE WHEN full_at > :now + :tolerance + :interval THEN :now + :tolerance ELSE full_at END"
_CLAIM = f"""
INSERT INTO buckets (name, full_at, paused_until) VALUES (:name, :now + :interval, 0)
ON CONFLICT (name) DO UPDATE SET full_at = max({_FULL_AT}, :now) + :interval
WHERE paused_until <= :now AND {_FULL_AT} - :tolerance <= :now
"""
_LEASE = """
INSERT INTO buckets (name, full_at, paused_until) VALUES (:name, :first + :count * :interval, 0)
ON CONFLICT (name) DO UPDATE SET full_at = :first + :count * :interval
"""
_PAUSE = """
INSERT INTO buckets (name, full_at, paused_until) VALUES (:name, 0, :until)
ON CONFLICT (name) DO UPDATE SET paused_until = max(paused_until, :until)
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """Requests set aside: the i-th belongs to `first_s + i * interval`, and may leave from `tolerance_s` before that."""

    first_s: float
    count: int
    paused_until_s: float


class Buckets(Protocol):
    """Where buckets are kept; all times in seconds of one clock."""

    def claim(self, name: str, now_s: float, interval_s: float, tolerance_s: float) -> float:
        """Let one request leave now, and return 0; or return how long to wait before asking again."""
        ...

    def lease(self, name: str, now_s: float, interval_s: float, count: int, ahead_s: float) -> Lease:
        """Set requests that leave at known times aside for one asker, however many others ask meanwhile.

        Args:
            name: of the bucket.
            now_s: the time.
            interval_s: between two of them.
            count: wanted at most.
            ahead_s: none of them, but the first, is set aside for later than this from now.
        """
        ...

    def pause(self, name: str, until_s: float) -> None:
        """Let nothing leave before then; a pause that lasts longer already stays."""
        ...

    def paused_until(self, name: str) -> float:
        """When the last pause ends or ended; 0 where there was none."""
        ...


@dataclass
class _Bucket:
    full_at: float = 0.0
    paused_until: float = 0.0


class MemoryBuckets:
    """Buckets of this process alone."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def claim(self, name: str, now_s: float, interval_s: float, tolerance_s: float) -> float:
        """As the protocol."""
        bucket = self._buckets.setdefault(name, _Bucket(full_at=now_s))
        wait_s = max(bucket.paused_until - now_s, bucket.full_at - tolerance_s - now_s)
        if wait_s > 0:
            return wait_s
        bucket.full_at = max(bucket.full_at, now_s) + interval_s
        return 0.0

    def lease(self, name: str, now_s: float, interval_s: float, count: int, ahead_s: float) -> Lease:
        """As the protocol."""
        bucket = self._buckets.setdefault(name, _Bucket(full_at=now_s))
        first_s = _first(bucket.full_at, now_s, interval_s, ahead_s)
        count = _how_many(first_s - now_s, interval_s, count, ahead_s)
        bucket.full_at = first_s + count * interval_s
        return Lease(first_s, count, bucket.paused_until)

    def pause(self, name: str, until_s: float) -> None:
        """As the protocol."""
        bucket = self._buckets.setdefault(name, _Bucket())
        bucket.paused_until = max(bucket.paused_until, until_s)

    def paused_until(self, name: str) -> float:
        """As the protocol."""
        return self._buckets.get(name, _Bucket()).paused_until


class HostBuckets:
    """Buckets that all processes of this host share, whatever region they work for; the clock is the wall's.

    Args:
        path: SQLite file; `host_buckets_path()` for everybody's.

    Raises (every method):
        DataRootError, DiskFullError, IntegrityError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, "pauses that services asked for are forgotten")

    def claim(self, name: str, now_s: float, interval_s: float, tolerance_s: float) -> float:
        """As the protocol."""
        parameters = {"name": name, "now": now_s, "interval": interval_s, "tolerance": tolerance_s}
        with self._database.open() as connection:
            if connection.execute(_CLAIM, parameters).rowcount == 1:
                failpoint("bucket.claimed")
                return 0.0
            row = connection.execute("SELECT full_at, paused_until FROM buckets WHERE name = ?", (name,)).fetchone()
        return max(float(row[1]) - now_s, float(row[0]) - tolerance_s - now_s, 1e-4)

    def lease(self, name: str, now_s: float, interval_s: float, count: int, ahead_s: float) -> Lease:
        """As the protocol."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT full_at, paused_until FROM buckets WHERE name = ?", (name,)).fetchone()
            full_at, paused_until = (0.0, 0.0) if row is None else (float(row[0]), float(row[1]))
            first_s = _first(full_at, now_s, interval_s, ahead_s)
            count = _how_many(first_s - now_s, interval_s, count, ahead_s)
            connection.execute(_LEASE, {"name": name, "first": first_s, "count": count, "interval": interval_s})
        failpoint("bucket.claimed")
        return Lease(first_s, count, paused_until)

    def pause(self, name: str, until_s: float) -> None:
        """As the protocol."""
        with self._database.open() as connection:
            connection.execute(_PAUSE, {"name": name, "until": until_s})

    def paused_until(self, name: str) -> float:
        """As the protocol."""
        with self._database.open() as connection:
            row = connection.execute("SELECT paused_until FROM buckets WHERE name = ?", (name,)).fetchone()
        return 0.0 if row is None else float(row[0])


_MOST_ASKERS = 64


def _first(full_at: float, now_s: float, interval_s: float, ahead_s: float) -> float:
    """When the next request of a bucket is due; one further ahead than any queue of askers was left by a clock set back since."""
    return now_s if full_at > now_s + _MOST_ASKERS * (ahead_s + interval_s) else max(full_at, now_s)


def _how_many(wait_s: float, interval_s: float, count: int, ahead_s: float) -> int:
    return max(1, min(count, int((ahead_s - wait_s) / interval_s)))


def host_buckets_path() -> Path:
    """The file of this host: below GEOLOC_STATE, XDG_STATE_HOME, `~/.local/state`, or else the folder of temporary files."""
    named = os.environ.get("GEOLOC_STATE")
    if named:
        return Path(named) / "buckets.sqlite"
    state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "geoloc_dagster"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError:
        state = Path(tempfile.gettempdir()) / f"geoloc_dagster-{os.getuid()}"
    return state / "buckets.sqlite"
