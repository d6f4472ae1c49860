"""What the settings of a vote say reaches the answer of a predictor."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from geoloc_dagster.prediction.retrieval import RetrievalPredictor
from geoloc_dagster.retrieval.cells import cell_ids
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.rerank import VoteSettings
from geoloc_dagster_tests.retrieval.city import FakeEncoder


def gallery(vectors: np.ndarray, lat: np.ndarray, lng: np.ndarray, views: list[str]) -> GalleryIndex:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    rows = pa.table(
        {
            "capture_id": [f"c{i}" for i in range(len(lat))],
            "location_id": [f"{a:.4f}" for a in lat],
            "lat_deg": lat,
            "lng_deg": lng,
            "view": views,
            "captured_on": pa.nulls(len(lat), pa.date32()),
            "licence": ["CC-BY-4.0"] * len(lat),
            "attribution": ["A"] * len(lat),
        }
    )
    manifest = {"model_version": FakeEncoder().model_version, "dimension": vectors.shape[1], "s2_level": 16}
    return GalleryIndex(Path("index-abc"), manifest, rows, lat, lng, cell_ids(lat, lng, 16), index)


def test_a_heading_bandwidth_makes_hits_vote_by_their_direction() -> None:
    """One place seen in four directions, and one seen three times in the same: blind, the first has more votes."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    vector = FakeEncoder().embed(picture)
    lat = np.array([59.32] * 4 + [59.33] * 3)
    views = ["h000", "h090", "h180", "h270", "h045", "h045", "h050"]
    index = gallery(np.repeat(vector, 7, axis=0), lat, np.full(7, 18.06), views)
    blind = RetrievalPredictor(FakeEncoder(), index, VoteSettings())
    seeing = RetrievalPredictor(FakeEncoder(), index, VoteSettings(heading_bandwidth_deg=30))
    assert round(blind.predict(picture)[0].lat_deg, 4) == 59.32
    assert round(seeing.predict(picture)[0].lat_deg, 4) == 59.33


def test_the_heading_of_a_photo_chooses_among_equal_pictures() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    vectors = np.repeat(FakeEncoder().embed(picture), 2, axis=0)
    index = gallery(vectors, np.array([59.32, 59.33]), np.full(2, 18.06), ["h000", "h180"])
    predictor = RetrievalPredictor(FakeEncoder(), index)
    for heading, lat in ((350.0, 59.32), (170.0, 59.33)):
        assert round(predictor.predict(picture, np.array([heading]))[0].lat_deg, 4) == lat
    unknown, none = predictor.predict(picture, np.array([np.nan]))[0], predictor.predict(picture)[0]
    assert (unknown.lat_deg, unknown.spread_90_m) == (none.lat_deg, none.spread_90_m)
