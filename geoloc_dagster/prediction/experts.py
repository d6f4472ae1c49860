"""What predictors of each kind say, brought to the one grid of a region: hits that vote, and classes that are spread.

An expert says a probability for each cell of the grid. Hits of the index vote with exp(similarity / T) for the cells that they
lie in. A class of a classifier, an S2 cell of its own size, gives its probability to the cells of the grid in it by how many
known places each holds. A small part of every expert's probability follows the prior, so that one expert alone can make nothing
impossible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.geo.partitioning import DROPPED, I32, CellLevel
from geoloc_dagster.geo.region_classes import RegionLevel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
TEMPERATURES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15)
SOFTENINGS = (0.75, 1.0, 1.5, 2.0, 3.0, 4.5)
FLOORS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The nearest pictures of N photos: cosine similarities and the grid cells that these lie in, both (N, k).

    `rows` of the gallery, (N, k), are kept where these pictures are to be shown.
    """

    similarity: F64
    cells: I64
    rows: I64 | None = None

    def __len__(self) -> int:
        return len(self.similarity)

    def take(self, rows: I64) -> Hits:
        """Of some photos."""
        return Hits(self.similarity[rows], self.cells[rows], None if self.rows is None else self.rows[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """Pictures that N photos were compared with feature by feature.

    Attributes:
        hits: these pictures and how much they share with the photo, (N, k), in the order in which they were tried; a cell of -1
            is none.
        features: of the photos.
    """

    hits: Hits
    features: Sequence[npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: I64) -> Verified:
        """Of some photos."""
        return Verified(self.hits.take(rows), [self.features[row] for row in rows.tolist()])


@dataclass(frozen=True, slots=True)
class GridParameters:
    """How what an expert finds becomes probabilities over the grid.

    Attributes:
        temperature: T of exp(similarity / T), and of p ** (1 / T) where a classifier says probabilities; None is 1 there.
        floor: the part that follows the prior.
        nothing: of hits, the similarity of what is no hit: where all are less similar than that, most of the probability follows
            the prior. None where hits are taken at their word.
    """

    temperature: float | None
    floor: float
    nothing: float | None = None


def votes_on_grid(hits: Hits, grid: AnswerGrid, said: GridParameters) -> F32:
    """Log-probabilities over the grid, (N, cells), of what hits vote for."""
    weights, none = _votes(hits, said)
    weights = np.where(hits.cells < 0, 0, weights)
    photo = np.repeat(np.arange(len(hits)), hits.cells.shape[1])
    votes = sparse.csr_matrix((weights.ravel(), (photo, np.maximum(hits.cells, 0).ravel())), shape=(len(hits), len(grid)))
    return _with_floor(votes.toarray() + none * grid.prior, grid, said.floor)


def spread_table(level: CellLevel, grid: AnswerGrid) -> sparse.csr_matrix:
    """How the classes of a level lie on the grid: (classes, cells), each row sums to one.

    A class is shared among the cells of the grid that it holds, by their prior; one that holds none lies in the cell around it.
    """
    class_of_cell, around = _polygons_on(level, grid) if isinstance(level, RegionLevel) else _s2_cells_on(level, grid)
    in_class = np.flatnonzero(class_of_cell != DROPPED)
    rows, columns, shares = class_of_cell[in_class].astype(np.int64), in_class, grid.prior[in_class]
    covered = np.zeros(len(level), bool)
    covered[rows] = True
    smaller = np.flatnonzero(~covered)  # classes that are smaller than the cell of the grid around them, or lie beside it
    cells = around[smaller]
    smaller, cells = smaller[cells >= 0], cells[cells >= 0]
    rows, columns = np.concatenate([rows, smaller]), np.concatenate([columns, cells])
    made = sparse.csr_matrix((np.concatenate([shares, np.ones(smaller.size)]), (rows, columns)), shape=(len(level), len(grid)))
    total = np.asarray(made.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0)) @ made)


def _s2_cells_on(level: CellLevel, grid: AnswerGrid) -> tuple[I32, I64]:
    """The class that holds each cell of the grid, and the cell of the grid in which each class begins, -1 outside of it.

    Of two S2 cells that overlap, one holds the other.
    """
    cell_low, cell_high = s2.ranges(grid.ids)
    low, high = s2.ranges(level.ids)
    class_of_cell = level.classes(cell_low)
    holds = (class_of_cell != DROPPED) & (cell_low >= low[class_of_cell]) & (cell_high <= high[class_of_cell])
    return np.where(holds, class_of_cell, DROPPED).astype(np.int32), grid.cells_of_leaves(low)


def _polygons_on(level: RegionLevel, grid: AnswerGrid) -> tuple[I32, I64]:
    """The same of polygons, by where the places of a cell of the grid are, and those of a polygon."""
    return level.classes_at(grid.lat_deg, grid.lng_deg), grid.cells_of(level.lat_deg, level.lng_deg)


