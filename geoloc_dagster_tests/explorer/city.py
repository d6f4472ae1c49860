"""A small region with everything the explorer shows: a release, a fusion, locations, visits, an evaluation."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import shapely

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.schema import CAPTURES, VISITS
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.explorer.serving import Served, load_served
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.prediction.fusing import make_fusion
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import build_index
from geoloc_dagster.tables import append_rows
from geoloc_dagster_tests.prediction.streets import BATCH, PLACES, place_position, write_streets
from geoloc_dagster_tests.prediction.world import FIRST, NOW, publish, trained, trusting_loader
from geoloc_dagster_tests.retrieval.city import DATES, FakeEncoder, jpeg

PENDING, EMPTY, NEW = "200", "201", "202"
"""Locations beside the places with pictures: views are missing, there is nothing, nobody looked."""


def region_settings(root: Path, **explorer: Any) -> Settings:
    """Of a region in two districts."""
    halves = {"old town": shapely.box(18.04, 59.3, 18.1, 59.3145), "new town": shapely.box(18.04, 59.3145, 18.1, 59.34)}
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in halves.items()
    ]
    storage.write_json(root / "districts.geojson", {"type": "FeatureCollection", "features": features})
    region = {"name": "testville", "boundary": "region.geojson", "start_point": [59.32, 18.06]}
    said = {"data_root": str(root), "region": {**region, "districts": str(root / "districts.geojson")}, "explorer": explorer}
    return Settings.model_validate(said)


def build_region(settings: Settings) -> Layout:
    """Tables, a champion, its index, the fusion, and the release."""
    layout = Layout(settings.data_root)
    catalog = write_streets(layout)
    write_boundary(layout.boundary, Boundary("testville", shapely.box(18.04, 59.30, 18.10, 59.34), "EPSG:32633", 15.0))
    _write_collection(layout)
    trained(layout, FIRST, 0.7)
    _write_evaluation(layout)
    promote_best(layout, ["retrieval"], now=NOW)
    version = read_champion(layout).model_version
    embed_batch(FakeEncoder(version), layout.crops, layout.embeddings, BATCH)
    build_index(layout.embeddings, catalog, version, layout.indexes)
    made = make_fusion(settings, layout)
    assert made.folder is not None, made.reason
    publish(layout)
    return layout


def loaded(settings: Settings, layout: Layout) -> Served:
    """What is served, with the encoder of the tests."""
    return load_served(settings, layout, Places(layout).held_out, encoder_loader=trusting_loader)


def _write_evaluation(layout: Layout) -> None:
    """The first model on the newest pictures of test, of which every fourth place is missed by some hundred metres."""
    places = [place for place in range(PLACES) if place % 3 == 2]
    found = [place if place % 4 else place - 3 for place in places]
    columns = {
        "capture_id": [f"c{place:03d}-2" for place in places],
        "location_id": [str(place) for place in places],
        "captured_on": [DATES[-1]] * len(places),
        "first_hit_rank": [1 if place % 4 else 2 for place in places],
        "neighbours": [[f"c{place:03d}-0"] for place in found],
        "distances_m": [[0.0 if place % 4 else 340.0] for place in places],
    }
    share = sum(place % 4 > 0 for place in places) / len(places)
    recall = {"recall@1": {"value": share, "low": share - 0.05, "high": share + 0.05}}
    with storage.atomic_folder(layout.evaluations / "retrieval" / f"{FIRST}-test") as folder:
        facts = {"model_version": FIRST}
        storage.write_json(
            folder / "report.json", {"split": "test", "facts": facts, "n_queries": len(places), "same_place": recall}
        )
        storage.write_parquet(folder / "queries.parquet", pa.table(columns))
        storage.write_manifest(folder)


def _write_collection(layout: Layout) -> None:
    """Locations as registered, their captures and their visits."""
    ids = [str(place) for place in range(PLACES)] + [PENDING, EMPTY, NEW]
    positions = [place_position(place) for place in range(PLACES + 3)]
    lat_deg, lng_deg = zip(*positions, strict=True)
    columns = {"location_id": ids, "series": ["100m"] * len(ids), "batch": [BATCH] * len(ids)}
    frame = gpd.GeoDataFrame(
        {**columns, "lat_deg": lat_deg, "lng_deg": lng_deg}, geometry=gpd.points_from_xy(lng_deg, lat_deg), crs="EPSG:4326"
    )
    storage.write_geoparquet(layout.locations, frame)
    seen_at = dt.datetime(2026, 11, 20, 22, tzinfo=dt.UTC)
    captures, visits = list[dict[str, Any]](), list[dict[str, Any]]()
    for place, name in enumerate(ids[:-1]):
        dates = 0 if name == EMPTY else len(DATES)
        visits.append(
            {"location_id": name, "batch": BATCH, "provider": "test", "visited_at": seen_at, "dates": dates}
            | {"views_new": dates, "pending": 2 if name == PENDING else 0, "run_id": "r"}
        )
        for day, taken in enumerate(DATES if place < PLACES else ()):
            captures.append(
                {"capture_id": f"c{place:03d}-{day}", "batch": BATCH, "provider": "test", "source": "test", "location_id": name}
                | {"lat_deg": lat_deg[place], "lng_deg": lng_deg[place], "captured_on": taken, "capture_precision": "day"}
                | {"heading_deg": 90.0, "fetched_at": seen_at, "run_id": "r", "licence": "CC0-1.0", "attribution": "nobody"}
                | {"status": "ok"}
            )
    append_rows(layout.panoramas, pa.Table.from_pylist(captures, schema=CAPTURES))
    append_rows(layout.visits, pa.Table.from_pylist(visits, schema=VISITS))


def photo_of(place: int, day: int = 7) -> bytes:
    """A photo of a place on a day that nothing was collected on."""
    return jpeg(place, day)
