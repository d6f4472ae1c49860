"""Append-only tables: Lance datasets of which every version stays as it was committed.

Their data files are immutable: each gets a sha256 beside the table once it is committed, and `verify_table` compares them.
Below a data root in object storage the tables are there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from geoloc_dagster.errors import IntegrityError, SchemaVersionError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.object_storage.binding import working_copy_of
from geoloc_dagster.storage import (
    SCHEMA_VERSION,
    raise_storage_problem,
    remove_file,
    sha256_file,
    translated_errors,
    write_bytes,
)

if TYPE_CHECKING:
    import lance
    import pyarrow as pa
    from lance.fragment import FragmentMetadata

_log = logging.getLogger(__name__)
_COMMITS = 20  # attempts, where others commit to the same rows meanwhile
_ETAG: Final = "etag:"


def open_table(path: Path, version: int | None = None) -> lance.LanceDataset | None:
    """Open a Lance table, at one version if named; None where it has not been written yet.

    Raises:
        SchemaVersionError: the table was written by a newer version of this package.
    """
    import lance

    uri, options = _address(path)
    if options is None and not table_exists(path):
        return None
    try:
        dataset = lance.dataset(uri, version=version, storage_options=options)
    except (OSError, ValueError) as error:
        raise_storage_problem(path, error)
        if options is not None and "was not found" in str(error) and not table_exists(path):
            return None
        raise IntegrityError(f"{path} cannot be opened: {error}") from error
    written = int((dataset.schema.metadata or {}).get(b"geoloc_schema_version", b"1"))
    if written > SCHEMA_VERSION:
        raise SchemaVersionError(f"{path} has schema version {written}, this code knows {SCHEMA_VERSION}")
    return dataset


def append_rows(path: Path, rows: pa.Table) -> int:
    """Append rows in one commit; return the new version of the table."""
    import lance

    with translated_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        existing = open_table(path)
        if existing is not None:
            _add_missing_columns(path, existing, rows.schema)
        mode = "append" if existing is not None else "create"
        failpoint("table.before_commit")
        uri, options = _address(path)
        dataset = lance.write_dataset(rows, uri, mode=mode, schema=rows.schema, storage_options=options)
        failpoint("table.committed")
        _seal(path, dataset)
        failpoint("table.sealed")
        return int(dataset.version)


def _add_missing_columns(path: Path, existing: lance.LanceDataset, schema: pa.Schema) -> None:
    """Give a table the columns that came later, null in the rows it has; an older version of this package still writes it."""
    held = set(existing.schema.names)
    missing = [field for field in schema if field.name not in held and field.nullable]
    if not missing:
        return
    try:
        existing.add_columns(missing)
    except OSError:
        added = open_table(path)  # another process may have been first
        if added is None or any(field.name not in added.schema.names for field in missing):
            raise


def ensure_table(path: Path, schema: pa.Schema) -> None:
    """Let there be a table, without rows where it is new; another process may have been first."""
    if open_table(path) is not None:
        return
    try:
        append_rows(path, schema.empty_table())
    except OSError:
        if open_table(path) is None:
            raise


def write_uncommitted(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, seal: bool = False) -> list[str]:
    """Write rows as data files of a table, and commit nothing; what `commit_files` and `replace_batch_files` take, as text.

    Files that are never committed hold up nothing, and go with the next purge of old versions.

    Args:
        path: of the table.
        batches: the rows.
        schema: of the rows.
        seal: record the checksums now, where the files have just been written, rather than where they are committed.
    """
    import pyarrow as pa
    from lance.fragment import write_fragments

    raised: list[Exception] = []  # Lance would make one OSError of whatever goes wrong while rows are made

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            raised.append(error)
            raise

    with translated_errors(path):
        reader = pa.RecordBatchReader.from_batches(schema, watched())
        mode = "create" if open_table(path) is None else "append"
        uri, options = _address(path)
        try:
            fragments: Any = write_fragments(reader, uri, schema=schema, mode=mode, storage_options=options)
        except OSError:
            if raised:
                raise raised[0] from None
            raise
        if seal and options is None:  # in object storage the checksum is what the server says of a file that is there
            for file in _files_of(fragments):
                write_bytes(_seal_path(path, path / "data" / file), sha256_file(path / "data" / file).encode())
        return [json.dumps(fragment.to_json()) for fragment in fragments]


def discard_files(path: Path, fragments: list[str]) -> None:
    """Delete what `write_uncommitted` wrote and nobody will commit."""
    from lance.fragment import FragmentMetadata

    for name in _files_of(FragmentMetadata.from_json(fragment) for fragment in fragments):
        for file in (path / "data" / name, _seal_path(path, path / "data" / name)):
            remove_file(file)


def commit_files(path: Path, fragments: list[str]) -> int:
    """Append what `write_uncommitted` wrote, in one commit; return the new version of the table."""
    import lance
    from lance.fragment import FragmentMetadata

    with translated_errors(path):
        existing = open_table(path)
        assert existing is not None, "the table exists before its files are written"
        failpoint("table.before_commit")
        parts = [FragmentMetadata.from_json(fragment) for fragment in fragments]
        uri, options = _address(path)
        append = lance.LanceOperation.Append(parts)
        dataset = lance.LanceDataset.commit(uri, append, read_version=existing.version, storage_options=options)
        failpoint("table.committed")
        _seal(path, dataset)
        failpoint("table.sealed")
        return int(dataset.version)


def replace_batch_files(path: Path, fragments: list[str], batch: str, schema: pa.Schema) -> int:
    """Make what `write_uncommitted` wrote the only rows of `batch`, in one commit; return the new version of the table.

    The table is made where it is missing; `schema` is that of the rows.
    Of two processes that replace one batch at the same time the later one wins whole: where it committed without having
    seen the other's rows it takes them away in another commit.

    Raises:
        IntegrityError: a file has been purged meanwhile, as when pictures are forgotten; the rows of before stay.
    """
    from lance.fragment import FragmentMetadata

    with translated_errors(path):
        ensure_table(path, schema)
        parts = [FragmentMetadata.from_json(fragment) for fragment in fragments]
        gone = sorted(_files_of(parts) - {file.name for file in _files_in(path, "data")})
        if gone:
            raise IntegrityError(f"{path / 'data' / gone[0]} was purged before it was committed", "Materialise the batch again.")
        failpoint("table.before_merge")
        dataset = _replace(path, parts, set(), batch)
        failpoint("table.merged")
        while parts and (late := _older_rows(dataset, parts, batch)):
            dataset = _replace(path, [], late, batch)
        _seal(path, dataset)
        return int(dataset.version)


def _replace(path: Path, parts: list[FragmentMetadata], only: set[int], batch: str) -> lance.LanceDataset:
    """Delete the rows of a batch, all or those of some fragments, and add others; again where others were faster."""
    import lance
    from lance.commit import CommitConflictError

    for attempt in range(_COMMITS):
        existing = open_table(path)
        assert existing is not None, "the table exists before its files are written"
        removed: list[int] = []
        updated: list[FragmentMetadata] = []
        held = _fragments_with(existing, batch)
        for number in sorted(held & only if only else held):
            fragment = existing.get_fragment(number)
            assert fragment is not None, "it has just been scanned"
            left = fragment.delete(f"batch = '{batch}'")
            if left is None:
                removed.append(number)
            else:
                updated.append(left)
        change = lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=updated, new_fragments=parts)
        try:
            uri, options = _address(path)
            return lance.LanceDataset.commit(uri, change, read_version=existing.version, storage_options=options)
        except CommitConflictError:
            if attempt == _COMMITS - 1:
                raise
    raise AssertionError("unreachable")


def _fragments_with(dataset: lance.LanceDataset, batch: str) -> set[int]:
    """Numbers of the fragments that hold rows of a batch."""
    rows = dataset.scanner(columns=[], filter=f"batch = '{batch}'", with_row_address=True).to_table()
    return {address >> 32 for address in rows["_rowaddr"].to_pylist()}


def _older_rows(dataset: lance.LanceDataset, parts: list[FragmentMetadata], batch: str) -> set[int]:
    """Fragments with rows of a batch that were committed before these parts of it."""
    ours = _files_of(parts)
    mine = [one.fragment_id for one in dataset.get_fragments() if _files_of([one]) & ours]
    return {number for number in _fragments_with(dataset, batch) if mine and number < min(mine)}


def _files_of(fragments: Iterable[Any]) -> set[str]:
    """Names of data files of fragments, committed or not."""
    found = set[str]()
    for fragment in fragments:
        files = fragment.data_files() if callable(getattr(fragment, "data_files", None)) else fragment.files
        found |= {file.path for file in files}
    return found


def replace_batch(path: Path, rows: pa.Table, batch: str, key: str = "capture_id") -> int:
    """Make `rows` the only rows of `batch`, in one commit; return the new version of the table."""
    existing = open_table(path)
    if existing is None:
        return append_rows(path, rows)
    with translated_errors(path):
        failpoint("table.before_merge")
        (
            existing.merge_insert([key])
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(f"batch = '{batch}'")
            .execute(rows)
        )
        failpoint("table.merged")
        dataset = open_table(path)
        assert dataset is not None
        _seal(path, dataset)
        return int(dataset.version)


def delete_rows(path: Path, condition: str) -> int:
    """Delete rows for good: their bytes are gone from every file and every older version of the table; how many there were.

    A run that was killed is completed by the next one, also where its rows are deleted already.
    """
    import datetime as dt

    dataset = open_table(path)
    if dataset is None:
        return 0
    with translated_errors(path):
        before = int(dataset.count_rows())
        for tag in dataset.tags.list():  # what is deleted for good is in no version, not even in one that something pins
            dataset.tags.delete(tag)
        dataset.delete(condition)
        failpoint("table.deleted")
        dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
        dataset = open_table(path)
        assert dataset is not None
        dataset.cleanup_old_versions(older_than=dt.timedelta(0), delete_unverified=True)
        failpoint("table.purged")
        seal_table(path)
        return before - int(dataset.count_rows())


def table_exists(path: Path) -> bool:
    """Whether a table has been committed once; a first commit that was killed leaves the folder without a version."""
    copy = working_copy_of(path)
    if copy is None:
        return any((path / "_versions").glob("*.manifest"))
    return any(name.endswith(".manifest") for name in copy.table_files(path, "_versions"))


def tables_in(folder: Path, pattern: str = "*.lance") -> list[Path]:
    """The tables of a folder whose names match a pattern, by name."""
    copy = working_copy_of(folder)
    if copy is None:
        return sorted(folder.glob(pattern))
    return [path for path in copy.tables(folder) if path.match(pattern)]


def table_sizes(path: Path) -> dict[str, int]:
    """Bytes of every file of a table, whatever version it is of, by name below it."""
    copy = working_copy_of(path)
    if copy is not None:
        return {name: one.size for name, one in copy.table_files(path).items()}
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in path.rglob("*") if file.is_file()}


def remove_table(path: Path) -> None:
    """Remove a table and its checksums for good."""
    copy = working_copy_of(path)
    if copy is None:
        shutil.rmtree(path, ignore_errors=True)
    else:
        copy.remove_table(path)
    seals = path.with_name(path.name + ".sha256")  # last: they would not fit a new table
    if copy is not None:
        for seal in seals.glob("*"):
            copy.remove(seal)
    shutil.rmtree(seals, ignore_errors=True)


def _address(path: Path) -> tuple[str, dict[str, str] | None]:
    """Where Lance finds a table, and with which options; None on disk."""
    copy = working_copy_of(path)
    return (str(path), None) if copy is None else copy.table(path)


# --- checksums of tables ---------------------------------------------------------------------------------------------
def seal_table(path: Path) -> None:
    """Record the checksum of the newest version's files that have none yet, and drop those of files that are gone."""
    dataset = open_table(path)
    assert dataset is not None, "only a table that exists is sealed"
    _seal(path, dataset)
    there = {file.name for folder in ("data", "_versions") for file in _files_in(path, folder)}
    for seal in path.with_name(path.name + ".sha256").glob("*"):
        if seal.name not in there:
            remove_file(seal)