def classes_on_grid(log_probabilities: npt.ArrayLike, table: sparse.csr_matrix, grid: AnswerGrid, said: GridParameters) -> F32:
    """Log-probabilities over the grid, (N, cells), of what a classifier says of its classes, (N, classes)."""
    spread = _probabilities(np.asarray(log_probabilities, np.float64), said.temperature or 1.0) @ table
    return _with_floor(np.asarray(spread), grid, said.floor)


def best_votes(
    hits: Hits,
    grid: AnswerGrid,
    truth: I64,
    temperatures: Sequence[float] = TEMPERATURES,
    nothing: Sequence[float | None] = (None,),
) -> GridParameters:
    """Those under which the true cells of some photos are likeliest; photos off the grid (-1) say nothing.

    Args:
        hits: of the photos.
        grid: the cells.
        truth: the true cell of each photo.
        temperatures: that are tried.
        nothing: similarities of what is no hit that are tried.
    """
    known = np.flatnonzero(truth >= 0)
    part = hits.take(known)
    tried = [GridParameters(*values) for values in product(temperatures, FLOORS, nothing)]
    return max(tried, key=lambda said: _likelihood(_votes_at(part, grid, truth[known], said)))


def best_classes(log_probabilities: npt.ArrayLike, table: sparse.csr_matrix, grid: AnswerGrid, truth: I64) -> GridParameters:
    """The temperature of a classifier, and the part that follows the prior, under which the true cells are likeliest.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    known = np.flatnonzero(truth >= 0)
    said, true = np.asarray(log_probabilities, np.float64)[known], truth[known]
    to_truth, held = table[:, true].T.tocsr(), np.asarray(table.sum(axis=1)).ravel()
    best, most = GridParameters(1.0, FLOORS[0]), -np.inf
    for temperature in SOFTENINGS:
        probabilities = _probabilities(said, temperature)
        at_truth = np.asarray(to_truth.multiply(probabilities).sum(axis=1)).ravel()
        share = at_truth / np.maximum(probabilities @ held, 1e-12)
        for floor in FLOORS:
            likelihood = _likelihood((1 - floor) * share + floor * grid.prior[true])
            if likelihood > most:
                best, most = GridParameters(temperature, floor), likelihood
    return best


def _probabilities(log_probabilities: F64, temperature: float) -> F64:
    """Of classes, (N, classes), made softer by a temperature above 1; each row sums to one."""
    values = np.exp((log_probabilities - log_probabilities.max(axis=1, keepdims=True)) / temperature)
    return values / values.sum(axis=1, keepdims=True)


def _votes_at(hits: Hits, grid: AnswerGrid, truth: I64, said: GridParameters) -> F64:
    """The probability that votes give to one cell of each photo."""
    weights, none = _votes(hits, said)
    at_truth = np.where(hits.cells == truth[:, None], weights, 0).sum(axis=1) + none[:, 0] * grid.prior[truth]
    share = at_truth / (weights.sum(axis=1) + none[:, 0])
    return (1 - said.floor) * share + said.floor * grid.prior[truth]


def _votes(hits: Hits, said: GridParameters) -> tuple[F64, F64]:
    """Of every hit, (N, k), and of what is no hit, (N, 1); the most similar has a vote of 1."""
    if said.temperature is None:
        raise ValueError("votes need a temperature")
    none = -np.inf if said.nothing is None else said.nothing
    most = np.maximum(hits.similarity.max(axis=1, keepdims=True), none)
    return np.exp((hits.similarity - most) / said.temperature), np.exp((none - most) / said.temperature)


def _likelihood(probabilities: F64) -> float:
    return float(np.log(np.maximum(probabilities, 1e-300)).mean()) if probabilities.size else 0.0


def _with_floor(mass: F64, grid: AnswerGrid, floor: float) -> F32:
    total = mass.sum(axis=1, keepdims=True)
    mass = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)
    said = (1 - floor) * mass + floor * grid.prior
    return np.log(said / said.sum(axis=1, keepdims=True)).astype(np.float32)


def joint(said: Mapping[str, F32], grid: AnswerGrid, weights: Mapping[str, float], prior_weight: float) -> F32:
    """The product of experts over the grid, log, (N, cells): prior ** prior_weight * product of (expert / prior) ** weight.

    An expert that only repeats the prior changes nothing; with all weights 1 it is Bayes' rule for experts that err
    independently, and smaller weights allow for errors that they share.

    Source: Hinton, Products of Experts, ICANN 1999; logarithmic opinion pools, Genest and Zidek, Statistical Science 1 (1986).
    """
    prior = np.log(grid.prior).astype(np.float32)
    rows = len(next(iter(said.values())))
    total = np.broadcast_to(np.float32(prior_weight) * prior, (rows, len(grid))).copy()
    for name, values in said.items():
        total += np.float32(weights[name]) * (values - prior)
    return total - log_sum(total)


def log_sum(values: F32) -> F32:
    """Log sum exp of each row, (N, 1)."""
    most = values.max(axis=1, keepdims=True)
    return most + np.log(np.exp(values - most).sum(axis=1, keepdims=True))
