"""The gallery as an index: nearest vectors in, rows of the catalog out.

An index is a folder that never changes: `vectors.faiss`, `rows.parquet` (row n describes vector n), where they are wanted the
local features of the rows, and a manifest with the sha256 of all. The folder is named by the sha256 of its manifest, so every
byte below it can be checked from its name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster import storage
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NoReleaseError, NotEnoughDataError, UnsafeFileError
from geoloc_dagster.guards import inside
from geoloc_dagster.retrieval.cells import CellIds, cell_ids
from geoloc_dagster.retrieval.encoder import Vectors
from geoloc_dagster.retrieval.index_file import check_index_file
from geoloc_dagster.retrieval.index_planner import EXACT, Plan, PlanSettings, build, lists_of, plan_index, search_parameters
from geoloc_dagster.retrieval.local_features import VERSION
from geoloc_dagster.retrieval.local_gallery import LocalGallery, read_local_gallery, write_local_gallery
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer
from geoloc_dagster.tables import open_table, verify_table

DEFAULT_S2_LEVEL = 16
_VECTORS, _ROWS, _LATEST = "vectors.faiss", "rows.parquet", "LATEST.json"
_ROW_COLUMNS = ["capture_id", "location_id", "lat_deg", "lng_deg", "view", "captured_on", "batch", "licence", "attribution"]
_REBUILD = "Materialise `faiss_index` and then `release` again; the last good release stays served."
_EMBED = "Materialise `embeddings` for every batch again, then `faiss_index`; the last good release stays served."


@dataclass(frozen=True, slots=True)
class IndexResult:
    """A written index: its folder, what it holds, and whether this call wrote it."""

    folder: Path
    model_version: str
    rows: int
    vectors: int
    locations: int
    dimension: int
    bytes: int
    embeddings_version: int
    created: bool
    plan: Plan


@dataclass(frozen=True, slots=True)
class GalleryIndex:
    """A verified index in memory; `rows` has one row per vector, with `s2_cell` beside the catalog's columns.

    Rows that are `hidden` are never found. `local` are the rows' local features, where the index was built with them.
    """

    folder: Path
    manifest: dict[str, Any]
    rows: pa.Table
    lat_deg: npt.NDArray[np.float64]
    lng_deg: npt.NDArray[np.float64]
    cells: CellIds
    faiss_index: Any
    hidden: npt.NDArray[np.int64] | None = None
    local: LocalGallery | None = None

    @property
    def model_version(self) -> str:
        """The model whose vectors these are."""
        return str(self.manifest["model_version"])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.manifest["dimension"])

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The k most similar rows of each query (all of them where the gallery is smaller), most similar first.

        Args:
            vectors: float32 (N, dimension), L2-normalised, of the same model.
            k: How many.

        Returns:
            Cosine similarities and row numbers, both (N, min(k, rows)).
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        most = min(k, self.rows.num_rows - (0 if self.hidden is None else len(self.hidden)))
        similarity, rows = self._search(queries, most, self.probes)
        short, lists = np.flatnonzero((rows < 0).any(axis=1)), lists_of(self.faiss_index)
        if short.size and lists is not None:  # those that were searched hold fewer
            similarity[short], rows[short] = self._search(queries[short], most, lists.nlist)
        return similarity, rows

    def _search(self, queries: Vectors, k: int, probes: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        return self.faiss_index.search(queries, k, params=search_parameters(self.faiss_index, probes, self.hidden))

    @property
    def probes(self) -> int:
        """How many lists are searched; 0 where there are none."""
        return int(self.manifest.get("plan", {}).get("probes", 0))

    def vectors(self) -> Vectors:
        """The vectors of all rows, (rows, dimension), L2-normalised; of a compressed index those that it stands for."""
        lists = lists_of(self.faiss_index)
        if lists is not None:
            lists.make_direct_map()
        found = self.faiss_index.reconstruct_n(0, self.rows.num_rows)
        is_exact = self.manifest.get("plan", {}).get("kind", EXACT) == EXACT
        return found if is_exact else found / np.linalg.norm(found, axis=1, keepdims=True)

    def views(self) -> npt.NDArray[np.str_]:
        """The name of each row's view, (rows,): those of one view are taken from one place in one direction."""
        places, views = (self.rows[column].to_pylist() for column in ("location_id", "view"))
        return np.array([f"{place} {view}" for place, view in zip(places, views, strict=True)], np.str_)

    def without(self, capture_ids: Iterable[str]) -> GalleryIndex:
        """The same index, which finds none of these captures: a picture that asks must not find itself."""
        asked = pa.array(sorted(capture_ids), pa.string())
        rows = np.flatnonzero(pc.is_in(self.rows["capture_id"], asked).to_numpy(zero_copy_only=False))  # pyright: ignore[reportAttributeAccessIssue]
        return replace(self, hidden=rows.astype(np.int64))


