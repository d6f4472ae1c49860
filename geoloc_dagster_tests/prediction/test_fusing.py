"""A region's fusion from its tables to the answer to a photo: fitted on dev, measured on test, released, asked, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
import torch

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NoReleaseError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.prediction.champion import promote, read_champion
from geoloc_dagster.prediction.ensemble import embed_members, index_members
from geoloc_dagster.prediction.fused import FusedPredictor, heat_features, load_fused
from geoloc_dagster.prediction.fusing import make_fusion
from geoloc_dagster.prediction.fusion import read_fusion
from geoloc_dagster.prediction.photo import as_picture
from geoloc_dagster.prediction.picture import fused_heat_map
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.prediction.questions import distances_within_places, divide_catalog
from geoloc_dagster.prediction.regions import learn_inside
from geoloc_dagster.prediction.release import newest_fusion
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import build_index
from geoloc_dagster.retrieval.local_table import make_local_features
from geoloc_dagster_tests.prediction.streets import BATCH, PLACES, place_position, write_streets
from geoloc_dagster_tests.prediction.world import FIRST, NOW, SECOND, publish, trained, trusting_loader, write_model
from geoloc_dagster_tests.retrieval.city import DATES, FakeEncoder, jpeg
from geoloc_dagster_tests.retrieval.facades import facade_jpeg


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("fusing")
    halves = {"old town": shapely.box(18.04, 59.3, 18.1, 59.3145), "new town": shapely.box(18.04, 59.3145, 18.1, 59.34)}
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in halves.items()
    ]
    (root / "districts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    region = {"name": "testville", "boundary": "region.geojson", "start_point": [59.32, 18.06]}
    return Settings.model_validate({"data_root": str(root), "region": {**region, "districts": str(root / "districts.geojson")}})


def fused_region(settings: Settings, picture: Callable[[int, int], bytes] = jpeg, *, verified: bool = False) -> Layout:
    layout = Layout(settings.data_root)
    catalog = write_streets(layout, picture)
    write_boundary(layout.boundary, Boundary("testville", shapely.box(18.04, 59.30, 18.10, 59.34), "EPSG:32633", 15.0))
    trained(layout, FIRST, 0.7)
    promote_best(layout, ["retrieval"], now=NOW)
    version = read_champion(layout).model_version
    embed_batch(FakeEncoder(version), layout.crops, layout.embeddings, BATCH)
    local = layout.local_features if verified else None
    if verified:
        make_local_features(layout.crops, layout.local_features, BATCH)
    build_index(layout.embeddings, catalog, version, layout.indexes, local_features=local)
    return layout


@pytest.fixture(scope="module")
def layout(settings: Settings) -> Layout:
    layout = fused_region(settings)
    made = make_fusion(settings, layout)
    assert made.folder is not None, made.reason
    publish(layout)
    return layout


@pytest.fixture(scope="module")
def predictor(layout: Layout) -> FusedPredictor:
    return load_fused(layout, encoder_loader=trusting_loader)


def test_the_newest_pictures_of_dev_and_test_ask_and_older_ones_answer(layout: Layout):
    division = divide_catalog(storage.read_parquet(layout.catalog))
    assert len(division.dev) == len(division.test) == PLACES // 3
    assert set(division.dev.frame["captured_on"]) == {DATES[-1]}
    asked = {*division.dev.capture_ids, *division.test.capture_ids}
    assert asked.isdisjoint(division.gallery["capture_id"])
    assert set(division.gallery["split"]) == {"train", "dev", "test"}


def test_the_metres_of_regions_are_those_of_all_places_with_two_dates(layout: Layout, predictor: FusedPredictor):
    apart = distances_within_places(divide_catalog(storage.read_parquet(layout.catalog)).gallery)
    assert len(apart) == PLACES
    assert predictor.fusion.inside == learn_inside(apart)


def test_of_photos_only_those_of_train_answer(layout: Layout):
    catalog = storage.read_parquet(layout.catalog)
    none = pa.array([False] * catalog.num_rows)
    division = divide_catalog(catalog.set_column(catalog.schema.get_field_index("is_query"), "is_query", none))
    assert set(division.gallery["split"]) == {"train"}
    assert len(division.test) == PLACES
    assert division.test.of_photos


def test_what_is_measured_lies_beside_what_was_fitted(layout: Layout):
    folder = newest_fusion(layout)
    assert folder is not None
    report = storage.read_json(folder / "report.json")
    assert report["n_questions"] == PLACES // 3
    assert set(report["figures"]) == {"retrieval", "places", "fusion"}
    assert report["figures"]["fusion"]["25"]["value"] > 0.8
    queries = storage.read_parquet(folder / "queries.parquet")
    right = np.mean(queries["error_m_fusion"].to_numpy() <= 25)
    assert report["figures"]["fusion"]["25"]["value"] == pytest.approx(right)
    assert report["coverage"]["overall"]["covered"]["value"] == pytest.approx(np.mean(queries["covered"].to_numpy()))
    for picture in ("reliability.png", "coverage.png", "recall_area.png", "atlas.png"):
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
    assert report["recall_area"].keys() == report["figures"].keys()


def test_the_atlas_says_of_each_district_what_is_found_and_held(layout: Layout):
    folder = newest_fusion(layout)
    assert folder is not None
    queries: Any = storage.read_parquet(folder / "queries.parquet").to_pandas()
    atlas: Any = storage.read_geoparquet(folder / "atlas.parquet").set_index("name")
    assert set(atlas.index) == {"old town", "new town"}
    for name, own in queries.groupby("district"):
        assert atlas.loc[name, "recall"] == pytest.approx((own["error_m_fusion"] <= 25).mean())
        assert atlas.loc[name, "coverage"] == pytest.approx(own["covered"].mean())
        assert atlas.loc[name, "region_km2"] == pytest.approx(own["region_km2"].median(), rel=1e-3)
        assert atlas.loc[name, "n_places"] == PLACES // 2


def test_the_same_parts_give_the_same_fusion(settings: Settings, layout: Layout):
    before = newest_fusion(layout)
    assert make_fusion(settings, layout).folder == before


def test_a_photo_of_a_place_is_answered_with_its_probability_and_region(predictor: FusedPredictor):
    for place in (3, 40, 77):
        (answer,) = predictor.predict([jpeg(place, 7)])
        lat, lng = place_position(place)
        assert great_circle_m(lat, lng, answer.lat_deg, answer.lng_deg) < 5
        assert not answer.refusal
        assert answer.within[25] > 0.5
        assert list(answer.within.values()) == sorted(answer.within.values())
        assert shapely.geometry.shape(answer.region).contains(shapely.Point(lng, lat))
        assert answer.candidates[0].location_id == str(place)


def test_a_photo_of_elsewhere_is_not_answered(predictor: FusedPredictor):
    strangers = [jpeg(place) for place in range(5_000, 5_040)]
    answers = predictor.predict(strangers)
    assert np.mean([bool(answer.refusal) for answer in answers]) > 0.8
    said = next(answer for answer in answers if answer.refusal)
    assert "outside this region" in said.refusal
    assert said.to_json()["answered"] is False


def test_every_expert_can_be_asked_alone(predictor: FusedPredictor):
    photo = [jpeg(11, 9)]
    together = predictor.predict(photo)[0]
    for name in ("retrieval", "places"):
        alone = predictor.predict(photo, expert=name)[0]
        assert (alone.lat_deg, alone.lng_deg) == pytest.approx(
            (together.experts[name]["lat_deg"], together.experts[name]["lng_deg"]), abs=1e-6
        )
    with pytest.raises(NoReleaseError, match="no expert 'sequence'"):
        predictor.predict(photo, expert="sequence")


def test_a_wider_region_for_more_coverage(predictor: FusedPredictor):
    photo = [jpeg(11, 9)]
    areas = [predictor.predict(photo, coverage=coverage)[0].region_km2 for coverage in (0.5, 0.8, 0.9, 0.95)]
    assert areas == sorted(areas)


def test_many_at_once_say_what_one_at_a_time_says(predictor: FusedPredictor):
    photos = [jpeg(place, 5) for place in range(9)]
    together = predictor.predict(photos)
    for photo, answer in zip(photos, together, strict=True):
        single = predictor.predict([photo])[0]
        assert (single.lat_deg, single.lng_deg) == (answer.lat_deg, answer.lng_deg)
        assert single.within == pytest.approx(answer.within, abs=1e-4)


def test_the_answer_is_plain_json_and_a_heat_map(predictor: FusedPredictor):
    photo = jpeg(20, 4)
    (answer,) = predictor.predict([photo])
    said = json.loads(json.dumps(answer.to_json()))
    assert said["answered"] is True
    assert said["region"]["coverage"] == 0.9
    assert sum(cell["probability"] for cell in said["cells"]) <= 1.0001
    log_probabilities = predictor.log_probabilities([photo])[0]
    features = heat_features(predictor.fusion, log_probabilities)["features"]
    assert 0.99 <= sum(one["properties"]["probability"] for one in features) <= 1.0001
    picture = fused_heat_map(predictor.fusion.grid, log_probabilities, answer, "a.jpg", max_bytes=200_000)
    assert picture[:4] == b"\x89PNG"


def test_a_limit_on_the_region_turns_a_guess_into_no_answer(settings: Settings, layout: Layout):
    strict = settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"largest_region_km2": 1e-9})})
    before = newest_fusion(layout)
    made = make_fusion(strict, layout)
    assert made.folder not in (None, before)
    publish(layout)
    answer = load_fused(layout, encoder_loader=trusting_loader).predict([jpeg(3, 7)])[0]
    assert "could be anywhere in" in answer.refusal
    make_fusion(settings, layout)
    publish(layout)


def test_a_changed_byte_is_refused(settings: Settings, layout: Layout):
    folder = newest_fusion(layout)
    assert folder is not None
    file = folder / "fusion.json"
    content = file.read_text()
    file.write_text(content.replace('"prior_weight"', '"prior_weighs"'))
    try:
        with pytest.raises(IntegrityError, match=r"fusion\.json"):
            read_fusion(folder)
        with pytest.raises(IntegrityError, match=r"fusion\.json"):
            load_fused(layout, encoder_loader=trusting_loader)
    finally:
        file.write_text(content)


def test_a_fusion_of_before_regions_could_end_within_a_cell_is_read_as_it_was_calibrated(layout: Layout, tmp_path: Path):
    folder = newest_fusion(layout)
    assert folder is not None
    older = shutil.copytree(folder, tmp_path / "older")
    values = json.loads((older / "fusion.json").read_text())
    del values["inside"], values["by_area"]
    (older / "fusion.json").write_text(json.dumps(values))
    storage.write_manifest(older)
    now, before = read_fusion(folder), read_fusion(older)
    assert len(now.inside.away_m) > 0
    said = np.log(np.tile(now.grid.prior, (1, 1))).astype(np.float32)
    said[0, :2] = np.log([0.6, 0.3])
    filled = before.answers(said, 0.9).regions
    assert set(np.unique(filled)) <= {-1, np.inf}  # whole cells


def test_a_fusion_of_other_models_is_left_out_of_the_release(settings: Settings, layout: Layout, tmp_path: Path):
    own = settings.model_copy(update={"data_root": tmp_path})
    other = fused_region(own)
    make_fusion(own, other)
    trained(other, SECOND, 0.95, day=9)
    promote_best(other, ["retrieval"], now=NOW)
    embed_batch(FakeEncoder(SECOND), other.crops, other.embeddings, BATCH)
    build_index(other.embeddings, storage.read_parquet(other.catalog), SECOND, other.indexes)
    publish(other)
    with pytest.raises(NoReleaseError, match="no fusion"):
        load_fused(other, encoder_loader=trusting_loader)
    make_fusion(own, other)
    publish(other)
    assert load_fused(other, encoder_loader=trusting_loader).predict([jpeg(3, 7)])[0].within[25] > 0.5


@pytest.fixture(scope="module")
def verified(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Layout]:
    """A region of facades, which the encoder's few colours tell apart badly from a step aside."""
    own = settings.model_copy(update={"data_root": tmp_path_factory.mktemp("verified")})
    return own, fused_region(own, facade_jpeg, verified=True)


