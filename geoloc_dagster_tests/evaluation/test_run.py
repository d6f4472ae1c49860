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
from geoloc_dagster.evaluation.unseen import unseen_gallery
from geoloc_dagster_tests.evaluation.builders import catalog, city, write_crops

FILES = {
    "report.json", "queries.parquet", "atlas.parquet", "table.md", "sheet.jpg", "map.png", "recall.png", "years.png",
    "year_matrix.png", "age_gap.png", "atlas.png", "manifest.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    train = [{**r, "capture_id": f"t{r['capture_id']}", "location_id": f"1{r['location_id']}", "split": "train"} for r in city(4)]
    return city(8) + train


@pytest.fixture(scope="module")
def crops(rows, tmp_path_factory) -> Path:
    return write_crops(tmp_path_factory.mktemp("tables") / "crops.lance", rows)


@pytest.fixture(scope="module")
def thumbnails(rows, crops):
    return embed_crops(ThumbnailEncoder(), crops, [r["capture_id"] for r in rows], batch_rows=7)


@pytest.fixture(scope="module")
def evaluation(rows, crops, thumbnails, tmp_path_factory):
    chance = random_vectors([r["capture_id"] for r in rows if r["split"] == "test"], seed=1)
    table = catalog(rows)
    return evaluate_all(
        table,
        thumbnails,
        tmp_path_factory.mktemp("evaluations") / "retrieval",
        name="thumbnail",
        crops_path=crops,
        baselines={"random": chance},
        geometry=box(17.98, -0.005, 18.02, 0.02),
        bootstrap=100,
        facts={"model_version": "thumbnail-1"},
        gallery=unseen_gallery(table, "test", ["train"]),
        outlines={"Centre": box(17.99, -0.004, 18.01, 0.015)},
    )


def test_the_folder_is_complete_and_sealed(evaluation):
    assert {p.name for p in evaluation.folder.iterdir()} == FILES
    storage.verify_manifest(evaluation.folder)
    pictures = {name for name in FILES if name.endswith(("jpg", "png"))} - {"atlas.png", "year_matrix.png"}
    assert all(len((evaluation.folder / name).read_bytes()) <= 50_000 for name in pictures)


def test_the_report_is_plain_json_with_the_model_its_baselines_and_what_it_gained(evaluation):
    report = json.loads((evaluation.folder / "report.json").read_text())
    assert report["same_place"]["recall@1"]["value"] == 1.0
    assert report["baselines"]["random"]["same_place"]["recall@1"]["value"] < 0.5
    assert report["gained_over"]["random"]["p"] < 0.05
    assert report["facts"] == {"model_version": "thumbnail-1"}
    assert (report["n_queries"], report["n_gallery"]) == (16, 32)


def test_both_protocols_stand_side_by_side_and_only_who_was_embedded_elsewhere_takes_part(evaluation):
    report = json.loads((evaluation.folder / "report.json").read_text())
    unseen = report["unseen_place"]
    assert (unseen["n_queries"], unseen["n_gallery"]) == (16, 24)
    assert unseen["oracle"]["25"]["value"] == 0.5  # four of the eight places lie where a training place does
    assert unseen["within_m"]["25"]["recall@1"]["value"] <= 0.5
    assert "unseen_place" not in report["baselines"]["random"]
    stored = storage.read_parquet(evaluation.folder / "queries.parquet").to_pandas()
    assert (stored["unseen_error_m"] >= stored["unseen_nearest_m"] - 0.01).all()
    assert stored["unseen_nearest_m"].max() == pytest.approx(800, abs=1)


def test_the_report_says_how_years_find_each_other_and_the_atlas_where(evaluation):
    report = json.loads((evaluation.folder / "report.json").read_text())
    assert report["across_years"]["years"] == [2015, 2016, 2017]
    assert report["across_years"]["recall@1"][2][0]["value"] == 1.0
    assert report["across_years"]["recall@1"][0][0] is None
    [district] = storage.read_geoparquet(evaluation.folder / "atlas.parquet").to_dict("records")
    assert (district["name"], district["n_places"], district["n_queries"], district["recall"]) == ("Centre", 12, 16, 1.0)
    text = (evaluation.folder / "table.md").read_text()
    for words in ("unseen_place: 16 queries", "| oracle: any within |", "| 2017 | 100", "Atlas of districts", "apart |"):
        assert words in text


def test_an_evaluation_without_other_places_leaves_that_protocol_out(rows, crops, thumbnails, tmp_path):
    alone = evaluate_all(catalog(rows), thumbnails, tmp_path / "r", name="x", crops_path=crops, bootstrap=10)
    assert "unseen_place" not in alone.summary
    assert "unseen_error_m" not in storage.read_parquet(tmp_path / "r" / "queries.parquet").column_names
    assert not (tmp_path / "r" / "atlas.png").exists()


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
