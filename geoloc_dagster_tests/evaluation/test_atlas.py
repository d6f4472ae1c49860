from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
import shapely
from shapely.geometry import box

from geoloc_dagster import storage
from geoloc_dagster.evaluation.atlas import Regions, atlas_frame, atlas_table, make_atlas, newest_day, write_atlas
from geoloc_dagster_tests.evaluation.builders import catalog, row

OUTLINES = {"Centre": box(18.0, 59.3, 18.1, 59.4), "South": box(18.0, 59.2, 18.1, 59.3), "outside": None}


def captures():
    """Six places in the centre with pictures of 2014 and 2018; two in the south with one of 2020 each."""
    centre = [
        row(f"c{p}y{year}", f"c{p}", date(year, 1, 1), is_query=year == 2018, split="test" if p < 5 else "train")
        for p in range(6)
        for year in (2014, 2018)
    ]
    south = [row(f"s{p}", f"s{p}", date(2020, 1, 1), district="South", is_query=True) for p in range(2)]
    return [*centre, *south, row("hidden", "c9", date(1990, 1, 1), usable=False)]


def queries(found: dict[str, int]) -> pa.Table:
    rows = [r for r in captures() if r["capture_id"] in found]
    return pa.table(
        {
            "capture_id": [r["capture_id"] for r in rows],
            "location_id": [r["location_id"] for r in rows],
            "district": [r["district"] for r in rows],
            "first_hit_rank": [found[r["capture_id"]] for r in rows],
        }
    )


QUERIES = queries({"c0y2018": 1, "c1y2018": 1, "c2y2018": 1, "c3y2018": 2, "c4y2018": 0, "s0": 1, "s1": 1})


@pytest.fixture
def atlas():
    ids = ["s1", "c4y2018", "c3y2018", "c2y2018", "c1y2018", "c0y2018"]  # not in the order of the queries
    regions = Regions(ids, np.array([1, 0, 1, 1, 1, 1], bool), np.array([9.0, 5, 4, 3, 2, 1]))
    return make_atlas(catalog(captures()), QUERIES, as_of=date(2020, 1, 1), regions=regions, bootstrap=100)


def test_figures_of_a_district_by_hand(atlas):
    centre = atlas.districts[0]
    assert (centre.name, centre.n_places, centre.n_pictures) == ("Centre", 6, 12)  # train counts too, the unusable one does not
    assert (centre.n_queries, centre.n_query_places) == (5, 5)
    assert centre.recall.value == pytest.approx(0.6)
    assert centre.coverage.value == pytest.approx(0.8)
    assert centre.region_km2.value == 3
    assert centre.age_years.value == pytest.approx(2.0, abs=0.01)  # half of them are two years old, half six
    for figure in (centre.recall, centre.coverage, centre.region_km2, centre.age_years):
        assert figure.low <= figure.value <= figure.high


def test_a_district_of_two_places_shows_its_counts_and_no_figure(atlas):
    south = atlas.districts[1]
    assert (south.n_places, south.n_queries) == (2, 2)
    assert [south.recall, south.coverage, south.age_years, south.region_km2] == [None] * 4
    assert "| South | 2 | 2 | 2 | – | – | – | – |" in atlas_table(atlas).markdown()


def test_ages_are_counted_to_the_day_of_the_atlas():
    later = make_atlas(catalog(captures()), QUERIES, as_of=date(2030, 1, 1), bootstrap=10)
    assert later.districts[0].age_years.value == pytest.approx(12.0, abs=0.01)
    assert newest_day(catalog(captures())) == date(2020, 1, 1)
    undated = catalog([{**r, "captured_on": None, "year": None} for r in captures()])
    assert newest_day(undated) is None
    assert make_atlas(undated, QUERIES, as_of=None, bootstrap=10).districts[0].age_years is None


def test_without_regions_there_are_no_columns_of_them_in_the_table():
    plain = make_atlas(catalog(captures()), QUERIES, as_of=date(2020, 1, 1), bootstrap=10)
    assert plain.districts[0].coverage is None
    assert "covered" not in atlas_table(plain).markdown()


def test_the_atlas_is_geoparquet_that_geographic_tools_read(atlas, tmp_path):
    read = storage.read_geoparquet(write_atlas(tmp_path / "atlas.parquet", atlas, OUTLINES)).set_index("name")
    assert read.crs.to_string() == "OGC:CRS84"
    assert shapely.equals(read.loc["South"].geometry, OUTLINES["South"])
    assert read.loc["Centre", "recall"] == pytest.approx(0.6)
    assert read.loc["Centre", "recall_low"] <= 0.6 <= read.loc["Centre", "recall_high"]
    assert np.isnan(read.loc["South", "recall"])
    assert read.loc["South", "n_pictures"] == 2
    assert read["as_of"].tolist() == ["2020-01-01"] * 2


def test_a_district_without_a_polygon_stays_in_the_table(atlas):
    frame = atlas_frame(atlas, {"Centre": OUTLINES["Centre"]})
    assert frame.set_index("name").loc["South"].geometry is None
