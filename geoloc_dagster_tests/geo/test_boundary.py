from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import Polygon

from geoloc_dagster.errors import BoundaryError, IntegrityError, UnsafeFileError
from geoloc_dagster.geo.boundary import (
    Boundary,
    contains,
    geodesic_area_km2,
    load_boundary,
    read_boundary,
    utm_crs,
    write_boundary,
)
from geoloc_dagster_tests.geo.shapes import COURTYARD, OLD_TOWN, collection, feature, polygon, saved, square

BOW_TIE = [[18.0, 59.0], [18.2, 59.2], [18.2, 59.0], [18.0, 59.2], [18.0, 59.0]]
TOPOLOGY: dict[str, Any] = {
    # Two squares of 1 x 1 degree that share a border (arc 0), quantised, the second read backwards.
    "type": "Topology",
    "transform": {"scale": [0.1, 0.1], "translate": [18.0, 59.0]},
    "arcs": [[[10, 0], [0, 10]], [[10, 10], [-10, 0], [0, -10], [10, 0]], [[10, 0], [10, 0], [0, 10], [-10, 0]]],
    "objects": {
        "districts": {
            "type": "GeometryCollection",
            "geometries": [
                {"type": "Polygon", "arcs": [[0, 1]], "properties": {"name": "west"}},
                {"type": "Polygon", "arcs": [[2, -1]], "properties": {"name": "east"}},
            ],
        }
    },
}


def load(path: Path, **options: Any) -> Boundary:
    return load_boundary(path, **{"name": "place", "max_area_km2": 20_000.0, **options})


# --- what can be read -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "document",
    [
        polygon(OLD_TOWN),
        feature(polygon(OLD_TOWN)),
        collection(feature(polygon(OLD_TOWN))),
        collection(feature(None), feature({"type": "Point", "coordinates": [1, 2]}), feature(polygon(OLD_TOWN))),
        {"type": "GeometryCollection", "geometries": [polygon(OLD_TOWN)]},
        {"type": "MultiPolygon", "coordinates": [[OLD_TOWN]]},
        polygon([[*position, 12.0] for position in OLD_TOWN]),  # with heights
    ],
)
def test_a_polygon_is_found_however_geojson_wraps_it(tmp_path: Path, document: dict[str, Any]):
    boundary = load(saved(tmp_path, document))
    assert shapely.equals(boundary.geometry, shapely.Polygon(OLD_TOWN))
    assert not boundary.geometry.has_z


def test_a_belt_of_features_round_the_world_is_a_region(tmp_path: Path):
    def belt(west: int) -> dict[str, Any]:
        south, north = ([[west + step, lat] for step in range(0, 31, 5)] for lat in (-58, 84))
        return feature(polygon([*south, *reversed(north), south[0]]))

    path = saved(tmp_path, collection(*(belt(west) for west in range(-180, 180, 30))))
    world = load(path, metric_crs="EPSG:6933", max_area_km2=6e8)
    assert world.area_km2 == pytest.approx(470e6, rel=0.005)  # of 510; the caps are left out
    assert contains(world, [0, 64, -89, 85], [-179.9, 179.9, 0, 0]).tolist() == [True, True, False, False]


def test_area_is_measured_on_the_ellipsoid_and_holes_are_left_out(tmp_path: Path):
    whole = load(saved(tmp_path, polygon(OLD_TOWN))).area_km2
    hollow = load(saved(tmp_path, polygon(OLD_TOWN, COURTYARD))).area_km2
    # 0.02 x 0.008 degrees at 59.326 N: 56.94 m x 111.41 m per millidegree; the courtyard takes a sixteenth.
    assert whole == pytest.approx(20 * 56.94 * 8 * 111.41 / 1e6, rel=1e-3)
    assert hollow == pytest.approx(whole * 15 / 16, rel=1e-3)


def test_all_features_are_united_unless_one_is_named(tmp_path: Path):
    other = [[lng + 0.02, lat] for lng, lat in OLD_TOWN]  # shares an edge
    path = saved(tmp_path, collection(feature(polygon(OLD_TOWN)), feature(polygon(other))))
    assert load(path).area_km2 == pytest.approx(2 * load(path, feature=1).area_km2, rel=1e-6)
    assert load(path, feature=1).geometry.bounds[0] == 18.08


def test_a_topology_is_decoded_as_gdal_decodes_it(tmp_path: Path):
    path = saved(tmp_path, TOPOLOGY, "squares.topojson")
    reference = gpd.read_file(path, engine="pyogrio")
    for number, expected in enumerate(reference.geometry):
        assert shapely.equals_exact(load(path, feature=number).geometry.normalize(), expected.normalize(), tolerance=1e-9)
    assert load(path).geometry.bounds == pytest.approx((18.0, 59.0, 20.0, 60.0))


