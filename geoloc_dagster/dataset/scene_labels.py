"""The scene of each crop, indoor, natural or urban: as the list of its photo says, or as a model sees it.

One batch is replaced in one commit, or not at all; nothing is done, and no model looked through, where nothing changed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config.dataset import SceneSettings
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.dataset.receipts import fingerprint, read_receipt, receipt_path
from geoloc_dagster.dataset.scenes import PROBABILITIES, SCENES
from geoloc_dagster.dataset.schema import SCENE_LABELS
from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.geo.batches import BatchKey
from geoloc_dagster.imagery.photo_scenes import COLUMNS
from geoloc_dagster.storage import read_parquet, write_json
from geoloc_dagster.tables import open_table, replace_batch, table_version

_log = logging.getLogger(__name__)
_PICTURES_AT_ONCE = 64
_FROM_LIST = "list"
Row = dict[str, Any]


class SceneClassifier(Protocol):
    """What tells scenes apart."""

    @property
    def model_version(self) -> str:
        """Which model it is; stands in `source` of what it says."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures that it takes, pixels."""
        ...

    def scenes(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities of its three classes, shape (N, 3), of RGB pictures (N, 3, size, size)."""
        ...


@dataclass(frozen=True, slots=True)
class SceneResult:
    """The scene labels of one batch.

    Attributes:
        rows: crops of the batch.
        by_scene: crops of each scene, and `unknown` ones.
        from_list: crops whose scene the list says.
        from_model: crops whose scene a model says.
        table_version: version of the table that holds them.
        changed: False where the table held exactly these labels already.
    """

    rows: int
    by_scene: dict[str, int]
    from_list: int
    from_model: int
    table_version: int
    changed: bool


def write_scene_labels(
    crops_path: Path,
    labels_path: Path,
    batch: str,
    settings: SceneSettings,
    *,
    photos_path: Path | None = None,
    load_classifier: Callable[[], SceneClassifier] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SceneResult:
    """Label the crops of one batch and make these the only labels of that batch, in one commit.

    Args:
        crops_path: the crops table.
        labels_path: the scene labels table; written where it is missing.
        batch: key of the batch, e.g. `photos-0003`.
        settings: the `scenes:` section.
        photos_path: the registered photos with what their lists say; None where there are none.
        load_classifier: loads the model; called only where something is left for it.
        progress: called with (pictures the model has seen, pictures it is to see).

    Raises:
        IntegrityError: the crops table is missing, or a crop has changed since it was made.
        ModelMismatchError: the model says something else than three probabilities.
        DiskFullError: the labels of before stay.
    """
    failpoint("scenes.begun")
    BatchKey.parse(batch)
    crops = _crops_of(crops_path, batch)
    said = {} if photos_path is None or settings.source != "list" else _said_of(photos_path, batch)
    rows = [_row_of(crop, batch, said.get(crop["location_id"], {})) for crop in crops]
    unknown = [crop["capture_id"] for crop, row in zip(crops, rows, strict=True) if row["scene"] is None and crop["sha256"]]
    classifier = load_classifier() if load_classifier is not None and unknown else None
    seen_by = "" if classifier is None else f"{classifier.model_version} {' '.join(settings.classes)}"
    inputs = fingerprint([seen_by], [crop["sha256"] for crop in crops], [tuple(row.values()) for row in rows])
    receipt = receipt_path(labels_path, batch)
    held = _held(labels_path, batch)
    if held is not None and read_receipt(receipt) == {"inputs": inputs, "labels": _digest(held)}:
        return _result(held, table_version(labels_path), changed=False)
    if classifier is not None:
        _ask(classifier, CropReader(crops_path), unknown, rows, settings, progress)
    labels = pa.Table.from_pylist(rows, schema=SCENE_LABELS)
    failpoint("scenes.made")
    version = replace_batch(labels_path, labels, batch)
    failpoint("scenes.written")
    write_json(receipt, {"inputs": inputs, "labels": _digest(labels)})
    return _result(labels, version, changed=True)


def _crops_of(crops_path: Path, batch: str) -> list[Row]:
    table = open_table(crops_path)
    if table is None:
        raise IntegrityError(f"{crops_path} is missing", "Materialise the crops of a batch first.")
    return table.to_table(columns=["capture_id", "location_id", "sha256"], filter=f"batch = '{batch}'").to_pylist()


def _said_of(photos_path: Path, batch: str) -> dict[str, Row]:
    """What the lists say of the photos of a batch, by location id; nothing in a file that is older than its scene columns."""
    table = read_parquet(photos_path)
    columns = [name for name in COLUMNS if name in table.column_names]
    rows = table.filter(pc.field("batch") == batch).select(["location_id", *columns]).to_pylist()
    return {row["location_id"]: row for row in rows}


def _row_of(crop: Row, batch: str, said: Mapping[str, Any]) -> Row:
    """A crop with what its list says; where that has no probabilities, its label is the scene."""
    likely = [said.get(name) for name in PROBABILITIES]
    scene = said.get("scene_3") if None in likely else int(np.argmax(np.array(likely, np.float32)))
    return {
        "capture_id": crop["capture_id"],
        "batch": batch,
        **dict(zip(PROBABILITIES, likely, strict=True)),
        "scene": scene,
        "scene_16": said.get("scene_16"),
        "scene_365": said.get("scene_365"),
        "source": None if scene is None else _FROM_LIST,
    }


def _ask(
    classifier: SceneClassifier,
    reader: CropReader,
    capture_ids: list[str],
    rows: list[Row],
    settings: SceneSettings,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill in what a model says of these captures."""
    row_of = {row["capture_id"]: row for row in rows}
    columns = [settings.classes.index(scene) for scene in SCENES]
    for first in range(0, len(capture_ids), _PICTURES_AT_ONCE):
        some = capture_ids[first : first + _PICTURES_AT_ONCE]
        answers = np.asarray(classifier.scenes(reader.pictures(some, classifier.size)), np.float32)
        _check(answers, len(some), classifier.model_version)
        for capture_id, likely in zip(some, answers[:, columns], strict=True):
            row_of[capture_id] |= dict(zip(PROBABILITIES, likely.tolist(), strict=True))
            row_of[capture_id] |= {"scene": int(np.argmax(likely)), "source": classifier.model_version}
        if progress is not None:
            progress(first + len(some), len(capture_ids))


def _check(answers: npt.NDArray[np.float32], count: int, version: str) -> None:
    if answers.shape != (count, len(SCENES)) or not np.allclose(answers.sum(axis=1), 1, atol=1e-2) or (answers < 0).any():
        raise ModelMismatchError(
            f"the scene classifier {version} gives no three probabilities of each of {count} pictures (shape {answers.shape})",
            "Name a scene classifier in `scenes.model`.",
        )


def _held(labels_path: Path, batch: str) -> pa.Table | None:
    table = open_table(labels_path)
    return None if table is None else table.to_table(columns=SCENE_LABELS.names, filter=f"batch = '{batch}'")


def _digest(labels: pa.Table) -> str:
    return fingerprint([], *(labels[name].to_pylist() for name in SCENE_LABELS.names))


def _result(labels: pa.Table, version: int, *, changed: bool) -> SceneResult:
    counts = Counter(labels["scene"].to_pylist())
    by_scene = {name: counts[number] for number, name in enumerate(SCENES)} | {"unknown": counts[None]}
    sources = labels["source"].to_pylist()
    from_list = sources.count(_FROM_LIST)
    return SceneResult(labels.num_rows, by_scene, from_list, len(sources) - from_list - counts[None], version, changed)
