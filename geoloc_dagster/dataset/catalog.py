"""The catalog: one row per crop, with everything that trainings, evaluations and the index choose rows by.

Flags found by comparison join the picture's own: `byte_identical`, `near_duplicate` (a re-encoded copy exists),
`frozen_rotation`, `repeated_date`, `shared_panorama`, `missing_heading` and, where leaking rows are dropped, `leaking`. Which
of them make a row unusable is the region's choice (`catalog.exclude_flags`); `leaking` and `missing_heading` always do,
because they are only set on request.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config.dataset import CatalogSettings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset import duplicates, leakage, splits
from geoloc_dagster.dataset.schema import CATALOG
from geoloc_dagster.dataset.split_lists import read_split_lists
from geoloc_dagster.dataset.thumbnails import read_thumbnails
from geoloc_dagster.errors import IntegrityError, NotEnoughDataError
from geoloc_dagster.geo.districts import S2_LEVEL, district_of
from geoloc_dagster.tables import open_table

Progress = Callable[[int, int], None]
BoolArray = npt.NDArray[np.bool_]

_log = logging.getLogger(__name__)
_WITHOUT_SCENE = frozenset({"undecodable", "black", "uniform"})  # equal to others of their kind, whatever the place
_ALWAYS_EXCLUDED = frozenset({"leaking", "missing_heading"})
_ORDER = ["batch", "location_id", "view", "captured_on", "capture_id"]


def build_catalog(
    crops_path: Path,
    locations: pd.DataFrame,
    settings: Settings,
    progress: Progress | None = None,
    *,
    metric_crs: str | None = None,
    creators: Mapping[str, str] | None = None,
    district_level: int = S2_LEVEL,
) -> pa.Table:
    """Build the catalog of all crops collected so far.

    Pictures are read only for candidates of near-duplicates, as small thumbnails, in batches.

    Args:
        crops_path: Lance table of schema CROPS.
        locations: the registered locations: columns location_id, series.
        settings: of the region: its sections region, catalog and splits.
        progress: called with (pictures compared, pictures to compare).
        metric_crs: of the blocks; that of the settings, or the UTM zone of the start point by default.
        creators: who took the pictures, by capture id.
        district_level: of the S2 cells that stand for districts where none are named.

    Returns:
        Table of schema CATALOG, sorted by batch, location, view and date: the order of the crops does not matter.

    Raises:
        NotEnoughDataError: there are no crops, or the split patterns match none.
        IntegrityError: crops of locations that are not registered.
        ConfigError: the split settings contradict each other, or ask for creators and there are none.
    """
    frame, dataset = _read_crops(crops_path)
    frame["creator"] = frame["capture_id"].map(dict(creators or {})).astype(object)
    frame["series"] = _series_of(frame, locations)
    frame["view"] = view_names(frame["heading_deg"], frame["rotation"])
    frame["picture"] = _number_pictures(frame, dataset, progress)
    frame["duplicate_group"] = _duplicate_groups(frame)
    flags = _flags_of_comparison(frame, settings.catalog)
    frame["flags"] = [[*own, *found] for own, found in zip(frame["flags"], flags, strict=True)]
    crs = metric_crs or settings.region.metric_crs or splits.utm_crs(*settings.region.start_point)
    divided = splits.assign_splits(frame, settings.splits, crs, read_split_lists(settings))
    frame["split"] = frame["location_id"].map(divided)
    excluded = {*settings.catalog.exclude_flags, *_ALWAYS_EXCLUDED}
    frame["usable"] = [excluded.isdisjoint(row) for row in frame["flags"]]
    if settings.splits.drop_leaking:
        _drop_leaking(frame, creators=settings.splits.by == "creator")
    frame["is_query"] = newest_of_view(frame, settings.catalog.min_dates)
    _add_places(frame, settings, district_level)
    return pa.Table.from_pandas(frame.sort_values(_ORDER), schema=CATALOG, preserve_index=False)


def summarise_catalog(catalog: pa.Table) -> dict[str, Any]:
    """Counts for the asset's metadata and reports: plain numbers and short lists, JSON-serialisable.

    `shared_places` lists the pairs of locations that show the same panoramas, with the number of pictures that they share.
    """
    frame: Any = catalog.select(
        ["location_id", "split", "usable", "is_query", "flags", "year", "near_train_m", "duplicate_group"]
    ).to_pandas()
    years = frame["year"].dropna()
    by_split = frame.groupby("split")
    return {
        "rows": len(frame),
        "usable": int(frame["usable"].sum()),
        "places": int(frame["location_id"].nunique()),
        "rows_by_split": {name: len(rows) for name, rows in by_split},
        "usable_by_split": {name: int(rows["usable"].sum()) for name, rows in by_split},
        "places_by_split": {name: int(rows["location_id"].nunique()) for name, rows in by_split},
        "queries_by_split": {name: int(rows["is_query"].sum()) for name, rows in by_split},
        "flags": dict(sorted(Counter(flag for row in frame["flags"] for flag in row).items())),
        "shared_places": _shared_places(frame),
        "years": [int(years.min()), int(years.max())] if len(years) else [],
        "test_near_train_50m": _finite(leakage.near_train_share(catalog, 50)),
    }


def view_names(heading_deg: pd.Series, rotation: pd.Series) -> pd.Series:
    """`r0`..`r3` where only a rotation is known, `h000`..`h359` (rounded) for absolute headings, `v` where neither is."""
    degrees = heading_deg.astype("Float64").round().astype("Int64") % 360
    by_heading = "h" + degrees.astype("string").str.zfill(3)
    by_rotation = "r" + rotation.astype("Int64").astype("string")
    return by_heading.fillna(by_rotation).fillna("v").astype(object)


def newest_of_view(frame: pd.DataFrame, min_dates: int) -> BoolArray:
    """Mark the newest usable capture of every view of a place with at least `min_dates` dates: the queries.

    Rows without a date can be no query and count for no date; of several captures of the newest date the one with the last
    capture_id is taken.

    Args:
        frame: columns capture_id, location_id, view, captured_on, usable.
        min_dates: different dates among the usable captures of the view.

    Returns:
        Shape (n,).
    """
    dated: Any = frame[frame["usable"] & frame["captured_on"].notna()]
    rows = dated.sort_values(["captured_on", "capture_id"])
    dates = rows.groupby(["location_id", "view"])["captured_on"].transform("nunique")
    newest = rows[dates >= min_dates].drop_duplicates(["location_id", "view"], keep="last")
    return frame.index.isin(newest.index)


def _read_crops(crops_path: Path) -> tuple[Any, lance.LanceDataset]:
    """Every column but the picture, and the table to read pictures from; `offset` is the row's position there."""
    dataset = open_table(crops_path)
    if dataset is None or dataset.count_rows() == 0:
        raise NotEnoughDataError(f"there are no crops in {crops_path}")
    columns = [name for name in dataset.schema.names if name != "image"]
    frame = dataset.to_table(columns=columns).to_pandas()
    frame["offset"] = np.arange(len(frame))
    repeated = frame["capture_id"][frame["capture_id"].duplicated()]
    if len(repeated):
        raise IntegrityError(f"{crops_path} holds capture {repeated.iloc[0]} more than once")
    frame["captured_on"] = pd.to_datetime(frame["captured_on"])
    return frame, dataset


