"""From similar pictures to one position: hits that lie together vote together.

Each of the k nearest pictures votes with exp(similarity / T). The hit whose surroundings hold most votes wins, and the answer
is the weighted geometric median of the votes around it: one far-off look-alike cannot pull it away, as it would a mean.
What counts as surroundings is a kernel: of distance, and, where a heading bandwidth is set, of the direction of view as well,
so that pictures of two scenes at one place do not support one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoloc_dagster.geo.distance import EARTH_RADIUS_M
from geoloc_dagster.retrieval.geometric_median import Floats, geometric_medians
from geoloc_dagster.retrieval.headings import Headings, absolute_headings, agreement

_METRES_PER_DEGREE = EARTH_RADIUS_M * np.pi / 180
_TIE = 1e-12
_LEAST_AGREEMENT = 1e-6  # where all hits look another way, some answer is left
_PAIRS_PER_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class VoteSettings:
    """How hits vote; `vote_choice.choose_vote` fits temperature and radius to a model on held-out places.

    With a 24 x 24 thumbnail as descriptor, in Stockholm and in the emulated city, no vote moved more answers within 50 m than
    the nearest picture alone has there; it ranks and spreads. What moved them is the heading of the photo, where it is known.

    Attributes:
        k: Nearest pictures that vote.
        temperature: T in exp(similarity / T); small values trust the best hits alone.
        radius_m: How near a hit is to support another.
        kernel: `disc` counts a hit within `radius_m` in full and one beyond it not at all; `gaussian` counts a hit at distance d
            with exp(-d^2 / (2 radius_m^2)).
        heading_bandwidth_deg: Hits support one another with exp(-turn^2 / (2 bandwidth^2)) of the angle between their headings
            as well; None looks at no headings of hits among themselves, which did not pay where it was measured.
        photo_heading_bandwidth_deg: Where the heading of the photo is known, each hit counts by how near its own is to it, in the
            same way. 45 is wide: views are 90 apart, and the compass of a phone errs by tens of degrees.
    """

    k: int = 50
    temperature: float = 0.01
    radius_m: float = 50.0
    kernel: Literal["disc", "gaussian"] = "disc"
    heading_bandwidth_deg: float | None = None
    photo_heading_bandwidth_deg: float = 45.0

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0 or not self.radius_m >= 0:
            raise ValueError(f"k and temperature must be positive and radius_m not negative: {self}")
        if self.kernel == "gaussian" and not self.radius_m > 0:
            raise ValueError(f"a gaussian kernel needs a radius_m above 0: {self}")
        if not min(self.heading_bandwidth_deg or 1.0, self.photo_heading_bandwidth_deg) > 0 or self.heading_bandwidth_deg == 0:
            raise ValueError(f"heading_bandwidth_deg and photo_heading_bandwidth_deg must be positive: {self}")


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer of one query, in degrees, with the normalised weight of every hit and the spread of the votes.

    `spread_50_m` and `spread_90_m` are the radii around the answer that hold 50 and 90 % of the vote weight. They describe
    the votes; they are not a calibrated uncertainty. `winner` is the hit whose surroundings won, `support` their share.
    """

    lat_deg: float
    lng_deg: float
    weights: Floats
    support: float
    spread_50_m: float
    spread_90_m: float
    winner: int


@dataclass(frozen=True, slots=True)
class Votes:
    """The answers of N queries: what `Vote` says of one, as arrays of N rows."""

    lat_deg: Floats
    lng_deg: Floats
    weights: Floats
    support: Floats
    spread_50_m: Floats
    spread_90_m: Floats
    winner: npt.NDArray[np.int64]

    def __getitem__(self, row: int) -> Vote:
        """The answer of one query."""
        numbers = (self.support, self.spread_50_m, self.spread_90_m)
        support, spread_50, spread_90 = (float(values[row]) for values in numbers)
        lat, lng = float(self.lat_deg[row]), float(self.lng_deg[row])
        return Vote(lat, lng, self.weights[row], support, spread_50, spread_90, int(self.winner[row]))


def geographic_vote(
    similarity: npt.ArrayLike,
    lat_deg: Floats,
    lng_deg: Floats,
    settings: VoteSettings,
    *,
    headings: Headings | None = None,
    photo_heading_deg: float | None = None,
) -> Vote:
    """Let the hits of one query vote for a position: `geographic_votes` for arrays (k,)."""
    scores = np.asarray(similarity, dtype=np.float64)[None]
    photo = None if photo_heading_deg is None else np.array([photo_heading_deg])
    row = None if headings is None else headings[None, :]
    return geographic_votes(scores, lat_deg[None], lng_deg[None], settings, headings=row, photo_heading_deg=photo)[0]


