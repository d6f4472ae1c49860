"""Polygon cells of a region as classes: which one holds a point, where their centres are, and that they are read back."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import box

from geoloc_dagster.errors import IntegrityError, PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.grid_cells import cell_of, describe_cells, grid_cells
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, partition
from geoloc_dagster.geo.region_classes import (
    GRID,
    RegionLevel,
    class_names,
    class_shapes,
    read_classes,
    region_classes,
    write_classes,
)

CELLS = describe_cells(grid_cells(box(10, 50, 16, 54), 2, merge_below=0))  # six, of two degrees
LAT, LNG = np.array([51.0, 51.5, 53.0, 40.0]), np.array([11.0, 11.5, 15.0, 11.0])


def test_a_class_is_the_cell_that_holds_a_point_whatever_cells_are_numbered():
    numbered = CELLS.assign(cell_id=[50, 40, 30, 20, 10, 0])
    level = region_classes(numbered, LAT, LNG).level(GRID)
    assert isinstance(level, RegionLevel)
    assert level.numbers.tolist() == [0, 10, 20, 30, 40, 50]
    rng = np.random.default_rng(0)
    lat, lng = rng.uniform(49, 55, 500), rng.uniform(9, 17, 500)
    expected = cell_of(numbered, lat, lng)
    found = level.classes_at(lat, lng)
    assert np.array_equal(found == DROPPED, expected == -1)
    assert np.array_equal(level.numbers[found[found != DROPPED]], expected[found != DROPPED])
    assert np.array_equal(level.classes(s2.leaf_ids(lat, lng)), found)
    assert level.classes_at([52.0], [11.0]).tolist() == [level.numbers.tolist().index(40)]  # on an edge the lower number


def test_a_centre_is_the_mean_of_the_places_of_training_and_the_centroid_where_there_are_none():
    level = region_classes(CELLS, LAT, LNG).level(GRID)
    assert level.counts.tolist() == [2, 0, 0, 0, 0, 1]
    assert (level.lat_deg[0], level.lng_deg[0]) == pytest.approx((51.25, 11.25), abs=0.01)
    assert (level.lat_deg[5], level.lng_deg[5]) == pytest.approx((53.0, 15.0), abs=1e-9)
    assert (level.lat_deg[1], level.lng_deg[1]) == pytest.approx((53.0, 11.0), abs=1e-9)
    assert len(level) == 6
    assert level.ids.size == 0


def test_classes_of_both_kinds_are_read_back_and_have_names_and_shapes(tmp_path: Path):
    rng = np.random.default_rng(1)
    of_s2 = partition(rng.uniform(50, 54, 90), rng.uniform(10, 16, 90), [LevelRule("fine", 3, 30)])
    for name, classes in {"grid": region_classes(CELLS, LAT, LNG), "s2": of_s2}.items():
        again = read_classes(write_classes(tmp_path / name, classes))
        level, read = classes.levels[-1], again.levels[-1]
        assert again.fingerprint == classes.fingerprint
        assert np.array_equal(again.parents, classes.parents)
        assert np.allclose([read.lat_deg, read.lng_deg], [level.lat_deg, level.lng_deg], atol=1e-6)
        assert class_names(read) == class_names(level)
        assert all(one.equals_exact(other, 1e-9) for one, other in zip(class_shapes(read), class_shapes(level), strict=True))
        assert np.array_equal(read.classes(s2.leaf_ids(LAT, LNG)), level.classes(s2.leaf_ids(LAT, LNG)))
    assert class_names(region_classes(CELLS, LAT, LNG).levels[0])[0] == "0 (51.0°N 11.0°E)"
    assert class_names(of_s2.levels[0]) == s2.tokens(of_s2.levels[0].ids)
    assert class_shapes(of_s2.levels[0])[0].equals(outlines(of_s2.levels[0].ids)[0])


def test_what_is_no_set_of_classes_is_refused(tmp_path: Path):
    with pytest.raises(PartitioningError, match="no grid cells"):
        region_classes(CELLS.head(0), LAT, LNG)
    with pytest.raises(PartitioningError, match="no partitioning"):
        read_classes(tmp_path)
    folder = write_classes(tmp_path / "grid", region_classes(CELLS, LAT, LNG))
    moved = gpd.read_parquet(folder / "polygons.parquet")
    moved.geometry = [shapely.transform(shape, lambda points: points + 1) for shape in moved.geometry]
    moved.to_parquet(folder / "polygons.parquet")
    with pytest.raises(IntegrityError, match=r"polygons\.parquet"):
        read_classes(folder)
