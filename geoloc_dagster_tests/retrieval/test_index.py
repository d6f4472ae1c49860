"""The index holds one vector per usable row, of one model, and no changed byte of it is ever believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from geoloc_dagster import storage
from geoloc_dagster.errors import DiskFullError, IntegrityError, ModelMismatchError, NoReleaseError, NotEnoughDataError
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import IndexResult, build_index, latest_index, load_index
from geoloc_dagster_tests.retrieval.city import BATCHES, City, FakeEncoder, flip_byte, jpeg

MODEL = "retrieval-aaaaaaaaaaaa"


def embed_all(city: City, encoder: FakeEncoder | None = None) -> None:
    for batch in BATCHES:
        embed_batch(encoder or FakeEncoder(), city.crops, city.embeddings, batch)


def build(city: City, catalog: pa.Table | None = None) -> IndexResult:
    return build_index(city.embeddings, city.catalog if catalog is None else catalog, MODEL, city.indexes)


def test_row_n_describes_vector_n(city: City) -> None:
    embed_all(city)
    result = build(city)
    assert (result.rows, result.vectors, result.locations, result.dimension, result.created) == (34, 34, 12, 48, True)
    index = load_index(result.folder)
    for row in (0, 7, 33):
        place, day = (int(part) for part in index.rows["capture_id"][row].as_py().removeprefix("c").split("-"))
        pixels = np.asarray(_decoded(jpeg(place, day)))
        similarity, found = index.search(FakeEncoder().embed(pixels[None]), 1)
        assert found[0, 0] == row
        assert similarity[0, 0] == pytest.approx(1, abs=1e-5)


def _decoded(image: bytes) -> np.ndarray:
    from geoloc_dagster.dataset.pictures import decode_picture

    return decode_picture(image, 32).transpose(2, 0, 1)


def test_only_usable_rows_are_indexed(city: City) -> None:
    embed_all(city)
    held = set(load_index(build(city).folder).rows["capture_id"].to_pylist())
    assert held == set(city.catalog.filter(city.catalog["usable"])["capture_id"].to_pylist())
    assert "c01-0" not in held  # has a vector, is not usable


def test_rows_keep_whom_to_name(city: City) -> None:
    embed_all(city)
    rows = load_index(build(city).folder).rows
    assert set(rows["attribution"].to_pylist()) == {"A. Photographer"}
    assert set(rows["licence"].to_pylist()) == {"CC-BY-4.0"}


def test_the_same_vectors_give_the_same_folder_and_nothing_is_written_twice(city: City) -> None:
    embed_all(city)
    first, again = build(city), build(city)
    assert (again.folder, again.created) == (first.folder, False)
    assert [path.name for path in city.indexes.iterdir() if path.is_dir()] == [first.folder.name]
    assert latest_index(city.indexes) == first.folder


def test_more_neighbours_than_rows_gives_all_rows(city: City) -> None:
    embed_all(city)
    index = load_index(build(city).folder)
    _, found = index.search(FakeEncoder().embed(_decoded(jpeg(3))[None]), 1000)
    assert sorted(found[0].tolist()) == list(range(34))


# --- of one model ----------------------------------------------------------------------------------------------------
def test_mixed_models_are_refused_naming_batches_and_versions(city: City) -> None:
    embed_all(city)
    embed_batch(FakeEncoder("retrieval-bbbbbbbbbbbb"), city.crops, city.embeddings, BATCHES[1])
    with pytest.raises(ModelMismatchError) as refused:
        build(city)
    assert MODEL in refused.value.cause
    assert f"{BATCHES[1]} has vectors of retrieval-bbbbbbbbbbbb" in refused.value.cause
    assert BATCHES[0] not in refused.value.cause
    assert "Materialise `embeddings`" in refused.value.remedy
    assert not city.indexes.exists()


def test_vectors_of_an_older_champion_are_refused(city: City) -> None:
    embed_all(city, FakeEncoder("retrieval-000000000000"))
    with pytest.raises(ModelMismatchError, match="vectors of retrieval-000000000000"):
        build(city)


def test_a_batch_without_vectors_is_named(city: City) -> None:
    for batch in BATCHES[:2]:
        embed_batch(FakeEncoder(), city.crops, city.embeddings, batch)
    with pytest.raises(ModelMismatchError, match=f"{BATCHES[2]} has no vectors"):
        build(city)


def test_vectors_of_crops_that_were_made_again_are_refused(city: City) -> None:
    embed_all(city)
    stale = [{**row, "sha256": "f" * 64} if row["capture_id"] == "c05-1" else row for row in city.catalog.to_pylist()]
    with pytest.raises(ModelMismatchError, match=f"{BATCHES[1]} lacks vectors of 1 usable crops"):
        build(city, pa.Table.from_pylist(stale, schema=city.catalog.schema))


def test_long_lists_of_batches_are_cut_short(city: City) -> None:
    embed_all(city)
    rows = [{**city.catalog.to_pylist()[5], "batch": f"35m-{n:04d}", "capture_id": f"x{n}"} for n in range(40)]
    with pytest.raises(ModelMismatchError, match="and 35 more batches") as refused:
        build(city, pa.concat_tables([city.catalog, pa.Table.from_pylist(rows, schema=city.catalog.schema)]))
    assert len(str(refused.value)) < 600


def test_vectors_that_the_catalog_no_longer_lists_are_left_out(city: City) -> None:
    embed_all(city)
    kept = city.catalog.filter(pc.not_equal(city.catalog["batch"], BATCHES[1]))
    assert build(city, kept).locations == 8


def test_nothing_usable_is_an_error_of_its_own(city: City) -> None:
    embed_all(city)
    with pytest.raises(NotEnoughDataError, match="no usable row"):
        build(city, city.catalog.slice(0, 1))
    with pytest.raises(NoReleaseError, match="no index yet"):
        latest_index(city.indexes)


# --- not one changed byte --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["vectors.faiss", "rows.parquet", "manifest.json"])
def test_a_changed_byte_is_refused_by_name_before_faiss_reads(city: City, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_all(city)
    folder = build(city).folder
    monkeypatch.setattr(faiss, "read_index", lambda path: pytest.fail(f"faiss read {path}"))
    rng = np.random.default_rng(4)
    original = (folder / name).read_bytes()
    for _ in range(40):
        what = flip_byte(folder / name, rng)
        with pytest.raises(IntegrityError) as refused:
            load_index(folder)
        assert str(folder / name) in refused.value.cause, what
        assert "Materialise `faiss_index`" in refused.value.remedy
        (folder / name).write_bytes(original)


def test_a_missing_file_is_named(city: City) -> None:
    embed_all(city)
    folder = build(city).folder
    (folder / "rows.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"rows\.parquet is missing"):
        load_index(folder)


def test_building_again_repairs_a_damaged_index(city: City) -> None:
    embed_all(city)
    folder = build(city).folder
    original = storage.sha256_file(folder / "vectors.faiss")
    flip_byte(folder / "vectors.faiss", np.random.default_rng(5))
    result = build(city)
    assert (result.folder, result.created) == (folder, True)
    assert storage.sha256_file(folder / "vectors.faiss") == original
    load_index(folder)


def test_a_changed_byte_of_the_embeddings_table_is_refused_by_name(city: City) -> None:
    embed_all(city)
    rng = np.random.default_rng(6)
    for file in sorted((city.embeddings / "data").iterdir()):
        original = file.read_bytes()
        for _ in range(15):
            what = flip_byte(file, rng)
            with pytest.raises(IntegrityError) as refused:
                build(city)
            assert str(file) in refused.value.cause, what
            assert "Materialise `embeddings`" in refused.value.remedy
            file.write_bytes(original)
    assert not city.indexes.exists()


def test_a_changed_byte_of_the_tables_own_manifest_is_refused(city: City) -> None:
    embed_all(city)
    newest = min((city.embeddings / "_versions").glob("*.manifest"))
    original = newest.read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(40):
        what = flip_byte(newest, rng)
        with pytest.raises(IntegrityError) as refused:
            build(city)
        assert str(city.embeddings) in refused.value.cause, what
        assert "Materialise `embeddings`" in refused.value.remedy
        newest.write_bytes(original)
    assert not city.indexes.exists()


def test_a_failed_build_leaves_the_last_index(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_all(city)
    folder = build(city).folder
    fewer = city.catalog.slice(0, 20)

    def no_space(path: Path, table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_parquet", no_space)
    with pytest.raises(DiskFullError):
        build(city, fewer)
    monkeypatch.undo()
    assert latest_index(city.indexes) == folder
    assert sorted(path.name for path in city.indexes.iterdir()) == ["LATEST.json", folder.name]
    load_index(folder)


def test_an_index_is_found_by_its_content_even_after_moving(city: City, tmp_path: Path) -> None:
    embed_all(city)
    folder = build(city).folder
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder, tmp_path / "elsewhere" / folder.name)
    assert load_index(tmp_path / "elsewhere" / folder.name).rows.num_rows == 34
