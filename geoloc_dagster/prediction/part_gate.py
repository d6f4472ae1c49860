"""Is a candidate worse in some part of the region, however it does as a whole: a district, a capture year?

The mean of the differences per place has a t interval by place, so that the queries of one place count together; it is one-sided,
and at 5 % over all parts that are looked at (Bonferroni), so that many districts raise no false alarm. A part of few queries or
places says nothing and is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.cluster_mean import cluster_mean, t_quantile


@dataclass(frozen=True, slots=True)
class PartSettings:
    """Which parts are looked at, and what is too much of a loss.

    Attributes:
        margin: a loss of up to this share is let pass.
        min_queries: of a part.
        min_places: likewise.
        level: of a false alarm, over all parts together.
    """

    margin: float = 0.05
    min_queries: int = 30
    min_places: int = 10
    level: float = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """How two models differ in one part.

    Attributes:
        kind: `district` or `capture year`.
        name: of the part.
        ours: what the candidate scores there on average, 0 to 1.
        theirs: what the champion does.
        at_best: the upper end of the interval of the difference.
    """

    kind: str
    name: str
    n_queries: int
    n_places: int
    ours: float
    theirs: float
    at_best: float


@dataclass(frozen=True, slots=True)
class PartVerdict:
    """The parts that were looked at, and those of them that lose more than the margin, the worst first."""

    looked_at: int
    worse: tuple[Part, ...]


def worse_parts(
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    places: npt.NDArray[np.str_],
    parts: Mapping[str, npt.NDArray[np.str_]],
    settings: PartSettings,
) -> PartVerdict:
    """Look at every part that is large enough.

    Args:
        ours: (Q,) what the candidate scores on each query, 0 to 1.
        theirs: (Q,) what the champion does on the same.
        places: (Q,) of the queries.
        parts: kind -> (Q,) the part that each query belongs to; empty where that is not known.
        settings: which parts, and what is too much.
    """
    chosen = [
        (kind, str(name), labels == name)
        for kind, labels in parts.items()
        for name in np.unique(labels)
        if name and _large(places[labels == name], settings)
    ]
    found = [
        _part(kind, name, ours[rows], theirs[rows], places[rows], settings.level / len(chosen)) for kind, name, rows in chosen
    ]
    worse = sorted((part for part in found if part.at_best < -settings.margin), key=lambda part: part.at_best)
    return PartVerdict(len(found), tuple(worse))


def _large(places: npt.NDArray[np.str_], settings: PartSettings) -> bool:
    return len(places) >= settings.min_queries and len(np.unique(places)) >= settings.min_places


def _part(
    kind: str,
    name: str,
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    places: npt.NDArray[np.str_],
    level: float,
) -> Part:
    change = cluster_mean(ours - theirs, places)
    at_best = change.mean + t_quantile(level, change.n_places) * change.error
    return Part(kind, name, change.n_queries, change.n_places, float(ours.mean()), float(theirs.mean()), at_best)