def test_pictures_that_are_compared_feature_by_feature_find_more_and_refuse_more(verified: tuple[Settings, Layout]):
    own, layout = verified
    made = make_fusion(own, layout)
    assert set(made.weights) == {"retrieval", "places", "verification"}
    figures = {name: said["25"]["value"] for name, said in made.report["figures"].items()}
    assert figures["verification"] > max(figures["retrieval"], figures["places"]) + 0.05
    assert figures["fusion"] > max(figures["retrieval"], figures["places"]) + 0.05
    publish(layout)
    predictor = load_fused(layout, encoder_loader=trusting_loader)
    assert set(predictor.sizes) == {32, 200}
    photos = [facade_jpeg(place, 7) for place in range(0, PLACES, 3)]
    for place, answer in zip(range(0, PLACES, 3), predictor.predict(photos, expert="verification"), strict=True):
        candidates = {one.location_id for one in answer.candidates}
        off_m = great_circle_m(*place_position(place), answer.lat_deg, answer.lng_deg)
        assert off_m < 5 or str(place) not in candidates  # it knows which of those that were found is right
        shared = [one.shared_features for one in answer.candidates if one.shared_features is not None]
        assert shared == sorted(shared, reverse=True)
        assert answer.candidates[0].to_json()["shared_features"] == shared[0]
        for one in answer.candidates:  # as far as they are from this answer, and in this order
            here, first = (one.lat_deg, one.lng_deg), answer.candidates[0]
            assert one.distance_to_answer_m == pytest.approx(great_circle_m(answer.lat_deg, answer.lng_deg, *here))
            assert one.distance_to_first_m == pytest.approx(great_circle_m(first.lat_deg, first.lng_deg, *here))
    known = predictor.fusion.familiarity
    assert known is not None
    assert known.weights["shared"] > 0
    strangers = predictor.predict([facade_jpeg(place) for place in range(5_000, 5_040)])
    assert np.mean([bool(answer.refusal) for answer in strangers]) > 0.9
    assert np.mean([bool(answer.refusal) for answer in predictor.predict(photos)]) < 0.3


