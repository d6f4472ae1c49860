"""From probabilities over the grid to an answer: a position, and how likely the truth is near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.geo.distance import EARTH_RADIUS_M
from geoloc_dagster.prediction.experts import F32, F64, I64

_CANDIDATES, _MASS = 32, 512  # twice as many of both cost four times as much and were right no more often
_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class GridAnswers:
    """Answers to N photos.

    Attributes:
        cells: of the grid, whose positions are the answers.
        near: (N, radii): probability that the truth lies within each radius of the answer, as the experts say it.
    """

    cells: I64
    near: F64


def answer_on_grid(log_probabilities: F32, grid: AnswerGrid, radii_m: Sequence[int]) -> GridAnswers:
    """The cell whose position is most often near: the largest sum over the radii of the probability within them.

    A cell that is a little less likely than another can be the better answer when its neighbours are likely too. The 32 likeliest
    cells of a photo are candidates, and the 512 likeliest are where it may be.

    Args:
        log_probabilities: over the grid, (N, cells).
        grid: the cells.
        radii_m: in metres, ascending.
    """
    vectors = grid.vectors
    cells = np.empty(len(log_probabilities), np.int64)
    near = np.empty((len(log_probabilities), len(radii_m)))
    for start in range(0, len(log_probabilities), _BLOCK):
        part = slice(start, start + _BLOCK)
        cells[part], near[part] = _answers(log_probabilities[part], vectors, radii_m)
    return GridAnswers(cells, near)


def _answers(said: F32, vectors: F64, radii_m: Sequence[int]) -> tuple[I64, F64]:
    count = min(_MASS, said.shape[1])
    top = np.argpartition(-said, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(said, top, 1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, 1)
    mass = np.exp(np.take_along_axis(said, top, 1).astype(np.float64))
    where = vectors[top]
    candidates = where[:, : min(_CANDIDATES, count)]
    cosine = candidates @ where.transpose(0, 2, 1)
    near = [(cosine >= 1 - _chord(radius) ** 2 / 2).astype(np.float64) @ mass[:, :, None] for radius in radii_m]
    within = np.stack(near, axis=-1)[:, :, 0, :]
    best = within.sum(axis=2).argmax(axis=1)
    rows = np.arange(len(said))
    return top[rows, best], within[rows, best]


def _chord(radius_m: float) -> float:
    """Of the unit sphere; 20 cm more, which is what rounding makes of the distance of a cell from itself."""
    return 2 * np.sin(min(radius_m / (2 * EARTH_RADIUS_M), np.pi / 2)) + 3e-8
