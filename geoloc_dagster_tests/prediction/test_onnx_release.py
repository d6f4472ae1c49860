"""A release whose models were exported is asked without torch and answers the same; what does not belong to it is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, OnnxExportError
from geoloc_dagster.geo.boundary import Boundary, write_boundary
from geoloc_dagster.learning import onnx_export
from geoloc_dagster.learning.encoder import Encoder, load_encoder
from geoloc_dagster.learning.onnx_folder import MODEL_FILE, export_name
from geoloc_dagster.prediction.champion import promote
from geoloc_dagster.prediction.fused import FusedPredictor, load_fused
from geoloc_dagster.prediction.fusing import make_fusion
from geoloc_dagster.prediction.onnx_exports import export_served
from geoloc_dagster.prediction.onnx_models import OnnxClassifier, OnnxEncoder
from geoloc_dagster.prediction.parts import onnx_part
from geoloc_dagster.prediction.release import load_release, predict_photo, served_manifest
from geoloc_dagster.prediction.runtimes import classifier_opener, encoder_opener
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import build_index
from geoloc_dagster_tests.learning.small_models import write_small_cells, write_small_model
from geoloc_dagster_tests.prediction.streets import BATCH, PLACES, place_position, write_streets
from geoloc_dagster_tests.prediction.world import NOW, publish
from geoloc_dagster_tests.retrieval.city import jpeg

ASK = """
import json, sys
from pathlib import Path
from geoloc_dagster.config import Layout
from geoloc_dagster.prediction.fused import load_fused
(answer,) = load_fused(Layout(Path(sys.argv[1]))).predict([Path(sys.argv[2])])
print(json.dumps({"answer": answer.to_json(), "loaded": [name for name in sys.argv[3].split() if name in sys.modules]}))
"""
UNWANTED = "torch torchvision timm pytorch_lightning mlflow dagster pandas geopandas sklearn lance pyproj matplotlib onnx"


class Region:
    """A tiny region with a model of retrieval and a classifier of cells, both with random weights, and their fusion."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        settings = {"name": "testville", "boundary": "region.geojson", "start_point": [59.32, 18.06]}
        self.settings = Settings.model_validate({"data_root": str(root), "region": settings})
        catalog = write_streets(self.layout)
        write_boundary(self.layout.boundary, Boundary("testville", shapely.box(18.04, 59.30, 18.10, 59.34), "EPSG:32633", 15.0))
        self.encoder = write_small_model("encoder", self.layout.checkpoints)
        self.cells = write_small_cells(self.layout.checkpoints, *zip(*map(place_position, range(PLACES)), strict=True))
        for folder, kind in ((self.encoder, "retrieval"), (self.cells, "cells")):
            promote(self.layout, folder.name, {}, NOW, "the only one", self.layout.champion_of(kind))
        embed_batch(load_encoder(self.encoder), self.layout.crops, self.layout.embeddings, BATCH)
        build_index(self.layout.embeddings, catalog, self.encoder.name, self.layout.indexes)
        assert make_fusion(self.settings, self.layout).folder is not None
        self.without = publish(self.layout).release_id
        self.loaded_without = load_fused(self.layout)
        self.exports = export_served(self.layout, [])
        self.published = publish(self.layout)

    def export(self, folder: Path) -> Path:
        return self.layout.onnx_models / export_name(folder.name)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Region:
    return Region(tmp_path_factory.mktemp("region"))


def opened(predictor: FusedPredictor) -> tuple[Any, Any]:
    """Its encoder, and the model of the expert `cells`."""
    (cells,) = [one for one in predictor.experts if one.name == "cells"]
    return predictor.encoders[0], cells.model  # type: ignore[attr-defined]


def test_a_release_holds_the_export_of_each_of_its_models(region: Region):
    assert region.exports.refused == {}
    assert set(region.exports.made) == {region.encoder.name, region.cells.name}
    parts = served_manifest(region.layout)[1]["parts"]
    for folder in (region.encoder, region.cells):
        assert region.layout.root / parts[onnx_part(folder.name)]["folder"] == region.export(folder)
    assert region.published.release_id != region.without


def test_a_release_without_exports_is_asked_through_torch(region: Region):
    encoder, classifier = opened(region.loaded_without)
    assert isinstance(encoder, Encoder)
    assert not isinstance(classifier, OnnxClassifier)