# --- building --------------------------------------------------------------------------------------------------------
def build_index(
    embeddings_path: Path,
    catalog: pa.Table,
    model_version: str,
    out_folder: Path,
    *,
    plan: PlanSettings | None = None,
    local_features: Path | None = None,
    s2_level: int = DEFAULT_S2_LEVEL,
    provenance: dict[str, Any] | None = None,
) -> IndexResult:
    """Write an inner-product index over the usable rows of the catalog: exact, or of the kind that `plan_index` chooses.

    The same vectors and rows give the same folder; an index that is there already is kept.

    Args:
        embeddings_path: Lance table of the champion's vectors.
        catalog: The whole catalog.
        model_version: The champion; every batch must hold its vectors and no others.
        out_folder: Where the folder named by content goes.
        plan: What the index has to do, which decides its kind.
        local_features: Lance table of local features, where the index is to hold those of its rows too.
        s2_level: Level of the cells on which probabilities are stated.
        provenance: Facts for the manifest, e.g. the catalog's sha256.

    Raises:
        ModelMismatchError: naming the batches that lack vectors of `model_version`, and what they hold instead.
        IntegrityError: a table has changed since it was written, or that of local features lacks some.
        NotEnoughDataError: the catalog has no usable row.
    """
    gallery = catalog.filter(catalog["usable"]).sort_by("capture_id")
    if gallery.num_rows == 0:
        raise NotEnoughDataError("the catalog has no usable row, there is nothing to index")
    vectors, version = _gallery_vectors(embeddings_path, gallery, model_version)
    lat, lng = (gallery[c].to_numpy().astype(np.float64) for c in ("lat_deg", "lng_deg"))
    rows = gallery.select(_ROW_COLUMNS).append_column("s2_cell", pa.array(cell_ids(lat, lng, s2_level)))
    planned = plan_index(vectors, plan)
    facts = {
        "kind": "faiss index",
        "index_type": f"{planned.kind}, inner product",
        "plan": planned.to_json(),
        "model_version": model_version,
        "dimension": vectors.shape[1],
        "rows": rows.num_rows,
        "s2_level": s2_level,
        "embeddings_version": version,
        "provenance": provenance or {},
    }

    def add_local_features(folder: Path) -> dict[str, Any]:
        if local_features is None:
            return {}
        return {"local_features": VERSION, "local_features_version": write_local_gallery(local_features, gallery, folder)}

    folder, created = _publish(out_folder, build(vectors, planned.kind), rows, facts, add_local_features)
    size = sum(file.stat().st_size for file in folder.iterdir())
    locations = len(rows["location_id"].unique())
    write_pointer(out_folder / _LATEST, {"index": folder.name})
    dimension = vectors.shape[1]
    return IndexResult(folder, model_version, rows.num_rows, len(vectors), locations, dimension, size, version, created, planned)


