"""A region whose pictures are somebody's own photos: no service is asked, and what was taken where stays out of the crops."""

from __future__ import annotations

import datetime as dt
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.doctor import check_sources
from geoloc_dagster.errors import StepFailedError
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region
from geoloc_dagster_tests.imagery.exif_photos import BASE, GPS, at, photo, write

COUNT = 40
ARTIST = "Ann Example"


def region(folder: Path) -> Path:
    """Forty photos over half the Earth by five people, two without a position, and a list that places one of these."""
    for i in range(COUNT):
        taken = {BASE.DateTimeOriginal: f"2015:06:{i % 28 + 1:02d} 08:09:10"}
        size = (64, 64) if i == 7 else (96, 72)  # one is a crop already, and is not encoded again
        content = photo(at(i + 10.5, 3.0 * i - 60), camera=taken, base={BASE.Artist: f"{ARTIST} {i % 5}"}, seed=i, size=size)
        write(folder / "album" / f"{i // 10}" / f"{i}.jpg", content)
    for name in ("unknown", "listed"):
        write(folder / "album" / f"{name}.jpg", photo({GPS.GPSAltitude: 4}, base={BASE.Artist: ARTIST}, seed=900 + len(name)))
    (folder / "meta.csv").write_text("IMG_ID,AUTHOR,LAT,LON,S3_Label\nlisted.jpg,Bo,20,30,1\n")
    config = write_region(
        folder,
        boundary=rectangle((-90, -180), (90, 180)),
        region={"start_point": [0, 0], "max_area_km2": 6e8},
        coverage={"provider": "csv"},
        buffers={"batch_size": 100},
        capture={
            "provider": "photo_list",
            "photos": {"files": ["album", "meta.csv"], "processes": 1},
            "licence": "CC-BY-4.0",
            "attribution": "Ann",
            "commit_rows": 8,
        },
        crops={"size": 64},
        scenes={"source": "list"},
        service={"base_url": "http://127.0.0.1:9", "attempts": 1},  # nobody listens there
    )
    said = yaml.safe_load(config.read_text())
    del said["capture"]["size"], said["coverage"]["lookups_per_run"]
    said["splits"] = {"by": "creator", "test_share": 0.3, "dev_share": 0.2}
    config.write_text(yaml.safe_dump(said))
    return config


def make(config: Path, select: str) -> Layout:
    settings = load_settings(config, environ={})
    run_headless(settings, select=select, report=lambda event: None)
    return Layout(settings.data_root)


def rows_of(path: Path, *columns: str) -> list[dict[str, Any]]:
    table = open_table(path)
    return [] if table is None else table.to_table(columns=list(columns)).to_pylist()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_folder_of_photos_becomes_a_catalog_over_the_whole_earth(tmp_path: Path):
    config = region(tmp_path)
    grid = "region_boundary,grid_points,street_view_metadata"  # nothing is looked up, so there is none
    layout = make(config, f"{grid},buffer_csvs,photos,crops,scene_labels,catalog")
    rows = rows_of(layout.panoramas, "capture_id", "location_id", "source_url", "licence", "creator", "captured_on", "status")
    assert len(rows) == COUNT + 1
    assert {row["status"] for row in rows} == {"ok"}
    of = {row["location_id"]: row for row in rows}
    first = of["0_3"]
    assert (first["source_url"], first["licence"], first["creator"]) == ("file:0/3.jpg", "CC-BY-4.0", f"{ARTIST} 3")
    assert first["captured_on"] == dt.date(2015, 6, 4)
    assert of["listed"]["creator"] == "Bo"
    assert "unknown.jpg,,it has no position in its EXIF" in layout.photo_problems.read_text()
    for row in rows_of(layout.crops, "image"):
        with Image.open(io.BytesIO(row["image"])) as image:
            assert dict(image.getexif()) == {}
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert ARTIST.encode() not in row["image"]
    originals = rows_of(layout.panoramas, "image")
    assert sum(ARTIST.encode() in row["image"] for row in originals) == COUNT + 1  # so the look above could have found it
    catalog = read_parquet(layout.catalog).to_pandas()
    assert catalog.groupby("creator")["split"].nunique().max() == 1
    assert not catalog["is_query"].any()
    scenes = {row["capture_id"]: row["scene"] for row in rows_of(layout.scene_labels, "capture_id", "scene")}
    assert scenes[of["listed"]["capture_id"]] == 1
    assert sum(scene is None for scene in scenes.values()) == COUNT
    assert check_sources(load_settings(config, environ={})).status == "ok"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(tmp_path / "album", elsewhere / "album")
    for name in ("meta.csv", "geoloc.yaml", "region.geojson"):
        shutil.copy(tmp_path / name, elsewhere / name)
    (elsewhere / "album" / "0" / "3.jpg").unlink()
    other = make(elsewhere / "geoloc.yaml", "region_boundary,buffer_csvs,photos")
    ids = {row["capture_id"] for row in rows_of(other.panoramas, "capture_id")}
    assert ids == {row["capture_id"] for row in rows} - {first["capture_id"]}
    shutil.copy(tmp_path / "album" / "0" / "3.jpg", elsewhere / "album" / "late.jpg")
    shutil.rmtree(elsewhere / "album" / "1")
    make(elsewhere / "geoloc.yaml", "buffer_csvs,photos")
    later = rows_of(other.panoramas, "capture_id", "location_id")
    assert len(later) == COUNT + 1
    assert "late" in {row["location_id"] for row in later}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["bulk.row:24", "bulk.committed:1"])