def test_held_out_pictures_are_compared_with_what_is_left(verified: tuple[Settings, Layout]):
    own, layout = verified
    make_fusion(own, layout)
    publish(layout)
    predictor = load_fused(layout, encoder_loader=trusting_loader)
    hidden = predictor.without([f"c011-{day}" for day in range(3)])
    photo = [facade_jpeg(11, 0)]  # the very picture of the gallery
    assert predictor.predict(photo, expert="verification")[0].candidates[0].location_id == "11"
    (answer,) = hidden.predict(photo, expert="verification")
    assert "11" not in {one.location_id for one in answer.candidates}
    assert great_circle_m(*place_position(11), answer.lat_deg, answer.lng_deg) > 50


def test_a_fusion_with_features_that_the_index_has_not_is_left_out_of_the_release(verified: tuple[Settings, Layout]):
    own, layout = verified
    make_fusion(own, layout)
    catalog = storage.read_parquet(layout.catalog)
    build_index(layout.embeddings, catalog, FIRST, layout.indexes)
    try:
        publish(layout)
        with pytest.raises(NoReleaseError, match="no fusion"):
            load_fused(layout, encoder_loader=trusting_loader)
        assert set(make_fusion(own, layout).weights) == {"retrieval", "places"}
        publish(layout)
        assert load_fused(layout, encoder_loader=trusting_loader).sizes == [32]
    finally:
        build_index(layout.embeddings, catalog, FIRST, layout.indexes, local_features=layout.local_features)


