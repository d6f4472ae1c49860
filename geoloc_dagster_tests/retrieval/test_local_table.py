"""Local features of batches, and those of an index: complete, made of the crops that were checked, in the order of its rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.dataset.pictures import decode_picture
from geoloc_dagster.errors import IntegrityError, UnsafeFileError
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.index import IndexResult, build_index, load_index
from geoloc_dagster.retrieval.local_features import SIDE, VERSION, local_features
from geoloc_dagster.retrieval.local_gallery import FEATURES_FILE, OFFSETS_FILE, read_local_gallery
from geoloc_dagster.retrieval.local_table import make_local_features
from geoloc_dagster.tables import open_table, replace_batch
from geoloc_dagster_tests.retrieval.city import BATCHES, City, FakeEncoder, flip_byte, jpeg
from geoloc_dagster_tests.retrieval.facades import facade_jpeg
from geoloc_dagster_tests.retrieval.test_embedding import replace_crop


def make_all(city: City) -> None:
    for batch in BATCHES:
        make_local_features(city.crops, city.local_features, batch)


def indexed(city: City) -> IndexResult:
    for batch in BATCHES:
        embed_batch(FakeEncoder(), city.crops, city.embeddings, batch)
    return build_index(city.embeddings, city.catalog, "retrieval-aaaaaaaaaaaa", city.indexes, local_features=city.local_features)


def test_every_crop_with_a_picture_gets_its_own_features(city: City) -> None:
    seen: list[tuple[int, int]] = []
    made = make_local_features(city.crops, city.local_features, BATCHES[0], progress=lambda *state: seen.append(state))
    assert (made.rows, made.changed, seen[-1]) == (11, True, (11, 11))
    table = open_table(city.local_features)
    assert table is not None
    rows = {row["capture_id"]: row for row in table.to_table().to_pylist()}
    assert set(rows) == {f"c{place:02d}-{day}" for place in range(4) for day in range(3)} - {"c00-0"}
    expected = local_features(decode_picture(jpeg(2, 1), SIDE))
    assert rows["c02-1"]["features"] == expected.tobytes()
    assert rows["c02-1"]["count"] == len(expected)
    assert made.features == sum(row["count"] for row in rows.values())


def test_a_rerun_writes_nothing_and_a_crop_that_was_made_again_is_looked_at_again(city: City) -> None:
    first = make_local_features(city.crops, city.local_features, BATCHES[0])
    again = make_local_features(city.crops, city.local_features, BATCHES[0])
    assert (again.changed, again.table_version, again.features) == (False, first.table_version, first.features)
    replace_crop(city, "c02-1", facade_jpeg(9))
    third = make_local_features(city.crops, city.local_features, BATCHES[0])
    assert third.changed
    assert third.features > first.features


def test_a_crop_that_is_not_the_one_that_was_written_is_refused(city: City) -> None:
    replace_crop(city, "c02-1", jpeg(40), sha256="f" * 64)
    with pytest.raises(IntegrityError, match="c02-1"):
        make_local_features(city.crops, city.local_features, BATCHES[0])


def test_a_damaged_table_is_started_afresh(city: City, caplog: pytest.LogCaptureFixture) -> None:
    make_all(city)
    data = next((city.local_features / "data").iterdir())
    flip_byte(data, np.random.default_rng(0))
    made = make_local_features(city.crops, city.local_features, BATCHES[1])
    assert made.changed
    assert "afresh" in caplog.text
    table = open_table(city.local_features)
    assert table is not None
    assert set(table.to_table()["batch"].to_pylist()) == {BATCHES[1]}


def test_an_index_holds_the_features_of_its_rows_in_their_order(city: City) -> None:
    make_all(city)
    result = indexed(city)
    index = load_index(result.folder)
    assert index.manifest["local_features"] == VERSION
    assert index.local is not None
    for row, capture in enumerate(index.rows["capture_id"].to_pylist()):
        place, day = int(capture[1:3]), int(capture[-1])
        np.testing.assert_array_equal(index.local.of(row), local_features(decode_picture(jpeg(place, day), SIDE)))
    assert not indexed(city).created


def test_an_index_names_the_batches_whose_features_are_lacking(city: City) -> None:
    make_local_features(city.crops, city.local_features, BATCHES[0])
    with pytest.raises(IntegrityError, match=f"lacks local features of crops in {BATCHES[1]}, {BATCHES[2]}") as refused:
        indexed(city)
    assert "`local_features`" in refused.value.remedy
    assert not list(city.indexes.glob("index-*"))


def test_features_of_an_earlier_crop_are_not_those_of_this_one(city: City) -> None:
    make_all(city)
    table = open_table(city.local_features)
    assert table is not None
    rows = table.to_table(filter=f"batch = '{BATCHES[2]}'").to_pylist()
    rows[0]["crop_sha256"] = "0" * 64
    replace_batch(city.local_features, pa.Table.from_pylist(rows, schema=table.schema), BATCHES[2])
    with pytest.raises(IntegrityError, match=BATCHES[2]):
        indexed(city)


def test_changed_bytes_are_noticed_before_anything_is_compared(city: City) -> None:
    make_all(city)
    folder = indexed(city).folder
    flip_byte(folder / FEATURES_FILE, np.random.default_rng(1))
    with pytest.raises(IntegrityError, match=FEATURES_FILE):
        load_index(folder)


def test_files_that_are_no_plain_arrays_or_of_other_rows_are_refused(city: City) -> None:
    make_all(city)
    folder = indexed(city).folder
    rows = load_index(folder).rows.num_rows
    with pytest.raises(IntegrityError, match=f"{rows + 1} rows"):
        read_local_gallery(folder, rows + 1)
    np.save(folder / OFFSETS_FILE, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UnsafeFileError, match="no plain array"):
        read_local_gallery(folder, rows)