def table_version(path: Path) -> int:
    """The newest version of a table; 0 where it has not been written yet."""
    dataset = open_table(path)
    return 0 if dataset is None else int(dataset.version)


def verify_table(path: Path, *, remedy: str | None = None) -> None:
    """Compare every file of a table's newest version with the checksum recorded when it was committed.

    On disk that is the sha256 of its bytes. In object storage it is the ETag, which the server gives every object that is
    written: the bits are the server's to keep, and what is found is a file that is missing or has been written again.
    A file without a checksum was committed by a process that was killed right after; it gets its checksum now.

    Raises:
        IntegrityError: naming the first file that is missing or changed.
    """
    if not table_exists(path):
        raise IntegrityError(f"{path} is missing", remedy)
    etags = _etags(path)
    _compare_seal(path, _newest_manifest(path), etags, remedy)  # before Lance reads it
    dataset = open_table(path)
    assert dataset is not None
    for file in _data_files(path, dataset):
        _compare_seal(path, file, etags, remedy)


def _compare_seal(path: Path, file: Path, etags: Mapping[str, str] | None, remedy: str | None) -> None:
    name = file.relative_to(path).as_posix()
    if not file.is_file() if etags is None else name not in etags:
        raise IntegrityError(f"{file} is missing", remedy)
    seal = _seal_path(path, file)
    sealed = seal.read_text().strip() if seal.is_file() else None
    if sealed is None or (etags is None and sealed.startswith(_ETAG)):  # the latter was copied from object storage
        _log.warning("%s had no checksum; recording it now", file)
        write_bytes(seal, (sha256_file(file) if etags is None else etags[name]).encode())
    elif sealed != _checksum(path, file, etags, sealed):
        raise IntegrityError(f"{file} has changed since it was written ({'sha256' if etags is None else 'ETag'} differs)", remedy)


