"""A quick look at a fresh model on the dev split; the figures that count are made by `evaluation`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc_dagster.learning.encoder import Encoder
from geoloc_dagster.learning.pictures import read_pictures
from geoloc_dagster.learning.rows import usable_rows


def dev_recall(encoder: Encoder, catalog: pa.Table, crops_path: Path, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Recall@k of the dev split's queries among its other usable rows; empty where dev has no queries.

    A hit is a picture of the same location, whatever its view.
    """
    frame = usable_rows(catalog, ["dev"], []).sort_values(by="capture_id")
    is_query = frame["is_query"].to_numpy(dtype=bool)
    if not is_query.any() or is_query.all():
        return {}
    pictures = read_pictures(crops_path, frame["capture_id"].tolist(), encoder.image_size)
    vectors = encoder.embed(pictures)
    places = frame["location_id"].to_numpy()
    similarity = vectors[is_query] @ vectors[~is_query].T
    best = np.argsort(-similarity, axis=1, kind="stable")[:, : max(ks)]
    hits = places[~is_query][best] == places[is_query][:, None]
    return {f"dev_recall_at_{k}": float(hits[:, :k].any(axis=1).mean()) for k in ks}
