"""The known defects of the published Stockholm crops are caught, each figure counted by eye on contact sheets first."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from geoloc_dagster.dataset.catalog import build_catalog, summarise_catalog
from geoloc_dagster.dataset.duplicates import byte_identical_groups
from geoloc_dagster.dataset.leakage import find_leaks, near_train_share
from geoloc_dagster.dataset.schema import CROPS
from geoloc_dagster.tables import append_rows, open_table
from geoloc_dagster_tests.dataset.conftest import Stockholm, crop_row, jpeg

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # half a minute of two quiet cores, mostly decoding


def test_the_collection_is_the_published_one(stockholm: Stockholm):
    summary = summarise_catalog(stockholm.catalog)
    assert summary["rows_by_split"] == {"train": 6576 + 4649, "test": 2917}
    assert summary["places_by_split"] == {"train": 231 + 187, "test": 113}
    assert summary["queries_by_split"]["test"] == 443, "as in the published reference"
    assert summary["years"] == [2009, 2023]


def test_black_frames_are_out_of_use(stockholm: Stockholm):
    black = stockholm.flagged("black")
    assert sorted(black["location_id"], key=int) == ["423", "432", "1113", "1225", "1254", "5103"]
    assert not black["usable"].any()
    assert stockholm.frame["usable"].sum() == 14_142 - 6


def test_one_black_frame_lies_under_four_locations_across_the_splits(stockholm: Stockholm):
    groups = stockholm.flagged("black").groupby("sha256")
    places = sorted(sorted(rows["location_id"], key=int) for _, rows in groups)
    assert places == [["1113", "1254"], ["423", "432", "1225", "5103"]]
    four = groups.get_group(groups.size().idxmax())
    assert set(four["split"]) == {"train", "test"}


def test_byte_identical_files(stockholm: Stockholm):
    groups = byte_identical_groups(stockholm.frame)
    assert (len(groups), sum(map(len, groups))) == (51, 123)
    assert len(stockholm.flagged("byte_identical")) == 123


def test_places_whose_rotations_are_one_view(stockholm: Stockholm):
    """Three places with all four rotations equal on every date; at 1226 only the last turn failed, on every date."""
    frozen = stockholm.flagged("frozen_rotation")
    views = frozen.groupby(["location_id", "captured_on"])["view"].agg(lambda names: "".join(sorted(names)))
    found = views.groupby("location_id").agg(lambda names: (names.iloc[0], len(names), names.nunique()))
    assert found.to_dict() == {
        "1117": ("r0r1r2r3", 4, 1),
        "1226": ("r2r3", 7, 1),
        "1424": ("r0r1r2r3", 3, 1),
        "5260": ("r0r1r2r3", 9, 1),
    }


def test_one_panorama_under_two_locations(stockholm: Stockholm):
    """5141 and 5158 share 24 pictures on six dates: 21 byte by byte, three re-encoded."""
    shared = stockholm.flagged("shared_panorama")
    assert set(shared["location_id"]) == {"5141", "5158"}
    assert summarise_catalog(stockholm.catalog)["shared_places"] == [["5141", "5158", 24]]
    assert shared.groupby("sha256").size().eq(2).sum() == 21


def test_pictures_filed_under_two_dates(stockholm: Stockholm):
    """The scraper took the oldest picture for the newest: 19 pairs, one of them a query of the published validation."""
    repeated = stockholm.flagged("repeated_date")
    assert repeated.groupby("duplicate_group").size().tolist() == [2] * 19
    asked = repeated[repeated["is_query"] & (repeated["split"] == "test")]
    assert asked["location_id"].tolist() == ["5293"]


def test_every_comparison_flag_has_a_twin_and_none_is_left_over(stockholm: Stockholm):
    grouped = stockholm.frame.dropna(subset=["duplicate_group"])
    assert grouped["duplicate_group"].value_counts().min() == 2
    flags = {"byte_identical", "near_duplicate"}
    assert all(flags & set(row) for row in grouped["flags"])
    assert len(stockholm.flagged("near_duplicate")) == 106


def test_a_fifth_of_the_validation_places_is_near_training(stockholm: Stockholm):
    assert round(near_train_share(stockholm.catalog, 50), 2) == 0.19


def test_the_usable_rows_of_the_published_splits_share_nothing(stockholm: Stockholm):
    assert find_leaks(stockholm.catalog).empty


def test_the_black_frame_leaks_when_a_region_lets_black_frames_in(stockholm: Stockholm):
    position = stockholm.catalog.schema.get_field_index("usable")
    everything = stockholm.catalog.set_column(position, "usable", pa.array([True] * 14_142))
    leaks = find_leaks(everything)
    assert set(leaks["kind"]) == {"near_duplicate"}
    assert set(leaks["left_location"]) == {"423", "432", "1225"}
    assert set(leaks["right_location"]) == {"5103"}


def test_all_planted_copies_across_the_splits_are_found_and_nothing_else(stockholm: Stockholm):
    """20 training pictures, resized by 0.9 and saved at quality 60, filed under validation places."""
    rng = np.random.default_rng(20)
    frame = stockholm.frame
    lonely = frame[frame["duplicate_group"].isna() & frame["usable"]]
    originals = lonely[lonely["split"] == "train"].sample(20, random_state=rng)["capture_id"].tolist()
    places = lonely[lonely["split"] == "test"].drop_duplicates("location_id").sample(20, random_state=rng)
    rows = [_planted(stockholm, original, place) for original, place in zip(originals, places.to_dict("records"), strict=True)]
    before = open_table(stockholm.crops)
    assert before is not None
    append_rows(stockholm.crops, pa.Table.from_pylist(rows, schema=CROPS))
    try:
        catalog = build_catalog(stockholm.crops, stockholm.locations, stockholm.settings)
    finally:
        before.restore()  # the other tests see the published rows alone
    leaks = find_leaks(catalog)
    planted = {(original, f"planted/{original}") for original in originals}
    assert set(leaks[["left", "right"]].itertuples(index=False, name=None)) == planted
    assert set(leaks["kind"]) == {"near_duplicate"}


def _planted(stockholm: Stockholm, original: str, place: dict[str, object]) -> dict[str, object]:
    table = open_table(stockholm.crops)
    assert table is not None
    encoded = table.to_table(columns=["image"], filter=pc.field("capture_id") == original)["image"][0].as_py()
    picture = jpeg(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), quality=60, scale=0.9)
    kept = {key: place[key] for key in ("batch", "source", "lat_deg", "lng_deg")}
    return crop_row(
        f"planted/{original}", picture, str(place["location_id"]), captured_on=pd.Timestamp("2021-05-01").date(), **kept
    )