WIDE = "wide-cccccccccccc"


def with_ensemble(settings: Settings, folder: Path) -> tuple[Settings, Layout]:
    """A region in which a second recipe looks beside the champion."""
    own = settings.model_copy(
        update={"data_root": folder, "fusion": settings.fusion.model_copy(update={"ensemble": ["retrieval", "wide"]})}
    )
    layout = fused_region(own)
    write_model(layout, WIDE, recipe="wide")
    embed_and_index_members(layout)
    return own, layout


def embed_and_index_members(layout: Layout) -> None:
    assert embed_members(layout, ["retrieval", "wide"], BATCH, encoder_loader=trusting_loader) == 1
    assert index_members(layout, ["retrieval", "wide"], storage.read_parquet(layout.catalog)) == 1


def test_a_second_network_looks_beside_the_champion(settings: Settings, tmp_path: Path):
    own, layout = with_ensemble(settings, tmp_path)
    made = make_fusion(own, layout)
    assert set(made.weights) == {"retrieval", "places", "retrieval:wide", "places:wide"}
    publish(layout)
    predictor = load_fused(layout, encoder_loader=trusting_loader)
    for name in (None, "retrieval:wide", "places:wide", "retrieval", "places"):  # each network's vectors in its own index
        for place in (3, 40, 77):
            (answer,) = predictor.predict([jpeg(place, 7)], expert=name)
            lat, lng = place_position(place)
            assert great_circle_m(lat, lng, answer.lat_deg, answer.lng_deg) < 5
            assert answer.candidates[0].location_id == str(place)
    known = predictor.fusion.familiarity
    assert known is not None
    assert {"agrees:wide", "best_view", "best_view:wide"} <= set(known.weights)
    answers = predictor.predict([jpeg(place) for place in range(5_000, 5_040)])
    assert np.mean([bool(answer.refusal) for answer in answers]) > 0.8


