"""What two splits share is named, row by row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from geoloc_dagster.dataset.leakage import find_leaks, leaking_captures, near_train_share
from geoloc_dagster.dataset.schema import CATALOG


def row(capture_id: str, split: str, location_id: str, **values: Any) -> dict[str, Any]:
    constant = {
        "batch": "100m-0000",
        "series": "100m",
        "source": "s",
        "lat_deg": 59.3,
        "lng_deg": 18.0,
        "district": "d",
        "view": "r0",
    }
    rest = {"flags": [], "usable": True, "is_query": False, "licence": "CC0-1.0", "attribution": "a"}
    return constant | rest | {"capture_id": capture_id, "split": split, "location_id": location_id} | values


def catalog(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=CATALOG)


def named(table: pa.Table) -> list[tuple[str, str, str]]:
    return list(find_leaks(table)[["kind", "left", "right"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("panorama", {"pano_id": "P"}), ("near_duplicate", {"duplicate_group": "a"}), ("location", {"location_id": "7"})],
)
def test_each_kind_of_leak_is_named_with_both_rows(kind: str, shared: dict[str, str]):
    leaks = find_leaks(catalog(row("b", "test", "2") | shared, row("a", "train", "1") | shared, row("c", "train", "3")))
    (leak,) = leaks.to_dict("records")
    places = [shared.get("location_id", "1"), shared.get("location_id", "2")]
    assert leak == {
        "kind": kind,
        "left": "a",
        "right": "b",
        "left_split": "train",
        "right_split": "test",
        "left_location": places[0],
        "right_location": places[1],
        "shared": next(iter(shared.values())),
    }


def test_what_is_shared_within_one_split_is_no_leak():
    same = {"pano_id": "P", "duplicate_group": "a"}
    assert named(catalog(row("a", "train", "1", **same), row("b", "train", "2", **same))) == []


def test_rows_out_of_use_and_rows_in_the_guard_band_cannot_leak():
    table = catalog(
        row("a", "train", "1", pano_id="P"), row("b", "test", "2", pano_id="P", usable=False), row("c", "none", "3", pano_id="P")
    )
    assert named(table) == []


def test_every_leaking_row_is_named_though_not_every_pair():
    rows = [row(f"t{i:03}", "train", str(i), duplicate_group="g") for i in range(100)]
    held_out = [row(f"x{i:03}", "test", f"x{i}", duplicate_group="g") for i in range(100)]
    leaks = find_leaks(catalog(*rows, *held_out))
    assert set(leaks["left"]) == {r["capture_id"] for r in rows}
    assert set(leaks["right"]) == {r["capture_id"] for r in held_out}
    assert len(leaks) == 199


def test_leaving_out_the_named_rows_leaves_no_leak_and_keeps_all_of_test():
    rows = [
        row("a", "train", "1", pano_id="P", duplicate_group="g"),
        row("b", "dev", "2", pano_id="P"),
        row("c", "dev", "3", duplicate_group="g"),
        row("d", "test", "4", duplicate_group="g"),
        row("e", "train", "5"),
    ]
    left_out = leaking_captures(find_leaks(catalog(*rows)))
    assert left_out == {"a", "c"}
    assert named(catalog(*(r for r in rows if r["capture_id"] not in left_out))) == []


def test_the_share_of_test_places_near_train_counts_places_not_pictures():
    near, far = {"near_train_m": 50.0}, {"near_train_m": 50.5}
    rows = [
        row("a", "test", "1", **near),
        row("b", "test", "1", **near),
        row("c", "test", "2", **far),
        row("d", "dev", "3", **near),
    ]
    assert near_train_share(catalog(*rows), 50) == 0.5
    assert near_train_share(catalog(*rows), 51) == 1.0
    assert near_train_share(catalog(*rows), 50, split="dev") == 1.0


def test_a_creator_in_two_splits_is_a_leak_only_where_it_is_divided_by_creators():
    table = catalog(row("a", "train", "1", creator="ann"), row("b", "test", "2", creator="ann"), row("c", "dev", "3"))
    assert find_leaks(table).empty
    (leak,) = find_leaks(table, creators=True).to_dict("records")
    assert (leak["kind"], leak["left"], leak["right"], leak["shared"]) == ("creator", "a", "b", "ann")
