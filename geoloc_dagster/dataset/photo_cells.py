"""Cells of files of photos: making them, giving each photo its class, and leaving out photos that have none or no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoloc_dagster.dataset.photo_positions import Bool, PhotoFile
from geoloc_dagster.dataset.row_files import rows_file
from geoloc_dagster.errors import PhotoListError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import DROPPED, CellLevel, LevelRule, Partitioning, partition
from geoloc_dagster.geo.published_cells import CellSet
from geoloc_dagster.imagery.photo_table import safe_id

if TYPE_CHECKING:
    import pyarrow as pa

RADII_KM = (1, 25, 200, 750, 2_500)
NO_POSITION, NO_PICTURE = "no position", "no picture"


@dataclass
class LevelCount:
    """What became of photos in one level.

    Attributes:
        name: of the level.
        assigned: photos in one of its cells.
        within: by radius in km, photos that far at most from the centre of their own cell: what is right of a faultless model.
    """

    name: str
    assigned: int = 0
    within: dict[int, int] = field(default_factory=lambda: dict.fromkeys(RADII_KM, 0))


@dataclass
class Filtered:
    """What a filter let through, and by what the others failed; a photo that fails by several counts under the first."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])


def make_cells(photos: PhotoFile, rules: Sequence[LevelRule], *, lvl_min: int, lvl_max: int) -> Partitioning:
    """Make cells of the photos of a file that have a position.

    Raises:
        PhotoListError: it cannot be read.
        PartitioningError: the rules do not fit each other, or leave no cell.
    """
    lat: list[np.ndarray] = [np.empty(0)]
    lng: list[np.ndarray] = [np.empty(0)]
    for piece in photos.pieces(every_column=False):
        lat.append(piece.lat_deg[piece.placed])
        lng.append(piece.lng_deg[piece.placed])
    return partition(np.concatenate(lat), np.concatenate(lng), rules, lvl_min=lvl_min, lvl_max=lvl_max)


def assign_cells(photos: PhotoFile, cells: CellSet, target: Path) -> list[LevelCount]:
    """Write the photos of a file with a column per level: the class, `DROPPED` where a photo lies in no cell or has no position.

    Raises:
        PhotoListError: it cannot be read, or has a column of a level's name already.
        DiskFullError, DataRootError: the result cannot be written.
    """
    import pyarrow as pa

    counts = [LevelCount(one.level.name) for one in cells.levels]
    for count in counts:
        if count.name in photos.names:
            raise PhotoListError(f"{photos.path} has a column {count.name!r} already", "Name the level: --cells NAME=FILE.csv.")
    with rows_file(target) as write:
        for piece in photos.pieces():
            rows, placed = piece.rows, piece.placed
            leaves = s2.leaf_ids(piece.lat_deg[placed], piece.lng_deg[placed])
            for name, classes in cells.classes(leaves).items():
                column = np.full(rows.num_rows, DROPPED, np.int32)
                column[placed] = classes
                rows = rows.append_column(name, pa.array(column))
            for count, one in zip(counts, cells.levels, strict=True):
                _count(count, one.level, leaves, piece.lat_deg[placed], piece.lng_deg[placed])
            write(rows)
        _refuse_empty(photos)
    return counts


def filter_photos(photos: PhotoFile, target: Path, *, pictures: Pictures | None, cells: CellSet | None) -> Filtered:
    """Write the rows of a file whose photo has a picture, and a cell in every level, in their order and as they are.

    Args:
        photos: the file.
        target: CSV or Parquet.
        pictures: that are there; all rows have one where it is None.
        cells: that a photo must lie in; no position is needed where it is None.

    Raises:
        PhotoListError: it cannot be read, or names no photos although pictures are asked for.
        DiskFullError, DataRootError: the result cannot be written.
    """
    import pyarrow as pa

    if pictures is not None and photos.img_path is None:
        raise PhotoListError(f"{photos.path} has no column that names photos", "Name it: --column-img-path.")
    result = Filtered()
    with rows_file(target) as write:
        for piece in photos.pieces():
            keep = np.ones(piece.rows.num_rows, np.bool_)
            reasons: list[tuple[str, Bool]] = []
            if pictures is not None and photos.img_path is not None:
                reasons.append((NO_PICTURE, ~pictures.have(piece.rows[photos.img_path])))
            if cells is not None:
                placed = piece.placed
                reasons.append((NO_POSITION, ~placed))
                leaves = s2.leaf_ids(piece.lat_deg[placed], piece.lng_deg[placed])
                for name, classes in cells.classes(leaves).items():
                    outside = np.zeros(piece.rows.num_rows, np.bool_)
                    outside[placed] = classes == DROPPED
                    reasons.append((f"in no cell of `{name}`", outside))
            for reason, failing in reasons:
                result.dropped[reason] += int(np.count_nonzero(keep & failing))
                keep &= ~failing
            result.kept += int(np.count_nonzero(keep))
            write(piece.rows.filter(pa.array(keep)))
        _refuse_empty(photos)
    if photos.broken_rows:
        result.dropped["too few or too many columns"] += photos.broken_rows
    return result


class Pictures:
    """Pictures that are there, by the names under which lists may know them.

    Args:
        names: paths below a folder, or ids.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._whole = {safe_id(name) or name for name in names}
        self._last = {_last(name) for name in names}

    def __len__(self) -> int:
        return len(self._whole)

    def have(self, names: pa.Array) -> Bool:
        """Whether there is a picture of each: by its id or path, or by the name of the file alone."""
        return np.array([self._has(str(name)) for name in names.to_pylist()], np.bool_)

    def _has(self, name: str) -> bool:
        return (safe_id(name) or name) in self._whole or _last(name) in self._last


def pictures_at(place: Path) -> Pictures:
    """The pictures of a folder, of a `downloads.csv`, or of a list: a name a line, or a CSV with a column of ids.

    Raises:
        PhotoListError: there is no such file.
    """
    from geoloc_dagster.imagery.photo_folder import REPORT, read_outcomes

    if place.is_dir():
        suffixes = {".jpg", ".jpeg", ".png", ".webp"}
        files = (path for path in place.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
        return Pictures([path.relative_to(place).as_posix() for path in files])
    if not place.is_file():
        raise PhotoListError(f"{place} is neither a folder of pictures nor a list of them", "Name one with --images.")
    if place.name == REPORT:
        return Pictures([photo for photo, outcome in read_outcomes(place.parent).items() if outcome.kind == "ok"])
    return Pictures(_listed(place))


def _listed(path: Path) -> list[str]:
    import csv

    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = [cells for cells in csv.reader(stream) if cells]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    usual = ("img_path", "img_id", "image_id", "photo_id", "id")
    place = next((header.index(name) for name in usual if name in header), None)
    return [cells[place or 0].strip() for cells in (rows if place is None else rows[1:]) if len(cells) > (place or 0)]


def _last(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    return safe_id(last) or last


def _count(count: LevelCount, level: CellLevel, leaves: s2.U64, lat_deg: np.ndarray, lng_deg: np.ndarray) -> None:
    places = level.classes(leaves)
    inside = places != DROPPED
    count.assigned += int(np.count_nonzero(inside))
    own = places[inside]
    distance_m = great_circle_m(lat_deg[inside], lng_deg[inside], level.lat_deg[own], level.lng_deg[own])
    for radius_km in count.within:
        count.within[radius_km] += int(np.count_nonzero(distance_m <= 1_000 * radius_km))


def _refuse_empty(photos: PhotoFile) -> None:
    if not photos.rows - photos.broken_rows:
        raise PhotoListError(f"{photos.path} has no rows")
