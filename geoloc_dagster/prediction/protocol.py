"""What every predictor answers, whatever it does inside.

Pictures in; out come a position, ranked candidates that a person can check, and log-probabilities over S2 cells, which is
what predictors of different kinds have in common. No number here is called a confidence: nothing of it is calibrated
yet. `spread_50_m` and `spread_90_m` describe how far apart the votes lie, and that is all they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geoloc_dagster.retrieval.cells import CellIds, cell_centre, cell_token
from geoloc_dagster.retrieval.encoder import Pictures

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One location that looks like the photo, with the picture of it that looks most alike.

    Attributes:
        similarity: Cosine similarity of that picture, -1 to 1.
        vote_share: Share of all votes that pictures of this location got, 0 to 1.
        distance_to_answer_m: Great-circle metres to the predicted position.
        distance_to_first_m: Great-circle metres to the first candidate: whether the alternatives are next door or across town.
        shared_features: Local features that the photo has in one arrangement with the picture of it that has most of them; None
            where it was not compared.
    """

    lat_deg: float
    lng_deg: float
    similarity: float
    vote_share: float
    distance_to_answer_m: float
    distance_to_first_m: float
    capture_id: str
    location_id: str
    captured_on: date | None
    licence: str
    attribution: str
    shared_features: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; degrees to 7 decimals (1 cm), metres to decimetres."""
        return {
            "lat_deg": round(self.lat_deg, 7),
            "lng_deg": round(self.lng_deg, 7),
            "similarity": round(self.similarity, 4),
            "vote_share": round(self.vote_share, 4),
            "distance_to_answer_m": round(self.distance_to_answer_m, 1),
            "distance_to_first_m": round(self.distance_to_first_m, 1),
            "capture_id": self.capture_id,
            "location_id": self.location_id,
            "captured_on": None if self.captured_on is None else self.captured_on.isoformat(),
            "licence": self.licence,
            "attribution": self.attribution,
            "shared_features": self.shared_features,
        }


def credit_of(candidates: Sequence[Candidate]) -> str:
    """Whose pictures are shown, and under which licences; to stand where they are."""
    return "Pictures: " + "; ".join(sorted({f"{one.attribution} ({one.licence})" for one in candidates}))


@dataclass(frozen=True, slots=True)
class CellDistribution:
    """Log-probabilities over S2 cells of one level, ascending by id; they sum to one over the region's cells."""

    level: int
    cell_ids: CellIds
    log_probabilities: Floats

    def most_likely(self, count: int) -> list[dict[str, Any]]:
        """The likeliest cells as plain values, best first."""
        order = np.lexsort((self.cell_ids, -self.log_probabilities))[:count]
        cells = [(int(self.cell_ids[i]), float(self.log_probabilities[i])) for i in order]
        return [
            {"token": cell_token(cell), "lat_deg": round(lat, 7), "lng_deg": round(lng, 7), "log_probability": round(logp, 4)}
            for cell, logp in cells
            for lat, lng in [cell_centre(cell)]
        ]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one photo; `spread_*_m` are radii that hold 50 and 90 % of the votes, not a calibrated uncertainty."""

    lat_deg: float
    lng_deg: float
    spread_50_m: float
    spread_90_m: float
    candidates: tuple[Candidate, ...]
    cells: CellDistribution
    model_version: str
    release: str | None = None

    def to_json(self, *, cells: int = 20) -> dict[str, Any]:
        """Plain values for `geoloc predict --json`, with the likeliest `cells`."""
        return {
            "lat_deg": round(self.lat_deg, 7),
            "lng_deg": round(self.lng_deg, 7),
            "vote_spread": {
                "radius_50_m": round(self.spread_50_m, 1),
                "radius_90_m": round(self.spread_90_m, 1),
                "calibrated": False,
            },
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "cells": {"level": self.cells.level, "count": len(self.cells.cell_ids), "most_likely": self.cells.most_likely(cells)},
            "model_version": self.model_version,
            "release": self.release,
        }


class Predictor(Protocol):
    """Pictures in, one prediction each out."""

    @property
    def model_version(self) -> str:
        """Names the exact weights behind the predictions."""
        ...

    def predict(self, images: Pictures) -> Sequence[Prediction]:
        """Predict for uint8 pictures (N, 3, S, S)."""
        ...
