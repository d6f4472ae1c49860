"""From a cell to a position within it: the pictures of every cell in clusters, each with its mean vector as prototype.

A classifier, or a vote, says how likely cells are; of the likeliest, the one with a prototype near the photo's vector is
taken, and of the pictures behind that prototype the most similar one says where. Source: Haas et al., PIGEON (CVPR 2024),
section 3.3; the published code takes the farthest prototype there, by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.cluster import OPTICS

from geoloc_dagster import storage
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import great_circle_m, unit_vectors
from geoloc_dagster.retrieval.cells import CellIds, cell_ids
from geoloc_dagster.retrieval.encoder import Vectors
from geoloc_dagster.retrieval.index import GalleryIndex

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ClusterBy = Literal["embedding", "position"]

_VECTORS, _MEMBERS = "prototypes.safetensors", "members.parquet"
_REMEDY = "Build the prototypes again from the index that is served."
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class RefineSettings:
    """How far prototypes may decide.

    Attributes:
        top_cells: The likeliest cells that are looked into.
        temperature: T of the softmax of -distance / T over them; the paper's 1.6 was for vectors that are not of length 1.
        max_move_m: Where the refined position lies further than this from the answer that is refined, that answer stays. 1 km
            suits a city, 1,000 km (the paper's) the planet.
    """

    top_cells: int = 5
    temperature: float = 0.1
    max_move_m: float = 1000.0

    def __post_init__(self) -> None:
        if self.top_cells < 1 or not self.temperature > 0 or not self.max_move_m >= 0:
            raise ValueError(f"top_cells and temperature must be positive and max_move_m not negative: {self}")


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The prototypes of an index, cell by cell.

    Attributes:
        index: Whose rows they are made of.
        level: S2 level of the cells.
        vectors: (P, D) float32, the mean vector of each cluster, not normalised.
        cells: (P,) the cell of each, ascending.
        rows: (R,) every row of the index, cluster by cluster.
        starts: (P + 1,) where in `rows` each cluster begins.
        row_vectors: (R, D) float32, the vectors of the index.
    """

    index: GalleryIndex
    level: int
    vectors: Vectors
    cells: CellIds
    rows: Ints
    starts: Ints
    row_vectors: Vectors

    def members(self, prototype: int) -> Ints:
        """Rows of the index behind a prototype."""
        return self.rows[self.starts[prototype] : self.starts[prototype + 1]]

    def save(self, folder: Path) -> None:
        """Write the prototypes in place of what the folder holds; the vectors of the index are not written again."""
        captures = self.index.rows["capture_id"].take(pa.array(self.rows))
        sizes = np.diff(self.starts)
        members = {
            "prototype": np.repeat(np.arange(len(sizes)), sizes),
            "s2_cell": np.repeat(self.cells, sizes),
            "row": self.rows,
            "capture_id": captures,
        }
        facts = {"kind": "prototypes", "level": self.level, "prototypes": len(sizes), "model_version": self.index.model_version}
        with storage.atomic_folder(folder) as made:
            storage.write_bytes(made / _VECTORS, save({"vectors": np.ascontiguousarray(self.vectors)}))
            storage.write_parquet(made / _MEMBERS, pa.table(members))
            storage.write_manifest(made, index=self.index.folder.name, **facts)


def load_prototypes(folder: Path, index: GalleryIndex) -> Prototypes:
    """Read prototypes, every byte checked, for the index that they were made of.

    Raises:
        IntegrityError: a file is missing or has changed, or the parts do not describe the same rows.
        ModelMismatchError: they were made of another index.
    """
    manifest = storage.verify_manifest(folder, remedy=_REMEDY)
    if manifest["index"] != index.folder.name:
        raise ModelMismatchError(f"{folder} was made of {manifest['index']}, not of {index.folder.name}", _REMEDY)
    try:
        vectors = load_file(folder / _VECTORS)["vectors"]
    except (SafetensorError, KeyError, OSError) as error:
        raise IntegrityError(f"{folder / _VECTORS} is damaged: {error}", _REMEDY) from error
    members = storage.read_parquet(folder / _MEMBERS)
    rows = members["row"].to_numpy().astype(np.int64)
    owner, cells = members["prototype"].to_numpy().astype(np.int64), members["s2_cell"].to_numpy().astype(np.uint64)
    whole = np.array_equal(np.sort(rows), np.arange(index.rows.num_rows)) and np.array_equal(
        np.unique(owner), np.arange(len(vectors))
    )
    if not whole:
        raise IntegrityError(f"{folder} does not describe the rows of {index.folder.name}", _REMEDY)
    starts = np.searchsorted(owner, np.arange(len(vectors) + 1))
    return Prototypes(index, int(manifest["level"]), vectors, cells[starts[:-1]], rows, starts, index.vectors())


# --- building --------------------------------------------------------------------------------------------------------
def build_prototypes(
    index: GalleryIndex, level: int, *, by: ClusterBy = "embedding", min_samples: int = 4, xi: float = 0.05
) -> Prototypes:
    """Cluster the gallery rows of every S2 cell by OPTICS and take the mean vector of each cluster.

    Rows that OPTICS leaves out go to the nearest cluster of their cell; a cell where it finds none is one cluster.

    Args:
        index: The gallery.
        level: S2 level of the cells.
        by: What is clustered: the vectors, or positions in metres as in the paper.
        min_samples: of OPTICS; a cell with fewer than twice as many rows is one cluster.
        xi: of OPTICS: how steep the edge of a cluster is.

    Raises:
        NotEnoughDataError: the index is empty.
    """
    if index.rows.num_rows == 0:
        raise NotEnoughDataError("the index has no row, there is nothing to make prototypes of")
    vectors = index.vectors()
    own = cell_ids(index.lat_deg, index.lng_deg, level)
    features = vectors if by == "embedding" else unit_vectors(index.lat_deg, index.lng_deg)
    clusters: list[Ints] = []
    for cell in np.unique(own):
        rows = np.flatnonzero(own == cell)
        labels = _cluster(features[rows], min_samples, xi)
        clusters += [rows[labels == label] for label in np.unique(labels)]
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in clusters])]).astype(np.int64)
    means = np.stack([vectors[rows].mean(axis=0) for rows in clusters]).astype(np.float32)
    firsts = np.array([rows[0] for rows in clusters])
    return Prototypes(index, level, means, own[firsts], np.concatenate(clusters), starts, vectors)


