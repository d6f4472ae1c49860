"""What a region starts with: its folder from the packaged templates, its Dagster home, and which region was run last."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import ConfigError, GeolocError
from geoloc_dagster.storage import read_json, translated_errors, write_bytes, write_json

TEMPLATE_NAME = "my_region"
_FILES = ("geoloc.yaml", "definitions.py", "workspace.yaml", "region.geojson")
_DEMO_FILES = ("geoloc.yaml", "definitions.py", "workspace.yaml", "region.geojson", "recipes/retrieval.yaml")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

_DAGSTER_YAML = b"""telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    granularity: op
run_monitoring:  # without it a run that was cancelled would keep its place in a pool
  enabled: true
  free_slots_after_run_end_seconds: 60
"""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What `geoloc run` was called with most recently."""

    config: Path
    data_root: Path


def write_region(directory: Path, name: str | None = None) -> list[Path]:
    """Write the starting files of a region; all of them or, where one would be overwritten, none.

    Raises:
        ConfigError: the name is none that assets can carry, or a file is there already.
        DataRootError: the folder cannot be written.
    """
    region = name or _name_from(directory)
    if _NAME.fullmatch(region) is None:
        raise ConfigError(
            f"{region!r} cannot name a region", "Use --name with lower-case letters, digits and underscores, a letter first."
        )
    targets = [directory / file for file in _FILES]
    for target in targets:
        if target.exists() and (not target.is_file() or target.stat().st_size > 0):
            raise ConfigError(f"{target} exists already", "Choose another folder, or move that file away.")
    templates = resources.files("geoloc_dagster") / "templates"
    with translated_errors(directory):
        for target in targets:
            text = (templates / target.name).read_text(encoding="utf-8")
            write_bytes(target, text.replace(TEMPLATE_NAME, region).encode())
    return targets


def write_demo(directory: Path) -> Path:
    """Write the demo region's folder where its configuration is not there yet; returns the configuration.

    Raises:
        DataRootError: the folder cannot be written.
    """
    demo = resources.files("geoloc_dagster") / "templates" / "demo"
    with translated_errors(directory):
        for name in _DEMO_FILES:
            target = directory / name
            if not target.exists():
                write_bytes(target, (demo / name).read_bytes())
    return directory / "geoloc.yaml"


def prepare_home(layout: Layout) -> Path:
    """The DAGSTER_HOME below a data root, without telemetry and without the dialog that asks for an e-mail address.

    A `dagster.yaml` that is there already is kept.
    """
    home = layout.dagster_home
    if not (home / "dagster.yaml").is_file():
        write_bytes(home / "dagster.yaml", _DAGSTER_YAML)
    return home


def remember_run(environ: Mapping[str, str], config: Path, data_root: Path) -> None:
    """Note the region for `geoloc dev`; a home folder that cannot be written is no reason to stop."""
    with contextlib.suppress(OSError, GeolocError):
        write_json(_state_file(environ), {"config": str(config), "data_root": str(data_root)})


def last_run(environ: Mapping[str, str]) -> LastRun | None:
    """The region of the last run; None where there was none, or its configuration is gone."""
    try:
        state: Any = read_json(_state_file(environ))
    except (OSError, GeolocError):
        return None
    if not isinstance(state, dict) or not {"config", "data_root"} <= state.keys():
        return None
    last = LastRun(Path(str(state["config"])), Path(str(state["data_root"])))
    return last if last.config.is_file() else None


def _state_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(home) / "geoloc" / "last-run.json"


def _name_from(directory: Path) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", directory.resolve().name.lower()).strip("_")
    return words if _NAME.fullmatch(words) else TEMPLATE_NAME
