"""Running an export: shard after shard, each there whole or not at all, going on where a killed one stopped."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.exports.derivative import derivative
from geoloc_dagster.dataset.exports.formats import FORMATS, Format, Whole
from geoloc_dagster.dataset.exports.licences import combined_licence
from geoloc_dagster.dataset.exports.selection import Pictures, Selection
from geoloc_dagster.errors import ExportError
from geoloc_dagster.failpoints import failpoint
from geoloc_dagster.storage import atomic_path, read_json, sha256_file, write_json

MANIFEST = "export.json"
ATTRIBUTION = "ATTRIBUTION.tsv"
SHARD_ROWS = 500


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export holds.

    Attributes:
        folder: where it lies.
        rows: pictures.
        shards: of these, shards that this run wrote.
        licence: of the whole.
        table_version: of the table that it was taken from.
        digest: sha256 over the checksums of all shards; the same for the same rows of the same version.
    """

    folder: Path
    rows: int
    shards: int
    licence: str
    table_version: int
    digest: str


def export(
    layout: Layout,
    name: str,
    format_name: str,
    folder: Path,
    selection: Selection,
    *,
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Write the selected pictures into a folder; one that a killed run left is gone on with, at the version it began with.

    Shards that are there are read again; one that is missing or was changed since is written again.

    Args:
        layout: of the region.
        name: of the dataset.
        format_name: one of `FORMATS`.
        folder: made where it is missing; must be empty or hold the same export.
        selection: which pictures.
        shard_rows: pictures per shard, which is what is held in memory.
        progress: called with (pictures written, pictures).

    Raises:
        ExportError: nothing matches, licences do not mix, or the folder holds something else.
        IntegrityError: the table is missing or damaged, or a picture in it is.
        DiskFullError, DataRootError: the folder cannot be written; finished shards stay.
    """
    if format_name not in FORMATS:
        raise ExportError(f"{format_name!r} is no format", f"There are: {', '.join(FORMATS)}.")
    manifest: Any = _begun(folder, format_name, selection)
    pictures = Pictures(layout, selection, None if manifest is None else int(manifest["table_version"]))
    licence = combined_licence(pictures.licences(), restricted=selection.restricted)
    if manifest is None:
        manifest = {
            "format": format_name,
            "selection": selection.describe(),
            "table_version": pictures.version,
            "rows": len(pictures),
            "shard_rows": shard_rows,
            "licence": licence,
            "redistributable": licence not in ("proprietary", "NOASSERTION"),
            "shards": {},
            "complete": False,
        }
        write_json(folder / MANIFEST, manifest)
    written = _write_shards(folder, FORMATS[format_name], pictures, manifest, progress)
    whole = Whole(name, licence, len(pictures), pictures.facts, bool(manifest["redistributable"]))
    FORMATS[format_name].finish(folder, whole)
    _write_attribution(folder / ATTRIBUTION, whole)
    manifest["complete"] = True
    write_json(folder / MANIFEST, manifest)
    shards: dict[str, str] = manifest["shards"]
    digest = hashlib.sha256("".join(shards[key] for key in sorted(shards)).encode()).hexdigest()
    return ExportResult(folder, len(pictures), written, licence, pictures.version, digest)


def _begun(folder: Path, format_name: str, selection: Selection) -> dict[str, Any] | None:
    """The manifest of an export that was begun here; None in an empty folder."""
    if not (folder / MANIFEST).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder} is not empty and holds no export", "Choose another folder.")
        return None
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != format_name or manifest.get("selection") != selection.describe():
        held = manifest.get("format")
        raise ExportError(f"{folder} holds another export ({held})", "Choose another folder, or the same options.")
    return manifest


def _write_shards(
    folder: Path, how: Format, pictures: Pictures, manifest: dict[str, Any], progress: Callable[[int, int], None] | None
) -> int:
    size, written = int(manifest["shard_rows"]), 0
    for number, first in enumerate(range(0, len(pictures), size)):
        key = f"{number:05d}"
        recorded = manifest["shards"].get(key)
        if recorded is None or _digest(how.files(folder, number, pictures.records(first, size))) != recorded:
            rows = pictures.rows(first, size)
            for row in rows:
                row["image"], _ = derivative(row["image"])
            files = how.shard(folder, number, rows)
            failpoint("export.shard_written")
            manifest["shards"][key] = _digest(files)
            write_json(folder / MANIFEST, manifest)
            written += 1
        if progress is not None:
            progress(min(first + size, len(pictures)), len(pictures))
    return written


def _digest(files: list[Path]) -> str | None:
    """Over a shard's files; None where one is missing."""
    if not all(file.is_file() for file in files):
        return None
    if len(files) == 1:
        return sha256_file(files[0])
    return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def _write_attribution(path: Path, whole: Whole) -> None:
    """Whom to name for each picture."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["capture_id", "licence", "attribution", "creator", "source_url"])
        for row in whole.records():
            writer.writerow([row["capture_id"], row["licence"], row["attribution"], row["creator"], row["source_url"]])