def _checksum(path: Path, file: Path, etags: Mapping[str, str] | None, sealed: str) -> str | None:
    """The checksum of a table's file as it is now, of the kind that was recorded."""
    if etags is None:
        return sha256_file(file)
    if sealed.startswith(_ETAG):
        return etags[file.relative_to(path).as_posix()]
    copy = working_copy_of(path)  # it was written to disk, and put into object storage later
    assert copy is not None, "only object storage has ETags"
    return copy.store.sha256(copy.name_of(file))


def _etags(path: Path) -> dict[str, str] | None:
    """The ETags of a table's data files and manifests by their names below it; None on disk."""
    copy = working_copy_of(path)
    if copy is None:
        return None
    found = copy.table_files(path, "data") | copy.table_files(path, "_versions")
    return {name: _ETAG + one.etag for name, one in found.items()}


def _files_in(path: Path, folder: str) -> list[Path]:
    copy = working_copy_of(path)
    return list((path / folder).glob("*")) if copy is None else [path / name for name in copy.table_files(path, folder)]


def _newest_manifest(path: Path) -> Path:
    """The manifest of the newest version: Lance counts their names down."""
    manifests = [file for file in _files_in(path, "_versions") if file.suffix == ".manifest"]
    return min(manifests, key=lambda file: int(file.stem))


def _data_files(path: Path, dataset: lance.LanceDataset) -> list[Path]:
    return [path / "data" / file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]


def _seal_path(path: Path, file: Path) -> Path:
    return path.with_name(path.name + ".sha256") / file.name


def _seal(path: Path, dataset: lance.LanceDataset) -> None:
    """Record the checksum of files that have none yet; they are immutable from their commit on."""
    copy = working_copy_of(path)
    for file in [*_data_files(path, dataset), _newest_manifest(path)]:
        seal = _seal_path(path, file)
        if not seal.is_file():
            checksum = sha256_file(file) if copy is None else _ETAG + copy.etag(file)
            write_bytes(seal, checksum.encode())
