"""The Dagster code location of this region; a workspace.yaml lists it as a `python_file`."""

from pathlib import Path

from geoloc_dagster.defs import build_definitions

defs = build_definitions(config=Path(__file__).with_name("geoloc.yaml"))
