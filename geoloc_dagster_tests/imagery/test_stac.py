"""What an item of a STAC catalogue leaves out is known to be missing; what is no picture is no item."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from geoloc_dagster.imagery.stac import read_item, spdx


def feature(**properties: Any) -> dict[str, Any]:
    said = {"datetime": "2024-05-01T23:30:00Z", "license": "etalab-2.0", "view:azimuth": 370, **properties}
    return {
        "id": "a",
        "collection": "s",
        "geometry": {"type": "Point", "coordinates": [18.07, 59.33]},
        "providers": [{"name": "Ada", "roles": ["producer"]}],
        "properties": said,
        "assets": {"sd": {"href": "https://here.example/sd.jpg"}},
        "links": [{"rel": "related", "href": "https://here.example/b"}, {"rel": "root", "href": "x"}],
    }


def test_a_whole_item():
    item = read_item(feature(**{"pers:interior_orientation": {"field_of_view": 360}}))
    assert item is not None
    assert (item.lat_deg, item.lng_deg, item.heading_deg, item.creator) == (59.33, 18.07, 10.0, "Ada")
    assert (item.captured_on, item.is_360, item.is_open) == (dt.date(2024, 5, 1), True, True)
    assert item.related == ("https://here.example/b",)


@pytest.mark.parametrize(
    ("properties", "field", "value"),
    [
        ({"datetime": None}, "captured_on", None),
        ({"datetime": "yesterday"}, "captured_on", None),
        ({"view:azimuth": None}, "heading_deg", None),
        ({"view:azimuth": 0}, "heading_deg", 0.0),
        ({"license": "my own"}, "licence", "NOASSERTION"),
        ({"license": "proprietary"}, "is_open", False),
        ({"geovisio:status": "hidden"}, "ready", False),
        ({"pers:interior_orientation": None}, "fov_deg", None),
    ],
)
def test_an_item_that_leaves_something_out(properties: dict[str, Any], field: str, value: object):
    assert getattr(read_item(feature(**properties)), field) == value


def test_what_is_no_picture():
    assert read_item({**feature(), "geometry": None}) is None
    assert read_item({**feature(), "assets": {}}) is None
    assert read_item(None) is None
    assert read_item({**feature(), "providers": []}).creator is None  # type: ignore[union-attr]


def test_licences_have_one_spelling():
    assert [spdx(text) for text in ("cc-by-sa-4.0", "ETALAB-2.0", None)] == ["CC-BY-SA-4.0", "etalab-2.0", "NOASSERTION"]
