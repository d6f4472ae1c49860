"""The expert that looks twice: the nearest pictures are compared with a photo feature by feature.

It tries what the networks of retrieval and their classifiers of views found, and so never finds what none of them did; but it
knows better which of it is right, and whether any is: pictures of one place share an arrangement of features, whatever the light,
and those of two hardly ever do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster.cores import processes_by_default
from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.prediction.experts import F32, I64, GridParameters, Hits, Verified, best_votes, votes_on_grid
from geoloc_dagster.prediction.panel import PLACES, RETRIEVAL, Photos
from geoloc_dagster.prediction.protocol import Candidate
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.local_features import SIDE, U8, VERSION, inliers, local_features
from geoloc_dagster.retrieval.local_gallery import LocalGallery

VERIFICATION = "verification"
COMPARED = 12
"""Pictures that a photo is compared with."""
_OF_A_VIEW = 2
_UNIT = 20.0
"""Doublings of the shared features in one unit of similarity, so that temperatures are as those of cosines."""
_NONE = -1.0
_BY_CHANCE = tuple((np.log2(1 + np.array([16, 20, 25, 30])) / _UNIT).tolist())
_TEMPERATURES = (0.0075, 0.01, 0.015)  # steeper than would be likeliest alone: in the product others say what it leaves open


@dataclass(frozen=True, slots=True, eq=False)
class VerificationExpert:
    """Compares photos with the nearest pictures of a gallery.

    Attributes:
        sources: names of the experts of retrieval whose finds are tried, turn by turn.
        local: features of the index's rows.
        rows: of the index, of each row of the gallery that hits name.
        views: a number for place and direction of each row of the gallery; of one view two pictures are tried.
        of_classes: some rows of the gallery of each view that the experts of views know, (classes, n); -1 where it has fewer.
        cells: of the grid, per row of the gallery.
        hidden: rows of the gallery that no photo is compared with.
        grid: the cells.
    """

    sources: Sequence[str]
    local: LocalGallery
    rows: I64
    views: I64
    of_classes: I64
    cells: I64
    grid: AnswerGrid
    hidden: frozenset[int] = frozenset()
    name: str = VERIFICATION
    model_version: str = VERSION

    def look(self, photos: Photos, found: Mapping[str, Any]) -> Verified:
        """How much the photos share with what the networks found of them."""
        pictures = photos.pictures(SIDE)
        with ThreadPoolExecutor(processes_by_default()) as pool:  # OpenCV works without holding the interpreter
            features = list(pool.map(local_features, pictures.transpose(0, 2, 3, 1)))
        return self.compare(features, found)

    def compare(self, features: Sequence[U8], found: Mapping[str, Any]) -> Verified:
        """The same of photos whose features are known."""
        tried = self._tried([found[name] for name in self.sources])

        def shared(photo: int) -> list[float]:
            return [inliers(features[photo], self.local.of(row)) if row >= 0 else _NONE for row in indexed[photo].tolist()]

        indexed = np.where(tried >= 0, self.rows[tried], -1)
        with ThreadPoolExecutor(processes_by_default()) as pool:
            counts = np.array(list(pool.map(shared, range(len(features)))), np.float64).reshape(tried.shape)
        similarity = np.where(tried >= 0, np.log2(1 + np.maximum(counts, 0)) / _UNIT, _NONE)
        return Verified(Hits(similarity, np.where(tried >= 0, self.cells[tried], -1), tried), features)

    def fit(self, found: Verified, truth: I64) -> GridParameters:
        """Temperature and floor of the votes, and how much two pictures share by chance."""
        return best_votes(found.hits, self.grid, truth, _TEMPERATURES, _BY_CHANCE)

    def say(self, found: Verified, fitted: GridParameters) -> F32:
        """What the compared pictures vote for."""
        return votes_on_grid(found.hits, self.grid, fitted)

    def _tried(self, found: Sequence[Any]) -> I64:
        """Rows of the gallery that each photo is compared with, (N, COMPARED); -1 where there are fewer."""
        named = [_rows_of(one) if isinstance(one, Hits) else self._of_likeliest(one) for one in found]
        rows = np.full((len(named[0]), max(one.shape[1] for one in named), len(named)), -1, np.int64)
        for turn, one in enumerate(named):
            rows[:, : one.shape[1], turn] = one
        rows = rows.reshape(len(rows), -1)
        return np.array([self._first(mine) for mine in rows.tolist()], np.int64).reshape(-1, COMPARED)

    def _of_likeliest(self, log_probabilities: F32) -> I64:
        """Rows of the likeliest views, those of the likeliest first; -1 for views that cannot be."""
        most = min(COMPARED, log_probabilities.shape[1])
        best = np.argpartition(-log_probabilities, most - 1, axis=1)[:, :most]
        said = np.take_along_axis(log_probabilities, best, 1)
        order = np.argsort(-said, axis=1, kind="stable")
        rows = self.of_classes[np.take_along_axis(best, order, 1)]
        return np.where(np.isneginf(np.take_along_axis(said, order, 1))[:, :, None], -1, rows).reshape(len(rows), -1)

    def _first(self, rows: list[int]) -> list[int]:
        chosen, of_view = dict[int, None](), dict[int, int]()
        for row in rows:
            view = int(self.views[row])
            if row >= 0 and row not in chosen and row not in self.hidden and of_view.get(view, 0) < _OF_A_VIEW:
                chosen[row] = None
                of_view[view] = of_view.get(view, 0) + 1
                if len(chosen) == COMPARED:
                    break
        return [*chosen, *[-1] * (COMPARED - len(chosen))]


def _rows_of(hits: Hits) -> I64:
    if hits.rows is None:
        raise ValueError("hits whose pictures are to be compared need their rows")
    return hits.rows


def verification_over(
    indexes: Mapping[str, GalleryIndex], rows: I64, classes: npt.NDArray[np.str_], grid: AnswerGrid
) -> VerificationExpert:
    """The expert over some rows of the champion's index, which hits name by their order.

    Args:
        indexes: of the networks, by what follows the names of their experts; the champion's, under "", holds local features.
        rows: of these indexes, which have the same.
        classes: names of the views that the experts of views know, in the order of their classes.
        grid: the cells.
    """
    index = indexes[""]
    if index.local is None:
        raise IntegrityError(f"{index.folder} holds no local features", "Materialise `faiss_index` and then `release` again.")
    known, views = np.unique(index.views()[rows], return_inverse=True)
    by_date = np.argsort(index.rows["captured_on"].take(pa.array(rows)).to_numpy(), kind="stable")[::-1]
    order = by_date[np.argsort(views[by_date], kind="stable")]  # by view, the newest of each first
    wanted = np.searchsorted(known, classes)
    there = known[np.minimum(wanted, len(known) - 1)] == classes
    begins, ends = (np.searchsorted(views[order], wanted, side=side) for side in ("left", "right"))
    at = begins[:, None] + np.arange(_OF_A_VIEW + 1)  # one may be hidden
    of_classes = np.where(there[:, None] & (at < ends[:, None]), order[np.minimum(at, len(order) - 1)], -1)
    sources = [kind + beside for beside in indexes for kind in (RETRIEVAL, PLACES)]
    cells = grid.cells_of(index.lat_deg[rows], index.lng_deg[rows])
    return VerificationExpert(sources, index.local, rows, views.astype(np.int64), of_classes, cells, grid)


def shared_by_location(verified: Verified, index: GalleryIndex) -> list[dict[str, int]]:
    """Of each photo that was compared with pictures of a whole index: the most features that it shares with one of a location."""
    rows, similarity = verified.hits.rows, verified.hits.similarity
    assert rows is not None  # as `compare` makes them
    locations = index.rows["location_id"].take(pa.array(np.maximum(rows, 0).ravel())).to_pylist()
    counts = np.rint(np.exp2(np.maximum(similarity, 0) * _UNIT) - 1).astype(int)
    found = list[dict[str, int]]()
    for photo, mine in enumerate(counts.tolist()):
        said = dict[str, int]()
        for position, count in enumerate(mine):
            location = locations[photo * rows.shape[1] + position]
            if rows[photo, position] >= 0:
                said[location] = max(count, said.get(location, 0))
        found.append(said)
    return found


def by_shared_features(candidates: Sequence[Candidate], shared: Mapping[str, int]) -> tuple[Candidate, ...]:
    """Candidates with how much each shares, most first; those that were not compared follow as they were."""
    told = [replace(one, shared_features=shared.get(one.location_id)) for one in candidates]
    return tuple(sorted(told, key=lambda one: -1 if one.shared_features is None else one.shared_features, reverse=True))
