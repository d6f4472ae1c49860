"""The best that cells allow, on cells made here and on those that were published."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.evaluation.geolocation import HIERARCHY, WORLD, Positions, errors_m, evaluate_positions, hits
from geoloc_dagster.evaluation.geolocation_reports import decomposition_table, oracle_table, summarise_oracle
from geoloc_dagster.evaluation.oracle import decompose, nearest_centre, oracle, own_centre
from geoloc_dagster.evaluation.photo_tables import read_photos
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_csv import read_cells_csv
from geoloc_dagster.geo.partitioning import CellLevel, LevelRule, partition
from geoloc_dagster_tests.evaluation.test_geolocation import names, positions, scattered

PUBLISHED = Path(os.environ.get("GEOLOC_SHARED_DATA", "../shared/data")) / "photos"
LEVELS = {"coarse": 5000, "middle": 2000, "fine": 1000}


def level_of(*centres: tuple[float, float], s2_level: int = 4, name: str = "fine") -> CellLevel:
    """One cell around each centre, in the order of ids."""
    where = positions(*centres)
    ids = s2.parents(s2.leaf_ids(where.lat_deg, where.lng_deg), s2_level)
    order = np.argsort(ids)
    return CellLevel(name, ids[order], np.full(len(ids), 9), where.lat_deg[order], where.lng_deg[order])


def test_the_centre_of_the_own_cell_or_nothing_where_it_was_dropped():
    level = level_of((48.0, 2.0), (10.0, 20.0))
    truth = positions((48.1, 2.1), (-40.0, 170.0))
    own = own_centre(truth, level)
    assert (own.lat_deg[0], own.lng_deg[0]) == (48.0, 2.0)
    assert np.isnan([own.lat_deg[1], own.lng_deg[1]]).all()
    bound = oracle(truth, names(2), [level], bootstrap=0)["fine"]
    assert bound.own.n_unanswered == 1
    assert bound.own.within_m[25_000].value == 0.5
    assert bound.nearest.n_unanswered == 0


def test_the_nearest_centre_may_lie_beyond_the_antimeridian_or_the_pole():
    level = level_of((0.0, -179.9), (0.0, 170.0), (89.0, 0.0), (80.0, 180.0))
    found = nearest_centre(positions((0.0, 179.0), (89.5, 180.0)), level)
    assert found.lng_deg.tolist() == [-179.9, 0.0]


def test_no_cells_allow_nothing():
    empty = CellLevel("fine", np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    bound = oracle(positions((1, 2)), names(1), [empty], bootstrap=0)["fine"]
    assert (bound.own.n_unanswered, bound.nearest.n_unanswered, bound.n_cells) == (1, 1, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.integers(1, 30))
def test_no_answer_that_is_a_class_centre_beats_the_nearest_at_any_radius(seed: int, cells: int):
    rng = np.random.default_rng(seed)
    centres = scattered(cells, seed)
    ids = s2.leaf_ids(centres.lat_deg, centres.lng_deg)
    order = np.argsort(ids)
    level = CellLevel("fine", ids[order], np.ones(cells, np.int64), centres.lat_deg[order], centres.lng_deg[order])
    truth = scattered(50, seed + 1)
    classes = rng.integers(0, cells, 50)
    answers = Positions(level.lat_deg[classes], level.lng_deg[classes])
    best = hits(errors_m(truth, nearest_centre(truth, level)), WORLD)
    assert (best >= hits(errors_m(truth, answers), WORLD)).all()
    assert (best >= hits(errors_m(truth, own_centre(truth, level)), WORLD)).all()


def test_the_errors_of_the_model_are_told_from_those_of_the_cells():
    rng = np.random.default_rng(0)
    photos = Positions(rng.uniform(45, 55, 4_000), rng.uniform(0, 15, 4_000))
    made = partition(photos.lat_deg, photos.lng_deg, [LevelRule("coarse", 10, 600), LevelRule("fine", 10, 60)], lvl_min=3)
    truth = photos.take(np.arange(400))
    own = own_centre(truth, made.level("fine"))
    half = np.arange(400) % 2 == 0
    far = Positions(np.where(half, own.lat_deg, -own.lat_deg), own.lng_deg)
    report = evaluate_positions(truth, {"fine": far, HIERARCHY: own}, names(400), bootstrap=20)
    bounds = oracle(truth, names(400), made.levels, bootstrap=20)
    rows = {(row.p_key, row.radius_m): row for row in decompose(report, bounds)}
    assert rows["fine", 200_000].of_own == pytest.approx(0.5, abs=0.05)
    assert rows[HIERARCHY, 200_000].of_own == 1.0
    assert rows[HIERARCHY, 200_000].cells == "fine"
    assert all(row.of_nearest is None or row.of_nearest <= 1 for row in rows.values())
    assert len(decomposition_table(list(rows.values())).rows) == 10
    assert [row[0].split(",")[1] for row in oracle_table(bounds).rows] == [" own cell", " nearest centre"] * 2
    assert summarise_oracle(bounds)["fine"]["n_cells"] == len(made.level("fine"))


@pytest.fixture(scope="module")
def published() -> list[CellLevel]:
    if not (PUBLISHED / "cells_50_1000.csv").is_file():
        pytest.skip(f"the published cells are not in {PUBLISHED}; set GEOLOC_SHARED_DATA to the folder above")
    return [read_cells_csv(PUBLISHED / f"cells_50_{most}.csv", name).level for name, most in LEVELS.items()]


@pytest.mark.parametrize(
    ("photos", "own_1_km", "own_25_km", "dropped"),
    [
        ("im2gps", [18.6, 31.2, 34.6], [56.5, 68.4, 77.6], [0, 3, 8]),
        ("im2gps3k", [20.0, 30.7, 38.6], [63.4, 73.7, 79.3], [1, 19, 43]),
    ],
)
def test_what_the_published_cells_allow(
    published: list[CellLevel], photos: str, own_1_km: list[float], own_25_km: list[float], dropped: list[int]
):
    table = read_photos(PUBLISHED / f"{photos}_places365.csv")
    assert table.bad == ()
    bounds = oracle(table.positions, table.authors, published, bootstrap=100)
    own = [bound.own for bound in bounds.values()]
    assert [round(100 * figures.within_m[1_000].value, 1) for figures in own] == own_1_km
    assert [round(100 * figures.within_m[25_000].value, 1) for figures in own] == own_25_km
    assert [figures.n_unanswered for figures in own] == dropped
    for bound in bounds.values():
        assert all(bound.nearest.within_m[r].value >= share.value for r, share in bound.own.within_m.items())