def test_a_killed_reading_of_a_folder_goes_on_after_what_it_kept(tmp_path: Path, point: str):
    """The first kills the process that reads as it is about to hand over its third batch, the second the one that commits."""
    config = region(tmp_path)
    layout = make(config, "region_boundary,buffer_csvs")
    killed = subprocess.run(
        [sys.executable, "-m", "geoloc_dagster", "run", "--config", str(config), "--select", "photos"],
        env={**os.environ, "GEOLOC_FAILPOINT": point},
        capture_output=True,
        check=False,
    )
    assert killed.returncode != 0, "the point was never reached"
    kept = {row["capture_id"] for row in rows_of(layout.panoramas, "capture_id")}
    assert len(kept) >= 8  # the first batch of rows was handed over, if not more
    make(config, "photos")
    rows = [row["capture_id"] for row in rows_of(layout.panoramas, "capture_id")]
    assert len(rows) == len(set(rows)) == COUNT + 1
    assert kept <= set(rows)
    verify_table(layout.panoramas)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_labels_of_scenes_that_were_killed_anywhere_are_made_whole_by_the_next_run(tmp_path: Path):
    config = region(tmp_path)
    layout = make(config, "region_boundary,buffer_csvs,photos,crops")
    command = [sys.executable, "-m", "geoloc_dagster", "run", "--config", str(config), "--select", "scene_labels"]
    for point in ("scenes.begun:1", "scenes.made:1", "scenes.written:1"):
        killed = subprocess.run(command, env={**os.environ, "GEOLOC_FAILPOINT": point}, capture_output=True, check=False)
        assert killed.returncode != 0, f"{point} was never reached"
        assert len(rows_of(layout.scene_labels, "capture_id")) == (COUNT + 1 if point.startswith("scenes.written") else 0)
    make(config, "scene_labels")
    rows = rows_of(layout.scene_labels, "capture_id", "scene", "source")
    assert len({row["capture_id"] for row in rows}) == len(rows) == COUNT + 1
    assert [row["scene"] for row in rows if row["scene"] is not None] == [1]
    verify_table(layout.scene_labels)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_folder_that_is_not_mounted_says_so_and_costs_nothing(tmp_path: Path):
    config = region(tmp_path)
    layout = make(config, "region_boundary,buffer_csvs")
    away = (tmp_path / "album").rename(tmp_path / "away")
    with pytest.raises(StepFailedError, match="album is missing"):
        make(config, "photos")
    assert rows_of(layout.panoramas, "capture_id") == []
    away.rename(tmp_path / "album")
    (tmp_path / "album" / "0" / "3.jpg").unlink()
    layout = make(config, "photos")
    assert len(rows_of(layout.panoramas, "capture_id")) == COUNT  # the one is asked for again next time
    write(tmp_path / "album" / "0" / "3.jpg", photo(seed=3))
    make(config, "photos")
    assert len(rows_of(layout.panoramas, "capture_id")) == COUNT + 1
