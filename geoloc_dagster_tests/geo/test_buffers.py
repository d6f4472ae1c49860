from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_dagster.errors import BufferCsvError
from geoloc_dagster.geo.buffer_csv import read_buffer_csv
from geoloc_dagster.geo.buffers import LOCATION_COLUMNS, assign_batches, build_buffers, close_pairs, rank_from_start
from geoloc_dagster.geo.distance import geodesic_m

START = (59.32494, 18.06936)
SPACINGS = [100, 60, 35]
FILES = "new_order_buffer_{}.csv"


def lookups(offsets: list[tuple[int, int]], first_id: int = 0) -> pd.DataFrame:
    """Lookups on a lattice of about 11 m by 6 m around the start point; several may find the same place."""
    return pd.DataFrame(
        {
            "lookup_id": [str(first_id + i) for i in range(len(offsets))],
            "lat_deg": [START[0] + north * 1e-4 for north, _ in offsets],
            "lng_deg": [START[1] + east * 1e-4 for _, east in offsets],
            "pano_id": [f"pano{north}_{east}" for north, east in offsets],
            "captured_on": None,
        }
    )


OFFSETS = st.lists(st.tuples(st.integers(-25, 25), st.integers(-25, 25)), max_size=40)


def pairwise(locations: pd.DataFrame) -> np.ndarray:
    lat, lng = locations["lat_deg"].to_numpy(float), locations["lng_deg"].to_numpy(float)
    return geodesic_m(lat[:, None], lng[:, None], lat[None], lng[None])


def spacing_of(locations: pd.DataFrame) -> np.ndarray:
    return locations["series"].str.removesuffix("m").astype(int).to_numpy()


@settings(max_examples=15, deadline=None)
@given(OFFSETS)
def test_two_locations_are_as_far_apart_as_the_smaller_of_their_spacings(offsets: list[tuple[int, int]]):
    built = build_buffers(lookups(offsets), START, SPACINGS)
    metres, spacing = pairwise(built), spacing_of(built)
    needed = np.minimum(spacing[:, None], spacing[None])
    off_diagonal = ~np.eye(len(built), dtype=bool)
    assert (metres >= needed)[off_diagonal].all()


@settings(max_examples=15, deadline=None)
@given(OFFSETS, st.randoms(use_true_random=False))
def test_the_order_in_which_lookups_arrive_in_one_go_does_not_matter(offsets: list[tuple[int, int]], random: object):
    rows = lookups(offsets)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(build_buffers(rows, START, SPACINGS), build_buffers(rows.iloc[order], START, SPACINGS))


@settings(max_examples=15, deadline=None)
@given(OFFSETS, OFFSETS, st.integers(1, 7))
def test_new_lookups_add_and_never_change_a_location_or_a_batch(
    first: list[tuple[int, int]], later: list[tuple[int, int]], batch_size: int
):
    before = assign_batches(build_buffers(lookups(first), START, SPACINGS), batch_size)
    grown = build_buffers(pd.concat([lookups(first), lookups(later, first_id=1000)]), START, SPACINGS, registered=before)
    after = assign_batches(grown, batch_size, before)
    pd.testing.assert_frame_equal(after.iloc[: len(before)][before.columns], before, check_dtype=len(before) > 0)
    new = after.iloc[len(before) :]
    assert not set(new["batch"]) & set(before["batch"])
    assert after["location_id"].is_unique
    assert after.groupby("batch").size().max() <= batch_size if len(after) else True
    # The newcomers keep their distance from the registered ones too.
    metres = pairwise(after)[len(before) :]
    away = np.ones_like(metres, dtype=bool)
    away[np.arange(len(new)), len(before) + np.arange(len(new))] = False
    assert (metres >= np.minimum(spacing_of(new)[:, None], spacing_of(after)[None]))[away].all()


@settings(max_examples=10, deadline=None)
@given(OFFSETS)
def test_repeating_a_registration_changes_nothing(offsets: list[tuple[int, int]]):
    once = build_buffers(lookups(offsets), START, SPACINGS)
    pd.testing.assert_frame_equal(build_buffers(lookups(offsets), START, SPACINGS, registered=once), once, check_dtype=False)


def test_a_newcomer_joins_the_largest_spacing_it_has_room_for():
    registered = build_buffers(lookups([(0, 0)]), START, SPACINGS)
    grown = build_buffers(lookups([(20, 0), (-6, 0), (4, 0)], first_id=10), START, SPACINGS, registered=registered)
    # 223 m, 67 m and 45 m north or south of the registered one; the last is 112 m from the second.
    assert grown[["location_id", "series", "rank", "lookup_id"]].to_numpy().tolist() == [
        ["0", "100m", 0, "0"],
        ["1", "100m", 1, "10"],
        ["2", "60m", 0, "11"],
        ["3", "35m", 0, "12"],
    ]


def test_numbering_goes_on_after_imported_ids_that_are_no_numbers():
    registered = build_buffers(lookups([(0, 0), (20, 0)]), START, SPACINGS).assign(location_id=["harbour-1", "17"])
    grown = build_buffers(lookups([(-20, 0)], first_id=10), START, SPACINGS, registered=registered)
    assert grown["location_id"].tolist() == ["harbour-1", "17", "18"]


def test_negative_answers_are_left_out_and_unknown_columns_are_empty():
    rows = lookups([(0, 0), (20, 0)]).assign(status=["OK", "ZERO_RESULTS"])
    rows.loc[1, ["lat_deg", "lng_deg"]] = np.nan
    built = build_buffers(rows, START, SPACINGS)
    assert list(built.columns) == LOCATION_COLUMNS
    assert built["lookup_id"].tolist() == ["0"]
    assert built[["requested_lat_deg", "copyright"]].isna().all(axis=None)