def geographic_votes(
    similarity: npt.ArrayLike,
    lat_deg: Floats,
    lng_deg: Floats,
    settings: VoteSettings,
    *,
    headings: Headings | None = None,
    photo_heading_deg: Floats | None = None,
) -> Votes:
    """Let the hits of each of N queries vote for its position.

    Args:
        similarity: Cosine similarities of the hits, (N, k); -inf where a query has fewer hits than others.
        lat_deg: Their latitudes, (N, k).
        lng_deg: Their longitudes, (N, k).
        settings: Temperature, radius and kernel.
        headings: Their directions, (N, k); looked at where the settings have a heading bandwidth, or the photo has a heading.
        photo_heading_deg: The direction of each photo from north, (N,); not a number where it is unknown.

    Raises:
        ValueError: a query has no hit, or a similarity is not a number.
    """
    scores = np.asarray(similarity, dtype=np.float64)
    if scores.shape[-1] == 0 or np.isnan(scores).any() or not np.isfinite(scores.max(axis=-1, initial=-np.inf)).all():
        raise ValueError("a vote needs at least one hit, and finite similarities")
    block = max(1, _PAIRS_PER_BLOCK // scores.shape[1] ** 2)
    parts = [
        _votes_of_block(
            scores[rows],
            lat_deg[rows],
            lng_deg[rows],
            settings,
            None if headings is None else headings[rows],
            None if photo_heading_deg is None else photo_heading_deg[rows],
        )
        for rows in (slice(start, start + block) for start in range(0, len(scores), block))
    ]
    return Votes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Votes.__slots__))


def _votes_of_block(
    scores: Floats, lat: Floats, lng: Floats, settings: VoteSettings, headings: Headings | None, photo_heading_deg: Floats | None
) -> Votes:
    weights = vote_weights(scores, settings.temperature)
    if headings is not None and photo_heading_deg is not None:
        photo = absolute_headings(photo_heading_deg)[:, None]
        weights = weights * np.maximum(agreement(photo, headings, settings.photo_heading_bandwidth_deg), _LEAST_AGREEMENT)
        weights /= weights.sum(axis=1, keepdims=True)
    best = np.argmax(scores, axis=1)[:, None]
    lat0, lng0 = (np.take_along_axis(values, best, axis=1) for values in (lat, lng))
    points = local_metres(lat, lng, lat0, lng0)
    near = _kernel(points, headings, settings)
    votes = np.where(weights > 0, (near @ weights[:, :, None])[:, :, 0], -np.inf)
    tied = votes >= votes.max(axis=1, keepdims=True) - _TIE
    winner = np.argmax(np.where(tied, scores, -np.inf), axis=1)  # most votes, then most similar
    around = np.take_along_axis(near, winner[:, None, None], axis=1)[:, 0]
    answer = geometric_medians(points, weights * around)
    answer_lat, answer_lng = from_local_metres(answer, lat0[:, 0], lng0[:, 0])
    from_answer = np.linalg.norm(points - answer[:, None], axis=2)
    spread_50, spread_90 = (weighted_quantile(from_answer, weights, share) for share in (0.5, 0.9))
    support = np.take_along_axis(votes, winner[:, None], axis=1)[:, 0]
    return Votes(answer_lat, answer_lng, weights, support, spread_50, spread_90, winner)


def _kernel(points: Floats, headings: Headings | None, settings: VoteSettings) -> Floats:
    """How far each hit supports each other one, (N, k, k), 0 to 1; itself fully."""
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    if settings.kernel == "disc":
        near = (apart <= settings.radius_m).astype(np.float64)
    else:
        near = np.exp(-0.5 * np.square(apart / settings.radius_m))
    if headings is not None and settings.heading_bandwidth_deg is not None:
        near *= agreement(headings[:, :, None], headings[:, None, :], settings.heading_bandwidth_deg)
    return near


def vote_weights(similarity: Floats, temperature: float) -> Floats:
    """exp(similarity / T), normalised to sum 1 over the last axis."""
    weights = np.exp((similarity - similarity.max(axis=-1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=-1, keepdims=True)


def weighted_quantile(values: Floats, weights: Floats, share: float) -> Floats:
    """The least value at which the weight of values up to it reaches `share` of all, along the last axis."""
    order = np.argsort(values, axis=-1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=-1), axis=-1)
    position = np.argmax(cumulative >= share * cumulative[..., -1:] - _TIE, axis=-1)[..., None]
    return np.take_along_axis(values, np.take_along_axis(order, position, axis=-1), axis=-1)[..., 0]


def local_metres(lat_deg: Floats, lng_deg: Floats, origin_lat_deg: Floats | float, origin_lng_deg: Floats | float) -> Floats:
    """(east, north) in metres around an origin, (..., 2): equirectangular, good to 0.1 % over a few kilometres."""
    turn = (np.asarray(lng_deg) - origin_lng_deg + 180) % 360 - 180
    east = turn * _METRES_PER_DEGREE * np.cos(np.radians(origin_lat_deg))
    return np.stack([east, (np.asarray(lat_deg) - origin_lat_deg) * _METRES_PER_DEGREE], axis=-1)


def from_local_metres(point: Floats, origin_lat_deg: Floats | float, origin_lng_deg: Floats | float) -> tuple[Floats, Floats]:
    """The inverse of `local_metres` for points (..., 2): latitudes and longitudes in degrees."""
    lat = origin_lat_deg + point[..., 1] / _METRES_PER_DEGREE
    lng = origin_lng_deg + point[..., 0] / (_METRES_PER_DEGREE * np.cos(np.radians(origin_lat_deg)))
    return lat, (lng + 180) % 360 - 180
