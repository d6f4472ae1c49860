"""The working copy of a data root in object storage: everything but the tables, on this machine's disk.

What is written is put into the store first and appears in the copy afterwards, so that nothing is taken for published that is
not. `pull` brings in what other machines have published, and takes away what they have removed. Names that begin with a dot are
temporary or unfinished and stay here, and so does what belongs to this machine alone (`LOCAL`).
"""

from __future__ import annotations

import contextlib
import fcntl
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, TypeVar

from geoloc_dagster.errors import IntegrityError, ObjectStorageError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.object_storage.binding import HIDDEN
from geoloc_dagster.object_storage.seen import Seen
from geoloc_dagster.object_storage.store import Listed, ObjectStore

LOCAL: Final = ("dagster", "mlflow", "stack", "service/browsers", "service/ledger.sqlite*")
"""What is never put into the store: logs and databases of the programs of one machine."""
TABLES: Final = "tables"
_TABLE: Final = ".lance"
_MANIFEST: Final = "manifest.json"
_POINTERS: Final = ("CURRENT.json", "LATEST.json", "champion*.json", "*_card.json")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 5
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Pulled:
    """How many files a pull brought in, and how many it took away."""

    fetched: int
    removed: int


@dataclass(frozen=True, slots=True)
class WorkingCopy:
    """A folder and the data root that it is the working copy of."""

    root: Path
    store: ObjectStore

    @property
    def seen(self) -> Seen:
        """What was last seen of each object whose file is here."""
        return Seen(self.root / HIDDEN / "seen.sqlite")

    def name_of(self, path: Path) -> str:
        """The name of the object of a file or table, relative to the data root."""
        return path.relative_to(self.root).as_posix()

    def is_published(self, path: Path) -> bool:
        """Whether a file or folder belongs into the store."""
        return _belongs(self.name_of(path))

    # --- publishing --------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def publishing(self, content: Path, path: Path, *, pointer: bool) -> Generator[None]:
        """Put `content` where `path` is going to be, then let the caller put it there in the copy.

        Raises:
            StaleWriteError: `pointer` is set, and another machine has written it since it was last seen here.
            ObjectStorageError: the store cannot be reached.
        """
        if not self.is_published(path):
            yield
            return
        name = self.name_of(path)
        put_if, put = self.store.put_if, self.store.put
        etag = put_if(name, content.read_bytes(), self.seen.etag(name)) if pointer else put(name, content)
        failpoint("object.put")
        with self._lock():
            yield
            self.seen.note({name: etag})

    @contextlib.contextmanager
    def publishing_folder(self, content: Path, path: Path) -> Generator[None]:
        """Put a whole folder, its manifest last, and remove what it had before and has no more; then as `publishing`."""
        if not self.is_published(path):
            yield
            return
        base = self.name_of(path)
        files = {f"{base}/{file.relative_to(content).as_posix()}": file for file in content.rglob("*") if file.is_file()}
        files = {name: file for name, file in files.items() if _belongs(name)}
        last = f"{base}/{_MANIFEST}"
        earlier = {one.name for one in self.store.list(base)} - files.keys()
        first = {name: file for name, file in files.items() if name != last}
        etags = dict(zip(first, _together(lambda item: self.store.put(*item), first.items()), strict=True))
        failpoint("object.folder_put")
        if last in files:
            etags[last] = self.store.put(last, files[last])
        self.store.remove(*sorted(earlier))
        with self._lock():
            yield
            self.seen.note(etags)
            self.seen.drop(earlier)

    def remove(self, path: Path) -> None:
        """Remove a file here and its object."""
        if self.is_published(path):
            self.store.remove(self.name_of(path))
        with self._lock():
            path.unlink(missing_ok=True)
            self.seen.drop([self.name_of(path)])

    # --- pulling -----------------------------------------------------------------------------------------------------
    def pull(self) -> Pulled:
        """Bring in what others have published since; a file that was never published stays as it is.

        Raises:
            ObjectStorageError: the store cannot be reached; what had come stays, and the next pull goes on.
        """
        fetched = 0
        for _ in range(_ATTEMPTS):
            seen = self.seen.all()  # before the listing, so that what this machine publishes meanwhile is not taken for removed
            listed = {one.name: one for one in self._list()}
            wanted = [one for one in listed.values() if seen.get(one.name) != one.etag or not self._is_here(one)]
            complete = True
            for group in _in_order(wanted):
                for first in range(0, len(group), _BATCH):
                    came = self._fetch(group[first : first + _BATCH], seen)
                    fetched += sum(came)
                    complete = complete and all(came)
            if complete:
                return Pulled(fetched, self._remove_gone(seen, listed))
        raise ObjectStorageError(f"{self.store} changes faster than it can be read", "Run the same command again.")

    def is_current(self, path: Path) -> bool:
        """Whether a file here is what the store has under its name; one request."""
        found = self.store.head(self.name_of(path))
        return (None if found is None else found.etag) == self.seen.etag(self.name_of(path))

    def _list(self) -> Iterator[Listed]:
        """Every object that belongs into a working copy; the tables are passed over, which have most of the objects."""
        folders, files = self.store.folders()
        yield from (one for one in files if _belongs(one.name))
        inside = [folder for folder in folders if folder != TABLES]
        if TABLES in folders:
            beside, files = self.store.folders(TABLES)
            yield from (one for one in files if _belongs(one.name))
            inside += [folder for folder in beside if not folder.endswith(_TABLE)]
        for found in _together(lambda folder: list(self.store.list(folder)), [one for one in inside if _belongs(one)]):
            yield from (one for one in found if _belongs(one.name))

    def _is_here(self, one: Listed) -> bool:
        try:
            return (self.root / one.name).stat().st_size == one.size
        except OSError:
            return False

    def _fetch(self, wanted: list[Listed], seen: Mapping[str, str]) -> list[bool]:
        """Bring in some objects of which this machine had seen other versions or none; which are still what was listed."""
        parts = [(one, self._temporary(self.root / one.name)) for one in wanted]
        try:
            came = _together(lambda part: self.store.fetch(*part), parts)
            with self._lock():
                noted = self.seen.all()
                taken: dict[str, str] = {}
                for (one, temporary), whole in zip(parts, came, strict=True):
                    if whole and noted.get(one.name) in (seen.get(one.name), one.etag):  # else a newer one was published here
                        temporary.replace(self.root / one.name)
                        taken[one.name] = one.etag
                self.seen.note(taken)
            return came
        finally:
            for _, temporary in parts:
                temporary.unlink(missing_ok=True)

    @staticmethod
    def _temporary(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")

    def _remove_gone(self, seen: Mapping[str, str], listed: Mapping[str, Listed]) -> int:
        gone = seen.keys() - listed.keys()
        with self._lock() if gone else contextlib.nullcontext():
            for name in gone:
                path = self.root / name
                if self.seen.etag(name) == seen[name]:
                    path.unlink(missing_ok=True)
                    self.seen.drop([name])
                    with contextlib.suppress(OSError):  # not empty
                        path.parent.rmdir()
        return len(gone)

    # --- tables ------------------------------------------------------------------------------------------------------
    def table(self, path: Path) -> tuple[str, dict[str, str]]:
        """The address of a Lance table and the options to open it with."""
        return self.store.uri(self.name_of(path)), self.store.lance_options

    def table_files(self, path: Path, folder: str = "") -> dict[str, Listed]:
        """Name below the table -> object, of a table or one folder of it."""
        base = self.name_of(path)
        below = f"{base}/{folder}".rstrip("/")
        return {one.name.removeprefix(f"{base}/"): one for one in self.store.list(below)}

    def etag(self, path: Path) -> str:
        """The ETag of a file of a table.

        Raises:
            IntegrityError: there is none.
        """
        found = self.store.head(self.name_of(path))
        if found is None:
            raise IntegrityError(f"{self.store.uri(self.name_of(path))} is missing")
        return found.etag

    def tables(self, folder: Path) -> list[Path]:
        """Every table right below a folder."""
        below, _ = self.store.folders(self.name_of(folder))
        return sorted(self.root / name for name in below if name.endswith(_TABLE))

    def remove_table(self, path: Path) -> None:
        """Remove a table with every version of it."""
        self.store.remove(*[one.name for one in self.store.list(self.name_of(path))])

    @contextlib.contextmanager
    def _lock(self) -> Generator[None]:
        """Held by one thread of one process of this machine while a file and what is noted of it change."""
        with (self.root / HIDDEN / "lock").open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _belongs(name: str) -> bool:
    parts = name.split("/")
    if any(part.startswith(".") for part in parts):
        return False
    return not any(fnmatch("/".join(parts[: pattern.count("/") + 1]), pattern) for pattern in LOCAL)


def _in_order(wanted: Iterable[Listed]) -> list[list[Listed]]:
    """Files, then manifests, then pointers: what refers to others comes after them, also where the pull is cut off."""
    groups: list[list[Listed]] = [[], [], []]
    for one in wanted:
        base = one.name.rpartition("/")[2]
        groups[2 if any(fnmatch(base, pattern) for pattern in _POINTERS) else int(base == _MANIFEST)].append(one)
    return groups


def _together(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """The results of a function that waits for the network, in the order of the items."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_AT_ONCE, len(items)), "object storage") as pool:
        return list(pool.map(function, items))
