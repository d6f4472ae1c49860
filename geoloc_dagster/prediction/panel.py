"""The experts of a region: each looks at photos in its own way, and says what it found on the one grid.

`retrieval` looks for the nearest pictures of the index, `places` weighs the directions of their vectors; `cells`, `scenes` and
`sequence` are trained classifiers of S2 cells. What an expert sees does not depend on the fit, so it looks once and can be asked
under many. `verification` looks at what those of retrieval found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.geo.partitioning import HIERARCHY, CellLevel
from geoloc_dagster.prediction.experts import (
    F32,
    I64,
    GridParameters,
    Hits,
    best_classes,
    best_votes,
    classes_on_grid,
    spread_table,
    votes_on_grid,
)
from geoloc_dagster.retrieval.encoder import Pictures, Vectors
from geoloc_dagster.retrieval.place_head import PlaceHead

RETRIEVAL, PLACES = "retrieval", "places"
HITS = 100
Search = Callable[[Vectors, int], tuple[Vectors, I64]]


@dataclass(frozen=True, slots=True, eq=False)
class Photos:
    """N photos as experts look at them.

    Attributes:
        vectors: model version of each network of retrieval -> (N, dimension).
        pictures: side in pixels -> uint8 (N, 3, side, side).
    """

    vectors: Mapping[str, Vectors]
    pictures: Callable[[int], Pictures]


class Expert(Protocol):
    """One way of looking."""

    @property
    def name(self) -> str:
        """How it is called in reports and on the command line."""
        ...

    @property
    def model_version(self) -> str:
        """Names the exact weights."""
        ...

    def look(self, photos: Photos, found: Mapping[str, Any]) -> Any:
        """What it finds, before any fit; `found` is what those before it found, by name."""
        ...

    def fit(self, found: Any, truth: I64) -> GridParameters:
        """Its own parameters under which the true cells of photos are likeliest; -1 is off the grid."""
        ...

    def say(self, found: Any, fitted: GridParameters) -> F32:
        """Log-probabilities over the grid, (N, cells)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HitsExpert:
    """The nearest pictures of a gallery.

    Attributes:
        model_version: of vectors and gallery.
        search: (vectors, k) -> similarities and rows, most similar first.
        cells: of the grid, per row of the gallery.
        grid: the cells.
    """

    model_version: str
    search: Search
    cells: I64
    grid: AnswerGrid
    name: str = RETRIEVAL

    def look(self, photos: Photos, found: Mapping[str, Any]) -> Hits:
        """The nearest pictures."""
        similarity, rows = self.search(_vectors(photos, self.model_version), min(HITS, len(self.cells)))
        return Hits(similarity.astype(np.float64), self.cells[rows], rows)

    def fit(self, found: Hits, truth: I64) -> GridParameters:
        """Temperature and floor of the votes."""
        return best_votes(found, self.grid, truth)

    def say(self, found: Hits, fitted: GridParameters) -> F32:
        """What the hits vote for."""
        return votes_on_grid(found, self.grid, fitted)


@dataclass(frozen=True, slots=True, eq=False)
class PlacesExpert:
    """A linear classifier of the gallery's views; `views` are their names, where there is one per class."""

    model_version: str
    head: PlaceHead
    table: sparse.csr_matrix
    grid: AnswerGrid
    name: str = PLACES
    views: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))

    def look(self, photos: Photos, found: Mapping[str, Any]) -> F32:
        """Log-probabilities of the views."""
        return self.head.log_probabilities(_vectors(photos, self.model_version))

    def cells(self) -> I64:
        """The cell of the grid in which each view lies, (classes,); -1 where in none."""
        cells = np.full(len(self.head.weights), -1, np.int64)
        views, at = self.table.nonzero()
        cells[views] = at
        return cells

    def fit(self, found: F32, truth: I64) -> GridParameters:
        """Temperature and floor."""
        return best_classes(found, self.table, self.grid, truth)

    def say(self, found: F32, fitted: GridParameters) -> F32:
        """Views added up by cell."""
        return classes_on_grid(found, self.table, self.grid, fitted)


def look_all(experts: Sequence[Expert], photos: Photos) -> dict[str, Any]:
    """What every expert finds, by name, one after the other."""
    found = dict[str, Any]()
    for expert in experts:
        found[expert.name] = expert.look(photos, found)
    return found


class CellClassifier(Protocol):
    """What trained classifiers of cells have in common."""

    @property
    def model_version(self) -> str:
        """Names the exact weights."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures that it takes, pixels."""
        ...

    @property
    def finest(self) -> CellLevel:
        """The classes that `hierarchy` is about."""
        ...

    def log_probabilities(self, pictures: Pictures) -> Mapping[str, Any]:
        """`hierarchy`, (N, classes), and levels where the model says them: arrays, or tensors on the CPU."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierExpert:
    """A trained classifier: what all its levels say together."""

    name: str
    model: CellClassifier
    table: sparse.csr_matrix
    grid: AnswerGrid

    @property
    def model_version(self) -> str:
        """Of the classifier."""
        return self.model.model_version

    def look(self, photos: Photos, found: Mapping[str, Any]) -> F32:
        """Log-probabilities of its finest cells."""
        return np.asarray(self.model.log_probabilities(photos.pictures(self.model.size))[HIERARCHY], np.float32)

    def fit(self, found: F32, truth: I64) -> GridParameters:
        """Temperature and floor."""
        return best_classes(found, self.table, self.grid, truth)

    def say(self, found: F32, fitted: GridParameters) -> F32:
        """Its cells spread over the grid."""
        return classes_on_grid(found, self.table, self.grid, fitted)


def classifier_expert(name: str, model: CellClassifier, grid: AnswerGrid) -> ClassifierExpert:
    """A classifier on a grid."""
    return ClassifierExpert(name, model, spread_table(model.finest, grid), grid)


def view_table(cells: I64, grid: AnswerGrid) -> sparse.csr_matrix:
    """Which cell of the grid each class of views lies in, (classes, cells)."""
    known = np.flatnonzero(cells >= 0)
    return sparse.csr_matrix((np.ones(known.size), (known, cells[known])), shape=(cells.size, len(grid)))


def _vectors(photos: Photos, model_version: str) -> Vectors:
    if model_version not in photos.vectors:
        raise ValueError(f"these photos have no vectors of {model_version}, which experts of an index look at")
    return photos.vectors[model_version]
