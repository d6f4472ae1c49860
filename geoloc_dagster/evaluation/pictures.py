"""Reads single crops by capture id, for baselines and contact sheets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.storage import open_table

_REMEDY = "Materialise `crops` of that batch again."


class CropReader:
    """Random access to one version of the crops table; holds its capture ids in memory, never its pictures.

    Raises:
        IntegrityError: the table is missing.
    """

    def __init__(self, crops_path: Path) -> None:
        dataset = open_table(crops_path)
        if dataset is None:
            raise IntegrityError(f"{crops_path} is missing", _REMEDY)
        self._path = crops_path
        self._dataset = dataset
        self._rows = pd.Index(dataset.to_table(columns=["capture_id"])["capture_id"].to_pylist())

    def read(self, capture_ids: Sequence[str]) -> dict[str, bytes | None]:
        """The encoded crops, in the order asked for; None where a capture has no decodable picture.

        Raises:
            IntegrityError: a capture is not in the table, or its crop's bytes are not the ones that were written.
        """
        rows = self._rows.get_indexer(pd.Index(list(capture_ids)))
        if (rows < 0).any():
            absent = np.asarray(capture_ids)[rows < 0]
            raise IntegrityError(f"{len(absent)} captures are not in {self._path}, the first is {absent[0]}", _REMEDY)
        taken = self._dataset.take(np.unique(rows).tolist(), columns=["capture_id", "image", "sha256"]).to_pylist()
        for row in taken:
            if row["image"] is not None and hashlib.sha256(row["image"]).hexdigest() != row["sha256"]:
                raise IntegrityError(
                    f"the crop of capture {row['capture_id']} in {self._path} has changed (sha256 differs)", _REMEDY
                )
        images = {row["capture_id"]: row["image"] for row in taken}
        return {capture_id: images[capture_id] for capture_id in capture_ids}
