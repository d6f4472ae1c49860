from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from shapely.geometry import box

from geoloc_dagster.evaluation.atlas import Atlas, District
from geoloc_dagster.evaluation.bootstrap import Interval
from geoloc_dagster.evaluation.confidence import reliability
from geoloc_dagster.evaluation.conformal_report import coverage_report
from geoloc_dagster.evaluation.recall_area import recall_area
from geoloc_dagster.evaluation.years import AcrossYears, GapBin, YearCell
from geoloc_dagster.viz import style
from geoloc_dagster.viz.atlas import atlas_picture
from geoloc_dagster.viz.encode import MAX_BYTES, MAX_FILE_BYTES
from geoloc_dagster.viz.uncertainty_charts import coverage_chart, recall_area_chart, reliability_diagram
from geoloc_dagster.viz.year_charts import age_gap_curve, year_matrix
from geoloc_dagster_tests.viz.test_pictures import count, pixels


def share(value: float) -> Interval:
    return Interval(value, max(0.0, value - 0.05), min(1.0, value + 0.05))


def across(years: int, dark: tuple[int, int]) -> AcrossYears:
    """All pairs are found at random, but the one whose (row, column) is given always."""
    named = tuple(range(2010, 2010 + years))
    matrix = {(a, b): YearCell(40, 20, 100, share(0.1)) for a in named for b in named}
    matrix[named[dark[0]], named[dark[1]]] = YearCell(40, 20, 100, share(1.0))
    gaps = (GapBin(0, 1, 10, 8, share(0.9)), GapBin(1, 5, 3, 2, None), GapBin(5, float("inf"), 90, 40, share(0.2)))
    return AcrossYears(named, matrix, gaps)


def darkest(data: bytes) -> tuple[float, float]:
    """Where the dark cell is: from the left and from the top, in shares of the picture."""
    picture = pixels(data)
    rows, columns = np.nonzero(abs(picture - np.array([0x00, 0x3B, 0x5C])).max(axis=2) <= 20)
    assert len(rows) > 200
    return float(columns.mean() / picture.shape[1]), float(rows.mean() / picture.shape[0])


def test_the_year_that_asks_is_drawn_as_row_and_the_one_that_answers_as_column():
    right, top = darkest(year_matrix(across(6, (0, 5)), title="Made"))
    left, bottom = darkest(year_matrix(across(6, (5, 0)), title="Made"))
    assert right > 0.75
    assert left < 0.35
    assert top < 0.4 < 0.6 < bottom


@pytest.mark.parametrize("years", [1, 3, 18])
def test_matrices_of_any_size_keep_their_figures_legible(years):
    made = across(years, (0, 0))
    few = {pair: cell if sum(pair) % 2 else YearCell(3, 3, 100, None) for pair, cell in made.matrix.items()}
    data = year_matrix(AcrossYears(made.years, few, made.gaps), title="Made", subtitle="120 pictures ask")
    assert len(data) <= MAX_FILE_BYTES
    assert pixels(data).shape[1] >= 60 * years


def test_the_curve_falls_and_bins_without_a_figure_are_skipped():
    data = age_gap_curve(across(2, (0, 0)), title="Made")
    assert len(data) <= MAX_BYTES
    assert count(data, style.BLUE) > 300
    empty = AcrossYears((), {}, (GapBin(0, float("inf"), 0, 0, None),))
    assert count(age_gap_curve(empty, title="Made"), style.BLUE) == 0


def test_an_overconfident_model_lies_below_the_diagonal():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 2000)
    heights = {}
    for name, chance in (("true", sure), ("too sure", sure - 0.4)):
        error = np.where(rng.random(2000) < chance, 5.0, 500.0)
        data = reliability_diagram(reliability(error, sure, np.arange(2000).astype(str), 25, bootstrap=50), title="Made")
        assert len(data) <= MAX_BYTES
        picture = pixels(data)
        rows, _ = np.nonzero(abs(picture - np.array([0x00, 0x72, 0xB2])).max(axis=2) <= 24)
        heights[name] = np.median(rows / picture.shape[0])
        assert count(data, style.SKY) > 1_000  # the photos of each bin
    assert heights["too sure"] > heights["true"] + 0.1


def test_a_group_that_misses_its_coverage_stands_out():
    rng = np.random.default_rng(0)
    covered, years = rng.random(1000) < 0.9, np.repeat(np.arange(2010, 2015), 200)
    good = coverage_report(covered, np.ones(1000), np.arange(1000), years=years, bootstrap=200)
    covered[years == 2012] = False
    bad = coverage_report(covered, np.ones(1000), np.arange(1000), years=years, bootstrap=200)
    clean = coverage_chart(good, title="Made", subtitle="1,000 photos")
    assert len(clean) <= MAX_BYTES
    assert count(clean, style.BLUE) > count(coverage_chart(bad, title="Made"), style.BLUE) + 100  # all but 2012 hold in it


def test_a_sharper_map_has_the_higher_curve():
    cells = np.arange(200) % 50
    sharp = recall_area(4 * np.eye(50)[cells], np.ones(50), cells, np.arange(200), bootstrap=20)
    blind = recall_area(np.zeros((200, 50)), np.ones(50), cells, np.arange(200), bootstrap=20)
    data = recall_area_chart({"sharp": sharp, "blind": blind}, title="Made")
    assert len(data) <= MAX_BYTES
    assert count(data, style.BLUE) > 300
    assert count(data, style.ORANGE) > 100


def districts(recall: float | None) -> Atlas:
    def one(i: int) -> District:
        known = None if recall is None else share(recall)
        return District(f"d{i}", 10 + i, 100 + i, 20, 10, known, None, Interval(3.0 + i, 2.0, 9.0), None)

    return Atlas(date(2020, 1, 1), tuple(one(i) for i in range(4)))


CORNERS = [(18.0 + 0.02 * (i % 2), 59.3 + 0.01 * (i // 2)) for i in range(4)]
OUTLINES = {f"d{i}": box(lng, lat, lng + 0.02, lat + 0.01) for i, (lng, lat) in enumerate(CORNERS)}


def test_every_figure_that_a_district_has_gets_its_map():
    found = atlas_picture(districts(1.0), OUTLINES, title="Made", subtitle="ages on 2020-01-01", attribution="Test City")
    without = atlas_picture(districts(None), OUTLINES, title="Made")
    assert max(len(found), len(without)) <= MAX_FILE_BYTES
    assert count(found, "#003B5C") > count(without, "#003B5C") + 1_000  # the map of recall is not drawn without recall
    assert pixels(found).shape != pixels(without).shape


def test_a_district_outside_the_region_or_without_a_polygon_is_left_out():
    part = atlas_picture(districts(1.0), {**OUTLINES, "d3": None}, geometry=box(18.0, 59.3, 18.04, 59.31), title="Made")
    whole = atlas_picture(districts(1.0), OUTLINES, title="Made")
    assert count(part, "#003B5C") > 500
    assert pixels(part).shape != pixels(whole).shape
    with pytest.raises(ValueError, match="at least one district"):
        atlas_picture(districts(1.0), {}, title="Made")
