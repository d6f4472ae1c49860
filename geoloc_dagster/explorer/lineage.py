"""Which asset lies behind what a page shows: where it is, how much of it, of when, and where to look at its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.learning.registry import trainings
from geoloc_dagster.tables import open_table, table_exists, table_sizes, table_version

_MOST_FILES = 20_000


@dataclass(frozen=True, slots=True)
class _Asset:
    name: str
    group: str
    path: Path
    shown_by: str


def lineage(settings: Settings, layout: Layout) -> dict[str, Any]:
    """Every asset that pages show, in the order in which they are made."""
    explorer, region = settings.explorer, settings.region.name
    return {
        "region": region,
        "dagster_url": explorer.dagster_url,
        "mlflow_url": explorer.mlflow_url,
        "assets": [
            _described(one, layout, _link(explorer.dagster_url, "assets", region, one.name)) for one in _assets(settings, layout)
        ],
        "trainings": _trainings(settings, layout),
    }


def _assets(settings: Settings, layout: Layout) -> list[_Asset]:
    has_photos = settings.capture.provider == "photo_list"
    there = [
        _Asset("region_boundary", "region", layout.boundary, "the outline of every map"),
        _Asset("grid_points", "region", layout.grid_points, "where imagery was looked for"),
        _Asset("grid_cells", "region", layout.grid_cells, "where locations are sampled"),
        _Asset("street_view_metadata", "coverage", layout.street_view_metadata, "where imagery is"),
        _Asset("buffer_csvs", "coverage", layout.locations, "the locations of Coverage"),
        _Asset("photos", "coverage", layout.photos, "the photos of the lists"),
        _Asset("panoramas", "imagery", layout.panoramas, "dates, headings and nights of Coverage"),
        _Asset("crops", "imagery", layout.crops, "every picture"),
        _Asset("scene_labels", "dataset", layout.scene_labels, "scenes"),
        _Asset("segmentation_maps", "dataset", layout.segmentation_maps, "class maps"),
        _Asset("catalog", "dataset", layout.catalog, "views through the years, samples, rounds of the game"),
        _Asset("s2_partitions", "dataset", layout.s2_partitions, "classes of cells"),
        _Asset("cell_labels", "dataset", layout.cell_labels, "labels of cells"),
        _Asset("checkpoints", "training", layout.checkpoints, "models"),
        _Asset("evaluations", "training", layout.evaluations, "Quality"),
        _Asset("embeddings", "release", layout.embeddings, "vectors of the pictures"),
        _Asset("local_features", "release", layout.local_features, "pictures compared feature by feature"),
        _Asset("faiss_index", "release", layout.indexes, "neighbours"),
        _Asset("onnx_models", "release", layout.onnx_models, "models as they answer here"),
        _Asset("fusion", "release", layout.fusions, "probabilities, regions, the atlas"),
        _Asset("release", "release", layout.releases, "what answers"),
    ]
    unseen = {"photos"} if not has_photos else {"grid_points", "street_view_metadata", "grid_cells"}
    return [one for one in there if one.name not in unseen or _exists(one.path)]


def _described(one: _Asset, layout: Layout, url: str | None) -> dict[str, Any]:
    size, newest = _weighed(one.path)
    return {
        "asset": one.name,
        "group": one.group,
        "path": str(one.path.relative_to(layout.root)),
        "kind": _kind(one.path),
        "rows": _rows(one.path),
        "version": table_version(one.path) if one.path.suffix == ".lance" and _exists(one.path) else None,
        "bytes": size,
        "updated_at": newest,
        "dagster_url": url,
        "mlflow_url": None,
        "note": one.shown_by,
    }


def _kind(path: Path) -> str:
    return {".lance": "Lance table", ".parquet": "Parquet", ".csv": "CSV"}.get(path.suffix, "folder")


def _rows(path: Path) -> int | None:
    readers: dict[str, Callable[[], int | None]] = {
        ".lance": lambda: None if (table := open_table(path)) is None else table.count_rows(),
        ".parquet": lambda: pq.read_metadata(path).num_rows,
    }
    return readers[path.suffix]() if path.suffix in readers and _exists(path) else None


def _exists(path: Path) -> bool:
    return path.exists() or (path.suffix == ".lance" and table_exists(path))


def _weighed(path: Path) -> tuple[int | None, str | None]:
    """Bytes below a path and the time of its newest file; None where there is nothing."""
    if not path.exists():
        table = open_table(path) if path.suffix == ".lance" else None
        return (None, None) if table is None else (sum(table_sizes(path).values()), _committed_at(table))
    size, newest = 0, 0.0
    for number, file in enumerate([path] if path.is_file() else path.rglob("*")):
        if number >= _MOST_FILES:
            break
        if file.is_file():
            status = file.stat()
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    return size, datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds") if newest else None


def _trainings(settings: Settings, layout: Layout) -> list[dict[str, Any]]:
    """The finished trainings of the region's recipes, newest first, with the MLflow run of each."""
    from geoloc_dagster.storage import read_json

    found: list[dict[str, Any]] = []
    for recipe in settings.recipes:
        for one in trainings(layout.checkpoints / recipe):
            run = read_json(one.folder / "training.json").get("mlflow_run_id")
            found.append(
                {
                    "recipe": recipe,
                    "model_version": one.model_version,
                    "rows": one.trained_on_rows,
                    "finished_at": one.finished_at,
                    "mlflow_run_id": run,
                    "mlflow_url": None if run is None else _link(settings.explorer.mlflow_url, "#/runs", run),
                }
            )
    return sorted(found, key=lambda one: one["finished_at"], reverse=True)


def _link(base: str | None, *parts: str) -> str | None:
    return None if base is None else "/".join([base.rstrip("/"), *parts])


def _committed_at(table: Any) -> str:
    return table.versions()[-1]["timestamp"].astimezone(UTC).isoformat(timespec="seconds")
