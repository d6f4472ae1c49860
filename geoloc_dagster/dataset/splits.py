"""Dividing places into train, dev and test, so that nothing is tested that was trained on.

A *place* (a location id) is the unit: all its rows are in one split. Five ways of dividing:

- `blocks`: square blocks in the region's metric CRS, whole blocks dealt out by a seeded hash. Because a block's split depends
  on nothing but its position and the seed, it never changes when the collection grows. Places of train within `guard_m` of a
  place of dev or test are in no split (`none`).
- `series` and `source`: by shell patterns on the names, e.g. to repeat a published division, which is taken as it is, without a
  guard band; part of train is put aside as dev, by blocks.
- `lists`: as published lists of places say, taken as they are; part of train is put aside as dev in the same way.
- `creator`: by who took the photos, wherever in the world: whole creators are dealt out by a seeded hash of their names, and a
  place whose photos name none stands for itself. So a photo's split never changes when the collection grows. A place that
  creators of different splits have photographed (street views, not photos of lists) is in no split (`none`). The shares are
  met over creators, and over photos as far as no creator is heavy: the share p of test deviates by about
  sqrt(p (1 - p) sum w^2), w being each creator's share of all photos. Of the 13,018 creators of YFCC25600, the busiest of whom
  took 0.4 %, that is 0.6 percentage points; one who took a quarter of all photos moves a quarter, and another seed draws again.

A place that is seen in several series or sources is test if any of them is, else train if any of them is, so that it is never
in two splits.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from scipy.spatial import KDTree

from geoloc_dagster.config.dataset import SplitSettings
from geoloc_dagster.dataset.split_lists import split_of_listed
from geoloc_dagster.errors import ConfigError, NotEnoughDataError
from geoloc_dagster.geo.distance import FloatArray, ecef_m, geodesic_m

_log = logging.getLogger(__name__)

TextArray = npt.NDArray[np.str_]
IntArray = npt.NDArray[np.int64]
HELD_OUT = ("dev", "test")
_SQUARE = 4  # blocks along the side of the squares within which splits are dealt out


def assign_splits(
    locations: pd.DataFrame, settings: SplitSettings, metric_crs: str, listed: Mapping[str, str] | None = None
) -> pd.Series:
    """The split of every place: train, dev, test or none.

    Args:
        locations: columns location_id, lat_deg, lng_deg, series, source, and creator where it is divided by that; a place may
            have several rows, in any order.
        settings: the `splits:` section.
        metric_crs: of the region, metres, e.g. EPSG:3006; not looked at by `creator`.
        listed: place -> split, as `lists` say.

    Returns:
        Series named `split`, indexed by location_id in sorted order.

    Raises:
        ConfigError: shares leave nothing for train, the patterns contradict each other, or it is divided by creator and no row
            has one.
        NotEnoughDataError: the patterns match no place at all.
    """
    if settings.by == "creator":
        return _by_creator(locations, settings)
    places = locations.sort_values(["location_id", "lat_deg", "lng_deg"]).drop_duplicates("location_id")
    blocks = _blocks(places, settings.block_m, metric_crs)
    if settings.by == "blocks":
        split = _deal(_draws(blocks, str(settings.seed)), settings)
        split[_guarded(places, split, settings.guard_m)] = "none"
    else:
        if settings.by == "lists":
            split = np.array(split_of_listed(places["location_id"].tolist(), listed or {}), dtype="<U5")
            if not {"train", "test"} & set(split):
                raise NotEnoughDataError("splits.lists name no place that is there", "Collect them first, or correct the lists.")
        else:
            split = _by_pattern(locations, settings).reindex(places["location_id"]).to_numpy(dtype="<U5")
        put_aside = _draws(blocks, f"{settings.seed}:dev") < settings.dev_share
        split[(split == "train") & put_aside] = "dev"
    return pd.Series(split, index=pd.Index(places["location_id"], name="location_id"), name="split", dtype=object)


def utm_crs(lat_deg: float, lng_deg: float) -> str:
    """The UTM zone of a position, e.g. EPSG:32634 for Stockholm."""
    zone = int((lng_deg + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if lat_deg >= 0 else 32700) + zone}"


def nearest_m(lat_deg: FloatArray, lng_deg: FloatArray, to_lat_deg: FloatArray, to_lng_deg: FloatArray) -> FloatArray:
    """Distance on the ellipsoid from each of n points to the nearest of m others, metres; inf where m is 0."""
    if len(to_lat_deg) == 0 or len(lat_deg) == 0:
        return np.full(len(lat_deg), np.inf)
    tree: Any = KDTree(ecef_m(to_lat_deg, to_lng_deg))
    nearest = np.asarray(tree.query(ecef_m(lat_deg, lng_deg))[1], dtype=np.int64)
    return geodesic_m(lat_deg, lng_deg, to_lat_deg[nearest], to_lng_deg[nearest])


def _blocks(places: pd.DataFrame, block_m: float, metric_crs: str) -> IntArray:
    """Column and row of the block of every place, shape (n, 2)."""
    east, north = _to_metric(metric_crs).transform(places["lng_deg"].to_numpy(), places["lat_deg"].to_numpy())
    return np.floor(np.stack([east, north], axis=1) / block_m).astype(np.int64)


@cache
def _to_metric(metric_crs: str) -> Transformer:
    try:
        crs = CRS.from_user_input(metric_crs)
    except CRSError as error:
        raise ConfigError(f"region.metric_crs {metric_crs!r} is not a coordinate reference system") from error
    if not crs.is_projected:
        raise ConfigError(f"region.metric_crs {metric_crs!r} is not in metres", "Name a projected one, e.g. EPSG:3006.")
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _deal(draws: FloatArray, settings: SplitSettings) -> TextArray:
    if settings.test_share + settings.dev_share >= 1:
        raise ConfigError(
            f"splits.test_share {settings.test_share:g} and dev_share {settings.dev_share:g} leave nothing for train",
            "Lower them until they add up to less than 1.",
        )
    held_out = np.where(draws < settings.test_share, "test", "dev")
    return np.where(draws < settings.test_share + settings.dev_share, held_out, "train").astype("<U5")


def _draws(blocks: IntArray, seed: str) -> FloatArray:
    """A number in [0, 1) for every block, spread evenly so that every part of the region gets its share.

    Within a square of 4 x 4 blocks, the blocks are put in an order by hash and get the numbers (order + d) / 16, d by hash of the
    square: of its 16 blocks, a share p below p but for rounding, whatever p is.
    """
    unique, inverse = np.unique(blocks, axis=0, return_inverse=True)
    orders: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    draws = np.empty(len(unique))
    for k, (column, row) in enumerate(unique.tolist()):
        square = (column // _SQUARE, row // _SQUARE)
        if square not in orders:
            orders[square] = _order_of_square(*square, seed)
        draws[k] = orders[square][column, row]
    return draws[inverse.reshape(-1)]


def _order_of_square(column: int, row: int, seed: str) -> dict[tuple[int, int], float]:
    cells = [(column * _SQUARE + i, row * _SQUARE + j) for i in range(_SQUARE) for j in range(_SQUARE)]
    cells.sort(key=lambda cell: _hash01(f"{seed}:block:{cell[0]}:{cell[1]}"))
    offset = _hash01(f"{seed}:square:{column}:{row}")
    return {cell: (position + offset) / len(cells) for position, cell in enumerate(cells)}


def _hash01(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _guarded(places: pd.DataFrame, split: TextArray, guard_m: float) -> npt.NDArray[np.bool_]:
    """Places of train within `guard_m` of one of dev or test."""
    lat, lng = places["lat_deg"].to_numpy(np.float64), places["lng_deg"].to_numpy(np.float64)
    held_out = np.isin(split, HELD_OUT)
    guarded = np.zeros(len(split), dtype=np.bool_)
    if guard_m > 0:
        # The nearest is found by straight line; the margin covers what that can differ from the ellipsoid.
        margin_m = 1e-3 + 1e-6 * guard_m
        guarded[~held_out] = nearest_m(lat[~held_out], lng[~held_out], lat[held_out], lng[held_out]) <= guard_m + margin_m
    return guarded


def _by_creator(locations: pd.DataFrame, settings: SplitSettings) -> pd.Series:
    """Split of every place by who photographed it; `none` where those people are in different splits."""
    rows = locations[["location_id", "creator"]].drop_duplicates()
    named = rows[rows["creator"].fillna("") != ""]
    if named.empty:
        raise ConfigError(
            "splits.by is creator, but no picture says who took it",
            "Name the column of the authors in `capture.photos.columns`, or divide by blocks.",
        )
    unnamed = rows[~rows["location_id"].isin(named["location_id"])]
    keys = "creator:" + named["creator"].astype(str), "place:" + unnamed["location_id"].astype(str)
    groups = pd.concat([named.assign(group=keys[0]), unnamed.assign(group=keys[1])])
    names, back = np.unique(groups["group"].to_numpy(dtype=np.str_), return_inverse=True)
    draws = np.array([_hash01(f"{settings.seed}:{name}") for name in names.tolist()])
    dealt: Any = groups.assign(split=_deal(draws, settings)[back]).groupby("location_id")["split"]
    split = dealt.first().where(dealt.nunique() == 1, "none")
    return split.sort_index().rename("split").astype(object)


def _by_pattern(locations: pd.DataFrame, settings: SplitSettings) -> pd.Series:
    """Split of every place by the names of its series or sources."""
    if not settings.train and not settings.test:
        raise ConfigError(f"splits.by is {settings.by}, but neither splits.train nor splits.test names any")
    names = sorted(set(locations[settings.by].astype(str)))
    of_name = {name: _match(name, settings) for name in names}
    for pattern in [*settings.train, *settings.test]:
        if not any(fnmatchcase(name, pattern) for name in names):
            _log.warning("splits: no %s matches %r yet; there are %s", settings.by, pattern, ", ".join(names))
    if not {"train", "test"} & set(of_name.values()):
        raise NotEnoughDataError(
            f"splits.train and splits.test match no {settings.by}; there are {', '.join(names) or 'none'}",
            "Correct the patterns, or collect those batches first.",
        )
    rank = {"test": 0, "train": 1, "none": 2}
    series: Any = locations[settings.by].astype(str).map({name: rank[split] for name, split in of_name.items()})
    ranks: Any = series.groupby(locations["location_id"]).min()
    return ranks.map({value: name for name, value in rank.items()})


def _match(name: str, settings: SplitSettings) -> str:
    """An empty list stands for everything that the other one does not name."""
    in_train, in_test = _any(name, settings.train), _any(name, settings.test)
    if in_train and in_test:
        raise ConfigError(f"splits.train and splits.test both match the {settings.by} {name!r}")
    if in_test or (not settings.test and not in_train):
        return "test"
    return "train" if in_train or not settings.train else "none"


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
