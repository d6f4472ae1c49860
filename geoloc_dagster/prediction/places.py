"""Where the views of a place were taken: views from files, asked of a sequence model, as values for people and programs.

Files are named one by one with their headings, or lie in folders as a published sample of a country has them:
`{cell}+{lat},{lng}/{heading}_{YYYY-MM}.jpg`. The name of such a folder says where the place is, so that the answer can be judged;
the model never sees it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.split_lists import read_list
from geoloc_dagster.errors import CollectionSourceError, NoReleaseError
from geoloc_dagster.evaluation.tables import NONE, TextTable, length
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.geo.region_classes import class_names
from geoloc_dagster.imagery.sampled_folder import EXAMPLE, SampledName
from geoloc_dagster.learning.recipe import load_recipe
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.learning.sequence_model import SequenceModel
from geoloc_dagster.prediction.photo import as_picture, read_photo

Position = tuple[float, float]
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class PlaceViews:
    """The views of one place and date.

    Attributes:
        name: for people.
        views: (heading in degrees, NaN where unknown; file) of each.
        truth: (lat, lng) in degrees where it is known.
    """

    name: str
    views: tuple[tuple[float, Path], ...]
    truth: Position | None


@dataclass(frozen=True, slots=True, eq=False)
class PlaceAnswer:
    """The answer to one place.

    Attributes:
        place: that was asked about.
        answer: (lat, lng) in degrees.
        chosen: the class that the answer is the centre of.
        probabilities: of all classes of the finest level, summing to one.
        error_m: great-circle distance from the true place; None where that is not known.
    """

    place: PlaceViews
    answer: Position
    chosen: int
    probabilities: npt.NDArray[np.float64]
    error_m: float | None

    def likeliest(self, count: int) -> list[int]:
        """The likeliest classes, best first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


def read_places(path: Path) -> list[PlaceViews]:
    """The places below a folder in the naming of the published sample, or the one that the folder is, by name and month.

    Raises:
        CollectionSourceError: no such folder, no picture in it, or one is named otherwise.
    """
    if not path.is_dir():
        raise CollectionSourceError(f"there is no folder {path}")
    files = sorted(file for file in path.resolve().rglob("*") if file.suffix.lower() in _PICTURES)
    found: dict[tuple[str, str], list[tuple[float, Path]]] = defaultdict(list)
    where: dict[str, Position] = {}
    for file in files:
        name = SampledName.parse(f"{file.parent.name}/{file.name}")
        if name is None:
            raise CollectionSourceError(
                f"{file} does not say which place and heading it shows; expected names like {EXAMPLE!r}",
                "Rename it, or name single pictures with --views HEADING:FILE.",
            )
        found[name.location_id, f"{name.captured_on:%Y-%m}"].append((name.heading_deg, file))
        where[name.location_id] = (name.lat_deg, name.lng_deg)
    if not found:
        raise CollectionSourceError(f"{path} holds no picture; expected names like {EXAMPLE!r}")
    return [PlaceViews(f"{place} {month}", tuple(sorted(views)), where[place]) for (place, month), views in sorted(found.items())]


def only_listed(places: Sequence[PlaceViews], listing: Path) -> list[PlaceViews]:
    """The places that a text file names, one folder a line, as lists of train and test do.

    Raises:
        CollectionSourceError: it cannot be read, or names a place that is not there.
    """
    wanted = read_list(listing)
    known = {place.name.rsplit(" ", 1)[0] for place in places}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise CollectionSourceError(f"{listing} names {len(missing):,} places that are not there, the first is {missing[0]!r}")
    chosen = set(wanted)
    return [place for place in places if place.name.rsplit(" ", 1)[0] in chosen]


def ask_places(model: SequenceModel, places: Sequence[PlaceViews]) -> list[PlaceAnswer]:
    """Ask a model about places, each with all of its views.

    Raises:
        ImageError: a view cannot be used as a picture; names the file.
    """
    answers: list[PlaceAnswer] = []
    for start in range(0, len(places), _BLOCK):
        answers += _ask_block(model, places[start : start + _BLOCK])
    return answers


