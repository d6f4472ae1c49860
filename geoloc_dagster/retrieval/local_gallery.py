"""The local features of an index's rows, in its folder: one file of all features, one of where each row's begin.

They are mapped into memory, so that of a large gallery only what is compared is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster.errors import IntegrityError, UnsafeFileError
from geoloc_dagster.retrieval.local_features import U8, VERSION, WIDTH
from geoloc_dagster.tables import open_table, verify_table

FEATURES_FILE, OFFSETS_FILE = "local_features.npy", "local_offsets.npy"
_MAKE = "Materialise `local_features` for every batch, then `faiss_index`; the last good release stays served."
_REBUILD = "Materialise `faiss_index` and then `release` again; the last good release stays served."
_BLOCK = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class LocalGallery:
    """The features of the rows of an index.

    Attributes:
        features: of all rows, (features, WIDTH).
        offsets: where those of each row begin, and where the last end, (rows + 1,).
    """

    features: U8
    offsets: npt.NDArray[np.int64]

    def of(self, row: int) -> U8:
        """Those of one row, (n, WIDTH)."""
        return self.features[self.offsets[row] : self.offsets[row + 1]]


def write_local_gallery(path: Path, gallery: pa.Table, folder: Path) -> int:
    """Write the features of the gallery's rows, in their order, into the folder of an index; the table's version.

    Args:
        path: Lance table of features.
        gallery: rows of the catalog, with `capture_id` and `sha256`.
        folder: of the index.

    Raises:
        IntegrityError: the table is damaged, or lacks the features of a row; says of which batches.
    """
    try:
        verify_table(path, remedy=_MAKE)
    except (OSError, ValueError, pa.ArrowException) as error:  # what Lance says of a damaged manifest
        raise IntegrityError(f"{path} is damaged: {error}", _MAKE) from error
    table = open_table(path)
    assert table is not None  # verify_table opened it
    held: Any = table.to_table(columns=["capture_id", "crop_sha256", "model_version", "count"]).to_pandas()
    held["offset"] = np.arange(len(held))
    held = held[held["model_version"] == VERSION].set_index("capture_id")
    asked: Any = gallery.select(["capture_id", "batch", "sha256"]).to_pandas()
    mine = held.reindex(asked["capture_id"])
    lacking = mine["crop_sha256"].to_numpy(object) != asked["sha256"].to_numpy(object)
    batches = sorted(set(asked["batch"][lacking]))
    if batches:
        shown = ", ".join(batches[:5]) + (f" and {len(batches) - 5} more" if len(batches) > 5 else "")
        raise IntegrityError(f"{path} lacks local features of crops in {shown}", _MAKE)
    ends = np.cumsum(np.concatenate([[0], mine["count"].to_numpy(np.int64)]))
    np.save(folder / OFFSETS_FILE, ends, allow_pickle=False)
    rows = mine["offset"].to_numpy(np.int64)
    header = {"descr": "|u1", "fortran_order": False, "shape": (int(ends[-1]), WIDTH)}
    with (folder / FEATURES_FILE).open("wb") as out:  # not mapped: a full disk would end the process, not raise
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(rows), _BLOCK):
            taken = table.take(rows[start : start + _BLOCK].tolist(), columns=["features"])["features"]
            out.write(b"".join(taken.to_pylist()))
    return int(table.version)


def read_local_gallery(folder: Path, rows: int) -> LocalGallery:
    """The features in the folder of an index whose files have been checked.

    Raises:
        UnsafeFileError: a file is no plain array.
        IntegrityError: they do not describe so many rows.
    """
    features, offsets = (_array(folder / name) for name in (FEATURES_FILE, OFFSETS_FILE))
    fits = (
        features.dtype == np.uint8
        and features.ndim == 2
        and features.shape[1] == WIDTH
        and offsets.dtype == np.int64
        and offsets.shape == (rows + 1,)
        and offsets[0] == 0
        and offsets[-1] == len(features)
        and bool((np.diff(offsets) >= 0).all())
    )
    if not fits:
        raise IntegrityError(f"{folder / FEATURES_FILE} does not hold the local features of {rows} rows", _REBUILD)
    return LocalGallery(features, offsets)


def _array(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnsafeFileError(f"{path} is no plain array: {error}", _REBUILD) from error
