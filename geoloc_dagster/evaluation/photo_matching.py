"""Predictions brought to their photos by name, and what did not fit.

Ids are paths (`45/77/3228511372.jpg`), which on disk may have become one name (`45_77_3228511372.jpg`) or have got folders before
them. A prediction is of the photo whose whole name is the longest end of its path; else of the only one with its last name.
Nothing is left out silently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.geolocation import F64, Positions
from geoloc_dagster.evaluation.photo_tables import BadRow, PhotoTable, PredictionTable, flat_name, path_parts


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What `evaluate_positions` wants, for every photo of the table, and what did not fit.

    Attributes:
        ids: of the photos with known positions, N of them.
        truth: where they were taken.
        groups: (N,) their authors.
        scenes: (N,) of `SCENES`, or `UNKNOWN`.
        answers: `p_key` -> N positions, NaN where there is none; in the order in which the keys first come.
        confidences: `p_key` -> (N,), NaN where there is none.
        without_prediction: `p_key` -> ids of photos that it has no row for.
        without_position: ids of predictions that no photo, or more than one, goes by.
        repeated: ids of predictions that came again for the same photo and key; the first counts.
        bad_photos: rows of the table of photos that were left out.
        bad_predictions: rows of the predictions that were left out.
    """

    ids: list[str]
    truth: Positions
    groups: npt.NDArray[np.str_]
    scenes: npt.NDArray[np.str_]
    answers: dict[str, Positions]
    confidences: dict[str, F64]
    without_prediction: dict[str, list[str]]
    without_position: list[str]
    repeated: list[str]
    bad_photos: tuple[BadRow, ...]
    bad_predictions: tuple[BadRow, ...]

    def remarks(self, most: int = 3) -> list[str]:
        """One line for each kind of thing that did not fit, with its number and the first few by name."""
        named: list[tuple[str, list[str]]] = [
            *((f"photos without a prediction of `{key}`", ids) for key, ids in self.without_prediction.items()),
            ("predictions without a position", self.without_position),
            ("predictions that came twice", self.repeated),
            ("rows of photos left out", [str(row) for row in self.bad_photos]),
            ("rows of predictions left out", [str(row) for row in self.bad_predictions]),
        ]
        return [
            f"{len(names):,} {what}: {', '.join(names[:most])}{', …' * (len(names) > most)}" for what, names in named if names
        ]


class _Columns:
    """The answers of one key as they come in."""

    def __init__(self, n: int) -> None:
        self.values = np.full((3, n), np.nan)
        self.known = np.zeros(n, bool)


def match(photos: PhotoTable, predictions: PredictionTable) -> Matched:
    """Bring predictions to their photos; a photo without one has no answer, and a prediction without a photo is named."""
    names = _Names(photos.ids)
    n = len(photos.ids)
    columns: dict[str, _Columns] = {}
    lost: dict[str, None] = {}
    repeated: dict[str, None] = {}
    given = np.stack([predictions.positions.lat_deg, predictions.positions.lng_deg, predictions.confidences])
    for i, (id_, key) in enumerate(zip(predictions.ids, predictions.p_keys, strict=True)):
        column = columns.setdefault(key, _Columns(n))
        row = names.row(id_)
        if row is None:
            lost[id_] = None
        elif column.known[row]:
            repeated[id_] = None
        else:
            column.known[row] = True
            column.values[:, row] = given[:, i]
    return Matched(
        photos.ids,
        photos.positions,
        photos.authors,
        photos.scenes,
        {key: Positions(column.values[0], column.values[1]) for key, column in columns.items()},
        {key: column.values[2] for key, column in columns.items()},
        {key: [photos.ids[row] for row in np.flatnonzero(~column.known).tolist()] for key, column in columns.items()},
        list(lost),
        list(repeated),
        photos.bad,
        predictions.bad,
    )


class _Names:
    """Finds the photo that a prediction is of."""

    def __init__(self, ids: list[str]) -> None:
        self._whole = {flat_name(id_): row for row, id_ in enumerate(ids)}
        self._last: dict[str, int | None] = {}
        for row, id_ in enumerate(ids):
            last = path_parts(id_)[-1]
            self._last[last] = None if last in self._last else row

    def row(self, id_: str) -> int | None:
        """The photo whose whole name is the longest end of this path; else the only one of this last name."""
        parts = path_parts(id_)
        for first in range(len(parts)):
            row = self._whole.get("_".join(parts[first:]))
            if row is not None:
                return row
        return self._last.get(parts[-1]) if parts else None