def test_a_shapefile_is_read_in_its_own_projection(tmp_path: Path):
    frame = gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.Polygon(OLD_TOWN)], crs="EPSG:4326").to_crs("EPSG:3006")
    frame.to_file(tmp_path / "place.shp")
    assert shapely.hausdorff_distance(load(tmp_path / "place.shp").geometry, shapely.Polygon(OLD_TOWN)) < 1e-9


def test_geojson_that_names_its_projection_is_turned_into_degrees(tmp_path: Path):
    frame = gpd.GeoDataFrame(geometry=[shapely.Polygon(OLD_TOWN)], crs="EPSG:4326").to_crs("EPSG:3006")
    frame.to_file(tmp_path / "place.geojson", driver="GeoJSON")
    assert "crs" in json.loads((tmp_path / "place.geojson").read_text())
    assert shapely.hausdorff_distance(load(tmp_path / "place.geojson").geometry, shapely.Polygon(OLD_TOWN)) < 1e-7


@pytest.mark.parametrize(
    ("lat", "lng", "code"), [(59.3, 18.06, 32634), (-33.9, 151.2, 32756), (0, 180, 32660), (52, -180, 32601)]
)
def test_the_metric_crs_is_the_utm_zone_of_the_middle(lat: float, lng: float, code: int):
    assert utm_crs(lat, lng) == f"EPSG:{code}"


def test_what_is_written_is_read_back_exactly(tmp_path: Path):
    boundary = load(saved(tmp_path, polygon(OLD_TOWN, COURTYARD)), metric_crs="EPSG:3006")
    again = read_boundary(write_boundary(tmp_path / "boundary.parquet", boundary))
    assert (again.name, again.metric_crs, again.area_km2) == (boundary.name, "EPSG:3006", boundary.area_km2)
    assert shapely.equals_identical(again.geometry, boundary.geometry)


def test_a_changed_byte_of_a_stored_boundary_is_refused(tmp_path: Path):
    path = write_boundary(tmp_path / "boundary.parquet", load(saved(tmp_path, polygon(OLD_TOWN))))
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=re.escape("boundary.parquet")):
        read_boundary(path)


def test_inside_is_inside_and_a_position_that_is_no_number_is_not(tmp_path: Path):
    boundary = load(saved(tmp_path, polygon(OLD_TOWN, COURTYARD)))
    lat = np.array([59.323, 59.325, 59.4, 59.322, np.nan])  # inside, in the courtyard, outside, on the edge, nowhere
    lng = np.array([18.062, 18.067, 18.062, 18.070, 18.062])
    assert contains(boundary, lat, lng).tolist() == [True, False, False, False, False]


