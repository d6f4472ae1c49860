"""What is collected, as the pages show it: locations with their state, views through the years, pictures, held-out samples.

Read from the tables when they have changed, and held as columns; pictures are read one by one when they are asked for.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.held_out import asked
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table, table_exists, table_version

_compute: Any = pc
_CATALOG = [
    "capture_id",
    "location_id",
    "lat_deg",
    "lng_deg",
    "district",
    "view",
    "heading_deg",
    "captured_on",
    "split",
    "usable",
    "is_query",
    "licence",
    "attribution",
    "flags",
    "sha256",
]
Status = Literal["collected", "pending", "empty", "failed", "new"]
STATUSES: tuple[Status, ...] = get_args(Status)
T = TypeVar("T")


@dataclass(slots=True)
class Location:
    """A place on the map and how far its collection is.

    Attributes:
        status: `collected`: it gave all it had; `pending`: views are to be tried again; `empty`: it has no imagery; `failed`:
            nothing of it can be used; `new`: nobody has looked yet.
        captures: pictures.
        first_on: date of the oldest.
        last_on: of the newest.
    """

    location_id: str
    lat_deg: float
    lng_deg: float
    series: str
    batch: str
    status: Status
    captures: int = 0
    first_on: date | None = None
    last_on: date | None = None

    def properties(self) -> dict[str, Any]:
        """As GeoJSON and tiles carry them."""
        return {
            "location_id": self.location_id,
            "series": self.series,
            "status": self.status,
            "captures": self.captures,
            "first_on": None if self.first_on is None else self.first_on.isoformat(),
            "last_on": None if self.last_on is None else self.last_on.isoformat(),
        }

    def feature(self) -> dict[str, Any]:
        """As a GeoJSON feature; degrees to 7 decimals."""
        point = {"type": "Point", "coordinates": [round(self.lng_deg, 7), round(self.lat_deg, 7)]}
        return {"type": "Feature", "geometry": point, "properties": self.properties()}


class _Cached(Generic[T]):
    """A value that is made again when what it was made of has changed."""

    def __init__(self, stamp: Callable[[], Any], make: Callable[[], T]) -> None:
        self._stamp, self._make = stamp, make
        self._held: tuple[Any, T] | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        with self._lock:
            stamp = self._stamp()
            if self._held is None or self._held[0] != stamp:
                self._held = stamp, self._make()
            return self._held[1]


class Places:
    """Reads the tables of a region.

    Args:
        layout: of the region.
        today: for the age of imagery.
    """

    def __init__(self, layout: Layout, today: Callable[[], date] = date.today) -> None:
        self._layout, self._today = layout, today
        self._catalog = _Cached(lambda: _stamp(layout.catalog), self._read_catalog)
        tables = (layout.panoramas, layout.visits)
        self._locations = _Cached(
            lambda: (_stamp(layout.locations), _stamp(layout.catalog), *(_version(path) for path in tables)), self._read_locations
        )
        self._reader = _Cached(lambda: _version(layout.crops), lambda: CropReader(layout.crops))

    # --- the catalog ---------------------------------------------------------------------------------------------
    @property
    def has_catalog(self) -> bool:
        """Whether there is one."""
        return self._layout.catalog.is_file()

    def capture(self, capture_id: str) -> dict[str, Any] | None:
        """A row of the catalog, with `heading_deg` and `captured_on` as it has them; None where there is none."""
        catalog, row_of = self._catalog.get()
        row = row_of.get(capture_id)
        return None if row is None else catalog.slice(row, 1).to_pylist()[0]

    def question(self, capture_id: str) -> dict[str, Any] | None:
        """A row of the catalog that samples and the game may show; None where that capture is no question of test."""
        row = self.capture(capture_id) if self.has_catalog else None
        return row if row is not None and row["asked"] and row["split"] == "test" else None

    def questions(self) -> pa.Table:
        """The held-out pictures of test: the newest of each view, or photos; ordered by capture id."""
        catalog, _ = self._catalog.get()
        return catalog.filter(_compute.and_(catalog["asked"], _compute.equal(catalog["split"], "test")))

    def held_out(self) -> list[str]:
        """Capture ids of all pictures that are asked about, of dev and of test; no neighbour may be one of them."""
        if not self.has_catalog:
            return []
        catalog, _ = self._catalog.get()
        return catalog.filter(catalog["asked"])["capture_id"].to_pylist()

    def samples(self, count: int, seed: int = 0) -> list[dict[str, Any]]:
        """Held-out pictures of distinct places, without their positions, in an order that the seed decides."""
        if not self.has_catalog:
            return []
        rows = self.questions().select(["capture_id", "location_id", "captured_on", "heading_deg", "attribution", "licence"])
        chosen = distinct(rows.to_pylist(), seed, count, of="location_id", then="capture_id")
        return [picture(row) for row in chosen]

    def encoded(self, capture_id: str) -> bytes | None:
        """The crop of a capture, as it is stored and checked against its sha256; None where there is none.

        Raises:
            IntegrityError: its bytes are not the ones recorded.
        """
        catalog, row_of = self._catalog.get() if self.has_catalog else (None, {})
        if (catalog is not None and capture_id not in row_of) or not table_exists(self._layout.crops):
            return None
        return self._reader.get().encoded([capture_id])[capture_id]

    def _read_catalog(self) -> tuple[pa.Table, dict[str, int]]:
        catalog = read_parquet(self._layout.catalog, columns=_CATALOG).sort_by("capture_id").combine_chunks()
        catalog = catalog.append_column("asked", asked(catalog))
        return catalog, {name: row for row, name in enumerate(catalog["capture_id"].to_pylist())}

    # --- locations -----------------------------------------------------------------------------------------------
    def locations(self) -> dict[str, Location]:
        """Every registered location, and every one with pictures, by id."""
        return self._locations.get()

    def views_of(self, location_id: str) -> list[dict[str, Any]]:
        """The pictures of a location, oldest first, undated last."""
        if not self.has_catalog:
            return []
        catalog, _ = self._catalog.get()
        rows = catalog.filter(_compute.equal(catalog["location_id"], location_id)).to_pylist()
        rows.sort(key=lambda row: (row["captured_on"] or date.max, row["view"]))
        return [picture(row) | {"view": row["view"], "rotation": _rotation(row["view"]), "flags": row["flags"]} for row in rows]

    def _read_locations(self) -> dict[str, Location]:
        found: dict[str, Location] = {}
        if self._layout.locations.is_file():
            columns = ["location_id", "lat_deg", "lng_deg", "series", "batch"]
            for row in read_parquet(self._layout.locations, columns=columns).to_pylist():
                found[row["location_id"]] = Location(**row, status="new")
        visits = _last_visits(self._layout.visits)
        for name, (dates, pending) in visits.items():
            if name in found:
                found[name].status = "pending" if pending else "empty" if dates == 0 else "failed"
        for row in self._pictures_of_locations():
            place = found.get(row["location_id"])
            if place is None:
                where = {"lat_deg": row["lat_deg"], "lng_deg": row["lng_deg"]}
                place = Location(row["location_id"], **where, series="not registered", batch="", status="collected")
                found[place.location_id] = place
            place.captures, place.first_on, place.last_on = row["captures"], row["first_on"], row["last_on"]
            if place.status != "pending":
                place.status = "collected"
        return found

    def _pictures_of_locations(self) -> list[dict[str, Any]]:
        table = open_table(self._layout.panoramas)
        if table is None:
            return []
        rows = table.to_table(columns=["location_id", "lat_deg", "lng_deg", "captured_on"], filter="status = 'ok'")
        sums = [("lat_deg", "min"), ("lng_deg", "min"), ("captured_on", "min"), ("captured_on", "max"), ([], "count_all")]
        grouped = rows.group_by("location_id").aggregate(sums)
        names = ["location_id", "lat_deg", "lng_deg", "first_on", "last_on", "captures"]
        order = ["location_id", "lat_deg_min", "lng_deg_min", "captured_on_min", "captured_on_max", "count_all"]
        return grouped.select(order).rename_columns(names).to_pylist()

    # --- sums ----------------------------------------------------------------------------------------------------
    def summary(self) -> dict[str, Any]:
        """What is there, counted by series, year, heading, age of the newest picture, and night of collection."""
        places = self.locations().values()
        years, headings, nights = self._counted_captures()
        by_series: dict[str, Counter[str]] = {}
        ages: Counter[int] = Counter()
        today = self._today()
        for place in places:
            by_series.setdefault(place.series, Counter())[place.status] += 1
            if place.last_on is not None:
                ages[max(0, (today - place.last_on).days * 4 // 1461)] += 1
        series = [
            {"series": name, "locations": counts.total()} | {status: counts[status] for status in STATUSES}
            for name, counts in by_series.items()
        ]
        return {
            "locations": len(places),
            "captures": sum(place.captures for place in places),
            "by_series": series,
            "by_year": [{"year": year, "captures": count} for year, count in years],
            "by_heading": [{"heading": name, "captures": count} for name, count in headings],
            "by_age": [{"years": years, "locations": ages[years]} for years in sorted(ages)],
            "nights": [{"date": day, "captures": count} for day, count in nights],
        }

    def _counted_captures(self) -> tuple[list[tuple[Any, int]], list[tuple[str, int]], list[tuple[str, int]]]:
        table = open_table(self._layout.panoramas)
        if table is None:
            return [], [], []
        columns = ["captured_on", "heading_deg", "rotation", "fetched_at"]
        years, headings, nights = Counter[Any](), Counter[tuple[int, int]](), Counter[str]()
        for batch in table.scanner(columns=columns, filter="status = 'ok'", batch_size=65_536).to_batches():
            years.update(_compute.year(batch["captured_on"]).to_pylist())
            nights.update(_compute.strftime(batch["fetched_at"], format="%Y-%m-%d").to_pylist())
            for heading, rotation in zip(batch["heading_deg"].to_pylist(), batch["rotation"].to_pylist(), strict=True):
                headings[(1, int(rotation or 0)) if heading is None else (0, round(heading) % 360)] += 1
        dated = sorted((year, count) for year, count in years.items() if year is not None)
        named = [(f"r{value}" if turned else f"{value}°", headings[turned, value]) for turned, value in sorted(headings)]
        return dated, named, sorted(nights.items())


def picture(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs to show a picture of the catalog, and to credit it."""
    return {
        "capture_id": row["capture_id"],
        "url": f"views/{row['capture_id']}",
        "captured_on": None if row["captured_on"] is None else row["captured_on"].isoformat(),
        "heading_deg": None if row["heading_deg"] is None else round(row["heading_deg"], 1),
        "attribution": row["attribution"],
        "licence": row["licence"],
    }


