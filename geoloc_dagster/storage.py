"""Writing so that nothing is half-written, and reading so that nothing changed is believed.

Files go to a temporary name and are renamed. Parquet carries page checksums. Folders of model files, indexes and
releases carry a `manifest.json` of sha256 sums. Append-only tables are in `tables`.

Below a data root in object storage every file is put there before it appears in the working copy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_dagster.errors import DataRootError, DiskFullError, IntegrityError, SchemaVersionError, UnsafeFileError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.guards import inside, refuse_claims, refuse_larger
from geoloc_dagster.object_storage.binding import working_copy_of

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_BESIDE = {".part", ".png", ".jpg", ".html", ".md", ".txt"}  # what people put beside, and nothing opens as part of a folder
_JSON_BYTES = 256 * 2**20
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".npy", ".npz"}


@contextlib.contextmanager
def translated_errors(path: Path) -> Generator[None]:
    """Turn "no space left", "permission denied" and a lost object storage into errors that name the path and the remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise_storage_problem(path, error)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise DiskFullError(f"no space left while writing {path}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR) or "ermission denied" in str(error):
            raise DataRootError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def raise_storage_problem(path: Path, error: BaseException) -> None:
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
