"""Keeping a data root tidy: leftovers of killed processes, small files and old versions of tables.

Nothing that is referred to is touched: a version of a table that a release, a champion or the newest index was made from stays
readable, and so does every file whose name is not that of a temporary one.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.table_upkeep import TableState, look_at_table, tidy_table
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.storage import MANIFEST, read_json
from geoloc_dagster.tables import tables_in

LEFTOVER_AGE: Final = dt.timedelta(days=1)
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")
_TABLES = {"crops_version": "crops", "scene_labels_version": "scene_labels", "segmentation_maps_version": "segmentation_maps"}


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done, or that there is to do, and what it frees."""

    what: str
    bytes: int


def maintain(layout: Layout, *, now: dt.datetime, keep_versions_days: int, apply: bool) -> list[Done]:
    """Tidy a data root, or say what there would be to do.

    Args:
        layout: of the data root.
        now: aware.
        keep_versions_days: a table's versions stay at least that long.
        apply: do it; without it nothing changes, and bytes are estimates.

    Raises:
        DataRootError, DiskFullError: the data root cannot be written.
        IntegrityError: the pointer to a champion or an index is damaged.
    """
    done = list(_leftovers(layout.root, now, apply))
    pinned = pinned_versions(layout)
    keep_since = now - dt.timedelta(days=keep_versions_days)
    for path in tables_in(layout.root / "tables"):
        try:
            state = look_at_table(path, pinned.get(path, set()), keep_since=keep_since)
            if state is not None and (state.old or state.small_files):
                done.append(Done(_said(state), tidy_table(state) if apply else state.old_bytes))
        except (GeolocError, OSError) as error:  # one table that is damaged, or being written, keeps no other from its turn
            done.append(Done(f"{path.name} was left alone: {error}", 0))
    return done


def pinned_versions(layout: Layout) -> dict[Path, set[int]]:
    """Table -> versions that a release, a champion or the newest index names."""
    pinned: dict[Path, set[int]] = {}
    for table, version in _named(layout):
        if version:
            pinned.setdefault(table, set()).add(version)
    return pinned


def _named(layout: Layout) -> Iterator[tuple[Path, int]]:
    for manifest in sorted(layout.releases.glob(f"*/{MANIFEST}")):
        for name, part in read_json(manifest)["parts"].items():
            yield from _named_by(layout, str(name), layout.root / part["folder"])
    for pointer in sorted(layout.checkpoints.glob("champion*.json")):
        yield from _named_by(layout, "model", layout.root / read_json(pointer)["folder"])
    for pointer in sorted(layout.indexes.glob("**/LATEST.json")):
        recipe = "" if pointer.parent == layout.indexes else f":{pointer.parent.name}"
        yield from _named_by(layout, f"index{recipe}", pointer.parent / read_json(pointer)["index"])


def _named_by(layout: Layout, part: str, folder: Path) -> Iterator[tuple[Path, int]]:
    """Versions of tables that one part of a release was made from; none where it is gone, as what serves it says then."""
    kind, _, recipe = part.partition(":")
    if kind == "index" and (folder / MANIFEST).is_file():
        table = layout.embeddings_of(recipe) if recipe else layout.embeddings
        said: dict[str, Any] = read_json(folder / MANIFEST)
        yield table, int(said.get("embeddings_version", 0))
        yield layout.local_features, int(said.get("local_features_version", 0))
    elif kind == "data_card" and (folder / "facts.json").is_file():
        versions: dict[str, Any] = read_json(folder / "facts.json")["versions"]
        yield layout.panoramas, int(versions["panoramas"])
        yield layout.crops, int(versions["crops"])
    elif (folder / "training.json").is_file():
        provenance: dict[str, Any] = read_json(folder / "training.json").get("provenance", {})
        for name, table in _TABLES.items():
            yield getattr(layout, table), int(provenance.get(name) or 0)


def _leftovers(root: Path, now: dt.datetime, apply: bool) -> Iterator[Done]:
    """Temporary files and folders that nobody has touched for a day."""
    for path in sorted(root.rglob(".*")):
        match = _LEFTOVER.fullmatch(path.name)
        if match is None or not _untouched(path, now):
            continue
        if match["kind"] == "old" and not path.with_name(match["name"]).exists():
            yield Done(f"{path.relative_to(root)} was left alone: it is the only copy of {match['name']}; rename it back", 0)
            continue
        size = _size(path)
        if apply:
            _remove(path)
        yield Done(f"leftover {path.relative_to(root)}", size)


def _untouched(path: Path, now: dt.datetime) -> bool:
    try:
        newest = max(file.lstat().st_mtime for file in [path, *path.rglob("*")])
    except OSError:  # gone while it was looked at: somebody is at work there
        return False
    return dt.datetime.fromtimestamp(newest, dt.UTC) < now - LEFTOVER_AGE


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())


def _said(state: TableState) -> str:
    parts = [f"{len(state.old):,} of {state.versions:,} versions"] if state.old else []
    parts += [f"{state.small_files:,} small files put together"] if state.small_files else []
    kept = f", {len(state.pinned)} pinned" if state.pinned else ""
    return f"{state.path.name}: {', '.join(parts)}{kept}"
