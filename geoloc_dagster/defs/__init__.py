"""All Dagster wiring of a region: assets, partitions, resources, checks and automation; no algorithm."""

from geoloc_dagster.defs.build import build_definitions

__all__ = ["build_definitions"]
