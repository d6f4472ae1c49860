"""Predictions find their photos by name; whatever does not fit is counted and named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.errors import PhotoListError, UnsafeFileError
from geoloc_dagster.evaluation.geolocation import evaluate_positions
from geoloc_dagster.evaluation.photo_matching import Matched, match
from geoloc_dagster.evaluation.photo_tables import read_photos, read_predictions
from geoloc_dagster.evaluation.regions import by_region, regions_table

REAL = Path(os.environ.get("GEOLOC_SHARED_DATA", "../shared/data")) / "photos"
PHOTOS = """\
IMG_ID,AUTHOR,LAT,LON,S3_Label,S16_Label,S365_Label,Prob_indoor,Prob_natural,Prob_urban
45/77/322.jpg,43008843@N00,46.78,23.61,0,5,21,0.98,0.00,0.02
2e/b5/432.jpg,22489773@N02,40.45,117.00,2,14,201,0.02,0.37,0.61
a_b_c.jpg,22489773@N02,-33.9,151.2,1,8,150,0.00,0.78,0.22
lone.jpg,,10.0,-179.9,,,,,,
"""
HEADER = "img_id,p_key,pred_class,pred_lat,pred_lng,confidence\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def matched(folder: Path, predictions: str, photos: str = PHOTOS) -> Matched:
    return match(
        read_photos(written(folder / "photos.csv", photos)),
        read_predictions(written(folder / "predictions.csv", HEADER + predictions)),
    )


def test_photos_are_read_as_published(tmp_path: Path):
    table = read_photos(written(tmp_path / "photos.csv", PHOTOS))
    assert table.ids == ["45/77/322.jpg", "2e/b5/432.jpg", "a_b_c.jpg", "lone.jpg"]
    assert table.scenes.tolist() == ["indoor", "urban", "natural", "unknown"]
    assert table.authors.tolist() == ["43008843@N00", "22489773@N02", "22489773@N02", "photo lone.jpg"]
    assert table.n_without_author == 1
    assert table.positions.lng_deg.tolist() == [23.61, 117.0, 151.2, -179.9]


def test_columns_are_known_in_any_case_and_order(tmp_path: Path):
    table = read_photos(written(tmp_path / "photos.csv", "\ufefflongitude,Latitude,Img_Id\n2.35,48.85,eiffel.jpg\n"))
    assert (table.ids, table.positions.lat_deg[0], table.positions.lng_deg[0]) == (["eiffel.jpg"], 48.85, 2.35)
    assert table.authors.tolist() == ["photo eiffel.jpg"]


def test_every_bad_row_is_named_by_its_line(tmp_path: Path):
    rows = "IMG_ID,LAT,LON\na.jpg,91,0\nb.jpg,,\nc.jpg,1,x\n,1,1\nd.jpg,1,1\nD.jpg,2,2\nd.JPG,2,2\ne.jpg,nan,nan\nf.jpg,1\n"
    table = read_photos(written(tmp_path / "photos.csv", rows))
    assert table.ids == ["d.jpg", "D.jpg"]
    assert [str(row) for row in table.bad] == [
        "line 2: (91, 0) is no position",
        "line 3: (, ) is no position",
        "line 4: (1, x) is no position",
        "line 5: has no id",
        "line 8: d.JPG came before",
        "line 9: (nan, nan) is no position",
        "line 10: (1, ) is no position",
    ]


@pytest.mark.parametrize(
    "written_id",
    [
        "45/77/322.jpg",
        "45_77_322.jpg",
        "45_77_322",
        "/data/im2gps/45/77/322.jpg",
        "images/45_77_322.PNG",
        "322.jpg",
        r"45\77\322.jpg",
    ],
)
def test_a_photo_is_found_however_its_file_was_named(tmp_path: Path, written_id: str):
    found = matched(tmp_path, f"{written_id},fine,7,46.0,23.0,0.5\n")
    assert found.answers["fine"].lat_deg.tolist()[0] == 46.0
    assert found.confidences["fine"].tolist()[0] == 0.5
    assert found.without_position == []
    assert found.without_prediction == {"fine": ["2e/b5/432.jpg", "a_b_c.jpg", "lone.jpg"]}


def test_a_name_that_two_photos_share_finds_neither(tmp_path: Path):
    photos = "IMG_ID,LAT,LON\na/1.jpg,1,1\nb/1.jpg,2,2\n"
    found = matched(tmp_path, "1.jpg,fine,0,1,1,1\nb/1.jpg,fine,0,2,2,1\n", photos)
    assert found.without_position == ["1.jpg"]
    assert np.isnan(found.answers["fine"].lat_deg).tolist() == [True, False]


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path):
    predictions = (
        "322.jpg,coarse,1,46,23,0.9\n322.jpg,hierarchy,1,46,23,0.8\n322.jpg,coarse,2,0,0,0.1\n"
        "stranger.jpg,coarse,1,0,0,0.5\n432.jpg,coarse,-1,,,\nlone.jpg,coarse,1,95,0,0.5\n,coarse,1,0,0,0\nlone.jpg\n"
    )
    found = matched(tmp_path, predictions, PHOTOS + "bad.jpg,x,100,0,0\n")
    assert found.answers["coarse"].lat_deg[0] == 46
    assert found.repeated == ["322.jpg"]
    assert found.without_position == ["stranger.jpg"]
    assert found.without_prediction["coarse"] == ["a_b_c.jpg", "lone.jpg"]
    assert [row.line for row in found.bad_predictions] == [7, 8, 9]
    assert found.remarks(most=1) == [
        "2 photos without a prediction of `coarse`: a_b_c.jpg, …",
        "3 photos without a prediction of `hierarchy`: 2e/b5/432.jpg, …",
        "1 predictions without a position: stranger.jpg",
        "1 predictions that came twice: 322.jpg",
        "1 rows of photos left out: line 6: (100, 0) is no position",
        "3 rows of predictions left out: line 7: (95, 0) is no position, …",
    ]
    figures = evaluate_positions(found.truth, found.answers, found.groups, bootstrap=0).figures
    assert (figures["coarse"].n_photos, figures["coarse"].n_unanswered) == (4, 3)
    assert list(figures) == ["coarse", "hierarchy"]


def test_scenes_are_measured_each_by_itself(tmp_path: Path):
    found = matched(tmp_path, "322.jpg,fine,1,46.78,23.61,0.9\n432.jpg,fine,1,0,0,0.9\n")
    scenes = by_region(found.truth, found.answers, found.groups, found.scenes, min_photos=1, bootstrap=0)
    shares = {scene: figures["fine"].within_m[1_000].value for scene, figures in scenes.figures.items()}
    assert shares == {"indoor": 1.0, "natural": 0.0, "unknown": 0.0, "urban": 0.0}
    table = regions_table(scenes, "fine", "By scene", "scene")
    assert table.title == "By scene (`fine`)"
    assert table.rows[-1][:4] == ["mean of the rows", "", "", "25.0"]


def test_other_columns_other_files_and_pickles_are_refused(tmp_path: Path):
    with pytest.raises(PhotoListError, match="no column img_id"):
        read_photos(written(tmp_path / "a.csv", "x,y\n1,2\n"))
    with pytest.raises(PhotoListError, match="no column p_key"):
        read_predictions(written(tmp_path / "b.csv", "img_id,pred_lat,pred_lng\n"))
    with pytest.raises(PhotoListError, match="cannot be read"):
        read_photos(tmp_path / "none.csv")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(UnsafeFileError):
        read_predictions(tmp_path / "c.pkl")


def test_the_published_test_sets_are_read_whole():
    if not (REAL / "im2gps_places365.csv").is_file():
        pytest.skip(f"the published photos are not in {REAL}; set GEOLOC_SHARED_DATA to the folder above")
    tables = {name: read_photos(REAL / f"{name}_places365.csv") for name in ("im2gps", "im2gps3k", "yfcc25600")}
    assert {name: len(table.ids) for name, table in tables.items()} == {"im2gps": 237, "im2gps3k": 2997, "yfcc25600": 25_600}
    assert all(table.bad == () and table.n_without_author == 0 for table in tables.values())
    assert all("unknown" not in table.scenes for table in tables.values())
