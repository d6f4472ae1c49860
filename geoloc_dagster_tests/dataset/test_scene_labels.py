"""Scenes of crops: what the list says, what a model adds, one batch at a time, and nothing twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import SceneSettings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset.scene_labels import write_scene_labels
from geoloc_dagster.dataset.schema import PHOTOS, SCENE_LABELS
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.storage import write_parquet
from geoloc_dagster.tables import open_table, table_version, verify_table
from geoloc_dagster_tests.dataset.conftest import crop_row, jpeg, make_settings, scene, write_crops

SAID = {
    "p0": {"scene_3": 2, "scene_16": 15, "scene_365": 231, "prob_indoor": 0.1, "prob_natural": 0.2, "prob_urban": 0.7},
    "p1": {"scene_3": 1},
    "p2": {"prob_indoor": 0.75, "prob_natural": 0.25, "prob_urban": 0.0},
    "p3": {"scene_16": 4},
}


class Stub:
    """A classifier that finds a picture's scene in its brightest channel, and counts what it is shown."""

    model_version, size = "scenes-1", 32

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.seen = 0
        self._answer = answer

    def scenes(self, pictures: np.ndarray) -> np.ndarray:
        assert pictures.dtype == np.uint8
        assert pictures.shape[1:] == (3, 32, 32)
        self.seen += len(pictures)
        if self._answer is not None:
            return self._answer(pictures)
        brightest = pictures.mean(axis=(2, 3)).argmax(axis=1)
        return np.where(np.eye(3, dtype=bool)[brightest], np.float32(0.8), np.float32(0.1))


def plain(channel: int) -> bytes:
    rgb = scene(channel, 48) // 4
    rgb[:, :, channel] += 150
    return jpeg(rgb, quality=95)


def layout_of(folder: Path, batch: str = "photos-0000") -> Layout:
    """Six photos of one batch: four with something in the list, one without, one that cannot be decoded."""
    layout = Layout(folder)
    pictures = [plain(0), plain(1), plain(2), plain(0), plain(2), None]
    write_crops(layout.crops, [crop_row(f"{batch}/c{i}", one, f"p{i}", batch=batch) for i, one in enumerate(pictures)])
    photos = [
        {"location_id": f"p{i}", "batch": batch, "url": "https://a.example/1", "lat_deg": 0.0, "lng_deg": 0.0, "precision": "day"}
        | SAID.get(f"p{i}", {})
        for i in range(6)
    ]
    write_parquet(layout.photos, pa.Table.from_pylist(photos, schema=PHOTOS))
    return layout


def label(layout: Layout, stub: Stub | None = None, batch: str = "photos-0000", **scenes: Any) -> Any:
    return write_scene_labels(
        layout.crops,
        layout.scene_labels,
        batch,
        SceneSettings.model_validate({"model": "m" if stub else None, **scenes}),
        photos_path=layout.photos,
        load_classifier=None if stub is None else lambda: stub,
    )


def labels(layout: Layout) -> dict[str, dict[str, Any]]:
    table = open_table(layout.scene_labels)
    assert table is not None
    assert set(SCENE_LABELS.names) == set(table.schema.names)
    return {row["capture_id"]: row for row in table.to_table().to_pylist()}


def test_the_list_says_scenes_and_what_it_does_not_say_stays_unknown(tmp_path: Path):
    layout = layout_of(tmp_path)
    result = label(layout)
    assert result.by_scene == {"indoor": 1, "natural": 1, "urban": 1, "unknown": 3}
    assert (result.rows, result.from_list, result.from_model) == (6, 3, 0)
    rows = labels(layout)
    said = rows["photos-0000/c0"]
    assert [said["scene"], said["scene_16"], said["scene_365"], said["source"]] == [2, 15, 231, "list"]
    assert said["prob_urban"] == pytest.approx(0.7)
    assert [rows[f"photos-0000/c{i}"]["scene"] for i in range(6)] == [2, 1, 0, None, None, None]
    assert rows["photos-0000/c1"]["prob_natural"] is None
    assert (rows["photos-0000/c3"]["scene_16"], rows["photos-0000/c3"]["source"]) == (4, None)


def test_a_model_fills_in_what_the_list_lacks_and_sees_nothing_else(tmp_path: Path):
    layout, stub = layout_of(tmp_path), Stub()
    result = label(layout, stub)
    assert stub.seen == 2
    rows = labels(layout)
    assert [rows[f"photos-0000/c{i}"]["scene"] for i in range(6)] == [2, 1, 0, 0, 2, None]
    assert [rows[f"photos-0000/c{i}"]["source"] for i in range(6)] == ["list"] * 3 + ["scenes-1"] * 2 + [None]
    assert rows["photos-0000/c3"]["scene_16"] == 4
    assert rows["photos-0000/c4"]["prob_urban"] == pytest.approx(0.8)
    assert (result.from_list, result.from_model, result.by_scene["unknown"]) == (3, 2, 1)


