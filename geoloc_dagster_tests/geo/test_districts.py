from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import s2sphere
import shapely

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.districts import OUTSIDE, S2_LEVEL, district_of, district_outlines, unnamed_level
from geoloc_dagster_tests.geo.shapes import OLD_TOWN, collection, feature, polygon, saved

NEXT = [[lng + 0.02, lat] for lng, lat in OLD_TOWN]


def test_positions_are_named_after_the_polygon_they_lie_in(tmp_path: Path):
    path = saved(tmp_path, collection(feature(polygon(OLD_TOWN), name="Gamla stan"), feature(polygon(NEXT), name="Södermalm")))
    lat, lng = np.array([59.325, 59.325, 0.0, 59.325, 59.325]), np.array([18.09, 18.07, 0.0, 18.09, 18.08])
    # The last lies on the border of both: the first in the file wins.
    assert district_of(lat, lng, path).tolist() == ["Södermalm", "Gamla stan", OUTSIDE, "Södermalm", "Gamla stan"]


def test_without_a_file_districts_are_s2_cells_that_hold_their_positions():
    lat, lng = np.array([59.325, -33.9, 59.325]), np.array([18.07, 151.2, 18.07])
    tokens = district_of(lat, lng, None)
    assert tokens[0] == tokens[2] != tokens[1]
    for token, a, b in zip(tokens.tolist(), lat.tolist(), lng.tolist(), strict=True):
        cell = s2sphere.CellId.from_token(token)
        assert cell.level() == S2_LEVEL
        assert cell.contains(s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(a, b)))


def test_no_positions_have_no_districts(tmp_path: Path):
    path = saved(tmp_path, feature(polygon(OLD_TOWN), name="a"))
    assert district_of([], [], None).shape == district_of([], [], path).shape == (0,)


def test_a_polygon_without_the_property_is_refused_with_those_it_has(tmp_path: Path):
    path = saved(tmp_path, collection(feature(polygon(OLD_TOWN), name="a"), feature(polygon(NEXT), NAMN="b", kod=7)))
    with pytest.raises(BoundaryError, match=r"feature 1 of .* no text in the property 'name'.*feature 1 has: NAMN, kod"):
        district_of([59.325], [18.07], path)


def test_unnamed_districts_grow_with_their_region():
    assert [unnamed_level(area) for area in (0.1, 28.7, 379.0)] == [13, 13, 13]  # a city's are neighbourhoods
    assert unnamed_level(7_800_000) == 5  # the mainland of the USA
    assert unnamed_level(510_000_000) == 2
    areas = np.geomspace(1, 5e8, 200)
    levels = np.array([unnamed_level(area) for area in areas])
    cells = areas * 6 * 4.0**levels / 510_072_000
    assert cells.max() <= 300
    assert (cells[levels < S2_LEVEL] > 75).all()  # one level finer would be too many
    assert s2sphere.CellId.from_token(district_of([40.0], [-100.0], None, level=5)[0]).level() == 5


def test_the_outline_of_an_unnamed_district_holds_the_positions_that_carry_its_name():
    lat, lng = np.array([59.32, 59.33, 40.0]), np.array([18.06, 18.07, -100.0])
    tokens = district_of(lat, lng, None)
    found = district_outlines(tokens.tolist(), None)
    for name, y, x in zip(tokens.tolist(), lat, lng, strict=True):
        assert shapely.contains_xy(found[name], x, y)
    assert district_outlines([OUTSIDE, "Södermalm", "", "x"], None) == {OUTSIDE: None, "Södermalm": None, "": None, "x": None}


def test_the_outlines_of_named_districts_are_those_of_the_file_taken_together(tmp_path: Path):
    twice = collection(feature(polygon(OLD_TOWN), name="a"), feature(polygon(NEXT), name="a"))
    found = district_outlines(["a", OUTSIDE], saved(tmp_path, twice))
    assert found[OUTSIDE] is None
    assert shapely.contains_xy(found["a"], 18.07, 59.325)
    assert shapely.contains_xy(found["a"], 18.09, 59.325)
    nameless = saved(tmp_path, collection(feature(polygon(OLD_TOWN), kod=7)))
    with pytest.raises(BoundaryError, match="no text in the property 'name'"):
        district_outlines(["a"], nameless)