def _series_of(frame: Any, locations: pd.DataFrame) -> pd.Series:
    series = frame["location_id"].map(locations.set_index("location_id")["series"])
    unknown = sorted(set(frame.loc[series.isna(), "location_id"]))
    if unknown:
        raise IntegrityError(
            f"there are crops of locations that are not registered ({len(unknown)}, e.g. {', '.join(unknown[:5])})",
            "Materialise `buffer_csvs` with the CSVs that these crops were collected for.",
        )
    return series


def _number_pictures(frame: Any, dataset: lance.LanceDataset, progress: Progress | None) -> npt.NDArray[np.int64]:
    offsets = frame["offset"].to_numpy(np.int64)
    comparable = _has_scene(frame) & frame["phash"].notna().to_numpy()
    return duplicates.picture_numbers(
        frame["sha256"],
        frame["phash"].fillna(0).to_numpy(np.uint64),
        comparable,
        lambda rows: read_thumbnails(dataset, offsets[rows], duplicates.THUMBNAIL_SIDE, progress),
    )


def _has_scene(frame: Any) -> BoolArray:
    return np.array([_WITHOUT_SCENE.isdisjoint(row) for row in frame["flags"]], dtype=np.bool_)


def _duplicate_groups(frame: Any) -> pd.Series:
    """The first capture id of every picture that occurs more than once; missing for the others."""
    by_picture = frame.groupby("picture")["capture_id"]
    return by_picture.transform("min").where(by_picture.transform("size") > 1, None)


