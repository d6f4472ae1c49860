"""Published figures are found by any usual name of a set and printed as they were."""

from __future__ import annotations

import numpy as np
import pytest

from geoloc_dagster.evaluation.geolocation import Positions, city_scale, evaluate_positions
from geoloc_dagster.evaluation.published import published_rows, published_table, set_called
from geoloc_dagster_tests.evaluation.test_geolocation import names, planted


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("im2gps_test", "im2gps"),
        ("im2gps_places365.csv", "im2gps"),
        ("data/photos/im2gps3k_places365.csv", "im2gps3k"),
        ("Im2GPS3k", "im2gps3k"),
        ("im2gps3ktest", "im2gps3k"),
        ("yfcc4k", "yfcc4k"),
        ("yfcc25600_places365.csv", "yfcc26k"),
        ("YFCC-26k", "yfcc26k"),
        ("holiday photos", None),
        ("", None),
    ],
)
def test_a_set_is_known_by_its_usual_names(name: str, known: str | None):
    assert set_called(name) == known
    assert {row.set_name for row in published_rows(name)} == ({known} if known else set())


def test_rows_are_as_printed_and_lack_what_was_not_printed():
    rows = {row.method: row for row in published_rows("im2gps3k")}
    assert list(rows["GeoEstimation base(M,f*) PyTorch RN50"].percent.values()) == ["10.1", "28.0", "36.9", "51.1", "67.0"]
    assert rows["GeoEstimation base(M,f*) PyTorch RN50"].year == "2020"
    assert 1_000 not in rows["StreetCLIP (zero shot)"].percent
    assert {row.method: row for row in published_rows("im2gps")}["GeoDecoder"].percent == {
        1_000: "22", 25_000: "50", 750_000: "80",
    }  # fmt: skip
    assert [len(published_rows(name)) for name in ("im2gps3k", "im2gps", "yfcc4k", "yfcc26k")] == [29, 13, 17, 8]


def test_every_figure_is_a_share_that_grows_with_the_radius():
    for name in ("im2gps3k", "im2gps", "yfcc4k", "yfcc26k"):
        for row in published_rows(name):
            figures = [float(figure) for figure in row.percent.values()]
            assert figures == sorted(figures), row.method
            assert 0 < figures[0] <= figures[-1] < 100
            assert len(figures) >= 2


def test_ours_stand_beside_them_with_intervals():
    truth, answers, groups = planted(0, {"fine": 0.1})
    ours = evaluate_positions(truth, answers, groups, bootstrap=50).figures
    table = published_table("im2gps3k_places365.csv", ours)
    assert table.rows[-1][0] == "ours: fine"
    assert table.rows[-1][2].startswith("10.0 (")
    assert next(row for row in table.rows if row[0].startswith("StreetCLIP"))[2] == "-"
    by_figure = published_table("im2gps3k", ours, "1 km").rows
    place = [row[0] for row in by_figure].index("ours: fine")
    assert float(by_figure[place - 1][2]) >= 10.0 >= float(by_figure[place + 1][2])
    assert by_figure[-1][0].startswith("StreetCLIP")


def test_another_set_and_another_scale_say_so():
    truth, answers, groups = planted(0, {"fine": 0.1}, authors=5)
    ours = evaluate_positions(truth, answers, groups, scale=city_scale(9_000, (10, 1_000)), bootstrap=0).figures
    table = published_table("Oslo", ours)
    assert "no published figures" in table.title
    assert table.rows == [["ours: fine", "", "20.0", "-", "-", "-", "-"]]


def test_photos_without_an_answer_do_not_break_the_row():
    nowhere = Positions(np.array([np.nan]), np.array([np.nan]))
    ours = evaluate_positions(Positions(np.zeros(1), np.zeros(1)), {"fine": nowhere}, names(1), bootstrap=0).figures
    assert published_table("yfcc4k", ours).rows[-1][2:] == ["0.0"] * 5
