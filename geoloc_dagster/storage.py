"""Writing so that nothing is half-written, and reading so that nothing changed is believed.

Files go to a temporary name and are renamed. Parquet carries page checksums. Folders of model files, indexes and
releases carry a `manifest.json` of sha256 sums. Append-only tables are Lance datasets, whose data files are immutable:
each gets a sha256 beside the table once it is committed, and `verify_table` compares them.

Below a data root in object storage the tables are there, and every other file is put there before it appears in the working copy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from geoloc_dagster.errors import DataRootError, DiskFullError, IntegrityError, SchemaVersionError, UnsafeFileError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.guards import inside, refuse_claims, refuse_larger
from geoloc_dagster.object_storage.binding import working_copy_of

if TYPE_CHECKING:
    import geopandas as gpd
    import lance
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from lance.fragment import FragmentMetadata

_log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_COMMITS = 20  # attempts, where others commit to the same rows meanwhile
_BESIDE = {".part", ".png", ".jpg", ".html", ".md", ".txt"}  # what people put beside, and nothing opens as part of a folder
_JSON_BYTES = 256 * 2**20
_ETAG: Final = "etag:"
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".npy", ".npz"}


# --- files ----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def translated_errors(path: Path) -> Generator[None]:
    """Turn "no space left", "permission denied" and a lost object storage into errors that name the path and the remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        _raise_storage_problem(path, error)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise DiskFullError(f"no space left while writing {path}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR) or "ermission denied" in str(error):
            raise DataRootError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _raise_storage_problem(path: Path, error: BaseException) -> None:
    """Raise what an error says of object storage; nothing where the path is not below such a data root."""
    if working_copy_of(path) is not None:
        from geoloc_dagster.object_storage.problems import storage_problem

        problem = storage_problem(error)
        if problem is not None:
            raise problem from error


@contextlib.contextmanager
def atomic_path(path: Path, *, pointer: bool = False) -> Generator[Path]:
    """Give a temporary path in the folder of `path`, renamed to it on success and deleted on failure.

    Args:
        path: of the file.
        pointer: it says which of other files count, so that in object storage it replaces only what this machine has seen.
    """
    with translated_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            failpoint("file.opened")
            yield temporary
            failpoint("file.written")
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            failpoint("file.synced")
            copy = working_copy_of(path)
            with contextlib.nullcontext() if copy is None else copy.publishing(temporary, path, pointer=pointer):
                temporary.replace(path)
            failpoint("file.renamed")
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """Give a temporary folder beside `path`, renamed to it on success; `path` must not exist yet or is replaced whole."""
    with translated_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        temporary.mkdir()
        try:
            yield temporary
            adopt_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def adopt_folder(finished: Path, path: Path) -> None:
    """Rename a finished folder to `path`, in place of the one that may be there."""
    copy = working_copy_of(path)
    with contextlib.nullcontext() if copy is None else copy.publishing_folder(finished, path):
        if path.exists():
            retired = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.replace(retired)
            finished.replace(path)
            shutil.rmtree(retired)
        else:
            finished.replace(path)


def remove_file(path: Path) -> None:
    """Remove a file that may be gone already, also from object storage."""
    copy = working_copy_of(path)
    if copy is None:
        path.unlink(missing_ok=True)
    else:
        copy.remove(path)


def write_bytes(path: Path, content: bytes, *, pointer: bool = False) -> Path:
    """Write bytes atomically; `pointer` as in `atomic_path`."""
    with atomic_path(path, pointer=pointer) as temporary:
        temporary.write_bytes(content)
    return path


def write_json(path: Path, value: Any, *, pointer: bool = False) -> Path:
    """Write JSON atomically, readable and with sorted keys; `pointer` as in `atomic_path`."""
    content = (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    return write_bytes(path, content, pointer=pointer)


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is an `IntegrityError` that names it, one of absurd size an `UnsafeFileError`."""
    refuse_larger(path, _JSON_BYTES)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not valid JSON: {error}") from error


def refuse_pickles(path: Path) -> None:
    """Raise `UnsafeFileError` for files that could only be read by unpickling, by suffix or by their first bytes."""
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(2)
    if path.suffix.lower() in _PICKLE_SUFFIXES or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        raise UnsafeFileError(f"{path} is a pickle or may hold one")


# --- sha256 manifests ------------------------------------------------------------------------------------------------
def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, **facts: Any) -> dict[str, Any]:
    """Write `manifest.json` with the sha256 of every other file below `folder`, and `facts` beside them."""
    files = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST}
    manifest = {"schema_version": SCHEMA_VERSION, "files": files, **facts}
    write_json(folder / MANIFEST, manifest)
    return manifest


def verify_manifest(folder: Path, *, remedy: str | None = None) -> dict[str, Any]:
    """Check every file of a folder against its manifest and return the manifest.

    Raises:
        IntegrityError: naming the first file that is missing or changed, or that the manifest does not name.
        SchemaVersionError: the manifest is newer than this code.
        UnsafeFileError: the manifest names something outside the folder, or a link leads there.
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("schema_version", 0), int):
        raise IntegrityError(f"{folder / MANIFEST} is no manifest: it names no files", remedy)
    if manifest.get("schema_version", 0) > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{folder / MANIFEST} has schema version {manifest['schema_version']}, this code knows {SCHEMA_VERSION}"
        )
    for name, expected in files.items():
        path = inside(folder, name)
        if not path.is_file():
            raise IntegrityError(f"{path} is missing", remedy)
        if sha256_file(path) != expected:
            raise IntegrityError(f"{path} has changed since it was written (sha256 differs)", remedy)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            inside(folder, name)
        if path.is_file() and path.name != MANIFEST and name not in files and path.suffix not in _BESIDE:
            raise IntegrityError(f"{path} is not in the manifest beside it, so nobody knows what it is", remedy)
    return manifest


# --- Parquet ---------------------------------------------------------------------------------------------------------
def write_parquet(path: Path, table: pa.Table) -> Path:
    """Write Parquet atomically with page checksums."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True, compression="zstd")
    return path


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read Parquet, verifying page checksums; a damaged file is an `IntegrityError`, absurd claims an `UnsafeFileError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise IntegrityError(f"{path} is missing", "Materialise the asset that writes it first.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=True) as file:  # `read_table` loads pandas
            refuse_claims(file, path)
            return file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(f"{path} is damaged: {error}") from error


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """A column of numbers without nulls as an array of its own; pyarrow's `to_numpy` would load pandas for it."""
    import numpy as np

    return np.array(np.from_dlpack(table[column].combine_chunks()))


def rows_of(table: pa.Table, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Some rows of a table; `pyarrow.array` would load pandas."""
    import numpy as np
    import pyarrow as pa

    content = np.ascontiguousarray(rows, np.int64)
    return table.take(pa.Array.from_buffers(pa.int64(), content.size, [None, pa.py_buffer(content)])).to_pylist()


def write_geoparquet(path: Path, frame: gpd.GeoDataFrame) -> Path:
    """Write GeoParquet atomically with page checksums."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, write_page_checksum=True, compression="zstd")
    return path


def read_geoparquet(path: Path) -> gpd.GeoDataFrame:
    """Read GeoParquet after verifying its page checksums."""
    import geopandas as gpd

    read_parquet(path)
    return gpd.read_parquet(path)


# --- Lance tables ----------------------------------------------------------------------------------------------------
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
        _raise_storage_problem(path, error)
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
