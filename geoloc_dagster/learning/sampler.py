"""P x K sampling: batches of P places with K pictures each, of different dates where a place has as many."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from geoloc_dagster.errors import NotEnoughDataError


class PlaceBatchSampler(Sampler[list[int]]):
    """Row numbers of one epoch's batches; every place comes once, up to the last incomplete batch.

    The order depends on (seed, epoch) alone, so that a resumed training sees what an uninterrupted one would have seen.

    Args:
        places: class of each row, 0..C-1; int, shape (N,).
        dates: of each row, any integer that tells dates apart; shape (N,).
        places_per_batch: P.
        pictures_per_place: K; rows repeat where a place has fewer.
        seed: of the recipe.
        epoch: from 0.

    Raises:
        NotEnoughDataError: fewer places than one batch needs.
    """

    def __init__(
        self, places: np.ndarray, dates: np.ndarray, places_per_batch: int, pictures_per_place: int, seed: int, epoch: int
    ) -> None:
        order = np.argsort(places, kind="stable")
        _, starts = np.unique(places[order], return_index=True)
        self._members = np.split(order, starts[1:])
        self._dates = dates
        self._p, self._k = places_per_batch, pictures_per_place
        self._seed, self._epoch = seed, epoch
        if len(self._members) < places_per_batch:
            raise NotEnoughDataError(
                f"a batch needs {places_per_batch} places, the training rows have {len(self._members)} with enough pictures"
            )

    def __len__(self) -> int:
        return len(self._members) // self._p

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._members))
        for start in range(0, len(self) * self._p, self._p):
            yield [row for place in order[start : start + self._p] for row in self._pick(self._members[place], rng)]

    def _pick(self, members: np.ndarray, rng: np.random.Generator) -> list[int]:
        shuffled = rng.permutation(members)
        _, first = np.unique(self._dates[shuffled], return_index=True)
        is_first = np.zeros(len(shuffled), dtype=bool)
        is_first[first] = True
        one_per_date_then_rest = np.concatenate([shuffled[is_first], shuffled[~is_first]])
        return np.resize(one_per_date_then_rest, self._k).tolist()
