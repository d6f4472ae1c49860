"""Prediction by retrieval: the most similar street views of the gallery vote for a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.protocol import Candidate, CellDistribution, Prediction
from geoloc_dagster.retrieval.cells import CellIds
from geoloc_dagster.retrieval.encoder import Encoder, Pictures, Vectors
from geoloc_dagster.retrieval.headings import Headings, view_headings
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.rerank import Floats, Vote, Votes, VoteSettings, geographic_votes
from geoloc_dagster.storage import rows_of

_UNIFORM_SHARE = 1e-3  # keeps cells without a hit possible, so that another predictor can still raise them


@dataclass(frozen=True, slots=True)
class RetrievalPredictor:
    """Embeds photos with the encoder that made the index and lets the nearest pictures vote.

    Raises:
        ModelMismatchError: index and encoder are of different models.
    """

    encoder: Encoder
    index: GalleryIndex
    vote: VoteSettings = field(default_factory=VoteSettings)
    candidates: int = 5

    def __post_init__(self) -> None:
        if self.encoder.model_version != self.index.model_version or self.encoder.dimension != self.index.dimension:
            raise ModelMismatchError(
                f"the index holds vectors of {self.index.model_version} ({self.index.dimension}-d), the encoder is "
                f"{self.encoder.model_version} ({self.encoder.dimension}-d)"
            )

    @property
    def model_version(self) -> str:
        """The model of encoder and index."""
        return self.encoder.model_version

    def predict(self, images: Pictures, headings_deg: Floats | None = None) -> list[Prediction]:
        """One prediction per picture.

        Args:
            images: uint8 (N, 3, S, S).
            headings_deg: The direction of each photo from north, (N,), not a number where it is unknown: pictures that look
                the same way count more.
        """
        return self.of_vectors(self.encoder.embed(images, min(64, len(images))), headings_deg)

    def of_vectors(self, vectors: Vectors, headings_deg: Floats | None = None) -> list[Prediction]:
        """`predict` of pictures that the encoder has embedded already: their vectors, (N, dimension)."""
        found, rows = self.index.search(vectors, self.vote.k)
        similarity = found.astype(np.float64)
        votes = self._votes(similarity, rows, headings_deg)
        return [self._answer(similarity[i], rows[i], votes[i]) for i in range(len(rows))]

    def candidates_of(self, similarity: Floats, rows: npt.NDArray[np.int64]) -> list[tuple[Candidate, ...]]:
        """The candidates of `of_vectors` alone, from hits that were found already: (N, k) each, most similar first."""
        near, hits = similarity[:, : self.vote.k], rows[:, : self.vote.k]
        votes = self._votes(near, hits, None)
        return [self._candidates(near[i], hits[i], votes[i]) for i in range(len(hits))]

    def _votes(self, similarity: Floats, rows: npt.NDArray[np.int64], headings_deg: Floats | None) -> Votes:
        """What hits vote for."""
        lat, lng = self.index.lat_deg[rows], self.index.lng_deg[rows]
        looks = headings_deg is not None or self.vote.heading_bandwidth_deg is not None
        headings = self._headings(rows) if looks else None
        return geographic_votes(similarity, lat, lng, self.vote, headings=headings, photo_heading_deg=headings_deg)

    def _headings(self, rows: npt.NDArray[np.int64]) -> Headings:
        """Directions of the hits (N, k)."""
        hits = self.index.rows.select(["view", "location_id"]).take(pa.array(rows.ravel()))
        flat = view_headings(hits["view"].to_pylist(), hits["location_id"].to_pylist())
        return Headings(flat.deg.reshape(rows.shape), flat.frame.reshape(rows.shape))

    def _answer(self, similarity: Floats, rows: npt.NDArray[np.int64], vote: Vote) -> Prediction:
        cells = vote_distribution(self.index.cells, self.index.cells[rows], vote.weights)
        return Prediction(
            lat_deg=vote.lat_deg,
            lng_deg=vote.lng_deg,
            spread_50_m=vote.spread_50_m,
            spread_90_m=vote.spread_90_m,
            candidates=self._candidates(similarity, rows, vote),
            cells=CellDistribution(int(self.index.manifest["s2_level"]), *cells),
            model_version=self.model_version,
        )

    def _candidates(self, similarity: Floats, rows: npt.NDArray[np.int64], vote: Vote) -> tuple[Candidate, ...]:
        return tuple(rank_candidates(self.index.rows, rows, similarity, vote, self.candidates))


def rank_candidates(
    gallery: pa.Table, rows: npt.NDArray[np.int64], similarity: Floats, vote: Vote, count: int
) -> list[Candidate]:
    """The `count` most similar distinct locations among the hits, each with its best picture, most similar first.

    Args:
        gallery: a row per vector.
        rows: of the hits, (k,).
        similarity: likewise.
        vote: of these hits.
        count: at most so many.
    """
    best: dict[str, int] = {}
    share: dict[str, float] = {}
    locations = [hit["location_id"] for hit in rows_of(gallery.select(["location_id"]), rows)]
    for position in np.argsort(-similarity, kind="stable").tolist():
        location = locations[position]
        best.setdefault(location, position)
        share[location] = share.get(location, 0.0) + float(vote.weights[position])
    chosen = rows_of(gallery, rows[list(best.values())[:count]])
    lat, lng = (np.array([hit[c] for hit in chosen], dtype=np.float64) for c in ("lat_deg", "lng_deg"))
    to_answer = great_circle_m(vote.lat_deg, vote.lng_deg, lat, lng)
    to_first = great_circle_m(lat[0], lng[0], lat, lng)
    return [
        Candidate(
            lat_deg=float(hit["lat_deg"]),
            lng_deg=float(hit["lng_deg"]),
            similarity=float(similarity[best[hit["location_id"]]]),
            vote_share=share[hit["location_id"]],
            distance_to_answer_m=float(to_answer[i]),
            distance_to_first_m=float(to_first[i]),
            capture_id=hit["capture_id"],
            location_id=hit["location_id"],
            captured_on=hit["captured_on"],
            licence=hit["licence"],
            attribution=hit["attribution"],
        )
        for i, hit in enumerate(chosen)
    ]


def measured_from(candidates: Sequence[Candidate], lat_deg: float, lng_deg: float) -> tuple[Candidate, ...]:
    """The candidates of an answer that is not the vote's, or in another order: with their distances to it and to the first."""
    if not candidates:
        return ()
    lat, lng = (np.array([getattr(one, name) for one in candidates]) for name in ("lat_deg", "lng_deg"))
    to_answer, to_first = great_circle_m(lat_deg, lng_deg, lat, lng), great_circle_m(lat[0], lng[0], lat, lng)
    return tuple(
        replace(one, distance_to_answer_m=float(away), distance_to_first_m=float(apart))
        for one, away, apart in zip(candidates, to_answer, to_first, strict=True)
    )


def vote_distribution(gallery_cells: CellIds, hit_cells: CellIds, weights: Floats) -> tuple[CellIds, Floats]:
    """Distinct cells of the gallery, ascending, and the log of each one's share of the votes.

    One part in a thousand is spread evenly over all cells, so that a cell without a hit is unlikely and not impossible.
    """
    cells = np.unique(gallery_cells)
    votes = np.bincount(np.searchsorted(cells, hit_cells), weights=weights, minlength=len(cells))
    return cells, np.log((1 - _UNIFORM_SHARE) * votes / votes.sum() + _UNIFORM_SHARE / len(cells))
