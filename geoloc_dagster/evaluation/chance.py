"""What answers without looking reach: always the commonest class, or the position of a training photo drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.geolocation import F64, FULL_SCORE, WORLD, Positions, Scale, Shares, measure_shares
from geoloc_dagster.geo.distance import EARTH_RADIUS_M, unit_vectors
from geoloc_dagster.geo.partitioning import CellLevel

MAX_PAIRS = 50_000_000
_PAIRS_PER_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class RandomTraining:
    """Expected shares of answering by a random training photo.

    Attributes:
        shares: expected, so without the luck of any one draw.
        n_training: photos that could be drawn.
        n_used: of them, in the sum; fewer where there are too many pairs, and then drawn evenly.
    """

    shares: Shares
    n_training: int
    n_used: int


def largest_class(n: int, level: CellLevel) -> Positions:
    """The centre of the class with most training photos, as the answer to each of n photos; of equal ones the first.

    Raises:
        NotEnoughDataError: the level has no classes.
    """
    if not len(level):
        raise NotEnoughDataError(f"level `{level.name}` has no classes")
    largest = int(np.argmax(level.counts))
    return Positions(np.full(n, level.lat_deg[largest]), np.full(n, level.lng_deg[largest]))


def random_training(
    truth: Positions,
    training: Positions,
    groups: npt.NDArray[np.str_],
    *,
    scale: Scale = WORLD,
    bootstrap: int = 1000,
    seed: int = 0,
    max_pairs: int = MAX_PAIRS,
) -> RandomTraining:
    """The expected share within each radius, and GeoScore, of answering every photo by the position of a random training photo.

    Summed over all pairs of a photo and a training photo, so nothing is left to chance as long as there are at most `max_pairs`.

    Raises:
        NotEnoughDataError: there are no photos or no training photos.
    """
    if not len(truth) or not len(training):
        raise NotEnoughDataError(f"there is nothing to draw from: {len(truth)} photos, {len(training)} training photos")
    most = max(1, max_pairs // len(truth))
    used = training
    if len(training) > most:
        used = training.take(np.sort(np.random.default_rng(seed).choice(len(training), most, replace=False)))
    columns = _expected(unit_vectors(truth.lat_deg, truth.lng_deg), unit_vectors(used.lat_deg, used.lng_deg), scale)
    return RandomTraining(measure_shares(columns, groups, scale, bootstrap, seed), len(training), len(used))


def _expected(photos: F64, training: F64, scale: Scale) -> F64:
    """(N, radii + 1): expected hits of each photo within each radius, and its expected score.

    Squared chords from dot products are exact to 1e-15 of the radius of the Earth squared: to a millimetre at 10 m.
    """
    block = max(1, _PAIRS_PER_BLOCK // len(training))
    columns = np.empty((len(photos), len(scale.radii_m) + 1))
    for start in range(0, len(photos), block):
        rows = slice(start, start + block)
        squared = np.maximum(2 - 2 * photos[rows] @ training.T, 0)
        for i, radius in enumerate(scale.radii_m):
            chord = 2 * np.sin(min(radius / EARTH_RADIUS_M, np.pi) / 2)
            columns[rows, i] = np.mean(squared <= chord**2, axis=1)
        distance = 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1))
        columns[rows, -1] = FULL_SCORE * np.exp(-distance / scale.score_m).mean(axis=1)
    return columns