def _cluster(features: npt.NDArray[Any], min_samples: int, xi: float) -> Ints:
    """A label from 0 for each row of one cell."""
    if len(features) < 2 * min_samples or len(np.unique(features, axis=0)) < 2:
        return np.zeros(len(features), np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):  # pictures that coincide have a reachability of 0
        labels = OPTICS(min_samples=min_samples, xi=xi).fit(features).labels_.astype(np.int64)
    found = np.unique(labels[labels >= 0])
    if not len(found):
        return np.zeros(len(features), np.int64)
    centres = np.stack([features[labels == label].mean(axis=0) for label in found])
    apart = np.linalg.norm(features[:, None] - centres[None], axis=2)
    return np.where(labels >= 0, labels, found[np.argmin(apart, axis=1)])


# --- asking ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Refined:
    """Refined answers of N photos.

    Attributes:
        lat_deg: (N,).
        lng_deg: (N,).
        row: (N,) row of the index that says where; -1 where the answer that was to be refined stayed.
        cells: (N, n) the cells that were looked into, the likeliest first.
        weights: (N, n) probability of each cell times the softmax of its nearest prototype's distance, of sum 1.
    """

    lat_deg: Floats
    lng_deg: Floats
    row: Ints
    cells: CellIds
    weights: Floats