def test_ties_go_to_the_lower_lookup_number_not_to_the_lower_text():
    rows = lookups([(0, 0), (0, 0)]).assign(lookup_id=["10", "9"])
    assert build_buffers(rows, START, SPACINGS)["lookup_id"].tolist() == ["9"]


def test_a_lookup_without_a_position_is_named():
    with pytest.raises(ValueError, match="lookup 1 has no position"):
        build_buffers(lookups([(0, 0), (20, 0)]).assign(lat_deg=[59.0, np.nan]), START, SPACINGS)


@pytest.mark.parametrize("spacings", [[35, 100], [100, 100]])
def test_spacings_that_do_not_go_down_are_refused(spacings: list[int]):
    with pytest.raises(ValueError, match="must go down"):
        build_buffers(lookups([]), START, spacings)


def test_rank_is_by_geodesic_distance():
    lat, lng = np.array([59.326, 59.32494, 59.3251]), np.array([18.06936, 18.0705, 18.06936])
    assert rank_from_start(lat, lng, START).tolist() == [2, 1, 0]  # 18 m, 65 m and 118 m


# --- batches -------------------------------------------------------------------------------------------------------------
def located(series: str, ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"location_id": ids, "series": series, "rank": range(len(ids))})


def test_a_batch_that_is_not_full_is_not_filled_up_later():
    first = assign_batches(located("100m", ["a", "b", "c"]), 2)
    assert first["batch"].tolist() == ["100m-0000", "100m-0000", "100m-0001"]
    second = assign_batches(located("100m", ["a", "b", "c", "d", "e", "f"]), 2, first)
    assert second["batch"].tolist()[3:] == ["100m-0002", "100m-0002", "100m-0003"]


def test_a_batch_size_that_changed_applies_to_new_batches_only():
    first = assign_batches(located("35m", ["a", "b", "c"]), 3)
    second = assign_batches(located("35m", ["a", "b", "c", "d", "e"]), 1, first)
    assert second["batch"].tolist() == ["35m-0000"] * 3 + ["35m-0001", "35m-0002"]


@pytest.mark.parametrize(
    ("locations", "cause"),
    [
        (located("100m", ["a"]), "location b of the registered batch 100m-0000 is missing"),
        (located("75m", ["a", "b"]), "registered in 100m-0000, now it is listed under 75m"),
        (located("100m", ["a", "b", "b"]), "location b is listed twice"),
    ],
)
def test_a_registered_location_that_went_missing_or_moved_is_refused(locations: pd.DataFrame, cause: str):
    registered = assign_batches(located("100m", ["a", "b"]), 2)
    with pytest.raises(BufferCsvError, match=cause):
        assign_batches(locations, 2, registered)


# --- the real locations --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def published(shared_data: Path) -> pd.DataFrame:
    folder = shared_data / "stockholm" / "buffer_csvs"
    return pd.concat([read_buffer_csv(folder / FILES.format(x)) for x in (100, 75, 60, 50, 45, 35)], ignore_index=True)


@pytest.mark.parametrize(("spacing_m", "defects"), [(100, 33), (75, 0), (60, 1), (50, 0), (45, 0), (35, 1)])
def test_the_published_buffers_have_their_known_defects(published: pd.DataFrame, spacing_m: int, defects: int):
    rows = published[published["series"] == f"{spacing_m}m"]
    pairs = close_pairs(rows["lat_deg"].to_numpy(), rows["lng_deg"].to_numpy(), spacing_m)
    assert len(pairs) == defects
    assert (pairs["distance_m"] < spacing_m).all()


def test_rebuilt_from_the_6562_real_locations_no_buffer_has_a_pair_too_near(published: pd.DataFrame):
    assert len(published) == 6562
    spacings = [100, 75, 60, 50, 45, 35]
    built = build_buffers(published, START, spacings)
    for spacing_m in spacings:
        rows = built[spacing_of(built) >= spacing_m]
        assert len(rows) > 1700
        assert len(close_pairs(rows["lat_deg"].to_numpy(), rows["lng_deg"].to_numpy(), spacing_m)) == 0
    # Nothing is thrown away that had room: what was left out is within 35 m of a location.
    left_out = published[~published["lookup_id"].isin(built["lookup_id"])]
    lat, lng = left_out["lat_deg"].to_numpy()[:, None], left_out["lng_deg"].to_numpy()[:, None]
    assert len(left_out) == 6562 - len(built)
    assert (geodesic_m(lat, lng, built["lat_deg"].to_numpy()[None], built["lng_deg"].to_numpy()[None]).min(axis=1) < 35).all()


def test_imported_locations_and_their_batches_stay_when_lookups_are_added(published: pd.DataFrame):
    registered = assign_batches(published, 200)
    assert registered.groupby("series", sort=False)["batch"].nunique().to_dict() == {
        "100m": 10, "75m": 2, "60m": 5, "50m": 7, "45m": 3, "35m": 8
    }  # fmt: skip
    newcomer = published.iloc[[0]].assign(lookup_id="999999", lat_deg=59.30, lng_deg=18.30, pano_id="new")
    grown = assign_batches(build_buffers(pd.concat([published, newcomer]), START, [100, 35], registered), 200, registered)
    pd.testing.assert_frame_equal(grown.iloc[:6562][[*LOCATION_COLUMNS, "batch"]], registered[[*LOCATION_COLUMNS, "batch"]])
    assert grown.iloc[6562:][["location_id", "series", "rank", "batch"]].to_numpy().tolist() == [
        ["6562", "100m", 1832, "100m-0010"]
    ]
