"""Single photos by a classifier of cells, as values for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.evaluation.tables import TextTable
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.learning.photo_models import AnyPhotoModel
from geoloc_dagster.prediction.photo import as_picture, read_photo
from geoloc_dagster.viz.cells import heat_map

_MOST_OF_IT = 0.9


def classify_photos(model: AnyPhotoModel, photos: Sequence[Path]) -> list[dict[str, Any]]:
    """The likeliest cell of each photo, per level and of all levels together.

    Raises:
        ImageError: there is no such file, or it cannot be used as a picture.
    """
    pictures = np.stack([as_picture(read_photo(photo), model.size) for photo in photos])
    answers = model.answers(pictures)
    found: list[dict[str, Any]] = []
    for row, photo in enumerate(photos):
        cells = {
            p_key: {
                "token": _token(model, p_key, int(said.classes[row])),
                "class": int(said.classes[row]),
                "lat_deg": round(float(said.lat_deg[row]), 6),
                "lng_deg": round(float(said.lng_deg[row]), 6),
                "confidence": round(float(said.confidence[row]), 6),
            }
            for p_key, said in answers.items()
        }
        found.append({"photo": str(photo), "model_version": model.model_version, "cells": cells})
    return found


def photo_heat_map(model: AnyPhotoModel, photo: Path, *, max_bytes: int) -> bytes:
    """PNG: the cells of the finest level, each as dark as all levels together say that the photo was taken there.

    Raises:
        ImageError: there is no such file, or it cannot be used as a picture.
    """
    said = model.log_probabilities(as_picture(read_photo(photo), model.size)[None])[HIERARCHY]
    answer = model.answer(HIERARCHY, said)
    where = (float(answer.lat_deg[0]), float(answer.lng_deg[0]))
    likeliest = int((said[0].exp().sort(descending=True).values.cumsum(0) < _MOST_OF_IT).sum()) + 1
    return heat_map(
        model.partitioning.level(model.levels[-1]),
        said[0].exp().numpy(),
        where,
        title=f"{photo.name}: {where[0]:.3f}, {where[1]:.3f}",
        subtitle=f"{likeliest:,} cells hold {_MOST_OF_IT:.0%} of the probability; model {model.model_version}",
        max_bytes=max_bytes,
    )


def classified_table(answer: Mapping[str, Any]) -> TextTable:
    """One photo's answers for the terminal."""
    rows = [
        [p_key, said["token"], f"{said['lat_deg']:.5f}", f"{said['lng_deg']:.5f}", f"{said['confidence']:.1%}"]
        for p_key, said in answer["cells"].items()
    ]
    return TextTable(Path(answer["photo"]).name, ["answer", "S2 cell", "latitude", "longitude", "confidence"], rows)


def _token(model: AnyPhotoModel, p_key: str, number: int) -> str:
    level = model.partitioning.level(model.levels[-1] if p_key == HIERARCHY else p_key)
    return s2.tokens(level.ids[number : number + 1])[0]
