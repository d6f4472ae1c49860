"""A quick look at a model on the dev split while it is trained; the figures that count are made by `evaluation`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import Tensor

from geoloc_dagster.learning.aggregation import RetrievalNetwork
from geoloc_dagster.learning.encoder import Encoder
from geoloc_dagster.learning.pictures import read_pictures
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.rows import usable_rows


class DevSplit:
    """The dev split's usable pictures, read once.

    Args:
        recipe: gives the size of the pictures.
        catalog: the feature table.
        crops_path: the crops table.
    """

    def __init__(self, recipe: Recipe, catalog: pa.Table, crops_path: Path) -> None:
        frame = usable_rows(catalog, ["dev"], []).sort_values(by="capture_id")
        self._recipe = recipe
        self._is_query = frame["is_query"].to_numpy(dtype=bool)
        self._locations = frame["location_id"].to_numpy()
        self._pictures: Tensor | None = None
        if self.has_queries:
            self._pictures = read_pictures(crops_path, frame["capture_id"].tolist(), recipe.data.stored_size)

    @property
    def has_queries(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self._is_query.any() and not self._is_query.all())

    def recall(self, network: RetrievalNetwork, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
        """Recall@k of the queries among the split's other rows; a hit is the same location. Empty without queries."""
        if self._pictures is None:
            return {}
        training = network.training
        vectors = Encoder(network, self._recipe, "being trained").embed(self._pictures)
        network.train(training)
        similarity = vectors[self._is_query] @ vectors[~self._is_query].T
        best = np.argsort(-similarity, axis=1, kind="stable")[:, : max(ks)]
        hits = self._locations[~self._is_query][best] == self._locations[self._is_query][:, None]
        return {f"dev_recall_at_{k}": float(hits[:, :k].any(axis=1).mean()) for k in ks}
