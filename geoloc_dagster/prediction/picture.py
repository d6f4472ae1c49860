"""One picture of one answer: the photo, the street views that look most like it, and where they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.imagery.quality import decode
from geoloc_dagster.prediction.protocol import Candidate, Prediction, credit_of
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES, fit_bytes
from geoloc_dagster.viz.maps import Layer, points_map
from geoloc_dagster.viz.sheets import Tile, contact_sheet

if TYPE_CHECKING:
    from geoloc_dagster.geo.answer_grid import AnswerGrid
    from geoloc_dagster.prediction.fused import FusedPrediction

_UNBOUNDED = 100_000_000


def prediction_map(
    prediction: Prediction,
    photo: bytes | None,
    *,
    crops_path: Path | None = None,
    geometry: Any = None,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG: a line with the photo and its candidates above a map of them and of the answer.

    Args:
        prediction: What to draw.
        photo: The encoded photo; an empty tile without it.
        crops_path: Lance table of crops, for the candidates' pictures; empty tiles without it.
        geometry: The region as a shapely (Multi)Polygon in (lng, lat), or None.
        max_bytes: Cap of the picture; at the default it fits an event log.

    Raises:
        IntegrityError: a candidate's crop is missing or has changed.
    """
    pictures = _crops(crops_path, prediction.candidates)
    tiles = [Tile(_thumbnail(photo), ("photo", ""))]
    tiles += [Tile(pictures.get(c.capture_id), _caption(number, c)) for number, c in enumerate(prediction.candidates, 1)]
    where = f"{prediction.lat_deg:.6f}, {prediction.lng_deg:.6f}"
    spread = f"50 % of the votes within {prediction.spread_50_m:.0f} m, 90 % within {prediction.spread_90_m:.0f} m"
    sheet = contact_sheet(
        [tiles],
        title=where,
        subtitle=f"{spread} (not a calibrated uncertainty)",
        attribution=credit_of(prediction.candidates),
        max_bytes=_UNBOUNDED,
    )
    chart = points_map(
        geometry,
        _layers(prediction),
        title="Where these street views are",
        subtitle=f"model {prediction.model_version}",
        zoom=True,
        max_bytes=_UNBOUNDED,
    )
    return _stacked([sheet, chart], max_bytes)


def _layers(prediction: Prediction) -> list[Layer]:
    lat, lng = (np.array([getattr(c, name) for c in prediction.candidates]) for name in ("lat_deg", "lng_deg"))
    answer = Layer(np.array([prediction.lat_deg]), np.array([prediction.lng_deg]), "answer", style.VERMILION, "*", 220.0)
    return [Layer(lat, lng, "candidates", style.BLUE, "o", 60.0), answer]


def _caption(number: int, candidate: Candidate) -> tuple[str, str]:
    date = "no date" if candidate.captured_on is None else f"{candidate.captured_on:%Y-%m}"
    away = candidate.distance_to_answer_m
    distance = f"{away:.0f} m" if away < 1000 else f"{away / 1000:.1f} km"
    return f"{number}. place {candidate.location_id} · {distance}", f"{date} · cos {candidate.similarity:.2f}"


def _crops(path: Path | None, candidates: Sequence[Candidate]) -> dict[str, bytes | None]:
    return {} if path is None else CropReader(path).encoded([candidate.capture_id for candidate in candidates])


def _thumbnail(photo: bytes | None) -> bytes | None:
    """The photo as a small upright JPEG; `decode` refuses what is no picture."""
    if photo is None:
        return None
    image = decode(photo)
    image.thumbnail((400, 400))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _stacked(parts: Sequence[bytes], max_bytes: int) -> bytes:
    images = [Image.open(io.BytesIO(part)).convert("RGB") for part in parts]
    canvas = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        canvas.paste(image, ((canvas.width - image.width) // 2, top))
        top += image.height
    return fit_bytes(canvas, "png", max_bytes)


def fused_heat_map(
    grid: AnswerGrid, log_probabilities: np.ndarray, answer: FusedPrediction, photo: str, *, max_bytes: int
) -> bytes:
    """PNG: the cells of the grid, each as dark as it is likely, and the answer as a ring."""
    from geoloc_dagster.evaluation.tables import area, probability
    from geoloc_dagster.geo.partitioning import CellLevel
    from geoloc_dagster.viz.cells import heat_map

    level = CellLevel("grid", grid.ids, grid.places, grid.lat_deg, grid.lng_deg)
    radius, near = next(iter(answer.within.items()))
    said = f"{probability(near)} within {radius:,} m; {answer.coverage:.0%} region {area(answer.region_km2)}"
    return heat_map(
        level,
        np.exp(log_probabilities),
        (answer.lat_deg, answer.lng_deg),
        title=f"{photo}: {answer.lat_deg:.5f}, {answer.lng_deg:.5f}",
        subtitle=f"not answered: {answer.refusal}" if answer.refusal else said,
        max_bytes=max_bytes,
    )
