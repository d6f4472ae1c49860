"""A tiny region with trained models, evaluations, an index and a release, as the assets would leave it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.prediction.release import PublishedRelease, Release, load_release, publish_release
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import build_index
from geoloc_dagster_tests.retrieval.city import BATCHES, City, FakeEncoder

NOW = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
FIRST, SECOND = "retrieval-aaaaaaaaaaaa", "retrieval-bbbbbbbbbbbb"


_RECIPES = {
    "retrieval": "version: 1\nname: retrieval\nloss: {multi_similarity: {}}\n",
    "cells": "version: 1\nname: cells\nkind: cells\n",
}


def write_model(layout: Layout, model_version: str, *, day: int = 1, recipe: str = "retrieval", kind: str = "retrieval") -> Path:
    """A finished training as it lies on disk; its weights are noise, which only the real encoder would notice."""
    folder = layout.checkpoints / recipe / model_version
    with storage.atomic_folder(folder) as temporary:
        (temporary / "weights.safetensors").write_bytes(hashlib.sha256(model_version.encode()).digest() * 20)
        (temporary / "recipe.yaml").write_text(_RECIPES[kind])
        training = {"model_version": model_version, "trained_on_rows": 30, "finished_at": f"2026-11-{day:02d}T00:00:00"}
        (temporary / "training.json").write_text(json.dumps(training))
        storage.write_manifest(temporary, model_version=model_version)
    return folder


def query_table(found: list[bool], per_place: int = 4) -> pa.Table:
    """Queries q0, q1, …, four per place; found at once or not at all."""
    return pa.table(
        {
            "capture_id": [f"q{i}" for i in range(len(found))],
            "location_id": [str(i // per_place) for i in range(len(found))],
            "first_hit_rank": [int(hit) for hit in found],
        }
    )


def write_evaluation(layout: Layout, model_version: str, found: list[bool], *, recipe: str = "retrieval") -> Path:
    """The evaluation folder of a model with the files that a promotion reads."""
    folder = layout.evaluations / recipe / model_version
    value = sum(found) / len(found)
    report = {
        "same_place": {"recall@1": {"value": value, "low": value, "high": value}},
        "n_queries": len(found),
        "n_gallery": 100,
    }
    with storage.atomic_folder(folder) as temporary:
        storage.write_json(temporary / "report.json", report)
        storage.write_parquet(temporary / "queries.parquet", query_table(found))
        storage.write_manifest(temporary)
    return folder


def trained(layout: Layout, model_version: str, share: float, *, day: int = 1, recipe: str = "retrieval") -> None:
    """A model that finds the place of this share of 400 queries."""
    write_model(layout, model_version, day=day, recipe=recipe)
    write_evaluation(layout, model_version, [i % 100 < share * 100 for i in range(400)], recipe=recipe)


def embed_and_index(city: City, layout: Layout) -> None:
    version = read_champion(layout).model_version
    for batch in BATCHES:
        embed_batch(FakeEncoder(version), layout.crops, layout.embeddings, batch)
    build_index(layout.embeddings, city.catalog, version, layout.indexes)


def publish(layout: Layout, *, config_hash: str = "0" * 16) -> PublishedRelease:
    return publish_release(layout, region="testville", config_hash=config_hash, now=NOW)


def released(city: City) -> Layout:
    """A region whose first model is promoted, embedded, indexed and released."""
    layout = Layout(city.root)
    trained(layout, FIRST, 0.7)
    promote_best(layout, ["retrieval"], now=NOW)
    embed_and_index(city, layout)
    publish(layout)
    return layout


def trusting_loader(folder: Path) -> FakeEncoder:
    """Loads an encoder without checking anything: what must be refused has to be refused before."""
    return FakeEncoder(folder.name)


def load(layout: Layout) -> Release:
    return load_release(layout, encoder_loader=trusting_loader)
