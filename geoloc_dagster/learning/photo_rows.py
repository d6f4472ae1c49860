"""Which photos of the catalog a classifier of cells learns from, with their classes and scenes, as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.dataset.cells import FINGERPRINT, Labels
from geoloc_dagster.dataset.scenes import PROBABILITIES, SCENES
from geoloc_dagster.errors import ModelMismatchError, NotEnoughDataError
from geoloc_dagster.geo.partitioning import DROPPED, I32, Partitioning
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe, PhotoRecipe


@dataclass(frozen=True, slots=True)
class PhotoRows:
    """Photos ordered by capture id; every array has one entry per photo.

    Attributes:
        capture_ids: of the crops.
        sha256: of the crops, by capture id.
        lat_deg: where the photo was taken.
        lng_deg: likewise.
        classes: (N, levels): the cell of each level, -1 where it was dropped.
        scenes: (N, 3): probabilities of the scenes, NaN where unknown.
    """

    capture_ids: list[str]
    sha256: dict[str, str]
    lat_deg: npt.NDArray[np.float64]
    lng_deg: npt.NDArray[np.float64]
    classes: I32
    scenes: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.capture_ids)

    def fingerprint(self) -> str:
        """Hex sha256 over what is learned from: capture ids, picture checksums, classes, scenes."""
        digest = hashlib.sha256()
        for capture_id in self.capture_ids:
            digest.update(f"{capture_id} {self.sha256[capture_id]}\n".encode())
        digest.update(self.classes.astype("<i4").tobytes())
        digest.update(self.scenes.astype("<f4").tobytes())
        return digest.hexdigest()

    def chosen(self, which: npt.NDArray[np.bool_]) -> PhotoRows:
        """Some of them."""
        ids = [capture_id for capture_id, wanted in zip(self.capture_ids, which.tolist(), strict=True) if wanted]
        return PhotoRows(
            ids,
            {capture_id: self.sha256[capture_id] for capture_id in ids},
            self.lat_deg[which],
            self.lng_deg[which],
            self.classes[which],
            self.scenes[which],
        )


def levels_of(recipe: PhotoRecipe, partitioning: Partitioning) -> list[str]:
    """The levels that a recipe's model has a head for, coarsest first; raises PartitioningError for one that is not there."""
    names = [level.name for level in partitioning.levels]
    if recipe.heads.levels is None:
        return names
    for name in recipe.heads.levels:
        partitioning.level(name)
    return [name for name in names if name in recipe.heads.levels]


def select_photos(
    recipe: PhotoRecipe, catalog: pa.Table, labels: Labels, splits: list[str], *, labelled: bool = True
) -> PhotoRows:
    """Choose the usable photos of some splits.

    Args:
        recipe: which flags leave a photo out, and what it must be labelled with.
        catalog: the feature table.
        labels: cells and scenes.
        splits: of the catalog.
        labelled: leave out photos without a class at any level, and without a scene where the recipe has a scene head; and
            those of other scenes than the one of interest.

    Raises:
        ModelMismatchError: the cell labels are of another partitioning.
    """
    columns = ["capture_id", "lat_deg", "lng_deg", "sha256", "flags", "split", "usable"]
    frame: Any = catalog.select(columns).to_pandas()
    excluded = set(recipe.data.exclude_flags)
    clean = np.array([excluded.isdisjoint(flags) for flags in frame["flags"]], dtype=bool)
    frame = frame[frame["split"].isin(splits) & frame["usable"] & clean].sort_values("capture_id")
    classes = _classes(frame["capture_id"], labels, levels_of(recipe, labels.partitioning))
    scenes = _scenes(frame["capture_id"], labels)
    rows = PhotoRows(
        frame["capture_id"].tolist(),
        dict(zip(frame["capture_id"], frame["sha256"], strict=True)),
        frame["lat_deg"].to_numpy(np.float64),
        frame["lng_deg"].to_numpy(np.float64),
        classes,
        scenes,
    )
    if not labelled:
        return rows
    known = (classes != DROPPED).any(axis=1)
    if recipe.heads.scene is not None:
        known |= ~np.isnan(scenes).any(axis=1)
    known &= of_interest(recipe, scenes)
    return rows if known.all() else rows.chosen(known)


def of_interest(recipe: PhotoRecipe, scenes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which photos a recipe is about, (N,), of their scenes' probabilities, (N, 3); where it matters, none of unknown scene."""
    if not isinstance(recipe, MultitaskRecipe) or recipe.scene_of_interest == "all":
        return np.ones(len(scenes), dtype=bool)
    likeliest = np.nan_to_num(scenes, nan=-1).argmax(axis=1)
    return np.asarray((likeliest == SCENES.index(recipe.scene_of_interest)) & ~np.isnan(scenes).any(axis=1))


def require_photos(recipe: PhotoRecipe, rows: PhotoRows) -> PhotoRows:
    """The same rows; raises NotEnoughDataError where they do not make a batch."""
    if len(rows) < recipe.budget.batch_size:
        raise NotEnoughDataError(
            f"recipe {recipe.name} has {len(rows):,} labelled photos in {', '.join(recipe.data.splits)}, "
            f"fewer than the {recipe.budget.batch_size:,} of one batch",
            "Collect more photos, lower img_min of the cells, or lower budget.batch_size.",
        )
    return rows


def _classes(capture_ids: pd.Series, labels: Labels, levels: list[str]) -> I32:
    if not levels:
        return np.empty((len(capture_ids), 0), np.int32)
    table = labels.cells
    said = None if table is None else (table.schema.metadata or {}).get(FINGERPRINT, b"").decode()
    if table is None or said != labels.partitioning.fingerprint:
        raise ModelMismatchError("the cell labels are not those of the partitioning", "Materialise `cell_labels` again.")
    found: Any = table.select(["capture_id", *levels]).to_pandas().set_index("capture_id").reindex(capture_ids)
    return found.fillna(DROPPED).to_numpy(np.int32)


def _scenes(capture_ids: pd.Series, labels: Labels) -> npt.NDArray[np.float32]:
    if labels.scenes is None:
        return np.full((len(capture_ids), len(SCENES)), np.nan, np.float32)
    found: Any = labels.scenes.select(["capture_id", *PROBABILITIES]).to_pandas().set_index("capture_id").reindex(capture_ids)
    return found.to_numpy(np.float32)
