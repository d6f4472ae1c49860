from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.evaluation.retrieval import evaluate
from geoloc_dagster_tests.evaluation.builders import catalog, city, row


def direction(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


# Two places 40 m apart and one far away. The query of place 1 is nearest to its own old picture, that of place 2 to place 1.
ROWS = [
    row("1new", "1", date(2023, 1, 1), is_query=True, near_train_m=10.0),
    row("1old", "1", date(2011, 1, 1), near_train_m=10.0),
    row("2new", "2", date(2019, 1, 1), is_query=True, north_m=40, district="South"),
    row("2old", "2", date(2011, 1, 1), north_m=40, district="South"),
    row("3old", "3", date(2011, 1, 1), north_m=5000),
]
VECTORS = np.array([direction(0), direction(2), direction(10), direction(40), direction(70)])


def test_a_hand_made_case():
    report = evaluate(VECTORS, catalog(ROWS), bootstrap=50)
    assert (report.n_queries, report.n_gallery, report.n_places) == (2, 3, 2)
    assert report.same_place["recall@1"].value == 0.5
    assert report.same_place["recall@5"].value == 1.0
    assert report.within_m["25"]["recall@1"].value == 0.5
    assert report.within_m["50"]["recall@1"].value == 1.0
    assert report.distance_m["median"] == pytest.approx(20, abs=0.05)
    table = report.queries.to_pandas().set_index("capture_id")
    assert table.loc["2new", "first_hit_rank"] == 2
    assert table.loc["2new", "neighbours"].tolist() == ["1old", "2old", "3old"]
    assert table.loc["2new", "neighbour_locations"].tolist() == ["1", "2", "3"]
    np.testing.assert_allclose(table.loc["2new", "distances_m"], [40, 0, 4960], atol=0.5)
    np.testing.assert_allclose(table.loc["2new", "similarities"], np.cos(np.radians([8, 30, 60])), atol=1e-6)


def test_groups_by_year_and_district_share_the_gallery():
    report = evaluate(VECTORS, catalog(ROWS), bootstrap=20)
    assert {name: group.recall["recall@1"].value for name, group in report.by_year.items()} == {"2019": 0.0, "2023": 1.0}
    assert {name: (g.n_queries, g.n_gallery) for name, g in report.by_district.items()} == {"Centre": (1, 3), "South": (1, 3)}


def test_queries_near_a_training_place_can_be_left_out():
    far = evaluate(VECTORS, catalog(ROWS), bootstrap=20).variants["far_from_train"]
    assert (far.n_queries, far.n_gallery, far.recall["recall@1"].value) == (1, 3, 0.0)


def test_rows_without_a_known_distance_to_train_count_as_far():
    rows = [{**r, "near_train_m": None} for r in ROWS]
    assert evaluate(VECTORS, catalog(rows), bootstrap=20).variants["far_from_train"].n_queries == 2


def test_flagged_rows_change_only_their_variant():
    rows = [*ROWS, row("black", "3", date(2010, 1, 1), usable=False, north_m=5000)]
    vectors = np.vstack([VECTORS, direction(0.5)])  # flagged, and the very nearest to the query of place 1
    report = evaluate(vectors, catalog(rows), bootstrap=20)
    assert report.same_place["recall@1"].value == 0.5
    loose = report.variants["all_rows"]
    assert (loose.n_queries, loose.n_gallery) == (3, 3)
    assert loose.recall["recall@1"].value == 0.0


def test_an_unusable_row_may_lack_a_vector_and_a_usable_one_may_not():
    rows = [*ROWS, row("undecodable", "3", date(2012, 1, 1), usable=False)]
    vectors = np.vstack([VECTORS, [np.nan, np.nan]])
    assert evaluate(vectors, catalog(rows), bootstrap=20).variants["all_rows"].n_gallery == 3
    broken = VECTORS.copy()
    broken[1, 0] = np.inf
    with pytest.raises(IntegrityError, match="capture 1old"):
        evaluate(broken, catalog(ROWS))


def test_the_same_day_at_the_same_place_does_not_count_as_across_time():
    rows = [*ROWS, row("1same", "1", date(2023, 1, 1), view="r1")]
    old_looks_different = VECTORS.copy()
    old_looks_different[1] = direction(-60)
    report = evaluate(np.vstack([old_looks_different, direction(0)]), catalog(rows), bootstrap=20)
    assert report.by_year["2023"].recall["recall@1"].value == 1.0
    assert report.variants["other_dates"].recall["recall@1"].value < report.same_place["recall@1"].value


def test_length_of_the_vectors_does_not_matter():
    scaled = VECTORS * np.array([[3.0], [0.1], [7.0], [100.0], [1.0]])
    assert evaluate(scaled, catalog(ROWS), bootstrap=20).same_place == evaluate(VECTORS, catalog(ROWS), bootstrap=20).same_place


def test_chance_is_chance_and_a_perfect_model_is_perfect():
    rows = city(40)
    rng = np.random.default_rng(0)
    chance = evaluate(rng.standard_normal((len(rows), 32)), catalog(rows), bootstrap=100)
    # Each query has 4 pictures of its place among 160.
    assert chance.same_place["recall@1"].value < 0.12
    places = np.array([int(r["location_id"]) for r in rows])
    perfect = evaluate(np.eye(40)[places] + 0.01 * rng.standard_normal((len(rows), 40)), catalog(rows), bootstrap=100)
    assert perfect.same_place["recall@1"].low == 1.0
    assert perfect.distance_m["p90"] == 0


def test_one_vector_per_row_is_required():
    with pytest.raises(ValueError, match="each of the 5 rows"):
        evaluate(VECTORS[:4], catalog(ROWS))
