from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.evaluation.geolocation import HIERARCHY, WORLD, city_scale, evaluate_positions
from geoloc_dagster.evaluation.oracle import oracle
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES
from geoloc_dagster.viz.geolocation_charts import error_curves, level_bars
from geoloc_dagster_tests.evaluation.test_geolocation import planted
from geoloc_dagster_tests.evaluation.test_oracle import level_of
from geoloc_dagster_tests.viz.test_pictures import count, pixels


def top_left(data: bytes, colour: str) -> float:
    """How far right, of the width, a curve of that colour first is in the upper half of the axes."""
    picture = pixels(data)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    rows, columns = np.nonzero(abs(picture - wanted).max(axis=2) <= 24)
    upper = rows < picture.shape[0] * 0.45
    assert upper.sum() > 50
    return columns[upper].min() / picture.shape[1]


@pytest.mark.parametrize("scale", [WORLD, city_scale(20_000)], ids=["world", "city"])
def test_every_answer_has_a_curve_that_rises_where_its_errors_lie(scale):
    near, far = scale.radii_m[1], scale.radii_m[-1]
    errors = {HIERARCHY: np.full(50, float(near)), "fine": np.where(np.arange(50) < 40, float(far), np.inf)}
    data = error_curves(errors, scale, title="Made", subtitle="50 photos")
    assert len(data) <= MAX_BYTES
    apart = np.log(far / near) / np.log(min(20_020_000, 20 * far) / (scale.radii_m[0] / 10))  # of the width of the axes
    assert top_left(data, style.GREEN) - top_left(data, style.BLUE) == pytest.approx(0.84 * apart, abs=0.05)
    assert count(data, style.GREY) > 500  # the radii


def test_photos_without_an_answer_keep_the_curve_below_the_top():
    half = np.where(np.arange(60) % 2 == 0, 10.0, np.inf)
    wanted = np.array([0x00, 0x72, 0xB2])
    tops = {}
    for name, errors in (("all", np.full(60, 10.0)), ("half", half)):
        picture = pixels(error_curves({HIERARCHY: errors}, WORLD, title="Made"))
        rows, _ = np.nonzero(abs(picture - wanted).max(axis=2) <= 24)
        tops[name] = rows.min() / picture.shape[0]
    assert tops["half"] > tops["all"] + 0.2


def test_bars_stand_under_what_their_cells_allow():
    truth, answers, groups = planted(0, {"coarse": 0.2, "fine": 0.3, HIERARCHY: 0.4})
    levels = [level_of((0.0, 18.0), name="coarse"), level_of((0.05, 18.0), name="fine")]
    figures = evaluate_positions(truth, answers, groups, bootstrap=20).figures
    bounds = oracle(truth, groups, levels, bootstrap=0)
    data = level_bars(figures, bounds, title="Made", subtitle="400 photos by 100 photographers")
    bare = level_bars(figures, {}, title="Made")
    assert max(len(data), len(bare)) <= MAX_BYTES
    for colour in (style.BLUE, style.SKY, style.GREEN):
        assert count(data, colour) > 1_500
    assert count(data, style.LAND, 2) > count(bare, style.LAND, 2) + 2_000
