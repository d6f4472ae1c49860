"""Taking pictures down: a tombstone first, so that they are never fetched again, then every byte of them.

The order makes it safe to be killed: what has a tombstone is deleted by the next run of the same request. Models that have
learned from the pictures, and indexes and releases that name them, are immutable; they are listed and marked.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.schema import TOMBSTONES
from geoloc_dagster.errors import ConfigError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.storage import read_json, read_parquet, write_json
from geoloc_dagster.tables import append_rows, delete_rows, open_table

Kind = Literal["pano", "creator", "provider", "bbox"]
MARK = "FORGOTTEN.json"
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be forgotten: one panorama, one creator, one provider, or an area.

    Attributes:
        kind: which of these.
        value: its id or name; of an area `south,west,north,east` in degrees.

    Raises:
        ConfigError: an area that is none.
    """

    kind: Kind
    value: str

    def __post_init__(self) -> None:
        if self.kind == "bbox":
            self._box()
        elif not self.value.strip():
            raise ConfigError(f"--{self.kind} names nothing")

    def condition(self) -> str:
        """In the words of the captures table."""
        if self.kind == "bbox":
            south, west, north, east = self._box()
            return f"lat_deg >= {south} AND lat_deg <= {north} AND lng_deg >= {west} AND lng_deg <= {east}"
        column = {"pano": "pano_id", "creator": "creator", "provider": "provider"}[self.kind]
        return f"{column} = {_quoted(self.value)}"

    def _box(self) -> tuple[float, float, float, float]:
        try:
            south, west, north, east = (float(part) for part in self.value.split(","))
        except ValueError:
            raise ConfigError(f"{self.value!r} is no area", "Write south,west,north,east in degrees.") from None
        if not (-90 <= south < north <= 90 and -180 <= west < east <= 180):
            raise ConfigError(f"{self.value!r} is no area", "Write south,west,north,east in degrees, latitudes first.")
        return south, west, north, east


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a request took away.

    Attributes:
        captures: ids of captures with a tombstone of this request.
        batches: of these captures.
        deleted: rows by table.
        marked: folders of indexes and releases that were made with them.
    """

    captures: int
    batches: tuple[str, ...]
    deleted: dict[str, int]
    marked: tuple[Path, ...]


def matching(layout: Layout, request: Request) -> pa.Table:
    """Captures that a request means, with the columns capture_id and batch."""
    table = open_table(layout.panoramas)
    if table is None:
        return pa.table({"capture_id": pa.array([], pa.string()), "batch": pa.array([], pa.string())})
    return table.to_table(columns=["capture_id", "batch"], filter=request.condition())


def forget(layout: Layout, request: Request, *, now: dt.datetime) -> Forgotten:
    """Bury, delete, purge older versions, and mark what was made of it; repeated after a kill it completes.

    Raises:
        DiskFullError, DataRootError: a table cannot be written; the tombstones stay, and nothing of it is fetched again.
        IntegrityError: a table is damaged.
    """
    found = matching(layout, request)
    ids: set[str] = {str(one) for one in found["capture_id"].to_pylist()}
    _bury(layout, request, ids, now)
    failpoint("forget.buried")
    buried = _buried(layout, request)
    deleted: dict[str, int] = {}
    derived = {
        "embeddings": layout.embeddings,
        **{path.stem: path for path in layout.all_embeddings()},
        "local_features": layout.local_features,
        "scene_labels": layout.scene_labels,
        "segmentation_maps": layout.segmentation_maps,
        "crops": layout.crops,
    }
    for name, path in {**derived, "panoramas": layout.panoramas}.items():
        if name in ("local_features", "scene_labels", "segmentation_maps") and open_table(path) is None:
            continue  # most regions have none
        deleted[name] = _delete(path, sorted(buried))
    marked = _mark(layout, request, buried, now)
    return Forgotten(len(buried), tuple(sorted({str(one) for one in found["batch"].to_pylist()})), deleted, marked)


def _bury(layout: Layout, request: Request, ids: set[str], now: dt.datetime) -> None:
    asked = f"{request.kind}={request.value}"
    known = _buried(layout, request)
    rows: list[dict[str, Any]] = [
        {"kind": "capture", "value": one, "request": asked, "forgotten_at": now} for one in sorted(ids - known)
    ]
    table = open_table(layout.tombstones)
    rule = f"kind = '{request.kind}' AND value = {_quoted(request.value)}"
    if table is None or not table.count_rows(filter=rule):
        rows.append({"kind": request.kind, "value": request.value, "request": asked, "forgotten_at": now})
    if rows:
        append_rows(layout.tombstones, pa.Table.from_pylist(rows, schema=TOMBSTONES))


def _buried(layout: Layout, request: Request) -> set[str]:
    """Captures with a tombstone of this request."""
    table = open_table(layout.tombstones)
    if table is None:
        return set()
    asked = _quoted(f"{request.kind}={request.value}")
    rows = table.to_table(columns=["value"], filter=f"kind = 'capture' AND request = {asked}")
    return {str(one) for one in rows["value"].to_pylist()}


def _delete(path: Path, ids: list[str]) -> int:
    """Rows of a table that held these captures; their bytes are gone afterwards."""
    if open_table(path) is None or not ids:
        return 0
    groups = [", ".join(map(_quoted, ids[first : first + _CHUNK])) for first in range(0, len(ids), _CHUNK)]
    return delete_rows(path, " OR ".join(f"capture_id IN ({group})" for group in groups))


def _mark(layout: Layout, request: Request, ids: set[str], now: dt.datetime) -> tuple[Path, ...]:
    """Write beside every index, and every release of it, that it was made with pictures that are gone."""
    marked: list[Path] = []
    for rows in sorted(layout.indexes.glob("**/rows.parquet")):
        if ids & set(read_parquet(rows, ["capture_id"])["capture_id"].to_pylist()):
            marked.append(rows.parent)
    names = {folder.name for folder in marked}
    for manifest in sorted(layout.releases.glob("*/manifest.json")):
        if any(name in manifest.read_text() for name in names):
            marked.append(manifest.parent)
    for folder in marked:
        path = folder.with_name(f"{folder.name}.{MARK}")
        earlier: list[Any] = read_json(path)["requests"] if path.is_file() else []
        entry = {"request": f"{request.kind}={request.value}", "captures": len(ids)}
        if all({name: one[name] for name in entry} != entry for one in earlier):
            write_json(path, {"requests": [*earlier, {**entry, "forgotten_at": now.isoformat()}]})
    return tuple(marked)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
