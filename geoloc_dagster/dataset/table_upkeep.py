"""Keeping Lance tables small: small files put together, and old versions dropped that nothing refers to.

A version that something pins carries a tag of Lance, which its own clean-up respects as well. Rows never change here: the version
after a compaction holds what the version before it held, and `content_version` says which that was.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.storage import read_json, translated_errors, write_json
from geoloc_dagster.tables import open_table, seal_table, table_sizes, table_version

if TYPE_CHECKING:
    import lance

FILE_BYTES: Final = 512 << 20  # about as large as files get; larger ones are left alone
SMALL_FILES: Final = 16  # so many small files are put together
_PIN: Final = "pinned-"


@dataclass(frozen=True, slots=True)
class TableState:
    """What there is to do for one table.

    Attributes:
        path: of the table.
        version: the newest.
        versions: how many there are.
        old: versions that are older than they have to be kept, and that nothing pins.
        pinned: versions that are kept because something names them.
        small_files: data files that a compaction would put together; 0 where it is not worth it.
        old_bytes: of data files that only old versions hold.
    """

    path: Path
    version: int
    versions: int
    old: tuple[int, ...]
    pinned: tuple[int, ...]
    small_files: int
    old_bytes: int


def look_at_table(path: Path, pinned: Iterable[int], *, keep_since: dt.datetime) -> TableState | None:
    """Find out what there is to do, and change nothing; None where there is no such table.

    Args:
        path: of the table.
        pinned: versions that something refers to; those that are gone already are left out.
        keep_since: aware; younger versions stay.

    Raises:
        IntegrityError: the table is damaged.
    """
    dataset = open_table(path)
    if dataset is None:
        return None
    listed: list[dict[str, Any]] = dataset.versions()  # pyright: ignore[reportAssignmentType]
    times = {int(one["version"]): one["timestamp"].astimezone(dt.UTC) for one in listed}
    newest = int(dataset.version)
    named = set(pinned) & times.keys()
    old = sorted(version for version, at in times.items() if at < keep_since and version != newest and version not in named)
    small = _small_files(dataset)
    return TableState(path, newest, len(times), tuple(old), tuple(sorted(named)), small, _bytes_only_in(path, old, times.keys()))


def tidy_table(state: TableState) -> int:
    """Put small files together, tag what is pinned, drop what is old; the bytes that became free on disk.

    A table that another process writes to meanwhile keeps what it has; the next run goes on.

    Raises:
        DataRootError, DiskFullError: it cannot be written.
    """
    with translated_errors(state.path):
        before = _size(state.path)
        if state.small_files:
            _compact(state.path)
        dataset = open_table(state.path)
        assert dataset is not None
        _pin(dataset, set(state.pinned))
        failpoint("table.pinned")
        if state.old:
            dataset.cleanup_old_versions(versions=list(state.old), error_if_tagged_old_versions=False)
        failpoint("table.tidied")
        seal_table(state.path)
        return before - _size(state.path)


def content_version(path: Path) -> int:
    """The version that the newest one's rows come from: an earlier one where nothing but compaction happened since."""
    newest, record = table_version(path), _record(path)
    if record.is_file():
        said = read_json(record)
        if said["version"] == newest:
            return int(said["same_as"])
    return newest


def _compact(path: Path) -> None:
    before = content_version(path)
    dataset = open_table(path)
    assert dataset is not None
    seen = int(dataset.version)
    dataset.optimize.compact_files(target_rows_per_fragment=_rows_per_file(dataset))
    failpoint("table.compacted")
    after = open_table(path)
    assert after is not None
    steps: list[dict[str, Any]] = [one for one in after.versions() if one["version"] > seen]  # pyright: ignore[reportAssignmentType]
    alone = len(steps) <= 2  # a reservation and the rewriting, and nobody else's commit
    if alone and after.count_rows() == dataset.count_rows():
        write_json(_record(path), {"version": int(after.version), "same_as": before})


def _pin(dataset: lance.LanceDataset, versions: set[int]) -> None:
    tagged = {name: int(tag["version"]) for name, tag in dataset.tags.list().items() if name.startswith(_PIN)}
    for name, version in tagged.items():
        if version not in versions:
            dataset.tags.delete(name)
    for version in sorted(versions - set(tagged.values())):
        dataset.tags.create(f"{_PIN}{version}", version)


def _small_files(dataset: lance.LanceDataset) -> int:
    rows = _rows_per_file(dataset)
    small = sum(fragment.physical_rows < rows // 2 for fragment in dataset.get_fragments())
    return small if small >= SMALL_FILES else 0


def _rows_per_file(dataset: lance.LanceDataset) -> int:
    """Rows that make a file of about `FILE_BYTES`."""
    fragments = dataset.get_fragments()
    rows = sum(fragment.physical_rows for fragment in fragments)
    size = sum(int(file.file_size_bytes or 0) for fragment in fragments for file in fragment.data_files())
    return max(1_000, min(1_000_000, FILE_BYTES * max(1, rows) // max(1, size)))


def _bytes_only_in(path: Path, old: list[int], versions: Iterable[int]) -> int:
    if not old:
        return 0
    kept: set[str] = set()
    for version in sorted(set(versions) - set(old)):
        dataset = open_table(path, version)
        assert dataset is not None
        kept |= {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()}
    gone: set[str] = set()
    for version in old:
        dataset = open_table(path, version)
        assert dataset is not None
        gone |= {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()} - kept
    sizes = table_sizes(path)
    return sum(sizes.get(f"data/{name}", 0) for name in gone)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.compacted.json")


def _size(path: Path) -> int:
    return sum(table_sizes(path).values())