def refine(
    prototypes: Prototypes,
    query_vectors: Vectors,
    cell_log_probabilities: Floats,
    cells: CellIds,
    settings: RefineSettings | None = None,
    *,
    answers: tuple[Floats, Floats] | None = None,
) -> Refined:
    """Refine N answers on cells to positions of pictures.

    Args:
        prototypes: Of the index of the same model as the vectors.
        query_vectors: (N, D) float32 of length 1.
        cell_log_probabilities: (N, G).
        cells: (G,) ids of cells of the prototypes' level; cells without a picture are passed over.
        settings: How far prototypes may decide.
        answers: Latitudes and longitudes (N,) that are refined; by default the middle of the pictures in the likeliest cell.

    Raises:
        ValueError: a cell is of another level, or no cell has a picture.
    """
    settings = settings or RefineSettings()
    known = _known_cells(prototypes, cells)
    log_p, asked = np.asarray(cell_log_probabilities, np.float64)[:, known], cells[known]
    top = np.argsort(-log_p, axis=1, kind="stable")[:, : settings.top_cells]
    starts = np.searchsorted(prototypes.cells, asked)  # the first prototype of each cell
    parts = [
        _nearest_in_cells(prototypes, query_vectors[rows], starts, asked, top[rows])
        for rows in (slice(start, start + _BLOCK) for start in range(0, len(query_vectors), _BLOCK))
    ]
    distance, nearest = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    scores = np.take_along_axis(log_p, top, axis=1) - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
    scores = scores - distance / settings.temperature
    weights = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    chosen = np.take_along_axis(nearest, np.argmax(scores, axis=1)[:, None], axis=1)[:, 0]
    row = np.array([_nearest_row(prototypes, int(p), v) for p, v in zip(chosen, query_vectors, strict=True)], dtype=np.int64)
    lat, lng = prototypes.index.lat_deg[row], prototypes.index.lng_deg[row]
    old_lat, old_lng = answers or _middles(prototypes, asked[top[:, 0]])
    stays = great_circle_m(lat, lng, old_lat, old_lng) > settings.max_move_m
    return Refined(np.where(stays, old_lat, lat), np.where(stays, old_lng, lng), np.where(stays, -1, row), asked[top], weights)


def _known_cells(prototypes: Prototypes, cells: CellIds) -> Ints:
    """Positions of the cells that have a prototype."""
    if len(cells) and not np.all(s2.levels(cells) == prototypes.level):
        raise ValueError(f"the prototypes are of S2 level {prototypes.level}, the cells are not")
    known = np.flatnonzero(np.isin(cells, prototypes.cells))
    if not len(known):
        raise ValueError("none of the cells has a picture in the index")
    return known


def _nearest_in_cells(prototypes: Prototypes, vectors: Vectors, starts: Ints, asked: CellIds, top: Ints) -> tuple[Floats, Ints]:
    """The distance to the nearest prototype of each chosen cell, and which it is: both (B, n)."""
    ends = np.searchsorted(prototypes.cells, asked, side="right")
    apart = _distances(vectors, prototypes.vectors)
    distance, nearest = np.empty(top.shape), np.empty(top.shape, np.int64)
    for i, cells in enumerate(top.tolist()):
        for j, cell in enumerate(cells):
            first = int(starts[cell])
            among = apart[i, first : int(ends[cell])]
            best = int(np.argmin(among))
            distance[i, j], nearest[i, j] = among[best], first + best
    return distance, nearest


def _nearest_row(prototypes: Prototypes, prototype: int, vector: Vectors) -> int:
    rows = prototypes.members(prototype)
    return int(rows[np.argmax(prototypes.row_vectors[rows] @ vector)])


def _distances(a: Vectors, b: Vectors) -> Floats:
    """Euclidean distances (N, M) of the rows of a and b."""
    squares = np.square(a).sum(axis=1)[:, None] - 2 * (a @ b.T) + np.square(b).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0)).astype(np.float64)


def _middles(prototypes: Prototypes, cells: CellIds) -> tuple[Floats, Floats]:
    """The mean position on the sphere of the pictures of each cell."""
    points = unit_vectors(prototypes.index.lat_deg, prototypes.index.lng_deg)[prototypes.rows]
    wanted, inverse = np.unique(cells, return_inverse=True)
    first = prototypes.starts[np.searchsorted(prototypes.cells, wanted)]
    last = prototypes.starts[np.searchsorted(prototypes.cells, wanted, side="right")]
    mean = np.stack([points[a:b].mean(axis=0) for a, b in zip(first, last, strict=True)])[inverse.reshape(-1)]
    return np.degrees(np.arctan2(mean[:, 2], np.hypot(mean[:, 0], mean[:, 1]))), np.degrees(np.arctan2(mean[:, 1], mean[:, 0]))