def test_a_model_alone_sees_every_picture_in_the_order_of_its_own_classes(tmp_path: Path):
    layout, stub = layout_of(tmp_path), Stub()
    result = label(layout, stub, source="model", classes=["urban", "indoor", "natural"])
    assert stub.seen == 5
    rows = labels(layout)
    assert [rows[f"photos-0000/c{i}"]["scene"] for i in range(6)] == [2, 0, 1, 2, 1, None]
    assert rows["photos-0000/c0"]["scene_16"] is None
    assert (result.from_list, result.from_model) == (0, 5)


def test_a_batch_is_replaced_whole_others_stay_and_nothing_is_done_twice(tmp_path: Path):
    layout = layout_of(tmp_path, "photos-0001")
    label(layout, batch="photos-0001")
    layout_of(tmp_path)
    stub = Stub()
    label(layout, stub)
    version, others = table_version(layout.scene_labels), labels(layout)
    again = label(layout, stub)
    assert (again.changed, table_version(layout.scene_labels), stub.seen) == (False, version, 2)
    changed = label(layout)  # without the model
    assert changed.changed
    assert [labels(layout)[f"photos-0000/c{i}"]["scene"] for i in range(6)] == [2, 1, 0, None, None, None]
    assert {name: row for name, row in labels(layout).items() if "0001" in name} == {
        name: row for name, row in others.items() if "0001" in name
    }
    verify_table(layout.scene_labels)


@pytest.mark.parametrize(
    "answer",
    [
        lambda pictures: np.ones((len(pictures), 16), np.float32) / 16,
        lambda pictures: np.ones((len(pictures), 3), np.float32),
        lambda pictures: np.full((len(pictures), 3), np.nan, np.float32),
        lambda pictures: np.full((1, 3), 1 / 3, np.float32),
    ],
)
def test_a_model_that_tells_something_else_is_refused_and_nothing_is_written(tmp_path: Path, answer: Any):
    layout = layout_of(tmp_path)
    with pytest.raises(ModelMismatchError, match="scenes-1"):
        label(layout, Stub(answer))
    assert open_table(layout.scene_labels) is None


@pytest.mark.parametrize(
    "scenes", [{"source": "model"}, {"classes": ["indoor", "natural"]}, {"model": "m", "classes": ["urban"] * 3}]
)
def test_settings_that_cannot_work_are_refused(scenes: dict[str, Any]):
    with pytest.raises(ValidationError):
        SceneSettings.model_validate(scenes)


def test_only_a_list_of_photos_says_scenes():
    with pytest.raises(ValidationError, match="name a `model`"):
        make_settings(scenes={})


def region_settings(root: Path, **sections: Any) -> Settings:
    region = {"name": "planet", "boundary": "region.geojson", "start_point": [0, 0]}
    values = {"region": region, "data_root": root, "folder": root, "capture": {"provider": "photo_list"}, **sections}
    return Settings.model_validate(values)


def test_the_asset_is_there_where_scenes_are_wanted_and_shows_some_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    absent = build_definitions(settings=region_settings(tmp_path)).resolve_asset_graph()
    assert "scene_labels" not in {key.path[-1] for key in absent.get_all_asset_keys()}
    layout_of(tmp_path)
    asked: list[Path] = []
    module = ModuleType("geoloc_dagster.learning.scene_classifier")
    module.load_scene_classifier = lambda path: asked.append(path) or Stub()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    defs = build_definitions(settings=region_settings(tmp_path, scenes={"model": "scenes.safetensors"}))
    key = dg.AssetKey(["planet", "scene_labels"])
    node = defs.resolve_asset_graph().get(key)
    assert {parent.path[-1] for parent in node.parent_keys} == {"crops", "buffer_csvs"}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("planet_batches", ["photos-0000"])
        job = defs.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=instance, asset_selection=[key], partition_key="photos-0000")
    (made,) = run.asset_materializations_for_node("planet__scene_labels")
    assert asked == [tmp_path / "scenes.safetensors"]
    counts = {name: made.metadata[f"scene_{name}"].value for name in ("indoor", "natural", "urban", "unknown")}
    assert counts == {"indoor": 2, "natural": 1, "urban": 2, "unknown": 1}
    assert (made.metadata["from_list"].value, made.metadata["from_model"].value) == (3, 2)
    assert "data:image/jpeg" in str(made.metadata["picture"].value)
