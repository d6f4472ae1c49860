"""From a photo to an answer: the right place, honest numbers, and one clear error for anything that is no photo."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoloc_dagster.errors import ImageError, ModelMismatchError
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.photo import as_picture
from geoloc_dagster.prediction.picture import prediction_map
from geoloc_dagster.prediction.protocol import Prediction
from geoloc_dagster.prediction.release import Release, predict_photo
from geoloc_dagster.prediction.retrieval import RetrievalPredictor, vote_distribution
from geoloc_dagster_tests.prediction.world import SECOND, load, released
from geoloc_dagster_tests.retrieval.city import City, FakeEncoder, jpeg, position


@pytest.fixture
def release(city: City) -> Release:
    return load(released(city))


def with_exif(image: bytes, orientation: int, *, rotate: int = 0) -> bytes:
    picture = Image.open(io.BytesIO(image)).rotate(rotate, expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    gps = exif.get_ifd(0x8825)
    gps.update({1: "S", 2: (33.0, 51.0, 0.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    stream = io.BytesIO()
    picture.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def test_a_new_photo_of_a_place_is_found_there(release: Release) -> None:
    for place in (2, 5, 9):
        answer = predict_photo(release, jpeg(place, day=7))
        assert great_circle_m(answer.lat_deg, answer.lng_deg, *position(place)) < 1
        assert answer.candidates[0].location_id == str(place)
        assert answer.release == release.release_id


def test_a_picture_of_the_gallery_gives_its_own_vector(release: Release) -> None:
    first = predict_photo(release, jpeg(6, day=1)).candidates[0]
    assert (first.capture_id, first.captured_on.isoformat()) == ("c06-1", "2019-06-01")  # type: ignore[union-attr]
    assert first.similarity == pytest.approx(1, abs=1e-5)


def test_candidates_are_distinct_locations_in_order_of_likeness(release: Release) -> None:
    candidates = predict_photo(release, jpeg(4, day=7)).candidates
    assert len(candidates) == len({candidate.location_id for candidate in candidates}) == 5
    similarity = [candidate.similarity for candidate in candidates]
    assert similarity == sorted(similarity, reverse=True)
    assert candidates[0].distance_to_first_m == 0
    for candidate in candidates[1:]:
        expected = great_circle_m(*position(4), candidate.lat_deg, candidate.lng_deg)
        assert candidate.distance_to_first_m == pytest.approx(float(expected))
    assert all(candidate.attribution == "A. Photographer" and candidate.licence == "CC-BY-4.0" for candidate in candidates)
    assert sum(candidate.vote_share for candidate in candidates) <= 1 + 1e-9


def test_a_path_and_its_bytes_give_one_answer(release: Release, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(3, day=7))
    assert predict_photo(release, tmp_path / "photo.jpg").to_json() == predict_photo(release, jpeg(3, day=7)).to_json()


def test_the_position_in_the_exif_is_never_used(release: Release) -> None:
    answer = predict_photo(release, with_exif(jpeg(3, day=7), orientation=1))
    assert great_circle_m(answer.lat_deg, answer.lng_deg, *position(3)) < 1


def test_a_photo_is_turned_upright_first(release: Release) -> None:
    answer = predict_photo(release, with_exif(jpeg(3, day=7), orientation=6, rotate=90))
    assert answer.candidates[0].location_id == "3"


def test_the_centre_square_of_a_wide_photo_is_used(release: Release) -> None:
    square = Image.open(io.BytesIO(jpeg(8, day=7, size=64)))
    wide = Image.new("RGB", (200, 64), "red")
    wide.paste(square, (68, 0))
    stream = io.BytesIO()
    wide.save(stream, "PNG")
    assert as_picture(stream.getvalue(), 32).shape == (3, 32, 32)
    assert predict_photo(release, stream.getvalue()).candidates[0].location_id == "8"


def test_json_says_that_nothing_is_calibrated(release: Release) -> None:
    value = json.loads(json.dumps(predict_photo(release, jpeg(2, day=7)).to_json(), allow_nan=False))
    assert value["vote_spread"]["calibrated"] is False
    assert value["vote_spread"]["radius_50_m"] <= value["vote_spread"]["radius_90_m"]
    assert "confidence" not in json.dumps(value)
    assert len(value["cells"]["most_likely"]) <= 20
    assert value["candidates"][0]["captured_on"].count("-") == 2


def test_the_cells_hold_all_of_the_probability_and_the_likeliest_holds_the_answer(release: Release) -> None:
    cells = predict_photo(release, jpeg(2, day=7)).cells
    assert np.exp(cells.log_probabilities).sum() == pytest.approx(1)
    assert np.isfinite(cells.log_probabilities).all()
    assert (np.diff(cells.cell_ids.astype(np.float64)) > 0).all()
    best = cells.most_likely(1)[0]
    assert great_circle_m(best["lat_deg"], best["lng_deg"], *position(2)) < 150  # cells of level 16 are about 140 m wide


def test_votes_become_probabilities_cell_by_cell() -> None:
    cells, logp = vote_distribution(np.array([9, 4, 4, 7], np.uint64), np.array([4, 9, 4], np.uint64), np.array([0.5, 0.2, 0.3]))
    assert cells.tolist() == [4, 7, 9]
    np.testing.assert_allclose(np.exp(logp), [0.999 * 0.8 + 0.001 / 3, 0.001 / 3, 0.999 * 0.2 + 0.001 / 3])


def test_several_photos_at_once_give_the_answers_of_one_at_a_time(release: Release) -> None:
    photos = [jpeg(place, day=7) for place in (2, 7, 11)]
    together = release.predictor().predict(np.stack([as_picture(photo, 32) for photo in photos]))
    assert [answer.candidates[0].location_id for answer in together] == ["2", "7", "11"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JPEG, PNG or WebP"),
        (b"%PDF-1.7 not a picture", "not a JPEG, PNG or WebP"),
        (jpeg(1)[:200], "truncated|broken|not a"),
        (b"GIF89a" + bytes(100), "not a JPEG, PNG or WebP"),
    ],
)
def test_what_is_no_photo_is_refused(release: Release, content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        predict_photo(release, content)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(release: Release) -> None:
    stream = io.BytesIO()
    Image.new("1", (8_000, 7_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 100_000
    with pytest.raises(ImageError, match="pixels"):
        predict_photo(release, stream.getvalue())


def test_paths_that_cannot_be_read_are_named(release: Release, tmp_path: Path) -> None:
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ImageError) as refused:
            predict_photo(release, path)
        assert str(path) in refused.value.cause


def test_a_file_beyond_the_byte_limit_is_not_read(release: Release, tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as stream:
        stream.truncate(200_000_000)  # sparse
    with pytest.raises(ImageError, match="200,000,000 bytes"):
        predict_photo(release, tmp_path / "huge.jpg")


def test_index_and_encoder_of_different_models_do_not_predict(release: Release) -> None:
    with pytest.raises(ModelMismatchError, match=f"encoder is {SECOND}"):
        RetrievalPredictor(FakeEncoder(SECOND), release.index)
    with pytest.raises(ModelMismatchError, match="16-d"):
        RetrievalPredictor(FakeEncoder(release.model_version, dimension=16), release.index)


def test_the_picture_of_an_answer_fits_an_event_log(release: Release, city: City) -> None:
    answer: Prediction = predict_photo(release, jpeg(2, day=7))
    picture = prediction_map(answer, jpeg(2, day=7), crops_path=city.crops)
    assert len(picture) <= 50_000
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert prediction_map(answer, None)  # neither photo nor crops at hand
