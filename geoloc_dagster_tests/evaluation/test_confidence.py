"""What confidence is worth: thresholds, the area under coverage, and whether it is a probability."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.evaluation.confidence import (
    coverage_table,
    reliability,
    reliability_table,
    risk_coverage,
    summarise_confidence,
)
from geoloc_dagster_tests.evaluation.test_geolocation import names

RIGHT, WRONG, NONE = 10.0, 1e6, np.inf


def test_four_photos_by_hand():
    errors = np.array([RIGHT, WRONG, RIGHT, NONE])
    curve = risk_coverage(errors, np.array([0.9, 0.5, 0.7, np.nan]), names(4), 1_000, bootstrap=0)
    assert curve.confidences.tolist()[:3] == [0.9, 0.7, 0.5]
    assert curve.coverages.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.shares.tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    assert curve.area == pytest.approx((1 + 1 + 2 / 3 + 0.5) / 4)
    assert curve.area_best == pytest.approx(curve.area)
    assert curve.area_random == 0.5
    assert curve.gain == pytest.approx(1)
    assert curve.threshold_for(0.9) == (0.7, 0.5)
    assert curve.threshold_for(0.6) == (0.5, 0.75)
    assert [point.confidence for point in curve.points] == [0.9, 0.9, 0.7, 0.5, None, None]
    assert [point.share.value for point in curve.points] == pytest.approx([1, 1, 1, 2 / 3, 0.5, 0.5])


def test_no_threshold_is_given_where_none_is_sure_enough():
    curve = risk_coverage(np.array([WRONG, WRONG]), np.array([0.9, 0.8]), names(2), 1_000, bootstrap=0)
    assert curve.threshold_for(0.5) is None
    assert (curve.area, curve.gain) == (0, 0)


def test_confidence_that_says_nothing_gains_nothing_and_one_that_misleads_less():
    rng = np.random.default_rng(0)
    errors = np.where(rng.random(4_000) < 0.3, RIGHT, WRONG)
    said = {
        "random": rng.random(4_000),
        "equal": np.full(4_000, 0.5),
        "misleading": np.where(errors == RIGHT, 0.1, 0.9),
        "perfect": np.where(errors == RIGHT, 0.9, 0.1),
    }
    gains = {name: risk_coverage(errors, values, names(4_000), 1_000, bootstrap=0).gain for name, values in said.items()}
    assert gains["random"] == pytest.approx(0, abs=0.05)
    assert gains["equal"] == pytest.approx(0, abs=1e-9)
    assert gains["misleading"] < -0.2
    assert gains["perfect"] == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 10_000), distinct=st.integers(1, 8))
def test_the_order_of_photos_is_of_no_account_and_equal_confidences_come_together(n: int, seed: int, distinct: int):
    rng = np.random.default_rng(seed)
    errors = rng.choice([RIGHT, WRONG, NONE], n)
    sure = rng.choice([*np.linspace(0, 1, distinct), np.nan], n)
    order = rng.permutation(n)
    one = risk_coverage(errors, sure, names(n), 1_000, bootstrap=0)
    two = risk_coverage(errors[order], sure[order], names(n)[order], 1_000, bootstrap=0)
    assert one.area == pytest.approx(two.area, rel=1e-12)
    assert np.array_equal(one.shares, two.shares)
    assert one.points == two.points
    assert one.coverages[-1] == 1
    assert one.shares[-1] == pytest.approx(np.mean(errors == RIGHT))
    assert one.area <= one.area_best + 1e-12
    assert len(one.confidences) == len(one.coverages) <= distinct + 2


def test_probabilities_are_called_calibrated_and_boasts_are_not():
    rng = np.random.default_rng(0)
    sure = rng.random(20_000)
    errors = np.where(rng.random(20_000) < sure, RIGHT, WRONG)
    honest = reliability(errors, sure, names(20_000), 1_000, bootstrap=50)
    assert honest.ece < 0.015
    assert len(honest.bins) == 10
    assert sum(one.n_photos for one in honest.bins) == honest.n_photos == 20_000
    boasting = reliability(errors, np.sqrt(sure), names(20_000), 1_000, bootstrap=0)
    assert boasting.ece == pytest.approx(2 / 3 - 1 / 2, abs=0.02)


def test_two_bins_by_hand():
    errors = np.array([RIGHT, WRONG, RIGHT, NONE, RIGHT])
    result = reliability(errors, np.array([1.0, 0.96, 0.1, 0.9, np.nan]), names(5), 1_000, bootstrap=0)
    assert [(one.low, one.n_photos, one.share.value) for one in result.bins] == [(0.1, 1, 1.0), (0.9, 2, 0.5)]
    assert result.ece == pytest.approx((1 * 0.9 + 2 * 0.48) / 3)
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability(errors, np.array([1.0, 2.0, 0.1, 0.9, 0]), names(5), 1_000)
    nobody = reliability(np.array([NONE]), np.array([0.5]), names(1), 1_000)
    assert (nobody.bins, nobody.ece, nobody.n_photos) == ((), 0, 0)


def test_tables_and_json():
    errors = np.array([RIGHT, WRONG, RIGHT, NONE])
    sure = np.array([0.9, 0.5, 0.7, np.nan])
    curve = risk_coverage(errors, sure, names(4), 1_000, bootstrap=20)
    result = reliability(errors, sure, names(4), 1_000, bootstrap=20)
    assert coverage_table(curve).rows[2] == ["50 %", "0.700", "2", "100.0"]
    assert coverage_table(curve).rows[-1] == ["100 %", "–", "4", "50.0"]
    assert [row[0] for row in reliability_table(result).rows] == ["0.5–0.6", "0.7–0.8", "0.9–1.0"]
    said = json.loads(json.dumps(summarise_confidence(curve, result), allow_nan=False))
    assert said["points"][2]["confidence"] == 0.7
    assert len(said["bins"]) == 3
