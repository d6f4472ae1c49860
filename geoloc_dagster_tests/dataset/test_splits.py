"""Places are divided so that nothing is tested that was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from geoloc_dagster.config.dataset import SplitSettings
from geoloc_dagster.dataset.splits import assign_splits, nearest_m, utm_crs
from geoloc_dagster.errors import ConfigError, NotEnoughDataError
from geoloc_dagster_tests.dataset.conftest import read_locations

CRS = "EPSG:3006"
SPLITS = {"train", "dev", "test", "none"}


def town(n: int, seed: int = 0, span_deg: float = 0.05) -> pd.DataFrame:
    """Locations drawn over about 5.6 by 5.6 km."""
    rng = np.random.default_rng(seed)
    lat, lng = 59.30 + span_deg * rng.random(n), 18.03 + 2 * span_deg * rng.random(n)
    return pd.DataFrame(
        {"location_id": [str(i) for i in range(n)], "lat_deg": lat, "lng_deg": lng, "series": "100m", "source": "s"}
    )


def all_distances_m(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    i, j = np.indices((len(a), len(b))).reshape(2, -1)
    args = (a["lng_deg"].to_numpy()[i], a["lat_deg"].to_numpy()[i], b["lng_deg"].to_numpy()[j], b["lat_deg"].to_numpy()[j])
    return np.asarray(Geod(ellps="WGS84").inv(*args)[2]).reshape(len(a), len(b))


towns = st.lists(
    st.tuples(st.integers(0, 40), st.floats(59.3, 59.33), st.floats(18.03, 18.09), st.sampled_from(["v1", "v2", "val"])),
    min_size=1,
    max_size=60,
).map(
    lambda rows: pd.DataFrame(rows, columns=["location_id", "lat_deg", "lng_deg", "source"]).assign(
        location_id=lambda frame: frame["location_id"].astype(str), series=lambda frame: frame["source"]
    )
)
divisions = st.one_of(
    st.builds(
        SplitSettings,
        block_m=st.floats(30, 2000),
        guard_m=st.floats(0, 400),
        test_share=st.floats(0, 0.5),
        dev_share=st.floats(0, 0.4),
        seed=st.integers(0, 99),
    ),
    st.builds(
        SplitSettings,
        by=st.sampled_from(["series", "source"]),
        train=st.just(["v?"]),
        test=st.sampled_from([[], ["val*"]]),
        dev_share=st.floats(0, 0.9),
        seed=st.integers(0, 99),
    ),
)


@settings(deadline=None, max_examples=30)
@given(locations=towns, division=divisions, shuffle=st.randoms(use_true_random=False))
def test_every_place_is_in_one_split_whatever_the_order_of_the_rows(locations, division, shuffle):
    try:
        split = assign_splits(locations, division, CRS)
    except NotEnoughDataError:
        assert not locations["source"].str.match("v1|v2|val").any()
        return
    assert split.index.is_unique
    assert set(split.index) == set(locations["location_id"])
    assert set(split) <= SPLITS
    order = list(range(len(locations)))
    shuffle.shuffle(order)
    pd.testing.assert_series_equal(split, assign_splits(locations.iloc[order], division, CRS))


@settings(deadline=None, max_examples=30)
@given(locations=towns, guard_m=st.floats(1, 600), block_m=st.floats(50, 1500), seed=st.integers(0, 99))
def test_no_place_of_train_is_within_the_guard_of_dev_or_test_and_none_is_left_out_needlessly(locations, guard_m, block_m, seed):
    locations = locations.drop_duplicates("location_id").set_index("location_id", drop=False)
    division = SplitSettings(block_m=block_m, guard_m=guard_m, test_share=0.3, dev_share=0.2, seed=seed)
    split = assign_splits(locations.reset_index(drop=True), division, CRS).reindex(locations.index)
    held_out = locations[split.isin(["dev", "test"])]
    if len(held_out) == 0:
        assert set(split) == {"train"}
        return
    if (split == "train").any():
        assert all_distances_m(locations[split == "train"], held_out).min() > guard_m
    if (split == "none").any():
        # a millimetre and a part in a million of margin
        assert all_distances_m(locations[split == "none"], held_out).min(axis=1).max() <= guard_m * (1 + 1e-6) + 1e-3


@settings(deadline=None, max_examples=30)
@given(locations=towns, block_m=st.floats(30, 2000), seed=st.integers(0, 99), keep=st.integers(1, 60))
def test_a_place_never_changes_sides_when_the_collection_grows(locations, block_m, seed, keep):
    division = SplitSettings(block_m=block_m, guard_m=0, test_share=0.3, dev_share=0.2, seed=seed)
    locations = locations.drop_duplicates("location_id")
    before, after = assign_splits(locations.head(keep), division, CRS), assign_splits(locations, division, CRS)
    assert before.to_dict() == after.reindex(before.index).to_dict()


def test_whole_blocks_are_assigned():
    locations = town(3000)
    split = assign_splits(locations, SplitSettings(block_m=500, guard_m=0), CRS)
    from pyproj import Transformer

    east, north = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(locations["lng_deg"], locations["lat_deg"])
    blocks = pd.Series(list(zip(np.floor(east / 500), np.floor(north / 500), strict=True)))
    kinds = split.reindex(locations["location_id"]).reset_index(drop=True).groupby(blocks).nunique()
    assert len(kinds) > 50
    assert (kinds == 1).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("test_share", "dev_share"), [(0.2, 0.1), (0.3, 0.0), (0.1, 0.3)])
def test_the_shares_are_reached(seed, test_share, dev_share):
    division = SplitSettings(block_m=250, guard_m=0, test_share=test_share, dev_share=dev_share, seed=seed)
    shares = assign_splits(town(4000), division, CRS).value_counts(normalize=True)
    assert shares.get("test", 0) == pytest.approx(test_share, abs=0.03)
    assert shares.get("dev", 0) == pytest.approx(dev_share, abs=0.03)


def test_another_seed_gives_another_division():
    first, second = (assign_splits(town(500), SplitSettings(guard_m=0, seed=seed), CRS) for seed in (0, 1))
    assert 0.1 < (first != second).mean() < 0.8


def test_no_dev_when_its_share_is_zero():
    assert "dev" not in set(assign_splits(town(500), SplitSettings(dev_share=0), CRS))
    published = SplitSettings(by="source", train=["s"], test=["other"], dev_share=0)
    assert set(assign_splits(town(500), published, CRS)) == {"train"}


def published() -> pd.DataFrame:
    frame = pd.concat([town(400, 1).assign(source="train_v1"), town(400, 2).assign(source="val_v1")], ignore_index=True)
    return frame.assign(location_id=[str(i) for i in range(800)], series=["100m"] * 400 + ["35m"] * 400)


@pytest.mark.parametrize("by", [{"by": "source", "train": ["train_*"], "test": ["val_*"]}, {"by": "series", "test": ["35m"]}])
def test_a_published_division_is_taken_as_it_is_with_dev_out_of_train_by_blocks(by: dict[str, Any]):
    split = assign_splits(published(), SplitSettings(**by, dev_share=0.25, block_m=250, seed=4), CRS)
    by_source = split.groupby(published().set_index("location_id")["source"])
    shares = by_source.value_counts(normalize=True)
    assert shares["val_v1"].to_dict() == {"test": 1.0}
    assert set(shares["train_v1"].index) == {"train", "dev"}, "no guard band in a published division"
    assert shares["train_v1"]["dev"] == pytest.approx(0.25, abs=0.05)


def test_a_place_seen_in_train_and_in_test_is_test_as_a_whole():
    both = pd.concat([published(), published().head(3).assign(source="val_v1")], ignore_index=True)
    split = assign_splits(both, SplitSettings(by="source", train=["train_*"], test=["val_*"], dev_share=0), CRS)
    assert split[["0", "1", "2"]].tolist() == ["test"] * 3
    assert split["3"] == "train"


def test_sources_that_neither_list_names_are_in_no_split():
    extra = pd.concat([published(), town(5).assign(source="video", location_id=list("abcde"))], ignore_index=True)
    split = assign_splits(extra, SplitSettings(by="source", train=["train_*"], test=["val_*"], dev_share=0), CRS)
    assert split[list("abcde")].tolist() == ["none"] * 5


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"test_share": 0.6, "dev_share": 0.4}, ConfigError, "leave nothing for train"),
        ({"by": "source"}, ConfigError, "neither splits.train nor splits.test"),
        ({"by": "source", "train": ["*"], "test": ["val_*"]}, ConfigError, "both match the source 'val_v1'"),
        ({"by": "source", "train": ["a*"], "test": ["b*"]}, NotEnoughDataError, "match no source; there are train_v1, val_v1"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text.replace("*", r"\*")):
        assign_splits(published(), SplitSettings(**values), CRS)


@pytest.mark.parametrize(("crs", "text"), [("EPSG:4326", "not in metres"), ("EPSG:0", "not a coordinate reference system")])
def test_blocks_need_a_metric_reference_system(crs: str, text: str):
    with pytest.raises(ConfigError, match=text):
        assign_splits(town(3), SplitSettings(), crs)


def test_nearest_distances_are_geodesic():
    a, b = town(50, 5), town(80, 6)
    positions = [frame[column].to_numpy() for frame in (a, b) for column in ("lat_deg", "lng_deg")]
    np.testing.assert_allclose(nearest_m(*positions), all_distances_m(a, b).min(axis=1), atol=1e-6)
    assert np.isinf(nearest_m(positions[0], positions[1], np.empty(0), np.empty(0))).all()


@pytest.mark.parametrize(
    ("lat", "lng", "crs"),
    [(59.3, 18.07, "EPSG:32634"), (-33.9, 151.2, "EPSG:32756"), (0, -180, "EPSG:32601"), (10, 180, "EPSG:32601")],
)
def test_the_utm_zone_of_a_position(lat, lng, crs):
    assert utm_crs(lat, lng) == crs


@pytest.mark.parametrize("seed", range(4))
def test_real_locations_reach_the_shares_from_the_first_batch_on(shared_data: Path, seed: int):
    """200 locations around the old town, then all 6,562: 20 % test and 10 % dev, within a few points; the guard costs little."""
    locations = read_locations(shared_data / "stockholm" / "buffer_csvs").assign(source="s")
    assert len(locations) == 6562
    for n, tolerance in ((200, 0.15), (6562, 0.05)):
        places = locations[locations["series"] == "100m"].head(n) if n < 6562 else locations
        shares = assign_splits(places, SplitSettings(seed=seed), CRS).value_counts(normalize=True)
        assert shares["test"] == pytest.approx(0.2, abs=tolerance), shares
        assert shares["dev"] == pytest.approx(0.1, abs=tolerance), shares
        assert shares.get("none", 0) < 0.12, shares