def distinct(rows: Iterable[Mapping[str, Any]], seed: int, count: int, *, of: str, then: str) -> list[Mapping[str, Any]]:
    """One row each of `count` distinct values of the column `of`, in an order that the seed and the values alone decide.

    A value keeps its turn when others are added, so a seed means nearly the same after the next night.
    """

    def turn(value: Any) -> bytes:
        return hashlib.sha256(f"{seed} {value}".encode()).digest()

    chosen: list[Mapping[str, Any]] = []
    seen: set[Any] = set()
    for row in sorted(rows, key=lambda row: (turn(row[of]), turn(row[then]))):
        if row[of] not in seen and len(chosen) < count:
            seen.add(row[of])
            chosen.append(row)
    return chosen


def _last_visits(path: Path) -> dict[str, tuple[int, int]]:
    """Dates and pending views of the last visit of each location."""
    table = open_table(path)
    if table is None:
        return {}
    rows = table.to_table(columns=["location_id", "visited_at", "dates", "pending"]).sort_by("visited_at")
    columns = (rows[name].to_pylist() for name in ("location_id", "dates", "pending"))
    return {name: (dates, pending) for name, dates, pending in zip(*columns, strict=True)}


def _rotation(view: str) -> int | None:
    return int(view[1:]) if view.startswith("r") and view[1:].isdigit() else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _version(path: Path) -> int | None:
    return table_version(path) or None
