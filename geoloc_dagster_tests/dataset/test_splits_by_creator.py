"""Dividing photos by who took them: nobody is in two splits, wherever the photos are, and nothing moves when more come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.config.dataset import SplitSettings
from geoloc_dagster.dataset.catalog import build_catalog
from geoloc_dagster.dataset.leakage import find_leaks
from geoloc_dagster.dataset.splits import assign_splits
from geoloc_dagster.errors import ConfigError
from geoloc_dagster.imagery.photo_table import read_photo_lists
from geoloc_dagster_tests.dataset.conftest import crop_row, jpeg, make_settings, registered, scene, write_crops

NO_CRS = "nothing is projected"


def photos(creators: list[str | None], first: int = 0) -> pd.DataFrame:
    """Photos all over the world, one place each."""
    rng = np.random.default_rng(first)
    n = len(creators)
    return pd.DataFrame(
        {
            "location_id": [f"p{first + i}" for i in range(n)],
            "lat_deg": rng.uniform(-90, 90, n),
            "lng_deg": rng.uniform(-180, 180, n),
            "series": "photos",
            "source": "photo_list",
            "creator": creators,
        }
    )


def by_creator(**values: object) -> SplitSettings:
    return SplitSettings.model_validate({"by": "creator", **values})


creators = st.lists(st.one_of(st.none(), st.sampled_from(["", *"abcdefghij"])), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(first=creators, later=creators, seed=st.integers(0, 99))
def test_nobody_is_in_two_splits_and_nobody_moves_when_more_photos_come(first, later, seed):
    before, after = photos([*first, "somebody"]), photos([*later, "somebody"], first=1_000)
    together = pd.concat([after, before], ignore_index=True)
    division = by_creator(test_share=0.3, dev_share=0.3, seed=seed, guard_m=1e9)
    early, late = assign_splits(before, division, NO_CRS), assign_splits(together, division, NO_CRS)
    assert early.to_dict() == late.reindex(early.index).to_dict()
    assert set(late) <= {"train", "dev", "test"}
    named = together[together["creator"].fillna("") != ""]
    assert named["location_id"].map(late).groupby(named["creator"]).nunique().max() == 1


def test_photos_without_a_creator_are_dealt_one_by_one():
    frame = photos([None] * 2_000 + ["ann"])
    shares = assign_splits(frame, by_creator(), NO_CRS).value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)
    assert shares["dev"] == pytest.approx(0.1, abs=0.03)


def test_a_place_that_people_of_different_splits_have_photographed_is_in_none():
    names = [f"c{i}" for i in range(40)]
    split = assign_splits(photos([*names]), by_creator(), NO_CRS).to_dict()
    of_name = {name: split[f"p{i}"] for i, name in enumerate(names)}
    train, test = (next(name for name in names if of_name[name] == kind) for kind in ("train", "test"))
    both = photos([train, test, train, train, None]).assign(location_id=["x", "x", "y", "y", "y"])
    assert assign_splits(both, by_creator(), NO_CRS).to_dict() == {"x": "none", "y": "train"}


def test_the_shares_are_near_for_real_photographers_and_move_with_a_very_busy_one(shared_data: Path):
    table = read_photo_lists([shared_data / "photos" / "yfcc25600_places365.csv"], url_template="https://photos.example/{id}")
    frame = photos([photo.creator for photo in table.photos])
    weights = frame["creator"].value_counts(normalize=True)
    expected = float(np.sqrt(0.2 * 0.8 * (weights**2).sum()))
    assert expected < 0.007
    shares = [(assign_splits(frame, by_creator(seed=seed), NO_CRS) == "test").mean() for seed in range(8)]
    assert max(abs(np.array(shares) - 0.2)) < 4 * expected
    assert np.std(shares) > 0
    busy = pd.concat([frame, photos(["everywhere"] * 8_533, first=100_000)])  # a quarter of all photos
    shares = [(assign_splits(busy, by_creator(seed=seed), NO_CRS) == "test").mean() for seed in range(8)]
    assert max(shares) - min(shares) > 0.2  # who has a collection like that sees it in the counts, and chooses another seed


def test_without_any_creator_it_says_what_to_do():
    with pytest.raises(ConfigError, match="no picture says who took it"):
        assign_splits(photos([None, ""]), by_creator(), NO_CRS)
    with pytest.raises(ConfigError, match="leave nothing for train"):
        assign_splits(photos(["ann"]), by_creator(test_share=0.6, dev_share=0.4), NO_CRS)


def test_the_catalog_knows_who_took_each_picture_and_divides_by_them(tmp_path: Path):
    rows = [
        crop_row(f"c{i}", jpeg(scene(i)), f"p{i}", batch="photos-0000", lat_deg=float(i), lng_deg=-170.0 + i, captured_on=None)
        for i in range(30)
    ]
    who = {f"c{i}": f"creator {i % 10}" for i in range(29)}
    crops = write_crops(tmp_path / "crops.lance", rows)
    division = make_settings(splits={"by": "creator", "test_share": 0.3, "dev_share": 0.2})
    catalog = build_catalog(crops, registered(rows, "photos"), division, creators=who)
    frame = catalog.to_pandas()
    assert {row["capture_id"]: row["creator"] for row in catalog.to_pylist()} == {**who, "c29": None}
    assert frame.groupby("creator")["split"].nunique().max() == 1
    assert frame["split"].nunique() == 3
    assert not frame["is_query"].any()  # a photo was taken once: there is nothing to find it by
    assert find_leaks(catalog, creators=True).empty
    with pytest.raises(ConfigError, match="no picture says who took it"):
        build_catalog(crops, registered(rows, "photos"), division)
    assert build_catalog(crops, registered(rows, "photos"), make_settings())["creator"].null_count == 30
