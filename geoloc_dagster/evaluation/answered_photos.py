"""The photos of a split with what a classifier answers of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.cells import Labels
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.dataset.scenes import SCENES
from geoloc_dagster.evaluation.geolocation import FULL_SCORE, HIERARCHY, Positions, Scale, errors_m, geo_score
from geoloc_dagster.evaluation.photo_matching import Matched
from geoloc_dagster.evaluation.scene_classifier import scene_figures
from geoloc_dagster.learning.cells_network import SCENE
from geoloc_dagster.learning.photo_models import AnyPhotoModel, PhotoAsker
from geoloc_dagster.learning.photo_rows import select_photos

Progress = Callable[[int, int], None]
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class AnsweredPhotos:
    """The photos of one split with their answers.

    Attributes:
        matched: photos and answers.
        capture_ids: of the photos.
        location_ids: likewise.
        said: the scene that the model says, (N,); None without a scene head.
        scenes: probabilities of the scenes, (N, 3), NaN where unknown.
    """

    matched: Matched
    capture_ids: list[str]
    location_ids: list[str]
    said: npt.NDArray[np.int64] | None
    scenes: npt.NDArray[np.float32]

    def chosen(self, which: npt.NDArray[np.bool_]) -> AnsweredPhotos:
        """Some of them."""
        rows = np.flatnonzero(which)
        one = self.matched

        def of(positions: Positions) -> Positions:
            return Positions(positions.lat_deg[rows], positions.lng_deg[rows])

        matched = replace(
            one,
            ids=[one.ids[row] for row in rows],
            truth=of(one.truth),
            groups=one.groups[rows],
            scenes=one.scenes[rows],
            answers={p_key: of(answers) for p_key, answers in one.answers.items()},
            confidences={p_key: values[rows] for p_key, values in one.confidences.items()},
        )
        return AnsweredPhotos(
            matched,
            matched.ids,
            [self.location_ids[row] for row in rows],
            None if self.said is None else self.said[rows],
            self.scenes[rows],
        )

    def scene_figures(self) -> dict[str, Any] | None:
        """How often the scene is told right; None where the model tells none, or no photo has one."""
        known = ~np.isnan(self.scenes).any(axis=1)
        if self.said is None or not known.any():
            return None
        return scene_figures(self.said[known], self.scenes[known].argmax(axis=1), self.matched.groups[known])


def answer_photos(
    model: AnyPhotoModel, catalog: pa.Table, labels: Labels, layout: Layout, split: str, progress: Progress | None
) -> AnsweredPhotos:
    """Ask a model about every photo of a split, labelled or not.

    Raises:
        IntegrityError: a crop or a class map is not the one of the catalog.
    """
    rows = select_photos(model.recipe, catalog, labels, [split], labelled=False)
    reader, asker = CropReader(layout.crops), PhotoAsker(model, layout.segmentation_maps)
    parts: dict[str, list[Any]] = {p_key: [] for p_key in model.p_keys}
    told: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(rows), _BLOCK):
        ids = rows.capture_ids[start : start + _BLOCK]
        probabilities = asker.log_probabilities(ids, reader.pictures(ids, model.size, rows.sha256), rows.sha256)
        for p_key, said in model.answered(probabilities).items():
            parts[p_key].append((said.lat_deg, said.lng_deg, said.confidence))
        if SCENE in probabilities:
            told.append(probabilities[SCENE].argmax(dim=1).numpy())
        if progress is not None:
            progress(start + len(ids), len(rows))
    answers = {p_key: [np.concatenate(column) for column in zip(*found, strict=True)] for p_key, found in parts.items()}
    known: Any = catalog.select(["capture_id", "location_id", "creator"]).to_pandas().set_index("capture_id")
    known = known.loc[rows.capture_ids]
    scenes = np.array([SCENES[row.argmax()] if np.isfinite(row).all() else "unknown" for row in rows.scenes], dtype=np.str_)
    matched = Matched(
        rows.capture_ids,
        Positions(rows.lat_deg, rows.lng_deg),
        known["creator"].fillna(known["location_id"]).to_numpy(np.str_),
        scenes,
        {p_key: Positions(lat.astype(np.float64), lng.astype(np.float64)) for p_key, (lat, lng, _) in answers.items()},
        {p_key: confidence.astype(np.float64) for p_key, (_, _, confidence) in answers.items()},
        {p_key: [] for p_key in answers},
        [],
        [],
        (),
        (),
    )
    said_scenes = np.concatenate(told) if told else None
    return AnsweredPhotos(matched, rows.capture_ids, known["location_id"].tolist(), said_scenes, rows.scenes)


def photo_columns(answered: AnsweredPhotos, scale: Scale, *, of_interest: bool) -> pa.Table:
    """What was answered of each photo; those of other scenes than the one of interest are marked."""
    matched = answered.matched
    errors = {p_key: errors_m(matched.truth, answers) for p_key, answers in matched.answers.items()}
    columns: dict[str, Any] = {
        "capture_id": answered.capture_ids,
        "location_id": answered.location_ids,
        "group": matched.groups,
        "scene": matched.scenes,
        "of_interest": np.full(len(matched.groups), of_interest),
        "lat_deg": matched.truth.lat_deg,
        "lng_deg": matched.truth.lng_deg,
        "merit": geo_score(errors[HIERARCHY], scale) / FULL_SCORE,
    }
    for p_key, answers in matched.answers.items():
        columns[f"{p_key}_lat_deg"], columns[f"{p_key}_lng_deg"] = answers.lat_deg, answers.lng_deg
        columns[f"{p_key}_confidence"], columns[f"{p_key}_error_m"] = matched.confidences[p_key], errors[p_key]
    return pa.table(columns)