def test_both_runtimes_answer_the_same(region: Region):
    exported, trained = load_fused(region.layout), load_fused(region.layout, runtime="torch")
    assert isinstance(opened(exported)[0], OnnxEncoder)
    assert isinstance(opened(exported)[1], OnnxClassifier)
    assert isinstance(opened(trained)[0], Encoder)
    photos = [jpeg(place, 7) for place in (3, 40, 77, 110)]
    assert np.allclose(exported.log_probabilities(photos), trained.log_probabilities(photos), atol=1e-3)
    for expert in (None, "retrieval", "places", "cells"):
        for one, other in zip(exported.predict(photos, expert=expert), trained.predict(photos, expert=expert), strict=True):
            assert (one.lat_deg, one.lng_deg, one.refusal) == (other.lat_deg, other.lng_deg, other.refusal)
            assert list(one.within.values()) == pytest.approx(list(other.within.values()), abs=1e-3)
            assert [hit.capture_id for hit in one.candidates] == [hit.capture_id for hit in other.candidates]


def test_retrieval_alone_is_asked_through_its_export(region: Region):
    release = load_release(region.layout)
    assert isinstance(release.encoder, OnnxEncoder)
    ours, theirs = predict_photo(release, jpeg(40, 7)), predict_photo(load_release(region.layout, runtime="torch"), jpeg(40, 7))
    assert (ours.lat_deg, ours.lng_deg) == pytest.approx((theirs.lat_deg, theirs.lng_deg), abs=1e-6)


def test_a_photo_is_answered_without_torch_and_whatever_else_takes_long_to_import(region: Region, tmp_path: Path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(40, 7))
    command = [sys.executable, "-c", ASK, str(region.layout.root), str(photo), UNWANTED]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["loaded"] == []
    (here,) = load_fused(region.layout, runtime="torch").predict([photo])
    assert (said["answer"]["lat_deg"], said["answer"]["lng_deg"]) == (round(here.lat_deg, 7), round(here.lng_deg, 7))


@pytest.mark.parametrize("kind", ["encoder", "cells"])
def test_a_changed_byte_of_an_export_is_refused_by_name(region: Region, kind: str):
    file = region.export(getattr(region, kind)) / MODEL_FILE
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(IntegrityError, match=str(file)) as refused:
            load_fused(region.layout)
        assert "Materialise `onnx_models`" in refused.value.remedy
        with pytest.raises(IntegrityError, match=MODEL_FILE):
            publish(region.layout)
    finally:
        file.write_bytes(content)


def test_the_export_of_another_model_is_refused(region: Region):
    crossed = {
        onnx_part(region.encoder.name): region.export(region.cells),
        onnx_part(region.cells.name): region.export(region.encoder),
    }
    with pytest.raises(ModelMismatchError, match=f"export of {region.cells.name}"):
        encoder_opener(crossed)(region.encoder)
    with pytest.raises(ModelMismatchError, match=f"export of {region.encoder.name}"):
        classifier_opener(crossed)(region.cells)


def test_an_export_of_a_model_that_was_written_again_is_left_out(region: Region):
    manifest = region.export(region.cells) / "export.json"
    kept = {file: file.read_bytes() for file in manifest.parent.iterdir()}
    try:
        storage.write_json(manifest, {**json.loads(manifest.read_bytes()), "model_manifest_sha256": "0" * 64})
        storage.write_manifest(manifest.parent, kind="onnx", model_version=region.cells.name)
        assert publish(region.layout).changed
        assert onnx_part(region.cells.name) not in served_manifest(region.layout)[1]["parts"]
        assert not isinstance(opened(load_fused(region.layout))[1], OnnxClassifier)
    finally:
        for file, content in kept.items():
            file.write_bytes(content)
        publish(region.layout)


def test_a_model_that_cannot_be_exported_holds_up_no_other(region: Region, monkeypatch: pytest.MonkeyPatch):
    real = onnx_export.export_model

    def half(folder: Path, out: Path) -> Any:
        if folder == region.cells:
            raise OnnxExportError("no such operator")
        return real(folder, out)

    monkeypatch.setattr(onnx_export, "export_model", half)
    exports = export_served(region.layout, [])
    assert set(exports.made) == {region.encoder.name}
    assert exports.refused == {region.cells.name: "no such operator"}
