"""Points of cells: inside, even by area, the same for a seed, in rounds; and which street views are a cell's sample."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.cell_sampling import cell_points, missing_samples, take_samples
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.geo.grid_cells import cell_of, describe_cells, grid_cells
from geoloc_dagster.geo.spacing import close_pairs

MOST = 1_000_000
REGISTERED = pd.DataFrame({"series": [], "grid_cell": [], "lat_deg": [], "lng_deg": [], "pano_id": []}).astype(
    {"pano_id": object}
)


def cells_of(*shapes: Polygon) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"cell_id": np.arange(len(shapes))}, geometry=list(shapes), crs="OGC:CRS84")


def draw(cells: gpd.GeoDataFrame, per_cell: int, seed: int = 0) -> pd.DataFrame:
    return cell_points(cells, per_cell, seed=seed, max_points=MOST)


@settings(max_examples=25, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-150, -60), st.floats(-60, 75)), min_size=3, max_size=8),
    seed=st.integers(0, 10),
    per_cell=st.integers(1, 30),
)
def test_points_lie_in_their_cells_in_rounds_and_more_of_them_begin_with_the_same(
    corners: list[tuple[float, float]], seed: int, per_cell: int
):
    polygon = shapely.convex_hull(shapely.MultiPoint(corners))
    if not isinstance(polygon, Polygon) or polygon.area < 1:
        return
    cells = grid_cells(polygon, 10.0, merge_below=0.1)
    points = draw(cells, per_cell, seed)
    assert points["grid_cell"].tolist() == cells["cell_id"].tolist() * per_cell
    assert points["point_id"].tolist() == list(range(len(points)))
    own = cells.geometry.to_numpy()[points["grid_cell"]]
    assert shapely.contains_xy(own, points["lng_deg"], points["lat_deg"]).all()
    assert draw(cells, per_cell, seed).equals(points)
    assert draw(cells, per_cell + 7, seed).head(len(points)).equals(points)
    assert not draw(cells, per_cell, seed + 1)["lat_deg"].equals(points["lat_deg"])


def test_points_are_even_by_area_and_not_by_degrees():
    shape = Polygon([(0, 0), (40, 0), (40, 60), (10, 60)])  # where a degree of longitude shrinks to half
    points = draw(cells_of(shape), 20_000)
    bands = [box(0, low, 40, low + 10) for low in range(0, 60, 10)]
    areas = describe_cells(cells_of(*(shapely.intersection(shape, band) for band in bands)))["area_km2"].to_numpy()
    seen = np.histogram(points["lat_deg"], bins=np.arange(0, 61, 10))[0]
    wanted = areas / areas.sum() * len(points)
    assert ((seen - wanted) ** 2 / wanted).sum() < 25  # chi square of 5 degrees of freedom: 20.5 at one in a thousand
    by_degrees = np.array([shapely.intersection(shape, band).area for band in bands])
    assert ((seen - by_degrees / by_degrees.sum() * len(points)) ** 2 / wanted).sum() > 500


def test_too_many_points_and_cells_too_thin_are_refused_with_a_remedy():
    with pytest.raises(BoundaryError, match=r"attempts_per_cell"):
        cell_points(cells_of(box(0, 0, 1, 1)), 1_000_001, seed=0, max_points=MOST)
    sliver = Polygon([(0, 0), (1, 1), (1, 1 + 1e-12), (0, 1e-12)])
    with pytest.raises(BoundaryError, match=r"cell 0 is so thin .* grid_cells.merge_below"):
        draw(cells_of(sliver), 100)


def found_at(*rows: tuple[int, float, float, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["grid_cell", "lat_deg", "lng_deg", "pano_id"])


def take(found: pd.DataFrame, registered: pd.DataFrame = REGISTERED, per_cell: int = 2) -> list[str]:
    cells = cells_of(box(0, 0, 1, 1), box(1, 0, 2, 1))
    return (
        take_samples(found, cells, registered, series="isle1", per_cell=per_cell, apart_m=100.0)["pano_id"]
        .fillna("no id")
        .tolist()
    )


def test_a_sample_lies_in_its_cell_is_of_different_panoramas_and_apart():
    found = found_at(
        (0, 0.5, 0.5, "a"),
        (0, 0.5, 1.1, "over the border"),
        (0, 0.7, 0.7, "a"),  # the same panorama again
        (0, 0.5005, 0.5, "56 m from the first"),
        (1, 0.5, 1.1, "b"),
        (0, 0.6, 0.5, "c"),
        (0, 0.8, 0.5, "one too many"),
        (1, 0.2, 1.5, None),  # a service without ids
        (1, 0.3, 1.5, None),
    )
    assert take(found) == ["a", "b", "c", "no id"]


def test_what_is_registered_fills_its_cell_and_keeps_others_away():
    registered = pd.DataFrame(
        {
            "series": ["isle1", "100m"],
            "grid_cell": [0.0, np.nan],
            "lat_deg": [0.5, 0.3],
            "lng_deg": [0.5, 0.3],
            "pano_id": ["a", "z"],
        }
    )
    found = found_at((0, 0.5, 0.5, "a"), (0, 0.3, 0.3001, "near z"), (0, 0.9, 0.9, "z"), (0, 0.2, 0.2, "b"), (0, 0.1, 0.1, "c"))
    assert take(found, registered) == ["b"]
    cells = cells_of(box(0, 0, 1, 1), box(1, 0, 2, 1))
    missing = missing_samples(cells, registered, found.iloc[3:4], series="isle1", per_cell=3)
    assert missing.to_dict() == {0: 1, 1: 3}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_samples_keep_their_rules_whatever_is_found(seed: int, per_cell: int):
    cells = grid_cells(box(0, 0, 0.02, 0.02), 0.01, merge_below=0.1)
    rng = np.random.default_rng(seed)
    points = draw(cells, 30, seed)
    found = points.assign(
        lat_deg=points["lat_deg"] + rng.normal(0, 0.002, len(points)),
        lng_deg=points["lng_deg"] + rng.normal(0, 0.002, len(points)),
        pano_id=rng.integers(0, 60, len(points)).astype(str),
    )
    taken = take_samples(found, cells, REGISTERED, series="isle1", per_cell=per_cell, apart_m=100.0)
    assert (cell_of(cells, taken["lat_deg"].to_numpy(), taken["lng_deg"].to_numpy()) == taken["grid_cell"]).all()
    assert taken["pano_id"].is_unique
    assert close_pairs(taken["lat_deg"].to_numpy(), taken["lng_deg"].to_numpy(), 100.0).empty
    assert taken["grid_cell"].value_counts().max() <= per_cell
    rest = take_samples(found, cells, taken.assign(series="isle1"), series="isle1", per_cell=per_cell, apart_m=100.0)
    assert rest.empty  # what is registered has filled its cells: nothing is taken a second time


def test_cells_say_where_they_are_and_how_large():
    cells = describe_cells(grid_cells(box(-100, 30, -96, 34), 2.0, merge_below=0.1))
    assert cells["label"].tolist()[:2] == ["0 (31.0°N 99.0°W)", "1 (33.0°N 99.0°W)"]
    height = geodesic_m(30, -99, 32, -99) / 1000
    width = geodesic_m(31, -100, 31, -98) / 1000
    assert cells["area_km2"][0] == pytest.approx(float(height * width), rel=1e-3)
    assert cells[["lat_deg", "lng_deg"]].iloc[0].tolist() == [31.0, -99.0]
    fine = describe_cells(grid_cells(box(17.99, -59.01, 18.01, -58.99), 0.01, merge_below=0.1))
    assert fine["label"].is_unique
    assert fine["label"][0] == "0 (59.0050°S 17.9950°E)"


def test_a_position_is_of_the_cell_that_it_lies_in():
    cells = cells_of(box(0, 0, 1, 1), box(1, 0, 2, 1))
    assert cell_of(cells, np.array([0.5, 0.5, 5.0, 0.5]), np.array([1.5, 0.5, 0.5, 1.0])).tolist() == [1, 0, -1, 0]
    assert cell_of(cells, np.zeros(0), np.zeros(0)).tolist() == []
