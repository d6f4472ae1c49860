from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.evaluation.bootstrap import quantile_intervals
from geoloc_dagster.evaluation.conformal_report import coverage_report, coverage_tables, summarise_coverage
from geoloc_dagster.evaluation.tables import area, probability


def regions(n_places: int = 200, per_place: int = 4, share: float = 0.9, seed: int = 0):
    rng = np.random.default_rng(seed)
    places = np.repeat(np.arange(n_places), per_place)
    return rng.random(n_places * per_place) < share, rng.lognormal(0, 1, n_places * per_place), places


def test_a_hand_made_case_by_year_district_and_distance():
    covered = np.array([1, 1, 0, 1, 0, 1], bool)
    report = coverage_report(
        covered,
        [1.0, 2, 3, 4, 5, 6],
        ["a", "b", "c", "d", "e", "f"],
        nominal=0.5,
        years=[2010, 2010, 2010, 2020, 2020, None],
        districts=["N", "N", "S", "S", "S", "S"],
        distance_m=[0, 49.9, 50, 99, 5000, np.nan],
        bootstrap=200,
    )
    assert report.overall.covered.value == pytest.approx(4 / 6)
    assert report.off_by == pytest.approx(1 / 6)
    assert (report.overall.area_km2.value, report.overall.area_p90_km2.value) == (3, 6)
    by_year = report.groups["year"]
    assert list(by_year) == ["2010", "2020", "unknown"]
    assert [one.covered.value for one in by_year.values()] == pytest.approx([2 / 3, 1 / 2, 1.0])
    assert {name: one.n_photos for name, one in report.groups["district"].items()} == {"N": 2, "S": 4}
    assert {name: one.n_photos for name, one in report.groups["distance"].items()} == {
        "0–50 m": 2,
        "50–100 m": 2,
        "1000 m or more": 1,
        "unknown": 1,
    }


def test_regions_that_keep_their_promise_hold_it_in_every_year_and_those_that_do_not_are_named():
    covered, area, places = regions(seed=1)
    years = np.repeat(np.arange(2010, 2015), 160)
    good = coverage_report(covered, area, places, years=years)
    assert abs(good.off_by) < 0.03
    assert good.failing("year") == []
    covered[years == 2013] = np.arange(160) % 2 == 0
    assert coverage_report(covered, area, places, years=years).failing("year") == ["2013"]


def test_the_99_percent_interval_is_the_wider_and_both_hold_the_share():
    covered, area, places = regions(40)
    one = coverage_report(covered, area, places).overall
    assert one.wide.low < one.covered.low < one.covered.value < one.covered.high < one.wide.high
    assert one.area_km2.low <= one.area_km2.value <= one.area_km2.high <= one.area_p90_km2.value


def test_photos_of_one_place_count_as_one_in_the_interval():
    covered, area, _ = regions(50, 1)
    alone = coverage_report(covered, area, np.arange(50)).overall
    fourfold = coverage_report(np.repeat(covered, 4), np.repeat(area, 4), np.repeat(np.arange(50), 4)).overall
    as_if_apart = coverage_report(np.repeat(covered, 4), np.repeat(area, 4), np.arange(200)).overall
    width = [one.covered.high - one.covered.low for one in (alone, fourfold, as_if_apart)]
    assert width[1] == pytest.approx(width[0], abs=0.02)
    assert width[2] < 0.7 * width[0]


def test_the_order_of_the_photos_is_of_no_account():
    covered, area, places = regions(30)
    years = np.arange(len(places)) % 3 + 2010
    order = np.random.default_rng(5).permutation(len(places))
    one = coverage_report(covered, area, places, years=years)
    other = coverage_report(covered[order], area[order], places[order], years=years[order])
    assert summarise_coverage(one) == summarise_coverage(other)


def test_few_places_have_no_verdict_and_no_interval_in_the_table():
    report = coverage_report([True, False], [1.0, np.inf], ["a", "b"], districts=["N", "N"])
    assert report.failing("district") == []
    [table] = coverage_tables(report)
    assert table.rows[0][3:6] == ["50.0", "–", "–"]
    assert table.rows[0][-1] == "anywhere"
    said = summarise_coverage(report)
    assert said["overall"]["area_p90_km2"]["value"] is None
    assert said["overall"]["holds_nominal"] is None


def test_what_does_not_fit_is_refused():
    for call in (
        lambda: coverage_report([True], [1.0, 2.0], ["a"]),
        lambda: coverage_report([], [], []),
        lambda: coverage_report([True], [1.0], ["a"], years=[2010, 2011]),
        lambda: coverage_report([True], [1.0], ["a"], nominal=90),
    ):
        with pytest.raises(ValueError, match=r"need as many|nominal coverage"):
            call()


def test_quantiles_by_place_are_values_that_occur_and_infinite_ones_stay():
    values = np.array([4.0, 1.0, np.inf, 3.0, 2.0])
    median, most = quantile_intervals(values, np.arange(5), (0.5, 1.0), 200, 0)
    assert (median.value, most.value) == (3.0, np.inf)
    assert {median.low, median.high} <= set(values)
    with pytest.raises(ValueError, match="one place for each"):
        quantile_intervals(np.array([np.nan]), np.array([0]), (0.5,), 10, 0)


@pytest.mark.parametrize(
    ("km2", "text"),
    [(3e-6, "3 m²"), (0.0045, "4,500 m²"), (0.0123, "0.012 km²"), (7.68, "7.7 km²"), (1_934.5, "1,934 km²"), (np.inf, "–")],
)
def test_areas_read_well_at_every_size(km2: float, text: str):
    assert area(km2) == text


def test_where_every_place_is_covered_the_interval_is_that_of_so_few_places():
    covered, places = np.ones(24, bool), np.repeat(np.arange(6), 4).astype(str)
    all_of_six = coverage_report(covered, np.ones(24), places, nominal=0.9, bootstrap=50).overall
    assert all_of_six.wide.low == pytest.approx(0.005 ** (1 / 6))
    assert all_of_six.wide.high == 1
    assert all_of_six.holds(0.9)
    assert not coverage_report(
        np.ones(400, bool), np.ones(400), np.arange(400).astype(str), nominal=0.9, bootstrap=50
    ).overall.holds(0.9)
    none = coverage_report(~covered, np.ones(24), places, nominal=0.9, bootstrap=50).overall
    assert none.wide.high == pytest.approx(1 - 0.005 ** (1 / 6))
    assert not none.holds(0.9)


@pytest.mark.parametrize(("p", "said"), [(0.0, "0%"), (0.874, "87%"), (0.99, "99%"), (0.9901, "over 99%"), (1.0, "over 99%")])
def test_a_model_is_never_certain(p: float, said: str):
    assert probability(p) == said
