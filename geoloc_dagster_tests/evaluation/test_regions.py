"""Averages by area and by region, and regions too small to stand alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.evaluation.geolocation import HIERARCHY, WORLD, Positions, city_scale, evaluate_positions
from geoloc_dagster.evaluation.regions import (
    area_table,
    area_weighted,
    by_region,
    level_with,
    region_names,
    regions_table,
    summarise_area,
    summarise_regions,
)
from geoloc_dagster.geo import s2
from geoloc_dagster_tests.evaluation.test_geolocation import names, positions

PARIS, BAMAKO, SUVA = (48.85, 2.35), (12.64, -8.0), (-18.14, 178.44)


def crowded(n_paris: int, n_bamako: int) -> tuple[Positions, dict[str, Positions], np.ndarray]:
    """Paris is always found, Bamako never answered."""
    truth = positions(*[PARIS] * n_paris, *[BAMAKO] * n_bamako)
    known = np.arange(len(truth)) < n_paris
    answers = Positions(np.where(known, truth.lat_deg, np.nan), np.where(known, truth.lng_deg, np.nan))
    return truth, {HIERARCHY: answers}, names(len(truth))


def test_a_crowded_city_counts_as_much_as_its_area():
    truth, answers, groups = crowded(99, 1)
    result = area_weighted(truth, answers, groups, bootstrap=50)
    paris, bamako = s2.areas_m2(s2.parents(s2.leaf_ids([PARIS[0], BAMAKO[0]], [PARIS[1], BAMAKO[1]]), 3))
    assert (result.s2_level, result.n_cells) == (3, 2)
    assert result.area_m2 == pytest.approx(paris + bamako)
    share = result.shares[HIERARCHY].within_m[1_000]
    assert share.value == pytest.approx(paris / (paris + bamako))
    assert share.low < share.value <= share.high  # all that is known of half the area hangs on one photo
    assert 2 < result.effective_photos < 4.5
    rows = area_table(result, evaluate_positions(truth, answers, groups, bootstrap=50).figures).rows
    assert [row[0] for row in rows] == ["hierarchy, by photo", "hierarchy, by area"]
    assert rows[0][1].startswith("99.0")
    said = json.loads(json.dumps(summarise_area(result), allow_nan=False))
    assert said["shares"]["hierarchy"]["within_m"]["1000"]["value"] == share.value


def test_equal_photos_in_equal_cells_weigh_as_they_do_anyway():
    ids = s2.children(s2.children(np.uint64(1 << 60 | 3 << 61))).ravel()
    lat, lng = s2.centres(ids)
    truth = Positions(np.repeat(lat, 5), np.repeat(lng, 5))
    half = np.arange(len(truth)) % 2 == 0
    answers = {"fine": Positions(np.where(half, truth.lat_deg, -truth.lat_deg + 1), truth.lng_deg)}
    groups = names(len(truth))
    weighted = area_weighted(truth, answers, groups, s2_level=2, bootstrap=0)
    plain = evaluate_positions(truth, answers, groups, bootstrap=0).figures["fine"]
    assert weighted.n_cells == 16
    assert weighted.shares["fine"].within_m[1_000].value == pytest.approx(plain.within_m[1_000].value, abs=0.05)


@pytest.mark.parametrize("diagonal_m", [3_000, 20_000, 150_000, 2_000_000])
def test_the_level_has_a_few_hundred_cells_whatever_the_size_of_the_region(diagonal_m: float):
    scale = city_scale(diagonal_m)
    cells = scale.area_m2 / (WORLD.area_m2 / 6 / 4 ** level_with(scale, 220))
    assert 100 <= cells <= 500
    assert 6 * 4 ** level_with(WORLD, 220) == 384


def test_regions_with_few_photos_are_measured_together_and_said_so():
    truth = positions(*[PARIS] * 30, *[BAMAKO] * 5, *[SUVA] * 5)
    regions = ["France"] * 30 + ["Mali"] * 5 + ["Fiji"] * 5
    right = np.arange(40) != 35
    answers = {HIERARCHY: Positions(np.where(right, truth.lat_deg, np.nan), np.where(right, truth.lng_deg, np.nan))}
    result = by_region(truth, answers, names(40), regions, min_photos=10, bootstrap=50)
    together = "fewer than 10 photos each (2 together)"
    assert list(result.figures) == ["France", together]
    assert result.pooled == ("Fiji", "Mali")
    assert result.figures[together][HIERARCHY].within_m[1_000].value == 0.9
    assert result.macro[HIERARCHY].within_m[1_000].value == pytest.approx((1.0 + 0.9) / 2)
    table = regions_table(result)
    assert [row[0] for row in table.rows] == ["France", together, "mean of the rows"]
    assert {len(row) for row in [table.header, *table.rows]} == {9}
    said = json.loads(json.dumps(summarise_regions(result), allow_nan=False))
    assert said["regions"]["France"]["hierarchy"]["n_photos"] == 30
    assert said["pooled"] == ["Fiji", "Mali"]


def test_one_small_region_keeps_its_name_and_shows_no_interval():
    truth = positions(*[PARIS] * 30, *[BAMAKO] * 3)
    result = by_region(truth, {"fine": truth}, names(33), ["France"] * 30 + ["Mali"] * 3, bootstrap=50)
    assert list(result.figures) == ["France", "Mali"]
    assert result.pooled == ()
    assert regions_table(result, "fine").rows[1][:4] == ["Mali", "3", "3", "100.0"]


def test_regions_are_polygons_by_name_or_cells_by_token_and_place(tmp_path: Path):
    ring = [[-5, 42], [8, 42], [8, 51], [-5, 51], [-5, 42]]
    feature = {"type": "Feature", "properties": {"name": "France"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path = tmp_path / "countries.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    truth = positions(PARIS, BAMAKO, SUVA)
    assert region_names(truth, path) == ["France", "outside", "outside"]
    cells = region_names(truth)
    assert cells[0] == "S2 47 (55° N, 15° E)"
    assert len(set(cells)) == 3
    assert all(name.startswith("S2 ") for name in region_names(positions(PARIS), scale=city_scale(10_000)))