# --- what is refused, each with its own cause -------------------------------------------------------------------------
REFUSED: dict[str, tuple[Any, str]] = {
    "not JSON": ('{"type": "Polygon", "coordinates": [[[18', "is not valid JSON"),
    "empty file": ("", "is empty"),
    "a list": ("[1, 2]", "holds a list, not an object"),
    "100,000 brackets deep": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "deep in the coordinates": ('{"type":"Polygon","coordinates":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "NaN": (
        '{"type": "Polygon", "coordinates": [[[18, NaN], [19, 59], [19, 60], [18, 59]]]}',
        "coordinate NaN, which is not a number",
    ),
    "overflow": ('{"type": "Polygon", "coordinates": [[[18, 1e999], [19, 59], [19, 60], [18, 1e999]]]}', "not a finite number"),
    "text as a coordinate": (polygon([["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]), "not well-formed GeoJSON"),
    "an open ring of two": (polygon([[18, 59], [19, 59]]), "not well-formed GeoJSON"),
    "no coordinates": ({"type": "Polygon"}, "'Polygon' is not a feature or a geometry"),
    "unknown type": ({"type": "Circle"}, "'Circle' is not a feature or a geometry"),
    "features that are no list of objects": ({"type": "FeatureCollection", "features": [7]}, "not well-formed GeoJSON"),
    "no features": (collection(), "holds no polygons"),
    "points only": (feature({"type": "Point", "coordinates": [18, 59]}), "holds no polygons"),
    "an empty polygon": (polygon(), "holds no polygons"),
    "self-intersection": (polygon(BOW_TIE), r"self-intersection at \(lat, lng\) = \(59.100000, 18.100000\)"),
    "longitude 500": (polygon([[500, 59], [501, 59], [501, 60], [500, 59]]), "longitude 501, latitude 59, which is outside"),
    "metres": (
        polygon([[674_521, 6_580_221], [674_621, 6_580_221], [674_621, 6_580_321], [674_521, 6_580_221]]),
        "which is outside",
    ),
    "(lat, lng) order": (polygon([[-33.9, 151.2], [-33.8, 151.2], [-33.8, 151.3], [-33.9, 151.2]]), r"in \(lat, lng\) order"),
    "across the antimeridian": (
        polygon([[-179, -17], [179, -17], [179, -16], [-179, -16], [-179, -17]]),
        "crosses the antimeridian",
    ),
    "both sides of it": (
        collection(
            feature(polygon([[-179.9, -17], [-179, -17], [-179, -16], [-179.9, -17]])),
            feature(polygon([[179, -17], [179.9, -17], [179.9, -16], [179, -17]])),
        ),
        "together span more than 180°",
    ),
    "a country": (
        polygon([[10, 50], [20, 50], [20, 60], [10, 60], [10, 50]]),
        r"covers 7\d\d,\d\d\d km², more than the 20,000 km²",
    ),
    "unknown projection": (
        feature(polygon(OLD_TOWN)) | {"crs": {"properties": {"name": "EPSG:999999"}}},
        "unknown coordinate reference",
    ),
    "topology with a missing arc": (TOPOLOGY | {"arcs": TOPOLOGY["arcs"][:2]}, "arc 2 does not exist"),
    "topology without arcs": ({"type": "Topology", "objects": {}}, "not well-formed GeoJSON or TopoJSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_clear_error_for(tmp_path: Path, name: str):
    document, cause = REFUSED[name]
    with pytest.raises(BoundaryError, match=cause) as refused:
        load(saved(tmp_path, document))
    message = str(refused.value)
    assert "place.geojson" in message
    assert message.startswith("GEO-201 ")
    assert len(message) < 500
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(BoundaryError, match=r"nowhere\.geojson does not exist"):
        load(tmp_path / "nowhere.geojson")
    with pytest.raises(BoundaryError, match="not a file"):
        load(tmp_path)


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path):
    path = tmp_path / "place.geojson"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # sparse
    with pytest.raises(BoundaryError, match="too large: 2,048 MiB"):
        load(path)


def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path):
    for name in ("place.geojson", "place.pkl", "place.shp"):
        (tmp_path / name).write_bytes(pickle.dumps({"type": "Polygon"}))
        with pytest.raises(UnsafeFileError, match=re.escape(name)):
            load(tmp_path / name)


def test_a_broken_or_lonely_shapefile_is_refused(tmp_path: Path):
    (tmp_path / "noise.shp").write_bytes(b"\x00\x00\x27\x0a" + b"noise" * 100)
    gpd.GeoDataFrame(geometry=[shapely.Point(18, 59)], crs="EPSG:4326").to_file(tmp_path / "points.shp")
    with pytest.raises(BoundaryError, match=r"noise\.shp cannot be read as a shapefile"):
        load(tmp_path / "noise.shp")
    with pytest.raises(BoundaryError, match="holds no polygons"):
        load(tmp_path / "points.shp")


def test_swapped_axes_are_recognised_by_the_start_point_where_both_orders_are_on_earth(tmp_path: Path):
    swapped = saved(tmp_path, polygon([[lat, lng] for lng, lat in OLD_TOWN]))
    with pytest.raises(BoundaryError, match="axes swapped"):
        load(swapped, start_point=(59.32494, 18.06936))
    right = saved(tmp_path, polygon(OLD_TOWN))
    assert load(right, start_point=(59.32494, 18.06936)).area_km2 > 0
    with pytest.raises(BoundaryError, match="axes swapped"):
        load(right, start_point=(18.06936, 59.32494))


def test_a_feature_number_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path):
    with pytest.raises(BoundaryError, match=r"no polygon with the number 5.*one of: 0, 1"):
        load(saved(tmp_path, collection(feature(polygon(OLD_TOWN)), feature(polygon(OLD_TOWN)))), feature=5)


@pytest.mark.parametrize(
    ("crs", "cause"),
    [
        ("EPSG:4326", "not a projected system in metres"),
        ("EPSG:2263", "not a projected system in metres"),  # US feet
        ("nonsense", "not a known coordinate reference system"),
        ("EPSG:2154", "where this polygon does not lie"),  # France
    ],
)
def test_a_crs_that_cannot_measure_the_region_is_refused(tmp_path: Path, crs: str, cause: str):
    with pytest.raises(BoundaryError, match=cause):
        load(saved(tmp_path, polygon(OLD_TOWN)), metric_crs=crs)


# --- real polygons -----------------------------------------------------------------------------------------------------
def test_the_real_region_is_28_8_square_kilometres_of_land(shared_data: Path):
    path = shared_data / "stockholm" / "region.geojson"
    region = load(path, feature=0, start_point=(59.32494, 18.06936))
    assert shapely.get_num_coordinates(region.geometry) == 6448
    assert region.area_km2 == pytest.approx(28.78, abs=0.01)
    assert region.metric_crs == "EPSG:32634"


def test_the_nation_that_crosses_the_antimeridian_is_refused_with_a_way_out(shared_data: Path):
    path = shared_data / "usa" / "boundary" / "cb_2018_us_nation_5m.shp"
    with pytest.raises(BoundaryError, match=r"crosses the antimeridian\. Cut it at longitude ±180"):
        load(path, max_area_km2=2e7)


WORLD = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
HALVES = [[[w, -90], [w + 180, -90], [w + 180, 90], [w, 90], [w, -90]] for w in (-180, 0)]
BELT = [[-180, -60], [180, -60], [180, 60], [-180, 60], [-180, -60]]


@pytest.mark.parametrize("document", [polygon(WORLD), collection(*(feature(polygon(half)) for half in HALVES))])
def test_the_whole_earth_is_a_region(tmp_path: Path, document: dict[str, Any]):
    boundary = load(saved(tmp_path, document), max_area_km2=6e8)
    assert boundary.area_km2 == pytest.approx(510_065_621.7, abs=1)
    assert contains(boundary, [89.9, -89.9, 0, 12], [179.9, -179.9, 0.1, -77]).all()


def test_a_belt_round_the_earth_is_measured_along_its_parallels(tmp_path: Path):
    belt = load(saved(tmp_path, polygon(BELT)), max_area_km2=6e8)
    assert belt.area_km2 == pytest.approx(510_065_621.7 * np.sin(np.radians(60)), rel=0.005)
    assert contains(belt, [61, 59], [180 - 1e-9, 180 - 1e-9]).tolist() == [False, True]


def test_islands_on_both_sides_of_the_antimeridian_do_not_go_round(tmp_path: Path):
    sides = [[[w, -19], [w + 2, -19], [w + 2, -16], [w, -16], [w, -19]] for w in (-180, 178)]
    with pytest.raises(BoundaryError, match="180°"):
        load(saved(tmp_path, collection(*(feature(polygon(side)) for side in sides))), max_area_km2=6e8)
    with pytest.raises(BoundaryError, match="antimeridian"):
        load(saved(tmp_path, {"type": "MultiPolygon", "coordinates": [[side] for side in sides]}), max_area_km2=6e8)


def test_the_largest_part_is_taken_and_what_is_left_out_may_cross_the_antimeridian(tmp_path: Path):
    far_east = [[[178.0, 51.0], [179.0, 51.0], [179.0, 52.0], [178.0, 51.0]]]
    mainland = [[[-100.0, 30.0], [-90.0, 30.0], [-90.0, 40.0], [-100.0, 40.0], [-100.0, 30.0]]]
    far_north = [[[-100.0, 70.0], [-85.0, 70.0], [-85.0, 79.0], [-100.0, 79.0], [-100.0, 70.0]]]  # larger in degrees
    whole = saved(tmp_path, {"type": "MultiPolygon", "coordinates": [far_east, far_north, mainland]})
    with pytest.raises(BoundaryError, match="antimeridian"):
        load(whole, max_area_km2=2e6)
    boundary = load(whole, part="largest", max_area_km2=2e6)
    assert boundary.geometry.bounds == (-100, 30, -90, 40)
    with pytest.raises(BoundaryError, match=r"boundary_feature to one of: 0\."):
        load(whole, part="largest", feature=1, max_area_km2=2e6)


def test_a_region_wider_than_a_utm_zone_is_measured_in_equal_areas(tmp_path: Path):
    corners = [[-124.0, 25.0], [-67.0, 25.0], [-67.0, 49.0], [-124.0, 49.0], [-124.0, 25.0]]
    boundary = load(saved(tmp_path, polygon(corners)), max_area_km2=2e7)
    assert boundary.metric_crs == "+proj=laea +lat_0=37.0 +lon_0=-95.5 +datum=WGS84 +units=m +no_defs"
    to_metres = Transformer.from_crs("OGC:CRS84", boundary.metric_crs, always_xy=True)
    for lat, lng in ((30.0, -120.0), (45.0, -95.0), (27.0, -70.0)):
        corner = square(lat, lng, 0.2).geometry
        east, north = to_metres.transform(*shapely.get_coordinates(shapely.segmentize(corner, 0.01)).T)
        assert Polygon(zip(east, north, strict=True)).area / 1e6 == pytest.approx(geodesic_area_km2(corner), rel=1e-4)
    narrow = [[10.0, 50.0], [16.0, 50.0], [16.0, 50.1], [10.0, 50.1], [10.0, 50.0]]
    assert load(saved(tmp_path, polygon(narrow))).metric_crs == "EPSG:32633"
