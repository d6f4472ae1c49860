from __future__ import annotations

import io
import json
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from geoloc_dagster import storage
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NotEnoughDataError
from geoloc_dagster.evaluation.baselines import ThumbnailEncoder, embed_crops, random_vectors
from geoloc_dagster.evaluation.reports import compare
from geoloc_dagster.evaluation.run import evaluate_all
from geoloc_dagster_tests.evaluation.builders import catalog, city, write_crops

FILES = {"report.json", "queries.parquet", "table.md", "sheet.jpg", "map.png", "recall.png", "years.png", "manifest.json"}


@pytest.fixture(scope="module")
def rows():
    train = [{**r, "capture_id": "t" + r["capture_id"], "split": "train"} for r in city(4)]
    return city(8) + train


@pytest.fixture(scope="module")
def crops(rows, tmp_path_factory) -> Path:
    return write_crops(tmp_path_factory.mktemp("tables") / "crops.lance", rows)


@pytest.fixture(scope="module")
def thumbnails(rows, crops):
    return embed_crops(ThumbnailEncoder(), crops, [r["capture_id"] for r in rows if r["split"] == "test"], batch_rows=7)


@pytest.fixture(scope="module")
def evaluation(rows, crops, thumbnails, tmp_path_factory):
    chance = random_vectors(thumbnails.capture_ids, seed=1)
    return evaluate_all(
        catalog(rows),
        thumbnails,
        tmp_path_factory.mktemp("evaluations") / "retrieval",
        name="thumbnail",
        crops_path=crops,
        baselines={"random": chance},
        geometry=box(17.98, -0.005, 18.02, 0.02),
        bootstrap=100,
        facts={"model_version": "thumbnail-1"},
    )


def test_the_folder_is_complete_and_sealed(evaluation):
    assert {p.name for p in evaluation.folder.iterdir()} == FILES
    storage.verify_manifest(evaluation.folder)
    assert all(len((evaluation.folder / name).read_bytes()) <= 50_000 for name in FILES if name.endswith(("jpg", "png")))


def test_the_report_is_plain_json_with_the_model_its_baselines_and_what_it_gained(evaluation):
    report = json.loads((evaluation.folder / "report.json").read_text())
    assert report["same_place"]["recall@1"]["value"] == 1.0
    assert report["baselines"]["random"]["same_place"]["recall@1"]["value"] < 0.5
    assert report["gained_over"]["random"]["p"] < 0.05
    assert report["facts"] == {"model_version": "thumbnail-1"}
    assert (report["n_queries"], report["n_gallery"]) == (16, 32)


def test_stored_queries_can_be_compared_later(evaluation):
    stored = storage.read_parquet(evaluation.folder / "queries.parquet")
    gained = compare(stored, evaluation.baselines["random"].queries, n=100)
    assert gained == evaluation.differences["random"]
    with pytest.raises(ModelMismatchError, match="no query in common"):
        compare(stored, stored.slice(0, 0))


def test_the_markdown_names_every_descriptor_and_rule(evaluation):
    text = (evaluation.folder / "table.md").read_text()
    for words in (
        "| thumbnail | 1.000 (1.000–1.000)",
        "| random |",
        "16 queries at 8 places",
        "| 2017 |",
        "own place on the query's own",
    ):
        assert words in text


def test_a_damaged_crop_leaves_the_older_folder_as_it_was(rows, thumbnails, evaluation, tmp_path):
    damaged = write_crops(tmp_path / "crops.lance", rows)
    lance.dataset(str(damaged)).update({"sha256": "'0'"})
    before = {p.name: p.read_bytes() for p in evaluation.folder.iterdir()}
    with pytest.raises(IntegrityError, match="has changed"):
        evaluate_all(catalog(rows), thumbnails, evaluation.folder, name="again", crops_path=damaged, bootstrap=10)
    assert {p.name: p.read_bytes() for p in evaluation.folder.iterdir()} == before
    assert [p.name for p in evaluation.folder.parent.iterdir()] == ["retrieval"]


def test_nothing_is_written_for_a_split_without_queries(rows, crops, thumbnails, tmp_path):
    with pytest.raises(NotEnoughDataError):
        evaluate_all(catalog(rows), thumbnails, tmp_path / "e" / "r", name="x", crops_path=crops, split="dev")
    assert not (tmp_path / "e").exists()


def test_crops_come_back_in_the_order_asked_for_and_unknown_ones_are_named(crops):
    reader = CropReader(crops)
    assert list(reader.encoded(["p003v0d1", "p000v0d0"])) == ["p003v0d1", "p000v0d0"]
    with pytest.raises(IntegrityError, match="the first is nowhere"):
        reader.encoded(["p000v0d0", "nowhere"])


def test_the_thumbnail_ignores_brightness_and_contrast_and_is_zero_for_an_even_picture():
    picture = np.random.default_rng(0).integers(40, 120, (1, 3, 48, 48), dtype=np.uint8)
    encoder = ThumbnailEncoder()
    plain, brighter = encoder.embed(picture), encoder.embed((picture * 2).astype(np.uint8))
    assert plain.shape == (1, 576)
    assert float((plain @ brighter.T).item()) > 0.99
    assert not encoder.embed(np.full((1, 3, 48, 48), 90, np.uint8)).any()
    with pytest.raises(ValueError, match="uint8 pictures"):
        encoder.embed(picture.astype(np.float32))


def test_the_sheet_is_a_jpeg_and_the_map_a_png(evaluation):
    for name, form in (("sheet.jpg", "JPEG"), ("map.png", "PNG")):
        with Image.open(io.BytesIO((evaluation.folder / name).read_bytes())) as image:
            assert image.format == form
