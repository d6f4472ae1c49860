"""A map of one answer: where the photo is believed to be, and the candidates behind that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.prediction.protocol import Prediction
from geoloc_dagster.storage import read_geoparquet
from geoloc_dagster.viz import style
from geoloc_dagster.viz.maps import Layer, points_map


def prediction_map(boundary: Path, prediction: Prediction, *, top: int) -> bytes:
    """PNG: the answer and its first `top` candidates, zoomed in, within the region's outline where that is on disk."""
    geometry: Any = read_geoparquet(boundary).geometry.union_all() if boundary.is_file() else None
    shown = prediction.candidates[:top]
    candidates = Layer(
        np.array([candidate.lat_deg for candidate in shown]),
        np.array([candidate.lng_deg for candidate in shown]),
        "candidates",
        style.BLUE,
        "o",
        34.0,
    )
    answer = Layer(np.array([prediction.lat_deg]), np.array([prediction.lng_deg]), "answer", style.ORANGE, "X", 90.0)
    return points_map(
        geometry,
        [candidates, answer],
        title=f"{prediction.lat_deg:.5f}, {prediction.lng_deg:.5f}",
        subtitle=f"half of the votes lie within {prediction.spread_50_m:,.0f} m (not a calibrated uncertainty)",
        attribution="; ".join(sorted({candidate.attribution for candidate in shown})),
        zoom=True,
    )