def newest_sequence_model(settings: Settings) -> Path:
    """The folder of the newest model of the region's recipes of kind `sequence`; of several recipes the one trained last.

    Raises:
        NoReleaseError: there is none.
    """
    layout = Layout(settings.data_root)
    names = [name for name in settings.recipes if load_recipe(name, settings.folder).kind == "sequence"]
    found = [training for name in names if (training := newest_training(layout.checkpoints / name)) is not None]
    if not found:
        raise NoReleaseError(
            f"no recipe of kind `sequence` has been trained below {layout.root}",
            "Name a model with --checkpoint, or train one: add `sequence` to `recipes`, then geoloc train --recipe sequence.",
        )
    return max(found, key=lambda training: training.finished_at).folder


def answer_json(model: SequenceModel, answer: PlaceAnswer, top: int) -> dict[str, Any]:
    """One answer as plain values."""
    names = class_names(model.finest)
    return {
        "place": answer.place.name,
        "views": [{"heading_deg": None if math.isnan(at) else at, "file": str(file)} for at, file in answer.place.views],
        "lat_deg": round(answer.answer[0], 6),
        "lng_deg": round(answer.answer[1], 6),
        "cell": names[answer.chosen],
        "error_km": None if answer.error_m is None else round(answer.error_m / 1000, 3),
        "likeliest": [
            {"cell": names[number], "probability": round(float(answer.probabilities[number]), 6)}
            for number in answer.likeliest(top)
        ],
        "model_version": model.model_version,
    }


def candidates_table(model: SequenceModel, answer: PlaceAnswer, top: int) -> TextTable:
    """The likeliest classes of one place; how far their centres lie from the true place where that is known."""
    level, names, truth = model.finest, class_names(model.finest), answer.place.truth
    rows: list[list[str]] = []
    for number in answer.likeliest(top):
        lat, lng = float(level.lat_deg[number]), float(level.lng_deg[number])
        away = NONE if truth is None else length(float(great_circle_m(lat, lng, *truth)))
        rows.append([names[number], f"{answer.probabilities[number]:.2%}", f"{lat:.4f}", f"{lng:.4f}", away])
    return TextTable(answer.place.name, ["cell", "probability", "latitude", "longitude", "from the true place"], rows)


def places_table(model: SequenceModel, answers: Sequence[PlaceAnswer]) -> TextTable:
    """One row per place."""
    names = class_names(model.finest)
    rows = [
        [
            one.place.name,
            str(len(one.place.views)),
            names[one.chosen],
            f"{one.probabilities[one.chosen]:.1%}",
            f"{one.answer[0]:.4f}, {one.answer[1]:.4f}",
            NONE if one.error_m is None else length(one.error_m),
        ]
        for one in answers
    ]
    return TextTable(f"{len(answers):,} places", ["place", "views", "cell", "sure", "answer", "off by"], rows)


def verdict(answer: PlaceAnswer) -> str:
    """Answer and distance in one line."""
    lat, lng = answer.answer
    if answer.error_m is None or answer.place.truth is None:
        return f"answer {lat:.5f}, {lng:.5f}"
    truth = "{:.5f}, {:.5f}".format(*answer.place.truth)
    return f"answer {lat:.5f}, {lng:.5f}: {answer.error_m / 1000:,.1f} km from the true place {truth}"


def average_line(answers: Sequence[PlaceAnswer]) -> str:
    """Average and median great-circle distance of the places whose position is known."""
    km = np.array([one.error_m for one in answers if one.error_m is not None]) / 1000
    return f"average distance {km.mean():,.1f} km, median {np.median(km):,.1f} km ({km.size:,} places)" if km.size else ""


def _ask_block(model: SequenceModel, places: Sequence[PlaceViews]) -> list[PlaceAnswer]:
    slots = max(len(place.views) for place in places)
    pictures = np.zeros((len(places), slots, 3, model.size, model.size), np.uint8)
    headings, present = np.full((len(places), slots), np.nan, np.float32), np.zeros((len(places), slots), bool)
    for row, place in enumerate(places):
        for slot, (heading, file) in enumerate(place.views):
            pictures[row, slot] = as_picture(read_photo(file), model.size)
            headings[row, slot], present[row, slot] = heading, True
    said = model.log_probabilities(pictures, headings, present)[HIERARCHY]
    found = model.answer(HIERARCHY, said)
    answers: list[PlaceAnswer] = []
    for row, place in enumerate(places):
        where = float(found.lat_deg[row]), float(found.lng_deg[row])
        error = None if place.truth is None else float(great_circle_m(*where, *place.truth))
        probabilities = said[row].exp().double().numpy()
        answers.append(PlaceAnswer(place, where, int(found.classes[row]), probabilities, error))
    return answers
