"""Vectors of a batch: complete, of one model, made from the crops that were checked, and never half-replaced."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.tables import open_table, replace_batch, verify_table
from geoloc_dagster_tests.retrieval.city import BATCHES, City, FakeEncoder, flip_byte, jpeg


def held(city: City) -> list[dict]:
    table = open_table(city.embeddings)
    assert table is not None
    return sorted(table.to_table().to_pylist(), key=lambda row: row["capture_id"])


def replace_crop(city: City, capture_id: str, image: bytes, sha256: str | None = None) -> None:
    table = open_table(city.crops)
    assert table is not None
    rows = table.to_table(filter=f"batch = '{BATCHES[0]}'").to_pylist()
    for row in rows:
        if row["capture_id"] == capture_id:
            row.update(image=image, sha256=sha256 or hashlib.sha256(image).hexdigest())
    replace_batch(city.crops, pa.Table.from_pylist(rows, schema=table.schema), BATCHES[0])


def test_every_crop_with_a_picture_gets_a_unit_vector(city: City) -> None:
    seen: list[tuple[int, int]] = []
    result = embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0], progress=lambda *state: seen.append(state))
    assert (result.rows, result.undecodable, result.changed) == (11, 1, True)
    assert seen[-1] == (11, 11)
    rows = held(city)
    assert "c00-0" not in {row["capture_id"] for row in rows}  # has no picture
    assert {row["model_version"] for row in rows} == {"retrieval-aaaaaaaaaaaa"}
    np.testing.assert_allclose(np.linalg.norm([row["vector"] for row in rows], axis=1), 1, atol=1e-5)


def test_a_rerun_with_the_same_crops_and_model_writes_nothing(city: City) -> None:
    first = embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    encoder = FakeEncoder()
    again = embed_batch(encoder, city.crops, city.embeddings, BATCHES[0])
    assert (again.rows, again.changed, again.table_version) == (first.rows, False, first.table_version)
    assert encoder.calls == []


def test_a_crop_that_was_made_again_is_embedded_again(city: City) -> None:
    embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    before = {row["capture_id"]: row["vector"] for row in held(city)}
    replace_crop(city, "c02-1", jpeg(40))
    assert embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0]).changed
    after = {row["capture_id"]: row["vector"] for row in held(city)}
    assert {capture for capture in before if before[capture] != after[capture]} == {"c02-1"}


def test_another_model_replaces_one_batch_and_leaves_its_neighbours(city: City) -> None:
    for batch in BATCHES[:2]:
        embed_batch(FakeEncoder(), city.crops, city.embeddings, batch)
    embed_batch(FakeEncoder("retrieval-bbbbbbbbbbbb"), city.crops, city.embeddings, BATCHES[1])
    versions = {(row["batch"], row["model_version"]) for row in held(city)}
    assert versions == {(BATCHES[0], "retrieval-aaaaaaaaaaaa"), (BATCHES[1], "retrieval-bbbbbbbbbbbb")}


def test_a_changed_crop_is_refused_by_name_and_nothing_is_written(city: City) -> None:
    embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    before = held(city)
    replace_crop(city, "c02-1", jpeg(40), sha256="f" * 64)
    with pytest.raises(IntegrityError) as refused:
        embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    assert "crops.lance" in refused.value.cause
    assert "c02-1" in refused.value.cause
    assert "Materialise `crops`" in refused.value.remedy
    assert held(city) == before


@pytest.mark.parametrize("fault", ["not normalised", "not a number", "wrong dimension"])
def test_vectors_that_cannot_be_compared_are_refused(city: City, fault: str) -> None:
    class Broken(FakeEncoder):
        def embed(self, pictures: np.ndarray, batch_size: int = 64) -> np.ndarray:
            good = super().embed(pictures, batch_size)
            return {"not normalised": good * 2, "not a number": good * np.nan, "wrong dimension": good[:, :5]}[fault]

    with pytest.raises(ModelMismatchError, match="retrieval-aaaaaaaaaaaa"):
        embed_batch(Broken(), city.crops, city.embeddings, BATCHES[0])
    assert open_table(city.embeddings) is None


def test_a_failure_in_the_middle_leaves_the_vectors_of_before(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    before = held(city)

    class Dying(FakeEncoder):
        def embed(self, pictures: np.ndarray, batch_size: int = 64) -> np.ndarray:
            if self.calls:
                raise MemoryError
            return super().embed(pictures, batch_size)

    monkeypatch.setattr("geoloc_dagster.retrieval.embedding._READ_ROWS", 4)
    with pytest.raises(MemoryError):
        embed_batch(Dying("retrieval-bbbbbbbbbbbb"), city.crops, city.embeddings, BATCHES[0])
    assert held(city) == before


def test_a_batch_without_pictures_ends_up_without_vectors(city: City) -> None:
    result = embed_batch(FakeEncoder(), city.crops, city.embeddings, "35m-0000")
    assert (result.rows, result.undecodable) == (0, 0)
    assert held(city) == []


def test_vectors_of_another_dimension_start_the_table_afresh(city: City) -> None:
    embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    embed_batch(FakeEncoder("retrieval-bbbbbbbbbbbb", dimension=16), city.crops, city.embeddings, BATCHES[1])
    assert {(row["batch"], len(row["vector"])) for row in held(city)} == {(BATCHES[1], 16)}


@pytest.mark.parametrize("part", ["data", "_versions"])
def test_a_damaged_table_is_started_afresh_rather_than_believed(city: City, part: str) -> None:
    for batch in BATCHES[:2]:
        embed_batch(FakeEncoder(), city.crops, city.embeddings, batch)
    flip_byte(
        min(file for file in (city.embeddings / part).iterdir() if file.suffix in {".lance", ".manifest"}),
        np.random.default_rng(0),
    )
    result = embed_batch(FakeEncoder(), city.crops, city.embeddings, BATCHES[0])
    assert result.changed
    assert {row["batch"] for row in held(city)} == {BATCHES[0]}
    verify_table(city.embeddings)


def test_crops_must_be_there_first(city: City) -> None:
    with pytest.raises(IntegrityError, match=r"missing.*Materialise `crops` first"):
        embed_batch(FakeEncoder(), city.root / "none.lance", city.embeddings, BATCHES[0])
