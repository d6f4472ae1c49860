from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from geoloc_dagster.evaluation import years as module
from geoloc_dagster.evaluation.years import across_years, age_gap_table, summarise_years, year_matrix_table
from geoloc_dagster_tests.evaluation.builders import catalog, row

PLACES = 6


def town(*, seen_from: dict[int, float]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Six places with a picture in each year; `seen_from[year]` in degrees is how far a place has turned by then.

    The descriptors of the six places are 60 degrees apart, so a place that turned by 50 is mistaken for its neighbour.
    """
    rows, vectors = [], []
    for p in range(PLACES):
        for year, turned in seen_from.items():
            rows.append(row(f"p{p}y{year}", f"{p}", date(year, 6, 1), north_m=200.0 * p))
            angle = np.radians(60 * p + turned)
            vectors.append([np.cos(angle), np.sin(angle)])
    return rows, np.array(vectors)


def shares(result: module.AcrossYears) -> dict[tuple[int, int], float | None]:
    return {pair: None if cell.recall is None else cell.recall.value for pair, cell in result.matrix.items()}


def test_a_hand_made_town_is_found_between_like_years_only():
    rows, vectors = town(seen_from={2010: 0, 2015: 10, 2020: 50})
    found = shares(across_years(vectors, catalog(rows), bootstrap=20))
    assert found[2010, 2015] == found[2015, 2010] == 1.0
    assert found[2020, 2015] == found[2015, 2020] == 0.0  # 40 degrees off, and the neighbour 20
    assert found[2010, 2020] == 0.0
    assert [found[year, year] for year in (2010, 2015, 2020)] == [None] * 3  # one day a year: nothing else to find


def test_the_year_that_asks_is_the_row_and_the_year_that_answers_the_column():
    rows, vectors = town(seen_from={2010: 0, 2020: 10})
    extra = row("q", "0", date(2020, 7, 1))  # place 0 also has a picture of 2020 that looks like place 3
    result = across_years(np.vstack([vectors, [-1.0, 0.0]]), catalog([*rows, extra]), bootstrap=20)
    assert (result.matrix[2020, 2010].n_queries, result.matrix[2020, 2010].recall.value) == (7, pytest.approx(6 / 7))
    assert (result.matrix[2010, 2020].n_queries, result.matrix[2010, 2020].n_gallery) == (6, 7)
    assert result.matrix[2010, 2020].recall.value == pytest.approx(5 / 6)  # the intruder looks like place 3
    said = summarise_years(result)
    assert said["years"] == [2010, 2020]
    assert said["n_gallery"] == [6, 7]
    assert said["recall@1"][1][0]["n_queries"] == 7  # row 1 asks: 2020
    assert said["recall@1"][0][1]["n_queries"] == 6


def test_the_diagonal_asks_only_other_days_of_the_year():
    rows, vectors = town(seen_from={2010: 0})
    again = [row(f"p{p}late", f"{p}", date(2010, 9, 1)) for p in range(PLACES)]
    same_day = [row(f"p{p}side", f"{p}", date(2010, 6, 1), view="r1") for p in range(PLACES)]
    result = across_years(np.vstack([vectors, vectors, vectors]), catalog([*rows, *again, *same_day]), bootstrap=20)
    assert result.matrix[2010, 2010].n_queries == 18  # all have a picture of their place of another day
    alone = across_years(np.vstack([vectors, vectors]), catalog([*rows, *same_day]), bootstrap=20)
    assert alone.matrix[2010, 2010].n_queries == 0
    assert all(one.n_pairs == 0 for one in alone.gaps)


def test_cells_of_too_few_places_say_how_many_and_no_share():
    rows, vectors = town(seen_from={2010: 0, 2020: 0})
    keep = [i for i, r in enumerate(rows) if int(r["location_id"]) < 3]
    result = across_years(vectors[keep], catalog([rows[i] for i in keep]), bootstrap=20)
    cell = result.matrix[2010, 2020]
    assert (cell.n_queries, cell.n_places, cell.recall) == (3, 3, None)
    assert "(3)" in year_matrix_table(result).markdown()
    assert summarise_years(result)["recall@1"][0][1]["value"] is None


def test_the_gap_is_between_the_query_and_the_one_picture_of_its_view():
    rows, vectors = town(seen_from={2010: 0, 2012: 10, 2020: 50})
    result = across_years(vectors, catalog(rows), gap_edges=(0, 1, 5, 9), bootstrap=20)
    by_name = {one.name: one for one in result.gaps}
    assert [one.n_pairs for one in result.gaps] == [0, 12, 12, 12]  # both pictures of a pair ask
    assert by_name["1–5 years"].recall.value == pytest.approx(0.5)
    assert by_name["9 years or more"].recall.value == 0.0
    assert "| 0–1 years | 0 | 0 | – |" in age_gap_table(result).markdown()


def test_a_later_year_of_its_place_does_not_help_across_a_gap():
    """Only one picture of the place is kept, so the near one of another year must not answer for the far one."""
    rows, vectors = town(seen_from={2010: 0, 2011: 1, 2020: 50})
    far = across_years(vectors, catalog(rows), gap_edges=(0, 5), bootstrap=20).gaps[1]
    assert far.recall.value == 0.0


def test_pictures_of_another_view_make_no_pair():
    rows, vectors = town(seen_from={2010: 0, 2020: 0})
    turned = [{**r, "view": "r1"} if r["year"] == 2020 else r for r in rows]
    result = across_years(vectors, catalog(turned), bootstrap=20)
    assert sum(one.n_pairs for one in result.gaps) == 0
    assert result.matrix[2010, 2020].n_queries == 6  # but the place is there


def test_undated_and_unusable_pictures_never_ask_and_undated_ones_distract_across_gaps():
    rows, vectors = town(seen_from={2010: 0, 2020: 4})
    undated = [row(f"u{p}", "far", None, north_m=9000) for p in range(PLACES)]
    angles = np.radians(60 * np.arange(PLACES) + 2)
    between = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = across_years(np.vstack([vectors, between]), catalog([*rows, *undated]), bootstrap=20)
    assert result.years == (2010, 2020)
    assert result.gaps[-1].recall.value == 0.0
    assert result.matrix[2010, 2020].recall.value == 1.0
    hidden = [{**r, "usable": False} for r in undated]
    assert across_years(np.vstack([vectors, between]), catalog([*rows, *hidden]), bootstrap=20).gaps[-1].recall.value == 1.0


@pytest.mark.parametrize("block_bytes", [64 * 2**20, 2_000])
def test_any_order_and_any_block_gives_what_a_plain_double_loop_gives(monkeypatch, block_bytes):
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(3)
    rows = [
        row(f"c{i:03d}", f"{rng.integers(9)}", date(int(rng.integers(2010, 2014)), int(rng.integers(1, 4)), 1), view=f"r{i % 2}")
        for i in range(90)
    ]
    centre = rng.standard_normal((9, 6))
    vectors = np.array([centre[int(r["location_id"])] for r in rows]) + 0.9 * rng.standard_normal((90, 6))
    order = rng.permutation(90)
    result = across_years(vectors[order], catalog([rows[i] for i in order]), bootstrap=10)
    matrix, gaps = double_loop(rows, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    for pair, hits in matrix.items():
        cell = result.matrix[pair]
        assert cell.n_queries == len(hits)
        assert cell.recall is None or cell.recall.value == pytest.approx(np.mean(hits))
    assert sum(one.n_pairs for one in result.gaps) == len(gaps)
    assert result.gaps[0].recall.value == pytest.approx(np.mean([hit for years, hit in gaps if years < 1]))


def double_loop(rows: list[dict[str, Any]], vectors: np.ndarray):
    similarity = vectors @ vectors.T
    frame = pd.DataFrame(rows)
    years = sorted(frame["year"].unique())
    matrix: dict[tuple[int, int], list[bool]] = {(a, b): [] for a in years for b in years}
    gaps: list[tuple[float, bool]] = []
    for i, one in enumerate(rows):
        others = [j for j, two in enumerate(rows) if two["location_id"] != one["location_id"]]
        own = [
            j
            for j, two in enumerate(rows)
            if two["location_id"] == one["location_id"] and two["captured_on"] != one["captured_on"]
        ]
        for b in years:
            mine = [similarity[i, j] for j in own if rows[j]["year"] == b]
            if mine:
                rivals = [similarity[i, j] for j in others if rows[j]["year"] == b]
                matrix[one["year"], b].append(max(mine) > max(rivals, default=-np.inf))
        for j in own:
            if rows[j]["view"] == one["view"]:
                apart = abs((rows[j]["captured_on"] - one["captured_on"]).days) / 365.25
                gaps.append((apart, similarity[i, j] > max(similarity[i, k] for k in others)))
    return matrix, gaps


def test_a_model_that_sees_no_difference_finds_nothing():
    rows, vectors = town(seen_from={2010: 0, 2020: 0})
    result = across_years(np.ones_like(vectors), catalog(rows), bootstrap=20)
    assert result.matrix[2010, 2020].recall.value == 0.0
    assert result.gaps[-1].recall.value == 0.0


def test_intervals_hold_the_share_and_widen_with_less():
    rng = np.random.default_rng(0)
    rows = [row(f"c{p}y{year}", f"{p}", date(year, 1, 1)) for p in range(60) for year in (2010, 2020)]
    centre = rng.standard_normal((60, 8))
    vectors = np.repeat(centre, 2, axis=0) + 0.8 * rng.standard_normal((120, 8))
    share = across_years(vectors, catalog(rows), bootstrap=300).matrix[2010, 2020].recall
    assert 0 < share.low < share.value < share.high < 1


def test_nothing_dated_gives_an_empty_matrix():
    rows = [row(f"u{i}", f"{i}", None) for i in range(4)]
    result = across_years(np.eye(4), catalog(rows), bootstrap=10)
    assert (result.years, result.matrix) == ((), {})
    assert all(one.recall is None for one in result.gaps)


def test_what_cannot_be_measured_is_refused():
    rows, vectors = town(seen_from={2010: 0})
    with pytest.raises(ValueError, match="each of the 6 rows"):
        across_years(vectors[:3], catalog(rows))
    with pytest.raises(ValueError, match="ascend"):
        across_years(vectors, catalog(rows), gap_edges=(2, 1))