def _gallery_vectors(path: Path, gallery: pa.Table, model_version: str) -> tuple[Vectors, int]:
    """The vectors of the gallery's rows in their order, and the version of the table that they were read from."""
    held, version = _verified_rows(path)
    _refuse_mixed(held, gallery, model_version)
    order = pc.index_in(gallery["capture_id"], held["capture_id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
    column = held["vector"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(column), -1)[order.to_numpy()]
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise IntegrityError(f"{path} holds vectors that are not of length 1", _EMBED)
    return np.ascontiguousarray(vectors, dtype=np.float32), version


def _verified_rows(path: Path) -> tuple[pa.Table, int]:
    """All rows of the embeddings table and its version, after comparing its files with their checksums."""
    try:
        verify_table(path, remedy=_EMBED)
        table = open_table(path)
        assert table is not None  # verify_table opened it
        return table.to_table(), int(table.version)
    except (OSError, ValueError, pa.ArrowException) as error:  # what Lance says of a damaged manifest
        raise IntegrityError(f"{path} is damaged: {error}", _EMBED) from error


def _refuse_mixed(held: pa.Table, gallery: pa.Table, model_version: str) -> None:
    """Raise unless every row of the gallery has a vector of this model, made from the crop that the catalog describes."""
    versions: dict[str, set[str]] = {}
    for batch, version in zip(held["batch"].to_pylist(), held["model_version"].to_pylist(), strict=True):
        versions.setdefault(batch, set()).add(version)
    sums = dict(zip(held["capture_id"].to_pylist(), held["crop_sha256"].to_pylist(), strict=True))
    lacking: dict[str, int] = {}
    for capture, batch, crop in zip(*(gallery[c].to_pylist() for c in ("capture_id", "batch", "sha256")), strict=True):
        lacking[batch] = lacking.get(batch, 0) + (sums.get(capture) != crop)
    problems: list[str] = []
    for batch, count in sorted(lacking.items()):
        others = sorted(versions.get(batch, set()) - {model_version})
        if batch not in versions:
            problems.append(f"{batch} has no vectors")
        elif others:
            problems.append(f"{batch} has vectors of {', '.join(others)}")
        elif count:
            problems.append(f"{batch} lacks vectors of {count} usable crops")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more batches" if len(problems) > 5 else "")
        raise ModelMismatchError(f"the index is to hold only {model_version}, but {shown}")


def _publish(
    out_folder: Path, index: Any, rows: pa.Table, facts: dict[str, Any], add: Callable[[Path], dict[str, Any]]
) -> tuple[Path, bool]:
    """Write the files beside their final place and rename; the name is known only when they are written.

    `add` writes more of them, and says what the manifest is to say of these.
    """
    with storage.translated_errors(out_folder):
        out_folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=out_folder))
        try:
            storage.write_bytes(staging / _VECTORS, faiss.serialize_index(index).tobytes())
            storage.write_parquet(staging / _ROWS, rows)
            storage.write_manifest(staging, **facts, **add(staging))
            folder = out_folder / _content_name(staging)
            if folder.exists() and _is_intact(folder):
                return folder, False
            storage.adopt_folder(staging, folder)  # also in place of a damaged one: the same bytes repair every release of it
            folder.chmod(0o755)
            return folder, True
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _content_name(folder: Path) -> str:
    return f"index-{storage.sha256_file(folder / storage.MANIFEST)[:12]}"


def _is_intact(folder: Path) -> bool:
    try:
        verify_index(folder)
    except (IntegrityError, UnsafeFileError):
        return False
    return True


def latest_index(out_folder: Path) -> Path:
    """The folder of the index that was built last; what a release may be made of.

    Raises:
        NoReleaseError: none has been built yet.
        IntegrityError: the pointer has changed.
    """
    if not (out_folder / _LATEST).exists():
        raise NoReleaseError(f"{out_folder} holds no index yet", "Materialise `faiss_index` first.")
    return inside(out_folder, read_pointer(out_folder / _LATEST, _REBUILD).get("index"), may_link=True)


# --- loading ---------------------------------------------------------------------------------------------------------
def verify_index(folder: Path) -> dict[str, Any]:
    """Check every byte of an index folder against its name and its manifest; return the manifest.

    Raises:
        IntegrityError: naming the file that is missing or has changed, with what to do.
    """
    manifest = folder / storage.MANIFEST
    if not manifest.is_file():
        raise IntegrityError(f"{manifest} is missing", _REBUILD)
    if _content_name(folder) != folder.name:
        raise IntegrityError(f"{manifest} has changed since it was written (the folder's name is its sha256)", _REBUILD)
    return storage.verify_manifest(folder, remedy=_REBUILD)


def load_index(folder: Path) -> GalleryIndex:
    """Read an index after checking all of its bytes; nothing reaches faiss before that.

    Raises:
        IntegrityError: a file is missing or has changed, or the parts do not describe the same rows.
        UnsafeFileError: the vectors are of a kind that is not built here, or claim more than there is.
    """
    manifest = verify_index(folder)
    check_index_file(folder / _VECTORS, int(manifest["rows"]), int(manifest["dimension"]))
    index: Any = faiss.read_index(str(folder / _VECTORS))
    rows = storage.read_parquet(folder / _ROWS)
    if not index.ntotal == rows.num_rows == manifest["rows"] or index.d != manifest["dimension"]:
        raise IntegrityError(
            f"{folder}: {index.ntotal} vectors of dimension {index.d} beside {rows.num_rows} rows; the manifest says "
            f"{manifest['rows']} of dimension {manifest['dimension']}",
            _REBUILD,
        )
    lat, lng = (storage.numbers(rows, c).astype(np.float64) for c in ("lat_deg", "lng_deg"))
    local = read_local_gallery(folder, rows.num_rows) if "local_features" in manifest else None
    cells = storage.numbers(rows, "s2_cell").astype(np.uint64)
    return GalleryIndex(folder, manifest, rows, lat, lng, cells, index, local=local)
