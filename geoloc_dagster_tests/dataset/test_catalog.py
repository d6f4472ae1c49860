"""The catalog made of small crops tables, through the real tables on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from geoloc_dagster.dataset.catalog import build_catalog, summarise_catalog, view_names
from geoloc_dagster.dataset.leakage import find_leaks
from geoloc_dagster.dataset.schema import CATALOG
from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.storage import read_parquet, write_parquet
from geoloc_dagster_tests.dataset.conftest import crop_row, jpeg, make_settings, registered, scene, write_crops

CatalogOf = Callable[..., pa.Table]
BY_SOURCE = {"by": "source", "train": ["tr*"], "test": ["te*"], "dev_share": 0}


def rows_by_id(catalog: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["capture_id"]: row for row in catalog.to_pylist()}


def dated(capture_id: str, year: int, *, seed: int | None = None, location_id: str = "1", **values: Any) -> dict[str, Any]:
    """A crop of June of that year with a picture of its own."""
    picture = jpeg(scene(hash_of(capture_id) if seed is None else seed))
    return crop_row(capture_id, picture, location_id, captured_on=date(year, 6, 1), **values)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:6], "big")


def test_the_catalog_has_its_schema_and_one_row_per_crop(catalog_of: CatalogOf, tmp_path: Path):
    rows = [dated("a", 2019), dated("b", 2022), crop_row("broken", None, "2", captured_on=None)]
    catalog = catalog_of(rows)
    assert catalog.schema.equals(CATALOG)
    assert sorted(catalog["capture_id"].to_pylist()) == ["a", "b", "broken"]
    assert read_parquet(write_parquet(tmp_path / "catalog.parquet", catalog)).equals(catalog)
    a = rows_by_id(catalog)["a"]
    assert (a["series"], a["view"], a["year"], a["captured_on"], a["sha256"]) == (
        "100m",
        "r0",
        2019,
        date(2019, 6, 1),
        rows[0]["sha256"],
    )


def test_the_order_of_the_crops_does_not_matter(tmp_path: Path):
    rows = [dated(f"{place}{year}", year, location_id=place) for place in "123" for year in (2011, 2019, 2022)]
    forward = build_catalog(write_crops(tmp_path / "a.lance", rows), registered(rows), make_settings())
    backward = build_catalog(write_crops(tmp_path / "b.lance", rows[::-1]), registered(rows)[::-1], make_settings())
    assert forward.equals(backward)


def test_queries_are_the_newest_usable_picture_of_a_view_with_two_dates(catalog_of: CatalogOf):
    rows = [
        dated("old", 2011),
        dated("new", 2022),
        dated("other-view", 2022, rotation=1),  # one date: no query
        crop_row("black", jpeg(np.zeros((64, 64, 3), np.uint8)), "1", captured_on=date(2023, 6, 1)),  # newer, but not usable
        crop_row("undated", jpeg(scene(5)), "1", captured_on=None),
    ]
    found = rows_by_id(catalog_of(rows))
    assert [name for name, row in found.items() if row["is_query"]] == ["new"]
    assert [name for name, row in found.items() if not row["usable"]] == ["black"]


def test_two_captures_of_the_newest_date_give_one_query(catalog_of: CatalogOf):
    found = rows_by_id(catalog_of([dated("a", 2011), dated("b", 2022), dated("c", 2022)]))
    assert [name for name, row in found.items() if row["is_query"]] == ["c"]


@pytest.mark.parametrize(("min_dates", "queries"), [(1, 2), (2, 1), (3, 0)])
def test_the_dates_that_a_query_needs_are_the_regions_choice(catalog_of: CatalogOf, min_dates: int, queries: int):
    rows = [dated("a", 2011), dated("b", 2022), dated("c", 2022, location_id="2")]
    assert sum(catalog_of(rows, catalog={"min_dates": min_dates})["is_query"].to_pylist()) == queries


def defects() -> list[dict[str, Any]]:
    """One example of each defect that shows only by comparison."""
    again = jpeg(scene(2), quality=60, scale=0.9)
    return [
        dated("turned", 2020, seed=1, rotation=0),
        dated("stuck1", 2020, seed=2, rotation=1),
        crop_row("stuck2", again, "1", captured_on=date(2020, 6, 1), rotation=2),
        dated("today", 2023, seed=3, location_id="2"),
        dated("in-fact-today", 2009, seed=3, location_id="2"),
        dated("here", 2020, seed=4, location_id="3", rotation=0),
        dated("here-too", 2020, seed=5, location_id="3", rotation=1),
        dated("there", 2020, seed=4, location_id="4", rotation=3),
    ]


def test_defects_of_collection_are_flagged_by_name(catalog_of: CatalogOf):
    found = {name: set(row["flags"]) for name, row in rows_by_id(catalog_of(defects())).items()}
    assert found == {
        "turned": set(),
        "stuck1": {"near_duplicate", "frozen_rotation"},
        "stuck2": {"near_duplicate", "frozen_rotation"},
        "today": {"byte_identical", "repeated_date"},
        "in-fact-today": {"byte_identical", "repeated_date"},
        "here": {"byte_identical", "shared_panorama"},
        "here-too": {"shared_panorama"},
        "there": {"byte_identical", "shared_panorama"},
    }


def test_duplicate_groups_are_named_after_their_first_capture(catalog_of: CatalogOf):
    groups = {name: row["duplicate_group"] for name, row in rows_by_id(catalog_of(defects())).items()}
    expected = {"stuck1": "stuck1", "stuck2": "stuck1", "today": "in-fact-today", "in-fact-today": "in-fact-today"}
    assert groups == {**expected, "here": "here", "there": "here", "turned": None, "here-too": None}


def test_flagged_rows_stay_usable_unless_the_region_excludes_the_flag(catalog_of: CatalogOf):
    catalog = catalog_of(defects(), catalog={"exclude_flags": ["repeated_date"]})
    assert [name for name, row in rows_by_id(catalog).items() if not row["usable"]] == ["in-fact-today", "today"]


def test_black_frames_of_many_places_are_equal_bytes_but_no_shared_panorama(catalog_of: CatalogOf):
    black = jpeg(np.zeros((64, 64, 3), np.uint8))
    found = rows_by_id(catalog_of([crop_row(f"b{place}", black, place) for place in "1234"]))
    assert all(row["flags"] == ["black", "byte_identical"] and not row["usable"] for row in found.values())


def test_places_at_which_a_heading_is_missing_are_left_out_on_request(catalog_of: CatalogOf):
    rows = [
        dated(f"{place}{view}", 2020, location_id=place, rotation=view)
        for place in "12"
        for view in range(4 if place == "1" else 3)
    ]
    found = rows_by_id(catalog_of(rows, catalog={"require_all_headings": True}))
    assert [name for name, row in found.items() if not row["usable"]] == ["20", "21", "22"]
    assert found["20"]["flags"] == ["missing_heading"]


def leaking_rows() -> list[dict[str, Any]]:
    original = scene(9)
    return [
        crop_row("train", jpeg(original), "1", source="tr", lat_deg=59.3),
        crop_row("copy", jpeg(original, quality=60, scale=0.9), "2", source="te", lat_deg=59.301),
        dated("innocent", 2020, location_id="3", source="tr", lat_deg=59.302),
    ]


def test_a_reencoded_copy_in_another_split_is_a_leak(catalog_of: CatalogOf):
    catalog = catalog_of(leaking_rows(), splits=BY_SOURCE)
    (leak,) = find_leaks(catalog).to_dict("records")
    assert (leak["kind"], leak["left"], leak["right"]) == ("near_duplicate", "train", "copy")
    assert catalog["usable"].to_pylist() == [True] * 3


def test_leaking_rows_of_train_are_dropped_on_request(catalog_of: CatalogOf):
    catalog = catalog_of(leaking_rows(), splits={**BY_SOURCE, "drop_leaking": True})
    found = rows_by_id(catalog)
    assert {name: row["usable"] for name, row in found.items()} == {"train": False, "copy": True, "innocent": True}
    assert "leaking" in found["train"]["flags"]
    assert find_leaks(catalog).empty


def test_held_out_rows_know_their_distance_to_train(catalog_of: CatalogOf):
    found = rows_by_id(catalog_of(leaking_rows(), splits=BY_SOURCE))
    assert found["copy"]["near_train_m"] == pytest.approx(111.4, abs=0.2)  # a thousandth of a degree of latitude at 59.3 N
    assert found["train"]["near_train_m"] is None


def test_districts_are_named_polygons_or_cells(catalog_of: CatalogOf, tmp_path: Path):
    square = [[18.0, 59.2], [18.1, 59.2], [18.1, 59.3005], [18.0, 59.3005], [18.0, 59.2]]
    feature = {"type": "Feature", "properties": {"name": "South"}, "geometry": {"type": "Polygon", "coordinates": [square]}}
    path = tmp_path / "districts.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    region = make_settings().region.model_dump(exclude_none=True) | {"districts": str(path)}
    named = rows_by_id(catalog_of(leaking_rows(), region=region))
    assert (named["train"]["district"], named["copy"]["district"]) == ("South", "outside")


def test_crops_of_unregistered_locations_are_refused_by_name(tmp_path: Path):
    rows = [dated("a", 2020, location_id="1"), dated("b", 2020, location_id="77")]
    crops = write_crops(tmp_path / "crops.lance", rows)
    with pytest.raises(IntegrityError, match=r"crops of locations that are not registered \(1, e\.g\. 77\)"):
        build_catalog(crops, registered(rows[:1]), make_settings())


def test_a_capture_that_occurs_twice_is_refused(tmp_path: Path):
    rows = [dated("a", 2020), dated("a", 2020)]
    with pytest.raises(IntegrityError, match="holds capture a more than once"):
        build_catalog(write_crops(tmp_path / "crops.lance", rows), registered(rows), make_settings())


def test_no_crops_is_said_so(tmp_path: Path):
    with pytest.raises(NotEnoughDataError, match=r"there are no crops in .*crops\.lance"):
        build_catalog(tmp_path / "crops.lance", registered([]), make_settings())


def test_only_candidates_are_read_and_progress_is_reported(tmp_path: Path):
    rows = [dated(f"p{i}", 2020, location_id=str(i)) for i in range(30)]
    copy = Image.open(io.BytesIO(rows[0]["image"]))
    rows.append(crop_row("copy", jpeg(np.asarray(copy), quality=60), "0"))
    seen: list[tuple[int, int]] = []
    crops = write_crops(tmp_path / "crops.lance", rows)
    build_catalog(crops, registered(rows), make_settings(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]


def test_views_are_named_by_heading_else_by_rotation():
    headings = pd.Series([0.0, 359.7, 90.2, None, None], dtype="float32")
    rotations = pd.Series([None, 3, None, 2, None], dtype="float64")
    assert view_names(headings, rotations).tolist() == ["h000", "h000", "h090", "r2", "v"]


def test_the_summary_counts_what_the_catalog_holds(catalog_of: CatalogOf):
    catalog = catalog_of([*defects(), dated("test", 2021, location_id="9", source="te")], splits={**BY_SOURCE, "train": []})
    summary = summarise_catalog(catalog)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["rows_by_split"] == {"test": 1, "train": 8}
    assert summary["queries_by_split"] == {"test": 0, "train": 1}
    assert summary["flags"] == {
        "byte_identical": 4,
        "frozen_rotation": 2,
        "near_duplicate": 2,
        "repeated_date": 2,
        "shared_panorama": 3,
    }
    assert summary["shared_places"] == [["3", "4", 1]]
    assert summary["years"] == [2009, 2023]
    assert summary["test_near_train_50m"] == 1.0


def test_a_table_of_a_batch_appended_later_joins_the_comparison(tmp_path: Path):
    rows = leaking_rows()
    crops = write_crops(tmp_path / "crops.lance", rows[:1])
    settings = make_settings(splits={**BY_SOURCE})
    assert find_leaks(build_catalog(crops, registered(rows), settings)).empty
    write_crops(crops, rows[1:])
    assert len(find_leaks(build_catalog(crops, registered(rows), settings))) == 1
