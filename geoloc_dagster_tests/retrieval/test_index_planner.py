"""Which kind of index a gallery gets, and that every kind is searched as the exact one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.retrieval.index import GalleryIndex, build_index, load_index
from geoloc_dagster.retrieval.index_planner import (
    EXACT,
    Plan,
    PlanSettings,
    Trial,
    build,
    kinds_for,
    lists_of,
    plan_index,
    smallest,
    try_kinds,
)
from geoloc_dagster_tests.retrieval.city import City, FakeEncoder
from geoloc_dagster_tests.retrieval.test_index import MODEL, embed_all

COUNT, DIMENSION = 1_200, 8
QUICK = PlanSettings(exact_below_bytes=0, queries=100)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Five pictures of each of 240 places."""
    rng = np.random.default_rng(0)
    places = np.repeat(rng.normal(size=(COUNT // 5, DIMENSION)) / np.arange(1, DIMENSION + 1) ** 0.5, 5, axis=0)
    found = places + rng.normal(0, 0.1, (COUNT, DIMENSION))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def trials(vectors: np.ndarray) -> dict[str, Trial]:
    return {trial.kind: trial for trial in try_kinds(vectors, kinds_for(COUNT, DIMENSION), QUICK)}


_BUILT: dict[str, Any] = {}


def built(vectors: np.ndarray, kind: str) -> Any:
    """An index of these vectors, built once for all tests of this file."""
    if kind not in _BUILT:
        _BUILT[kind] = build(vectors, kind)
    return _BUILT[kind]


def of_kind(vectors: np.ndarray, trial: Trial) -> GalleryIndex:
    rows = pa.table({"capture_id": [f"c{i:04d}" for i in range(len(vectors))]})
    manifest = {"model_version": MODEL, "dimension": DIMENSION, "plan": {"kind": trial.kind, "probes": trial.probes}}
    nowhere = np.zeros(len(vectors))
    return GalleryIndex(Path("index"), manifest, rows, nowhere, nowhere, nowhere.astype(np.uint64), built(vectors, trial.kind))


def nearest_by_hand(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    cosine = vectors[asked] @ vectors.T
    cosine[np.arange(len(asked)), asked] = -1
    return np.argsort(-cosine, axis=1)[:, :10]


KINDS = kinds_for(COUNT, DIMENSION)


def test_a_small_gallery_is_searched_exactly_and_nothing_is_tried(vectors: np.ndarray) -> None:
    plan = plan_index(vectors)
    assert (plan.kind, plan.probes, plan.trials) == (EXACT, 0, ())
    assert "38,400 bytes" in plan.reason


def test_the_smallest_that_reaches_the_recall_is_taken(trials: dict[str, Trial]) -> None:
    sizes = {kind: trial.bytes_per_vector for kind, trial in trials.items()}
    assert trials[EXACT].recall == 1
    assert sizes[EXACT] > sizes["SQfp16"] > sizes["SQ8"]
    taken = [smallest([*trials.values()], recall) for recall in (0.5, 0.9, 0.99, 1)]
    assert all(one.recall >= recall for one, recall in zip(taken, (0.5, 0.9, 0.99, 1), strict=True))
    assert [one.bytes_per_vector for one in taken] == sorted(one.bytes_per_vector for one in taken)
    assert taken[0].bytes_per_vector < taken[-1].bytes_per_vector
    with pytest.raises(ValueError, match="empty"):
        smallest([], 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_recall_and_bytes_are_those_that_a_count_by_hand_gives(vectors: np.ndarray, trials: dict[str, Trial], kind: str) -> None:
    trial, asked = trials[kind], np.arange(0, COUNT, 30)
    index = of_kind(vectors, trial)
    _, rows = index.search(vectors[asked], 11)
    truth = nearest_by_hand(vectors, asked)
    found = [len({*row.tolist()} - {own} & {*true.tolist()}) for row, own, true in zip(rows, asked.tolist(), truth, strict=True)]
    assert np.mean(found) / 10 == pytest.approx(trial.recall, abs=0.06)  # other queries than those of the trial
    assert trial.bytes_per_vector == pytest.approx(len(faiss.serialize_index(index.faiss_index)) / COUNT, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_rows_are_found_by_no_kind(vectors: np.ndarray, trials: dict[str, Trial], kind: str) -> None:
    hidden = list(range(0, COUNT, 3))
    index = of_kind(vectors, trials[kind]).without(f"c{row:04d}" for row in hidden)
    _, rows = index.search(vectors[hidden[:50]], 20)
    assert not {*rows.ravel().tolist()} & {*hidden, -1}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "IVF" in kind])
def test_lists_with_too_few_rows_are_not_the_end(vectors: np.ndarray, kind: str) -> None:
    index = of_kind(vectors, Trial(kind, 1, 0, 0, 0, 0))
    similarity, rows = index.search(vectors[:20], 1_000)
    assert rows.min() >= 0
    assert all(len({*row}) == 1_000 for row in rows.tolist())
    assert (np.diff(similarity, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_of_an_index_are_nearly_those_that_it_was_made_of(
    vectors: np.ndarray, trials: dict[str, Trial], kind: str
) -> None:
    held = of_kind(vectors, trials[kind]).vectors()
    assert np.linalg.norm(held, axis=1) == pytest.approx(1, abs=1e-3)
    assert (held * vectors).sum(axis=1).mean() > (0.8 if "PCA" in kind or "PQ" in kind else 0.99)


def test_the_same_vectors_give_the_same_bytes(vectors: np.ndarray) -> None:
    for kind in ("PCA4,SQ8", "IVF128,SQ8", "OPQ2,IVF128,PQ2"):
        assert kind in KINDS
        first, second = (faiss.serialize_index(make(vectors, kind)).tobytes() for make in (build, build))
        assert first == second, kind


def test_lists_are_learned_once_and_are_what_they_would_have_been(vectors: np.ndarray) -> None:
    learned: dict[int, np.ndarray] = {}
    build(vectors, "IVF128,Flat", learned)
    (centroids,) = learned.values()
    again = [faiss.serialize_index(build(vectors, "IVF128,SQ8", known)).tobytes() for known in (learned, None)]
    assert again[0] == again[1]
    assert learned[128] is centroids
    others = {128: centroids[::-1].copy()}
    assert faiss.serialize_index(build(vectors, "IVF128,SQ8", others)).tobytes() != again[0]
    build(vectors, "OPQ2,IVF128,PQ2", learned)
    assert learned == {128: centroids}


def test_probes_are_the_fewest_that_reach_the_recall(vectors: np.ndarray) -> None:
    kind = next(kind for kind in KINDS if kind.endswith(",Flat") and "IVF" in kind)
    few, many = (next(try_kinds(vectors, [kind], PlanSettings(recall, 0, 100))) for recall in (0.5, 1.0))
    assert few.probes < many.probes <= lists_of(build(vectors, kind)).nlist
    assert 0.5 <= few.recall < many.recall == 1


def test_an_index_says_what_it_is_and_why(city: City) -> None:
    embed_all(city, FakeEncoder())
    result = build_index(city.embeddings, city.catalog, MODEL, city.indexes, plan=PlanSettings(0.9, 0, 20))
    index = load_index(result.folder)
    assert result.plan.kind == index.manifest["plan"]["kind"] != EXACT
    assert index.manifest["index_type"].startswith(result.plan.kind)
    assert {trial["kind"] for trial in index.manifest["plan"]["trials"]} > {EXACT, result.plan.kind}
    again = build_index(city.embeddings, city.catalog, MODEL, city.indexes, plan=PlanSettings(0.9, 0, 20))
    assert (again.folder, again.created) == (result.folder, False)  # times, which differ, are not part of it


def test_without_vectors_there_is_nothing_to_plan() -> None:
    with pytest.raises(ValueError, match="needs vectors"):
        plan_index(np.empty((0, 8), np.float32))


def test_a_plan_is_written_without_times() -> None:
    plan = Plan("SQ8", 0, "why", (Trial("SQ8", 0, 0.99, 32.0, 0.5, 1.0),))
    assert plan.to_json()["trials"] == [{"kind": "SQ8", "probes": 0, "recall": 0.99, "bytes_per_vector": 32.0}]
