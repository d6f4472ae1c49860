from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.evaluation import recall_area as module
from geoloc_dagster.evaluation.recall_area import needed_area_km2, recall_area, recall_area_table, summarise_recall_area

PLACES = np.arange(4)


def test_a_hand_made_case():
    log_prob = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    area = np.array([1.0, 1.0, 2.0])  # per area the third cell is 0.1, the least
    needed = needed_area_km2(log_prob, area, np.array([0, 1, 2, -1]))
    assert needed.tolist() == [1, 2, 4, np.inf]
    curve = recall_area(log_prob, area, np.array([0, 1, 2, -1]), PLACES, points=3, bootstrap=20)
    np.testing.assert_allclose(curve.area_km2, [1, 2, 4])
    assert [one.value for one in curve.recall] == [0.25, 0.5, 0.75]
    assert curve.auc.value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert curve.median_km2.value == 2


def test_a_large_cell_comes_late_even_where_it_is_the_likeliest():
    needed = needed_area_km2(np.log([[0.6, 0.4]]), np.array([10.0, 1.0]), np.array([1]))
    assert needed.tolist() == [1.0]


def test_a_map_that_says_nothing_needs_everything_and_a_sure_one_nothing_more_than_its_cell():
    area = np.array([1.0, 2.0, 3.0])
    even = np.log(area / area.sum())[None].repeat(3, axis=0)
    assert needed_area_km2(even, area, np.arange(3)).tolist() == [6, 6, 6]
    assert recall_area(even, area, np.arange(3), np.arange(3), bootstrap=10).auc.value == 0
    with np.errstate(divide="ignore"):
        sure = np.log(np.eye(3))
    assert needed_area_km2(sure, area, np.arange(3)).tolist() == [1, 2, 3]
    wrong = needed_area_km2(sure[:1], area, np.array([2]))
    assert wrong.tolist() == [6]


def test_order_and_scale_of_the_probabilities_and_the_order_of_cells_are_of_no_account(monkeypatch):
    rng = np.random.default_rng(0)
    log_prob, area, cells, places = (
        rng.standard_normal((40, 30)),
        rng.uniform(1, 2, 30),
        rng.integers(-1, 30, 40),
        np.arange(40) // 2,
    )
    one = recall_area(log_prob, area, cells, places, bootstrap=50)
    monkeypatch.setattr(module, "_BLOCK_CELLS", 64)
    rows, columns = rng.permutation(40), rng.permutation(30)
    moved = np.where(cells >= 0, np.argsort(columns)[cells], -1)
    other = recall_area(log_prob[rows][:, columns] + 7.0, area[columns], moved[rows], places[rows], bootstrap=50)
    assert other.auc.value == pytest.approx(one.auc.value)
    np.testing.assert_allclose([r.value for r in other.recall], [r.value for r in one.recall])
    values = [r.value for r in one.recall]
    assert values == sorted(values)
    assert values[-1] == np.mean(cells >= 0)
    assert one.auc.low <= one.auc.value <= one.auc.high


def test_the_sharper_of_two_maps_has_the_larger_area_under_its_curve():
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 50, 200)
    noise = rng.standard_normal((200, 50))
    signal = np.eye(50)[cells]
    curves = {
        name: recall_area(noise + weight * signal, np.ones(50), cells, np.arange(200), bootstrap=50)
        for name, weight in (("sharp", 4.0), ("blurred", 1.0), ("blind", 0.0))
    }
    assert curves["sharp"].auc.low > curves["blurred"].auc.high > curves["blind"].auc.high
    assert curves["blind"].recall[-1].value == 1
    text = recall_area_table(curves, [1.0, 50.0]).markdown()
    assert "within 50 km², %" in text
    assert summarise_recall_area(curves["sharp"])["n_queries"] == 200


def test_what_does_not_fit_is_refused():
    for log_prob, area, cells in (
        (np.zeros((1, 2)), np.ones(3), np.array([0])),
        (np.zeros((1, 2)), np.array([1.0, 0.0]), np.array([0])),
        (np.zeros((1, 2)), np.ones(2), np.array([2])),
        (np.full((1, 2), np.nan), np.ones(2), np.array([0])),
    ):
        with pytest.raises(ValueError, match=r"log-probabilities|true cells"):
            needed_area_km2(log_prob, area, cells)
    with pytest.raises(ValueError, match="two cells"):
        recall_area(np.zeros((1, 1)), np.ones(1), np.array([0]), np.array([0]))
