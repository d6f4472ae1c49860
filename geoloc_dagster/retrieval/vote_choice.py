"""How the hits of one model vote best: temperature and radius fitted on held-out photos.

How far apart the similarities of right and wrong hits lie differs from model to model, so a temperature that suits one says
nothing about another. A low temperature with a small radius is the nearest picture alone, so a vote that does not pay is not
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.retrieval.headings import Headings
from geoloc_dagster.retrieval.rerank import Floats, VoteSettings, geographic_votes

TEMPERATURES = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
RADII_M = (10.0, 25.0, 50.0, 100.0)
CHOSEN_AT_M = 50.0
_TIE_RADII_M = np.array([25.0, 50.0, 100.0])
MIN_QUERIES = 30


def vote_grid(base: VoteSettings | None = None) -> list[VoteSettings]:
    """`base` with every temperature and radius, the coldest first, so that of equals the one nearest to no vote is taken."""
    base = base or VoteSettings()
    return [replace(base, temperature=t, radius_m=r) for t, r in product(TEMPERATURES, RADII_M)]


def choose_vote(
    similarity: Floats,
    lat_deg: Floats,
    lng_deg: Floats,
    truth_lat_deg: Floats,
    truth_lng_deg: Floats,
    *,
    headings: Headings | None = None,
    candidates: Sequence[VoteSettings] | None = None,
) -> VoteSettings:
    """The settings with the largest share of answers within 50 m; of equals, of answers within 25, 50 and 100 m on average.

    Args:
        similarity: of the hits of N held-out photos, (N, k) with the largest first; -inf where there are fewer. A candidate with
            a smaller k votes with the first of them.
        lat_deg: of the hits, (N, k).
        lng_deg: likewise.
        truth_lat_deg: where the photos were taken, (N,).
        truth_lng_deg: likewise.
        headings: of the hits, (N, k).
        candidates: `vote_grid()` with the k given, unless named.

    Raises:
        NotEnoughDataError: there are fewer than 30 photos.
    """
    if len(similarity) < MIN_QUERIES:
        raise NotEnoughDataError(f"{len(similarity)} held-out photos are too few to choose a vote by, {MIN_QUERIES} are needed")
    candidates = candidates or vote_grid(VoteSettings(k=similarity.shape[1]))
    scores: list[tuple[float, float]] = []
    for settings in candidates:
        columns = slice(settings.k)
        hits = (similarity[:, columns], lat_deg[:, columns], lng_deg[:, columns])
        votes = geographic_votes(*hits, settings, headings=None if headings is None else headings[:, columns])
        errors = great_circle_m(votes.lat_deg, votes.lng_deg, truth_lat_deg, truth_lng_deg)
        scores.append(_score(errors))
    return candidates[max(range(len(candidates)), key=scores.__getitem__)]


def _score(errors_m: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(np.mean(errors_m <= CHOSEN_AT_M)), float(np.mean(errors_m[:, None] <= _TIE_RADII_M))
