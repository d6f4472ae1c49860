"""Answers of the model as the API says them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from geoloc_dagster.explorer.places import Places, picture
from geoloc_dagster.explorer.serving import Served
from geoloc_dagster.prediction.fused import FusedPrediction, heat_features
from geoloc_dagster.prediction.protocol import Candidate, Prediction

_LEAST_DISTRICT = 0.001


def answer_json(
    answer: FusedPrediction | Prediction, served: Served, places: Places, *, name: str, top: int, heat: bool, seconds: float
) -> dict[str, Any]:
    """One answer as `/predict` gives it; without a fusion what needs calibration is null."""
    common = {
        "photo": name,
        "lat_deg": round(answer.lat_deg, 7),
        "lng_deg": round(answer.lng_deg, 7),
        "candidates": [_candidate(rank, one, places) for rank, one in enumerate(answer.candidates[:top], 1)],
        "release": served.release,
        "seconds": round(seconds, 3),
    }
    if isinstance(answer, Prediction) or served.fused is None:
        return (
            common
            | dict.fromkeys(("refusal", "probability_within_m", "region", "district", "experts", "heat"))
            | {
                "answered": True,
                "calibrated": False,
                "districts": [],
                "cells": [],
            }
        )
    said = answer.to_json()
    districts = district_probabilities(answer.log_probabilities, served.districts)
    return common | {
        "answered": said["answered"],
        "calibrated": True,
        "refusal": said["refusal"],
        "probability_within_m": said["probability_within_m"],
        "region": said["region"],
        "district": districts[0]["name"] if districts else None,
        "districts": districts,
        "experts": said["experts"],
        "cells": said["cells"],
        "heat": heat_features(served.fused.fusion, answer.log_probabilities) if heat else None,
    }


def district_probabilities(log_probabilities: np.ndarray, districts: np.ndarray) -> list[dict[str, Any]]:
    """How likely each district is, likeliest first; those of less than one in a thousand are left out.

    Args:
        log_probabilities: over the grid, (cells,).
        districts: name of the district of each cell, (cells,).
    """
    names, number = np.unique(districts, return_inverse=True)
    sums = np.bincount(number, weights=np.exp(log_probabilities.astype(np.float64)), minlength=len(names))
    order = np.argsort(-sums, kind="stable")
    return [
        {"name": str(names[i]), "probability": round(float(sums[i]), 4)} for i in order.tolist() if sums[i] >= _LEAST_DISTRICT
    ]


def _candidate(rank: int, one: Candidate, places: Places) -> dict[str, Any]:
    row: Mapping[str, Any] | None = places.capture(one.capture_id) if places.has_catalog else None
    shown = picture(
        {
            "capture_id": one.capture_id,
            "captured_on": one.captured_on,
            "heading_deg": None if row is None else row["heading_deg"],
            "attribution": one.attribution,
            "licence": one.licence,
        }
    )
    return {
        "rank": rank,
        "location_id": one.location_id,
        "lat_deg": round(one.lat_deg, 7),
        "lng_deg": round(one.lng_deg, 7),
        "confidence": round(one.vote_share, 4) if math.isfinite(one.vote_share) else None,
        "distance_m": round(one.distance_to_answer_m, 1),
        "captures": [shown | {"similarity": round(one.similarity, 4), "shared_features": one.shared_features}],
    }