def test_a_member_that_was_trained_again_must_be_indexed_first(settings: Settings, tmp_path: Path):
    own, layout = with_ensemble(settings, tmp_path)
    make_fusion(own, layout)
    write_model(layout, "wide-dddddddddddd", recipe="wide", day=9)
    with pytest.raises(ModelMismatchError, match="the newest model of wide is wide-dddddddddddd"):
        make_fusion(own, layout)
    embed_and_index_members(layout)
    publish(layout)
    with pytest.raises(NoReleaseError, match="no fusion"):  # it was fitted with the earlier one
        load_fused(layout, encoder_loader=trusting_loader)
    make_fusion(own, layout)
    publish(layout)
    assert load_fused(layout, encoder_loader=trusting_loader).predict([jpeg(3, 7)])[0].within[25] > 0.5


class HalfClassifier:
    """A classifier of cells of 150 m that knows every other place, by the name of its model, and guesses at the rest."""

    size = 32

    def __init__(self, folder: Path) -> None:
        self.model_version = folder.name
        positions = np.array([place_position(place) for place in range(PLACES)])
        cells = s2.parents(s2.leaf_ids(positions[:, 0], positions[:, 1]), 16)
        ids, self._class_of_place = np.unique(cells, return_inverse=True)
        lat_deg, lng_deg = s2.centres(ids)
        self.finest = CellLevel("fine", ids, np.ones(ids.size, np.int64), lat_deg, lng_deg)
        self._places = np.stack([as_picture(jpeg(place), self.size) for place in range(PLACES)]).reshape(PLACES, -1).astype(float)
        self._known = np.arange(PLACES) % 2 == (folder.name == MORE)

    def log_probabilities(self, pictures: np.ndarray) -> dict[str, torch.Tensor]:
        flat = pictures.reshape(len(pictures), -1).astype(float)
        place = np.argmin(((flat[:, None] - self._places[None]) ** 2).sum(axis=2), axis=1)
        said = np.full((len(pictures), len(self.finest)), 0.2 / (len(self.finest) - 1))
        known = np.flatnonzero(self._known[place])
        said[known, self._class_of_place[place[known]]] = 0.8
        return {"hierarchy": torch.tensor(np.log(said / said.sum(axis=1, keepdims=True)))}


CELLS, MORE = "cells-aaaaaaaaaaaa", "more-bbbbbbbbbbbb"


