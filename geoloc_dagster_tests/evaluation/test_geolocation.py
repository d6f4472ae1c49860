"""Accuracy of positions: small cases by hand, what must hold of any answers, and differences that were planted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.evaluation.geolocation import (
    HIERARCHY,
    WORLD,
    Positions,
    city_scale,
    errors_m,
    evaluate_positions,
    geo_score,
)
from geoloc_dagster.evaluation.geolocation_reports import geolocation_markdown, summarise_report
from geoloc_dagster_tests.evaluation.builders import METRES_PER_DEGREE


def positions(*pairs: tuple[float, float]) -> Positions:
    table = np.array(pairs, float).reshape(-1, 2)
    return Positions(table[:, 0], table[:, 1])


def off_by(*metres: float) -> tuple[Positions, Positions]:
    """Photos at the equator, and answers that far north of them; NaN gives no answer."""
    north = np.array(metres) / METRES_PER_DEGREE
    truth = Positions(np.zeros(len(metres)), np.full(len(metres), 18.0))
    return truth, Positions(north, np.where(np.isnan(north), np.nan, 18.0))


def scattered(n: int, seed: int) -> Positions:
    rng = np.random.default_rng(seed)
    return Positions(np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n))


def names(n: int) -> np.ndarray:
    return np.array([f"author {i}" for i in range(n)])


def test_four_photos_by_hand():
    truth, answers = off_by(500, 20_000, 700_000, np.nan)
    figures = evaluate_positions(truth, {"fine": answers}, names(4), bootstrap=0).figures["fine"]
    assert [share.value for share in figures.within_m.values()] == [0.25, 0.5, 0.5, 0.75, 0.75]
    assert list(figures.within_m) == [1_000, 25_000, 200_000, 750_000, 2_500_000]
    assert figures.median_m == pytest.approx(360_000, rel=1e-5)
    assert figures.mean_m == pytest.approx(240_166.7, rel=1e-5)
    assert figures.percentile_90_m == np.inf
    by_hand = 5000 * (np.exp(-0.5 / 1492.7) + np.exp(-20 / 1492.7) + np.exp(-700 / 1492.7)) / 4
    assert figures.score.value == pytest.approx(by_hand, rel=1e-5)
    assert (figures.n_photos, figures.n_unanswered, figures.n_groups) == (4, 1, 4)


def test_a_city_has_radii_and_a_score_of_its_own():
    scale = city_scale(20_000)
    truth, answers = off_by(0, 9, 24, 240, 2_000)
    figures = evaluate_positions(truth, {"fine": answers}, names(5), scale=scale, bootstrap=0).figures["fine"]
    assert {radius: share.value for radius, share in figures.within_m.items()} == {
        10: 0.4, 25: 0.6, 50: 0.6, 100: 0.6, 250: 0.8, 1000: 0.8,
    }  # fmt: skip
    assert geo_score(2_000, scale) == pytest.approx(5000 / np.e)  # a tenth of the diagonal, as on a map of the game
    assert geo_score(0, scale) == 5000
    with pytest.raises(ValueError, match="diagonal"):
        city_scale(0)


def test_errors_are_short_across_the_antimeridian_and_at_the_poles():
    truth = positions((0, 179.999), (90, 0), (-90, 10), (60, -180))
    answers = positions((0, -179.999), (90, 123), (-89.999, -160), (60, 180))
    assert errors_m(truth, answers) == pytest.approx([222.39, 0, 111.195, 0], abs=0.01)


def test_answers_at_the_other_side_of_the_globe_score_next_to_nothing():
    [error] = errors_m(positions((0, 0)), positions((0, 180)))
    assert error == pytest.approx(np.pi * 6_371_008.8)
    assert 0 < geo_score(error) < 0.01


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 10_000), unanswered=st.floats(0, 1))
def test_what_holds_of_any_answers(n: int, seed: int, unanswered: float):
    rng = np.random.default_rng(seed)
    truth, answers = scattered(n, seed), scattered(n, seed + 1)
    near = rng.random(n) < 0.5
    none = rng.random(n) < unanswered
    lat = np.where(none, np.nan, np.where(near, truth.lat_deg, answers.lat_deg))
    answers = Positions(lat, np.where(none, np.nan, np.where(near, truth.lng_deg, answers.lng_deg)))
    groups = names(n)[rng.integers(0, n, n)]
    figures = evaluate_positions(truth, {"fine": answers}, groups, bootstrap=20, seed=seed).figures["fine"]
    shares = [share.value for share in figures.within_m.values()]
    assert shares == sorted(shares)
    assert all(share.low <= share.high for share in figures.within_m.values())
    assert 0 <= figures.score.value <= 5000
    assert round(shares[-1] * n) <= n - figures.n_unanswered
    order = rng.permutation(n)
    again = evaluate_positions(truth.take(order), {"fine": answers.take(order)}, groups[order], bootstrap=20, seed=seed)
    turned = again.figures["fine"]
    assert [(s.value, s.low, s.high) for s in turned.within_m.values()] == [
        (s.value, s.low, s.high) for s in figures.within_m.values()
    ]
    assert (turned.median_m, turned.percentile_90_m) == (figures.median_m, figures.percentile_90_m)
    assert turned.score.value == pytest.approx(figures.score.value, rel=1e-12)


def test_a_hierarchy_that_copies_a_level_is_neither_better_nor_worse():
    truth, answers = scattered(200, 0), scattered(200, 1)
    report = evaluate_positions(truth, {"fine": answers, HIERARCHY: answers}, names(200), bootstrap=200)
    assert {comparison.verdict for comparison in report.comparisons} == {"neither"}
    assert {comparison.difference.p for comparison in report.comparisons} == {1.0}
    assert len(report.comparisons) == 5


def planted(seed: int, found: dict[str, float], authors: int = 100) -> tuple[Positions, dict[str, Positions], np.ndarray]:
    """Four photos of each author; each kind of answer is 500 m off for that share of the authors, else 20 km."""
    rng = np.random.default_rng(seed)
    luck = np.repeat(rng.permutation(authors) / authors, 4)
    answers = {key: np.where(luck < share, 500.0, 20_000.0) for key, share in found.items()}
    kinds = {key: off_by(*metres)[1] for key, metres in answers.items()}
    return off_by(*np.zeros(4 * authors))[0], kinds, np.repeat(names(authors), 4)


def test_a_planted_difference_is_found_and_only_where_it_was_planted():
    truth, answers, groups = planted(0, {"coarse": 0.2, "middle": 0.5, HIERARCHY: 0.35})
    report = evaluate_positions(truth, answers, groups, bootstrap=500)
    said = {(comparison.level, comparison.radius_m): comparison for comparison in report.comparisons}
    assert said["coarse", 1_000].verdict == "better"
    assert said["coarse", 1_000].difference.difference == pytest.approx(0.15)
    assert said["middle", 1_000].verdict == "worse"
    assert {said[level, radius].verdict for level in ("coarse", "middle") for radius in WORLD.radii_m[1:]} == {"neither"}
    best = {comparison.radius_m: comparison.level for comparison in report.comparisons if comparison.is_best}
    assert best[1_000] == "middle"
    assert len(best) == 5


def test_four_photographers_prove_nothing():
    truth, answers, groups = planted(0, {"fine": 0.0, HIERARCHY: 1.0}, authors=4)
    [first, *_] = evaluate_positions(truth, answers, groups, bootstrap=200).comparisons
    assert first.difference.difference == 1.0
    assert first.verdict == "neither"


def test_photos_of_one_photographer_count_as_one_in_the_interval():
    truth, answers, groups = planted(0, {"fine": 0.5}, authors=20)
    by_author = evaluate_positions(truth, answers, groups).figures["fine"].within_m[1_000]
    by_photo = evaluate_positions(truth, answers, names(80)).figures["fine"].within_m[1_000]
    assert by_author.value == by_photo.value == 0.5
    assert by_author.high - by_author.low > 1.5 * (by_photo.high - by_photo.low)


def test_bad_input_is_refused_by_name():
    truth, answers = off_by(0, 10)
    with pytest.raises(NotEnoughDataError, match="0 photos"):
        evaluate_positions(positions(), {"fine": positions()}, names(0))
    with pytest.raises(ValueError, match="2 answers for 1 photos"):
        errors_m(truth.take(np.array([0])), answers)
    with pytest.raises(ValueError, match="true position 1"):
        errors_m(positions((0, 0), (np.nan, np.nan)), answers)
    with pytest.raises(ValueError, match="answer 0"):
        errors_m(truth, positions((91, 0), (0, 0)))
    with pytest.raises(ValueError, match="answer 1"):
        errors_m(truth, positions((0, 0), (np.nan, 0)))


def test_the_page_and_the_json_say_the_same():
    truth, answers, groups = planted(0, {"fine": 0.2, HIERARCHY: 0.5})
    answers["coarse"] = Positions(np.full(400, np.nan), np.full(400, np.nan))
    report = evaluate_positions(truth, answers, groups, bootstrap=200)
    page = geolocation_markdown(report, "Test photos", remarks=["3 photos without a prediction of `fine`: a, b, c"])
    said = json.loads(json.dumps(summarise_report(report), allow_nan=False))
    assert said["figures"]["coarse"]["median_m"] is None
    assert said["figures"]["coarse"]["n_unanswered"] == 400
    assert said["figures"]["fine"]["within_m"]["1000"]["value"] == pytest.approx(0.2)
    assert "- 3 photos without a prediction of `fine`: a, b, c" in page
    [row] = [line for line in page.splitlines() if line.startswith("| coarse")]
    assert row == "| coarse | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0 | – | – | – | 400 | 400 |"
    [row] = [line for line in page.splitlines() if line.startswith("| over fine")]
    assert row.startswith("| over fine | +30.0 (+")
    assert " better * |" in row
