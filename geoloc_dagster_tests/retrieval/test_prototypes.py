"""The nearest prototype of a likely cell says where, never the farthest, and an answer is not carried across town."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.retrieval.cells import cell_ids
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.prototypes import Prototypes, RefineSettings, build_prototypes, load_prototypes, refine
from geoloc_dagster_tests.retrieval.city import flip_byte

LEVEL = 14
SCENES_PER_CELL, PICTURES = 3, 6
CELLS = 4
SCENES = CELLS * SCENES_PER_CELL


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def scene_vectors() -> np.ndarray:
    """One direction per scene, all of them well apart."""
    return unit(np.random.default_rng(5).normal(size=(SCENES, 24)))


def gallery(folder: str = "index-abc") -> GalleryIndex:
    """Four cells about a kilometre apart, in each three scenes 60 m apart with six pictures in different weather."""
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(SCENES), PICTURES)
    vectors = unit(scene_vectors()[scene] + rng.normal(0, 0.03, (len(scene), 24)))
    lat = 59.32 + 0.01 * (scene // SCENES_PER_CELL) + 0.0005 * (scene % SCENES_PER_CELL)
    lng = np.full(len(scene), 18.06) + 1e-5 * (np.arange(len(scene)) % PICTURES)
    index = faiss.IndexFlatIP(24)
    index.add(vectors)
    rows = pa.table({"capture_id": [f"c{i}" for i in range(len(scene))], "location_id": [str(s) for s in scene]})
    manifest = {"model_version": "retrieval-aaaaaaaaaaaa", "dimension": 24}
    return GalleryIndex(Path(folder), manifest, rows, lat, lng, cell_ids(lat, lng, LEVEL), index)


@pytest.fixture(scope="module")
def prototypes() -> Prototypes:
    return build_prototypes(gallery(), LEVEL)


def scene_of(prototypes: Prototypes, row: int) -> int:
    return int(prototypes.index.rows["location_id"][row].as_py())


def even(prototypes: Prototypes, n: int = 1) -> tuple[np.ndarray, np.ndarray]:
    cells = np.unique(prototypes.cells)
    return np.full((n, len(cells)), -np.log(len(cells))), cells


# --- building --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["embedding", "position"])
def test_the_pictures_of_a_scene_are_one_cluster_with_their_mean_as_prototype(by: str) -> None:
    made = build_prototypes(gallery(), LEVEL, by=by)  # type: ignore[arg-type]
    assert len(made.vectors) == SCENES
    for prototype in range(SCENES):
        members = made.members(prototype)
        assert len({scene_of(made, row) for row in members}) == 1
        np.testing.assert_allclose(made.vectors[prototype], made.row_vectors[members].mean(axis=0), atol=1e-6)
        assert set(made.index.cells[members]) == {made.cells[prototype]}
    assert sorted(made.rows.tolist()) == list(range(SCENES * PICTURES))
    assert (np.diff(made.cells.astype(np.int64)) >= 0).all()


def test_a_cell_with_few_pictures_or_one_repeated_picture_is_one_cluster() -> None:
    index = gallery()
    few = build_prototypes(index, LEVEL, min_samples=20)
    assert len(few.vectors) == CELLS
    same = faiss.IndexFlatIP(24)
    same.add(np.repeat(scene_vectors()[:1], SCENES * PICTURES, axis=0))
    still = GalleryIndex(index.folder, index.manifest, index.rows, index.lat_deg, index.lng_deg, index.cells, same)
    assert len(build_prototypes(still, LEVEL).vectors) == CELLS


# --- asking ----------------------------------------------------------------------------------------------------------
def test_the_nearest_prototype_decides_not_the_farthest(prototypes: Prototypes) -> None:
    log_p, cells = even(prototypes, SCENES)
    found = refine(prototypes, scene_vectors(), log_p, cells, RefineSettings(max_move_m=1e7))
    assert [scene_of(prototypes, row) for row in found.row] == list(range(SCENES))
    np.testing.assert_allclose(found.lat_deg, prototypes.index.lat_deg[found.row])
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)


def test_within_the_cluster_the_most_similar_picture_says_where(prototypes: Prototypes) -> None:
    log_p, cells = even(prototypes, SCENES * PICTURES)
    found = refine(prototypes, prototypes.row_vectors, log_p, cells, RefineSettings(max_move_m=1e7))
    assert found.row.tolist() == list(range(SCENES * PICTURES))


def test_an_unlikely_cell_loses_although_its_prototype_is_nearer(prototypes: Prototypes) -> None:
    """Probability times similarity: with a warm temperature the cells decide, with a cold one the pictures do."""
    _, cells = even(prototypes)
    log_p = np.log(np.array([[0.97, 0.01, 0.01, 0.01]]))
    photo = scene_vectors()[-1:]  # a scene of another cell than the likely one
    likely = np.flatnonzero(prototypes.index.cells == cells[0])
    warm = refine(prototypes, photo, log_p, cells, RefineSettings(temperature=100, max_move_m=1e7))
    cold = refine(prototypes, photo, log_p, cells, RefineSettings(temperature=0.01, max_move_m=1e7))
    assert warm.row[0] in likely
    assert cold.row[0] not in likely
    assert warm.cells[0, 0] == cells[0]


def test_only_the_likeliest_cells_are_looked_into(prototypes: Prototypes) -> None:
    _, cells = even(prototypes)
    log_p = np.log(np.array([[0.4, 0.3, 0.2, 0.1]]))
    for scene in range(SCENES):
        found = refine(prototypes, scene_vectors()[[scene]], log_p, cells, RefineSettings(2, 0.001, 1e7))
        assert found.cells.tolist() == [cells[:2].tolist()]
        assert prototypes.index.cells[found.row[0]] in cells[:2]


def test_a_move_beyond_the_bound_leaves_the_answer_where_it_was(prototypes: Prototypes) -> None:
    log_p, cells = even(prototypes)
    row = int(np.flatnonzero(prototypes.index.lat_deg > 59.345)[0])
    photo, answers = prototypes.row_vectors[[row]], (np.array([59.32]), np.array([18.06]))
    near = refine(prototypes, photo, log_p, cells, RefineSettings(max_move_m=1000), answers=answers)
    far = refine(prototypes, photo, log_p, cells, RefineSettings(max_move_m=10_000), answers=answers)
    assert (near.lat_deg[0], near.row[0]) == (59.32, -1)
    assert (far.lat_deg[0], far.row[0]) == (prototypes.index.lat_deg[row], row)


def test_without_an_answer_the_middle_of_the_likeliest_cell_is_refined(prototypes: Prototypes) -> None:
    _, cells = even(prototypes)
    log_p = np.log(np.array([[0.1, 0.7, 0.1, 0.1]]))
    found = refine(prototypes, scene_vectors()[:1], log_p, cells, RefineSettings(max_move_m=0))
    inside = prototypes.index.cells == cells[1]
    assert found.row[0] == -1
    assert found.lat_deg[0] == pytest.approx(prototypes.index.lat_deg[inside].mean(), abs=1e-6)
    assert found.lng_deg[0] == pytest.approx(prototypes.index.lng_deg[inside].mean(), abs=1e-6)


def test_cells_without_pictures_are_passed_over_and_other_levels_refused(prototypes: Prototypes) -> None:
    _, cells = even(prototypes)
    elsewhere = cell_ids(np.array([10.0]), np.array([10.0]), LEVEL)
    found = refine(prototypes, scene_vectors()[:1], np.log([[0.9, 0.1]]), np.array([elsewhere[0], cells[0]]))
    assert found.cells.tolist() == [[cells[0]]]
    with pytest.raises(ValueError, match="none of the cells"):
        refine(prototypes, scene_vectors()[:1], np.zeros((1, 1)), elsewhere)
    with pytest.raises(ValueError, match="level 14"):
        refine(prototypes, scene_vectors()[:1], np.zeros((1, 1)), cell_ids(np.array([10.0]), np.array([10.0]), 12))


# --- on disk ---------------------------------------------------------------------------------------------------------
def test_prototypes_come_back_as_they_were_saved(prototypes: Prototypes, tmp_path: Path) -> None:
    prototypes.save(tmp_path / "prototypes")
    back = load_prototypes(tmp_path / "prototypes", prototypes.index)
    for name in ("vectors", "cells", "rows", "starts", "row_vectors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(prototypes, name))
    assert back.level == LEVEL
    assert not [path for path in (tmp_path / "prototypes").iterdir() if path.suffix in {".npz", ".npy", ".pkl"}]


def test_a_changed_byte_is_never_believed(prototypes: Prototypes, tmp_path: Path) -> None:
    for name in ("prototypes.safetensors", "members.parquet"):
        prototypes.save(tmp_path / "prototypes")
        flip_byte(tmp_path / "prototypes" / name, np.random.default_rng(1))
        with pytest.raises(IntegrityError, match=name):
            load_prototypes(tmp_path / "prototypes", prototypes.index)


def test_prototypes_of_another_index_are_refused(prototypes: Prototypes, tmp_path: Path) -> None:
    prototypes.save(tmp_path / "prototypes")
    with pytest.raises(ModelMismatchError, match="index-abc, not of index-def"):
        load_prototypes(tmp_path / "prototypes", gallery("index-def"))


@pytest.mark.parametrize("bad", [{"top_cells": 0}, {"temperature": 0.0}, {"max_move_m": -1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RefineSettings(**bad)  # type: ignore[arg-type]