@pytest.fixture
def two_classifiers(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, Layout]:
    """A region with two classifiers and no index: the champion knows even places, `more` odd ones."""
    chosen = settings.fusion.model_copy(update={"ensemble": ["cells", "more", "untrained"]})
    own = settings.model_copy(update={"data_root": tmp_path, "fusion": chosen})
    layout = Layout(tmp_path)
    write_streets(layout)
    write_boundary(layout.boundary, Boundary("testville", shapely.box(18.04, 59.30, 18.10, 59.34), "EPSG:32633", 15.0))
    for recipe, version in (("cells", CELLS), ("more", MORE)):
        write_model(layout, version, recipe=recipe, kind="cells")
    promote(layout, CELLS, {}, NOW, "the only one", layout.champion_of("cells"))
    monkeypatch.setattr("geoloc_dagster.learning.photo_models.load_classifier", HalfClassifier)
    return own, layout


def test_a_second_classifier_looks_beside_the_champion_of_its_kind(
    two_classifiers: tuple[Settings, Layout], caplog: pytest.LogCaptureFixture
):
    own, layout = two_classifiers
    made = make_fusion(own, layout)
    assert set(made.weights) == {"cells", "cells:more"}
    assert "recipe untrained of fusion.ensemble has no trained model yet" in caplog.text
    figures = {name: said["250"]["value"] for name, said in made.report["figures"].items()}
    assert figures["fusion"] > 0.9 > 0.7 > max(figures["cells"], figures["cells:more"])
    publish(layout)
    predictor = load_fused(layout)
    for place in (40, 77):
        (together,) = predictor.predict([jpeg(place, 7)])
        lat, lng = place_position(place)
        assert great_circle_m(lat, lng, together.lat_deg, together.lng_deg) < 250
        for name, knows in (("cells", place % 2 == 0), ("cells:more", place % 2 == 1)):  # each its own weights
            (alone,) = predictor.predict([jpeg(place, 7)], expert=name)
            assert (alone.within[250] > 0.5) == knows


def test_a_classifier_that_was_fitted_is_released_though_its_recipe_was_trained_again(two_classifiers: tuple[Settings, Layout]):
    own, layout = two_classifiers
    make_fusion(own, layout)
    newer = write_model(layout, "more-dddddddddddd", recipe="more", kind="cells", day=9)
    publish(layout)
    assert {one.model_version for one in load_fused(layout).experts} == {CELLS, MORE}
    make_fusion(own, layout)
    publish(layout)
    assert {one.model_version for one in load_fused(layout).experts} == {CELLS, newer.name}
    (newer / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="weights"):
        load_fused(layout)


def test_a_member_that_learned_from_dev_leaves_no_fusion(two_classifiers: tuple[Settings, Layout]):
    own, layout = two_classifiers
    file = layout.checkpoints / "more" / MORE / "recipe.yaml"
    file.write_text(file.read_text() + "data: {splits: [train, dev]}\n")
    made = make_fusion(own, layout)
    assert made.folder is None
    assert made.reason == "the newest model of more learned from dev itself"


@pytest.mark.parametrize(("change", "why"), [("learned", "learned from dev"), ("none", "places of the split dev")])
def test_without_a_dev_that_nothing_learned_from_there_is_no_fusion(settings: Settings, tmp_path: Path, change: str, why: str):
    own = settings.model_copy(update={"data_root": tmp_path})
    other = fused_region(own)
    if change == "learned":
        folder: Any = read_champion(other).folder
        (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text() + "data: {splits: [train, dev]}\n")
        storage.write_manifest(folder, model_version=folder.name)
        (other.champion).unlink()
        promote_best(other, ["retrieval"], now=NOW)
    else:
        catalog = storage.read_parquet(other.catalog)
        split = pa.array(["train" if one == "dev" else one for one in catalog["split"].to_pylist()])
        storage.write_parquet(other.catalog, catalog.set_column(catalog.schema.get_field_index("split"), "split", split))
    made = make_fusion(own, other)
    assert made.folder is None
    assert why in made.reason
    publish(other)
    with pytest.raises(NoReleaseError, match="not calibrated"):
        load_fused(other, encoder_loader=trusting_loader)
