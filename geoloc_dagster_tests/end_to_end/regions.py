"""Regions at an emulated city, as a folder that a command line can be run in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ORIGIN = (45.0, -30.0)
AROUND = ((ORIGIN[0] - 0.0014, ORIGIN[1] - 0.0019), (ORIGIN[0] + 0.0014, ORIGIN[1] + 0.0019))  # about 300 m each way


def write_region(folder: Path, *, boundary: dict[str, Any] | None = None, **sections: Any) -> Path:
    """A region at an emulated city; sections replace keys of the configuration."""
    (folder / "region.geojson").write_text(json.dumps(boundary or rectangle(*AROUND)))
    config: dict[str, Any] = {
        "version": 1,
        "data_root": "data",
        "region": {"name": "nightly", "boundary": "region.geojson", "start_point": list(ORIGIN)},
        "grid": {"spacing_m": 30},
        "coverage": {"provider": "emulator", "lookups_per_run": 1_000},
        "buffers": {"spacings_m": [60, 40], "batch_size": 4},
        "capture": {"provider": "emulator", "size": [96, 96], "commit_rows": 8},
        "splits": {"by": "blocks", "block_m": 60, "guard_m": 0, "test_share": 0.4, "dev_share": 0.0},
        "recipes": ["retrieval"],
    }
    for name, section in sections.items():
        config[name] = {**config[name], **section} if isinstance(config.get(name), dict) else section
    path = folder / "geoloc.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rectangle(south_west: tuple[float, float], north_east: tuple[float, float]) -> dict[str, Any]:
    """A rectangle between two (lat, lng) corners, as GeoJSON."""
    (south, west), (north, east) = south_west, north_east
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
