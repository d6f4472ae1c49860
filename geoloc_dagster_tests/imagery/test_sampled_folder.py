"""The naming of a published sample of a country: read back, every bad name named, headings absolute, and imported whole."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.registration import CellCounts, batch_locations, register_locations
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.errors import CollectionSourceError, ConfigError
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Capture, Location, Panorama
from geoloc_dagster.imagery.sampled_folder import SampledLocation, SampledName, read_sampled_locations
from geoloc_dagster.storage import read_geoparquet
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.imagery.pictures import TERMS, jpeg, write_folder, write_tar

PLACE = "27+39.29857974594151,-117.9124921831382"
FILES = {
    f"{PLACE}/0_2007-12.jpg": jpeg(1),
    f"{PLACE}/90_2007-12.jpg": jpeg(2),
    f"{PLACE}/180_2007-12.jpg": jpeg(3),
    f"{PLACE}/0_2019-04.jpg": jpeg(4),
    "3+-33.5,151.25/270.5_2012-05.png": jpeg(5),
}


@given(
    st.integers(0, 9_999_999),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.integers(0, 359),
    st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
)
def test_every_name_in_the_naming_is_read_back(cell: int, lat: float, lng: float, heading: int, day: dt.date):
    place = f"{cell}+{lat:.7f},{lng:.7f}"
    name = SampledName.parse(f"samples/{place}/{heading}_{day:%Y-%m}.jpg")
    expected = (place, cell, float(f"{lat:.7f}"), float(f"{lng:.7f}"), float(heading), day.replace(day=1))
    assert name == SampledName(*expected)


@pytest.mark.parametrize(
    "name",
    [
        "27+39.29,-117.91/360_2007-12.jpg",
        "27+39.29,-117.91/90_2007-13.jpg",
        "27+39.29,-117.91/90_2007-12.txt",
        "27+39.29,-117.91/-90_2007-12.jpg",
        "27+99.29,-117.91/90_2007-12.jpg",
        "27+39.29,-187.91/90_2007-12.jpg",
        "27+39.29/90_2007-12.jpg",
        "27+nan,-117.91/90_2007-12.jpg",
        "27+39.29,-117.91/90_2007-12.jpg/x.jpg",
        "٢٧+39.29,-117.91/90_2007-12.jpg",
        "90_2007-12.jpg",
    ],
)
def test_other_names_are_not_guessed(name: str):
    assert SampledName.parse(name) is None


def captures(source: Path, place: str) -> list[Capture]:
    async def everything() -> list[Capture]:
        provider = FolderProvider([source], TERMS)
        got: list[Capture] = []
        async for found in provider.find([Location(place, 0.0, 0.0)]):
            assert isinstance(found, Panorama)
            for panorama in await provider.history(found):
                got += [answer async for answer in provider.capture(panorama, panorama.views) if isinstance(answer, Capture)]
        return got

    return asyncio.run(everything())


@pytest.mark.parametrize("write", [write_folder, write_tar])
def test_pictures_come_newest_month_first_with_their_absolute_headings(tmp_path: Path, write):
    source = write(tmp_path / ("usa.tar" if write is write_tar else "usa"), FILES)
    got = captures(source, PLACE)
    assert [(one.panorama.captured_on, one.view.heading_deg, one.view.rotation) for one in got] == [
        (dt.date(2019, 4, 1), 0.0, None),
        (dt.date(2007, 12, 1), 0.0, None),
        (dt.date(2007, 12, 1), 90.0, None),
        (dt.date(2007, 12, 1), 180.0, None),
    ]
    assert [one.image for one in got] == [jpeg(4), jpeg(1), jpeg(2), jpeg(3)]
    assert {one.panorama.precision for one in got} == {"month"}
    assert read_sampled_locations([source]) == [
        SampledLocation("3+-33.5,151.25", 3, -33.5, 151.25, dt.date(2012, 5, 1)),
        SampledLocation(PLACE, 27, 39.29857974594151, -117.9124921831382, dt.date(2019, 4, 1)),
    ]


def test_every_bad_name_is_named_and_so_is_a_picture_that_is_there_twice(tmp_path: Path):
    bad = [f"{PLACE}/{heading}_2007-12.jpg" for heading in range(360, 372)] + ["27+39.3/0_2007-12.jpg", "774_2_2_July 2017_x.jpg"]
    twice = f"{PLACE}/90_2007-12.png"
    source = write_folder(tmp_path / "usa", FILES | {name: jpeg(9) for name in [*bad, twice]})
    with pytest.raises(CollectionSourceError, match=r"15 of 20 pictures .* expected names like '27\+") as error:
        FolderProvider([source], TERMS).location_ids()
    assert all(repr(name) in str(error.value) for name in [*bad, twice])
    with pytest.raises(CollectionSourceError, match="15 of 20"):
        read_sampled_locations([source])
    with pytest.raises(CollectionSourceError, match="1 of 1 pictures"):  # another naming is not taken for a sample
        read_sampled_locations([write_folder(tmp_path / "city", {"774_2_2_July 2017_x.jpg": jpeg(1)})])
    with pytest.raises(CollectionSourceError, match="no folder or archive"):
        read_sampled_locations([])


def test_locations_go_to_the_cell_they_lie_in_and_other_numbers_are_counted(tmp_path: Path):
    square = {"type": "Polygon", "coordinates": [[[-100, 30], [-96, 30], [-96, 34], [-100, 34], [-100, 30]]]}
    (tmp_path / "square.geojson").write_text(json.dumps(square))
    names = ["0+31.0,-99.0", "1+33.0,-99.0", "9+31.0,-97.0", "7+50.0,-97.0"]  # the third is in cell 2, the last in none
    write_folder(tmp_path / "samples", {f"{name}/{heading}_2012-05.jpg": jpeg(1) for name in names for heading in (0, 90)})
    config = write_import(tmp_path, tmp_path / "square.geojson", tmp_path / "samples", samples_per_cell=1, merge_below=0.1)
    settings = load_settings(config, environ={})
    run_headless(settings, select="region_boundary,grid_cells", report=lambda event: None)
    made = register_locations(settings, Layout(settings.data_root))
    assert dict(zip(made.locations["location_id"], made.locations["grid_cell"].fillna(-1), strict=True)) == dict(
        zip(names, (0, 1, 2, -1), strict=True)
    )
    assert (made.new, made.imported, made.outside) == (4, True, 1)
    assert made.cells == CellCounts(cells=4, cells_short=1, samples_missing=1, samples_renumbered=2)
    (tmp_path / "samples" / "3+33.0,-97.0").mkdir()
    (tmp_path / "samples" / "3+33.0,-97.0" / "0_2013-01.jpg").write_bytes(jpeg(2))
    again = register_locations(settings, Layout(settings.data_root))
    assert (again.new, again.cells) == (1, CellCounts(cells=4, cells_short=0, samples_missing=0, samples_renumbered=2))
    assert again.locations.head(4).drop(columns="grid_cell").equals(made.locations.drop(columns="grid_cell"))
    assert batch_locations(Layout(settings.data_root), "usa2deg-0000")[0].pano_id is None
    config.write_text(config.read_text().replace("merge_below: 0.1", "merge_below: 0.1\n  step_deg: 4"))
    run_headless(load_settings(config, environ={}), select="grid_cells", report=lambda event: None)
    with pytest.raises(ConfigError, match=r"usa2deg lie in other cells"):
        register_locations(settings, Layout(settings.data_root))


def write_import(folder: Path, boundary: Path, samples: Path, **cells: object) -> Path:
    config = {
        "version": 1,
        "data_root": "data",
        "region": {
            "name": "usa",
            "boundary": str(boundary),
            "boundary_part": "largest",
            "start_point": [39.8, -98.6],
            "max_area_km2": 9_000_000,
        },
        "grid_cells": {"samples_per_cell": 1, "attempts_per_cell": 1, **cells},
        "buffers": {"batch_size": 6},
        "capture": {"provider": "folder", "sources": [str(samples)], "licence": "proprietary", "attribution": "© Google",
                    "permission": "tests"},
    }  # fmt: skip
    path = folder / "geoloc.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_published_sample_is_imported_into_its_cells(tmp_path: Path, shared_data: Path):
    usa = shared_data / "usa"
    if not usa.is_dir():
        pytest.skip("GEOLOC_SHARED_DATA has no usa/")
    config = write_import(tmp_path, usa / "boundary" / "cb_2018_us_nation_5m.shp", usa / "samples")
    select = "region_boundary,grid_cells,grid_points,street_view_metadata,buffer_csvs,panoramas,crops,catalog"
    settings, layout = load_settings(config, environ={}), Layout(tmp_path / "data")
    run_headless(settings, select=select, report=lambda event: None)
    names = sorted(folder.name for folder in (usa / "samples").iterdir())
    locations = pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry"))
    assert sorted(locations["location_id"]) == names
    assert locations["grid_cell"].tolist() == sorted(int(name.split("+")[0]) for name in names)  # our cells have their numbers
    assert locations["batch"].tolist() == ["usa2deg-0000"] * 6 + ["usa2deg-0001"] * 4
    rows = open_table(layout.panoramas).to_table(columns=["location_id", "heading_deg", "rotation", "captured_on"]).to_pandas()
    assert len(rows) == 30
    assert set(rows["heading_deg"]) == {0.0, 90.0, 180.0}
    assert rows["rotation"].isna().all()
    of_name = {name: next((usa / "samples" / name).iterdir()).stem.split("_")[1] for name in names}
    assert all(f"{row.captured_on:%Y-%m}" == of_name[row.location_id] for row in rows.itertuples())
    catalog = pd.read_parquet(layout.catalog)
    assert set(catalog["view"]) == {"h000", "h090", "h180"}
    assert catalog["district"].str.len().max() <= 4  # cells of level 5, not of a neighbourhood
    run_headless(settings, select="buffer_csvs,panoramas", report=lambda event: None)
    assert open_table(layout.panoramas).count_rows() == 30
    assert pd.DataFrame(read_geoparquet(layout.locations).drop(columns="geometry")).equals(locations)