def _flags_of_comparison(frame: Any, settings: CatalogSettings) -> list[list[str]]:
    scenes = frame[_has_scene(frame)]
    of_bytes = {capture for group in duplicates.byte_identical_groups(frame) for capture in group}
    encodings = scenes.groupby("picture")["sha256"].transform("nunique")
    found: dict[str, set[str]] = {
        "byte_identical": of_bytes,
        "near_duplicate": set(scenes.loc[encodings > 1, "capture_id"]),
        "frozen_rotation": duplicates.frozen_rotations(scenes),
        "repeated_date": duplicates.repeated_dates(scenes),
        "shared_panorama": duplicates.shared_panoramas(scenes),
        "missing_heading": _missing_heading(frame) if settings.require_all_headings else set(),
    }
    return [[flag for flag, captures in found.items() if capture in captures] for capture in frame["capture_id"]]


def _missing_heading(frame: Any) -> set[str]:
    """Captures of places with fewer views than the most complete place of their source."""
    views = frame.groupby(["source", "location_id"])["view"].transform("nunique")
    complete = views.groupby(frame["source"]).transform("max")
    return set(frame.loc[views < complete, "capture_id"])


def _drop_leaking(frame: Any, *, creators: bool) -> None:
    """Take rows that leak into a split of higher rank out of use, with the flag that says why."""
    columns = ["capture_id", "split", "usable", "location_id", "pano_id", "duplicate_group", "creator"]
    leaks = leakage.find_leaks(pa.Table.from_pandas(frame[columns], preserve_index=False), creators=creators)
    leaking = frame["capture_id"].isin(leakage.leaking_captures(leaks)).to_numpy()
    frame["flags"] = [[*row, "leaking"] if hit else row for row, hit in zip(frame["flags"], leaking, strict=True)]
    frame["usable"] &= ~leaking
    if leaking.any():
        _log.info("%d rows leak into another split and were left out", int(leaking.sum()))


def _add_places(frame: Any, settings: Settings, district_level: int) -> None:
    """Year, district, and the distance of held-out rows to the nearest place that models may have learned from."""
    frame["year"] = frame["captured_on"].dt.year.astype("Int16")
    districts = settings.region.districts
    path = None if districts is None else settings.resolve(districts)
    lat, lng = frame["lat_deg"].to_numpy(np.float64), frame["lng_deg"].to_numpy(np.float64)
    frame["district"] = district_of(lat, lng, path, settings.region.district_property, level=district_level)
    split = frame["split"].to_numpy()
    metres = np.full(len(frame), np.nan, dtype=np.float32)
    for held_out, learned in (("dev", ["train"]), ("test", ["train", "dev"])):  # recipes may learn from dev in the end
        rows, near = split == held_out, np.isin(split, learned)
        if near.any():
            metres[rows] = splits.nearest_m(lat[rows], lng[rows], lat[near], lng[near])
    frame["near_train_m"] = metres


def _shared_places(frame: Any, most: int = 20) -> list[list[str | int]]:
    flagged = frame[["shared_panorama" in row for row in frame["flags"]]]
    sets = flagged.groupby("duplicate_group")["location_id"].agg(lambda ids: tuple(sorted(set(ids))))
    pairs = Counter(places for places in sets if len(places) > 1)
    return [[*places, count] for places, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:most]]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
