from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.evaluation.protocol import Vectors, split_rows
from geoloc_dagster.evaluation.unseen import evaluate_unseen, summarise_unseen, unseen_gallery, unseen_table
from geoloc_dagster_tests.evaluation.builders import catalog, city, row


def direction(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


# One test place with an old picture that looks just like the query; training places 20 m, 80 m and 3 km away.
ROWS = [
    row("new", "t", date(2023, 1, 1), is_query=True),
    row("old", "t", date(2011, 1, 1)),
    row("a", "20", date(2011, 1, 1), split="train", north_m=20),
    row("b", "80", date(2011, 1, 1), split="train", north_m=80),
    row("c", "3k", date(2011, 1, 1), split="train", north_m=3000),
    row("hidden", "5", date(2011, 1, 1), split="train", north_m=5, usable=False),
    row("dev", "7", date(2011, 1, 1), split="dev", north_m=7),
]
VECTORS = Vectors.from_mapping(
    {"new": direction(0), "old": direction(0), "a": direction(30), "b": direction(10), "c": direction(20), "dev": direction(1)}
)


def measured(rows=ROWS, vectors=VECTORS, splits=("train",), **options):
    table = catalog(rows)
    return evaluate_unseen(vectors, split_rows(table, "test"), unseen_gallery(table, "test", splits), bootstrap=20, **options)


def test_only_nearness_counts_and_the_own_place_is_not_there():
    found = measured()
    assert (found.n_queries, found.n_gallery, found.n_gallery_places) == (1, 3, 3)
    assert found.distance_m["median"].value == pytest.approx(80, abs=0.1)
    assert {r: one["recall@1"].value for r, one in found.within_m.items()} == {25: 0, 50: 0, 100: 1, 250: 1, 1000: 1}
    assert found.within_m[25]["recall@5"].value == 1  # place 20 comes third
    assert found.nearest_m["median"].value == pytest.approx(20, abs=0.1)
    assert {r: one.value for r, one in found.oracle.items()} == {25: 1, 50: 1, 100: 1, 250: 1, 1000: 1}
    assert found.chance == pytest.approx({25: 1 / 3, 50: 1 / 3, 100: 2 / 3, 250: 2 / 3, 1000: 2 / 3})
    row_of = found.queries.to_pylist()[0]
    assert (row_of["capture_id"], row_of["error_m"]) == ("new", pytest.approx(80, abs=0.1))


def test_the_splits_named_are_the_gallery_and_unusable_pictures_are_not():
    both = measured(splits=("train", "dev"))
    assert both.n_gallery == 4
    assert both.distance_m["median"].value == pytest.approx(7, abs=0.1)


def test_recall_never_passes_the_oracle_and_grows_with_radius_and_rank():
    rng = np.random.default_rng(1)
    trained = [
        r | {"capture_id": f"t{r['capture_id']}", "location_id": f"t{r['location_id']}", "split": "train"} for r in city(9)
    ]
    rows = city(12) + trained
    vectors = Vectors.from_mapping({r["capture_id"]: rng.standard_normal(8) for r in rows})
    found = measured(rows, vectors)
    for radius, recall in found.within_m.items():
        values = [recall[f"recall@{k}"].value for k in (1, 5, 10)]
        assert values == sorted(values)
        assert values[-1] <= found.oracle[radius].value
    first = [recall["recall@1"].value for recall in found.within_m.values()]
    assert first == sorted(first)
    assert 0 < found.chance[250] < 1


def test_the_order_of_the_pictures_is_of_no_account():
    table = catalog(ROWS)
    shuffled = table.take(pa.array([6, 2, 0, 5, 1, 4, 3]))
    gallery = unseen_gallery(shuffled, "test", ["train"])
    assert gallery["capture_id"].to_pylist() == ["a", "b", "c"]
    again = evaluate_unseen(VECTORS, split_rows(shuffled, "test"), gallery, bootstrap=20)
    assert summarise_unseen(again) == summarise_unseen(measured())


def test_a_training_picture_of_a_place_that_is_asked_about_is_left_out_and_refused():
    shared = [*ROWS, row("leak", "t", date(2015, 1, 1), split="train")]
    assert "leak" not in unseen_gallery(catalog(shared), "test", ["train"])["capture_id"].to_pylist()
    table = catalog(shared)
    with pytest.raises(IntegrityError, match="place t both asks and answers"):
        evaluate_unseen(VECTORS, split_rows(table, "test"), split_rows(table, "train"))
    with pytest.raises(ValueError, match="cannot hold test"):
        unseen_gallery(table, "test", ["train", "test"])


def test_one_picture_of_a_view_is_the_newest():
    rows = [*ROWS, row("a2", "20", date(2020, 1, 1), split="train", north_m=20), row("a0", "20", None, split="train", north_m=20)]
    newest = unseen_gallery(catalog(rows), "test", ["train"], newest_only=True)
    assert newest["capture_id"].to_pylist() == ["a2", "b", "c"]


def test_missing_vectors_and_empty_sides_are_one_clear_error():
    with pytest.raises(IntegrityError, match="1 pictures have no finite vector, the first is capture b"):
        measured(vectors=Vectors.from_mapping({"new": direction(0), "a": direction(1), "c": direction(2)}))
    table = catalog(ROWS)
    with pytest.raises(NotEnoughDataError, match="0 gallery pictures"):
        evaluate_unseen(VECTORS, split_rows(table, "test"), table.slice(0, 0))
    assert unseen_gallery(table, "test", ["none"]).num_rows == 0


def test_the_table_ends_with_what_is_possible_and_what_chance_gives():
    text = unseen_table({"model": measured()}).markdown()
    assert "unseen_place: 1 queries, 3 usable pictures" in text
    assert "| oracle: any within | 100.0 | 100.0 |" in text
    assert "| chance | 33.3 | 33.3 | 66.7 |" in text
