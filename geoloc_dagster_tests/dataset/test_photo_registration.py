"""Registering the photos of lists: what the lists say of them is kept, also of scenes, and beside what was registered before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset.photo_registration import register_photos
from geoloc_dagster.dataset.schema import PHOTOS
from geoloc_dagster.geo.boundary import load_boundary, write_boundary
from geoloc_dagster.imagery.photo_batch import photos_of_batch
from geoloc_dagster.storage import read_parquet, write_parquet
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region

HEADER = "IMG_ID,AUTHOR,LAT,LON,S3_Label,S16_Label,S365_Label,Prob_indoor,Prob_natural,Prob_urban"
SCENE_COLUMNS = ["scene_3", "scene_16", "scene_365", "prob_indoor", "prob_natural", "prob_urban"]


def photo_region(folder: Path, text: str) -> tuple[Settings, Layout]:
    """A region of one list, with its boundary written."""
    (folder / "list.csv").write_text(text)
    config = write_region(
        folder,
        boundary=rectangle((40.0, -10.0), (60.0, 20.0)),
        region={"start_point": [50, 5], "max_area_km2": 1e7},
        coverage={"provider": "csv"},
        capture={"provider": "photo_list", "photos": {"files": ["list.csv"], "url_template": "https://photos.example/{id}"}},
    )
    settings = load_settings(config, environ={})
    layout = Layout(settings.data_root)
    boundary = load_boundary(folder / "region.geojson", name="photos", max_area_km2=1e7)
    write_boundary(layout.boundary, boundary)
    return settings, layout


def test_scenes_of_a_list_are_registered_and_a_bad_one_costs_nothing_but_itself(tmp_path: Path):
    rows = ["1.jpg,a,50,5,2,15,231,0.1,0.2,0.7", "2.jpg,b,50,5,9,15,231,0.1,0.2,0.7", "3.jpg,c,50,5,,,,,,"]
    settings, layout = photo_region(tmp_path, "\n".join([HEADER, *rows]))
    registration = register_photos(settings, layout)
    assert (registration.new, registration.bad_rows, registration.bad_scenes) == (3, 0, 1)
    table = read_parquet(layout.photos)
    assert table.schema.equals(PHOTOS)
    assert [row["scene_3"] for row in table.to_pylist()] == [2, None, None]
    assert [round(row["prob_urban"], 6) if row["prob_urban"] is not None else None for row in table.to_pylist()] == [
        0.7,
        None,
        None,
    ]
    assert "list.csv,3,its scene_3 '9' is not one of 0 to 2" in layout.photo_problems.read_text()


def test_photos_that_were_registered_before_scenes_were_kept_stay_and_get_theirs(tmp_path: Path):
    settings, layout = photo_region(tmp_path, f"{HEADER}\n1.jpg,a,50,5,,,,,,\n2.jpg,b,50,5,,,,,,\n")
    register_photos(settings, layout)
    old = read_parquet(layout.photos).drop_columns(SCENE_COLUMNS)
    write_parquet(layout.photos, pa.table(old.to_pydict(), schema=pa.schema([PHOTOS.field(name) for name in old.column_names])))
    assert [photo.photo_id for photo in photos_of_batch(layout, "photos-0000")] == ["1", "2"]
    (tmp_path / "list.csv").write_text(f"{HEADER}\n2.jpg,b,50,5,1,5,100,0,1,0\n")
    register_photos(settings, layout)
    assert [(row["location_id"], row["scene_3"]) for row in read_parquet(layout.photos).to_pylist()] == [("1", None), ("2", 1)]
